package plan

import (
	"math"
	"slices"
	"strings"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan/uses"
	"joist/engine/step"
	"joist/engine/value"
)

// Removal is an instance whose effect is to go.
type Removal struct {
	history.Target
	Task      *model.Task // as it was at the last start; nil if no model knows it any more
	Replaced  bool        // it is applied again afterwards
	Discharge string      // why the effect is gone by itself; empty if its remove has to run
	Ready     bool
	Wait      Cause
	Cause     Cause
	Failed    bool // its remove failed for good in this run
}

// removal is a Removal with what the planner needs to keep it up to date.
type removal struct {
	Removal
	pool   *executors // of executors; nil unless a cluster-scope script removes it
	end    uint64     // event that ended its target; forever if that has not ended
	marked bool
	strand bool // no node that stays in its `on` role was alive when its target ended
	aside  bool // to go only while something else runs that it makes way for
	way    bool // nothing keeps it from going but what has to make way for it
	holds  bool // what makes way for it stays out
}

// forever is the end of a target that has not ended.
const forever = math.MaxUint64

// removals is everything that was started and is not wanted as it stands, with what decides their order: who uses whom.
type removals struct {
	all    map[history.Target]*removal
	byTask map[string]map[history.Target]*removal
	byNode map[string]map[history.Target]*removal
	loose  []history.Target // touched, and not of the goal
	dirty  []*removal
	fresh  []history.Target
	waits  map[history.CauseKind]int
	book   uses.Book               // who uses whom
	hosts  map[string][]*executors // by task that the goal does not have
	strand map[string]int          // by task: removals that only leaving nodes can execute
}

func (r *removals) init() {
	*r = removals{
		all: map[history.Target]*removal{}, byTask: map[string]map[history.Target]*removal{}, byNode: map[string]map[history.Target]*removal{},
		waits: map[history.CauseKind]int{}, book: uses.New(), hosts: map[string][]*executors{}, strand: map[string]int{},
	}
}

// buildRemovals learns who uses whom and takes in everything that the goal does not have. What the goal has is accounted
// for when it is decided.
func (p *Planner) buildRemovals() {
	p.remove.init()
	for key, o := range p.pools {
		if o.removal {
			delete(p.pools, key)
		}
	}
	for _, c := range p.tasks {
		c.hosts = slices.DeleteFunc(c.hosts, func(o *executors) bool { return o.removal })
	}
	seen := map[value.Digest]bool{}
	for i := range p.state.Goals {
		digest := p.state.Goals[i].Model
		if m := p.models(i); m != nil && !seen[digest] {
			seen[digest] = true
			p.remove.book.Learn(digest, m)
		}
	}
	p.learn()
	for name, rows := range p.state.Columns {
		c := p.byName[name]
		for i, row := range rows.Rows {
			if row != nil && row.Phase != history.Absent && (c == nil || c.at(i-1) < 0) {
				p.remove.loose = append(p.remove.loose, p.target(name, i-1))
			}
		}
	}
}

// account takes in what was decided about an instance: whether it is to go, and whether it may still use what is to go.
func (p *Planner) account(task string, node int, cell *Cell) {
	row := p.state.Columns[task].Row(node)
	live := row != nil && row.Phase != history.Absent
	gone := live && (cell == nil || cell.Verdict == Absent || cell.Verdict == Replace)
	if !live && p.remove.book.Empty() && len(p.remove.all) == 0 {
		return
	}
	t := p.target(task, node)
	var m uses.Mark
	if gone || live && !cell.Settled() && cell.Verdict != Aside { // nobody waits for a node that is set aside
		aside := cell != nil && cell.aside
		leaving := gone && !aside || p.ending(task, node, row, cell)
		m = uses.Mark{Leaving: leaving, Unsettled: !leaving, Started: p.state.Goals[row.Goal].Model}
		m.Held = leaving && gone && p.remove.book.Mark(t).Held
		if row.Phase == history.Dirty {
			m.Stood = p.state.Goals[row.Stood].Model
		}
		if aside && cell.Settled() { // it comes back as it was
			m = uses.Mark{}
		}
	}
	p.remark(t, m)
	switch r := p.remove.all[t]; {
	case gone:
		if r == nil {
			r = p.remove.add(t)
		}
		p.remove.mark(r)
		was := r.Cause
		r.Replaced, r.aside, r.Cause = false, false, Cause{Kind: history.Unwanted}
		if cell != nil && cell.Verdict == Replace {
			r.Replaced, r.aside, r.Cause = true, cell.aside, cell.Cause
		} else if cell != nil && cell.Cause.Kind == history.Over {
			r.Cause = cell.Cause
		}
		if r.Cause != was {
			p.wakeMakers(t, node)
		}
	case r != nil:
		p.remove.drop(r)
		p.wakeMakers(t, node)
		p.done = append(p.done, t)
	}
}

// ending reports whether something will have to be replaced once it has landed, or once what it is in place for has.
func (p *Planner) ending(task string, node int, row *history.Row, cell *Cell) bool {
	if row.Flight == nil && cell.Wait.Kind != history.Running {
		return false
	}
	t := p.byName[task].task
	return p.mustReplace(t, row, p.lives(t, row, node)).Kind != history.Same
}

// remark counts an instance differently, and looks again at the removals that this may let go on.
func (p *Planner) remark(t history.Target, m uses.Mark) {
	changed, crossed := p.remove.book.Remark(t, m)
	if !changed {
		return
	}
	for _, up := range p.remove.book.Used(t.Task) {
		if crossed || p.makesWay(t.Task, up) { // there each removal counts without its own node's
			for _, r := range p.remove.byTask[up] {
				p.remove.mark(r)
			}
		} else if r := p.remove.all[history.Target{Task: up, Node: t.Node}]; r != nil {
			p.remove.mark(r)
		}
	}
}

func (r *removals) mark(x *removal) {
	if !x.marked {
		x.marked = true
		r.dirty = append(r.dirty, x)
	}
}

func (r *removals) add(t history.Target) *removal {
	x := &removal{Removal: Removal{Target: t}, end: forever}
	r.all[t] = x
	file := func(by map[string]map[history.Target]*removal, key string) {
		if by[key] == nil {
			by[key] = map[history.Target]*removal{}
		}
		by[key][t] = x
	}
	file(r.byTask, t.Task)
	file(r.byNode, t.Node)
	r.waits[x.Wait.Kind]++
	return x
}

func (r *removals) drop(x *removal) {
	delete(r.all, x.Target)
	delete(r.byTask[x.Target.Task], x.Target)
	delete(r.byNode[x.Node], x.Target)
	if x.pool != nil {
		delete(x.pool.waiting, x.Target)
	}
	r.waits[x.Wait.Kind]--
	r.stranded(x, false)
	x.marked = true // nobody looks at it again
}

// stranded notes whether only leaving nodes can execute a removal: until it is done, what they need for that stays.
func (r *removals) stranded(x *removal, strand bool) {
	if x.strand == strand {
		return
	}
	x.strand = strand
	if strand {
		r.strand[x.Target.Task]++
	} else {
		r.strand[x.Target.Task]--
	}
	for _, up := range r.book.Used(x.Target.Task) {
		for _, y := range r.byTask[up] {
			r.mark(y)
		}
	}
}

func (r *removals) touchNode(p *Planner, name string, node int) {
	for _, x := range r.byNode[name] {
		r.mark(x)
	}
	for t, x := range r.byNode[""] { // a single one may have lived by the node
		if row := p.state.Row(t); row != nil {
			if _, rests := row.Rests[name]; rests {
				r.mark(x)
			}
		}
	}
}

// updateRemovals decides again about the removals that something changed for.
func (p *Planner) updateRemovals() {
	loose := p.remove.loose
	p.remove.loose = nil
	for _, t := range loose {
		p.account(t.Task, p.nodeOf(t), p.Cell(t))
	}
	for len(p.remove.dirty) > 0 { // whether one is stranded may matter to others
		dirty := p.remove.dirty
		p.remove.dirty = nil
		slices.SortFunc(dirty, func(a, b *removal) int { return compareTargets(a.Target, b.Target) })
		for _, r := range dirty {
			if p.remove.all[r.Target] != r {
				continue
			}
			r.marked = false
			p.remove.waits[r.Wait.Kind]--
			way, holds, failed := r.way, r.holds, r.Failed
			p.decideRemoval(r)
			r.holds = r.Discharge == "" && (r.way || r.Wait.Kind != history.Consumer && p.state.Row(r.Target).Phase == history.Dirty)
			if r.Failed != failed {
				p.wakeGuarded(r.Target, p.nodeOf(r.Target))
			}
			if r.way != way || r.holds != holds {
				p.wakeMakers(r.Target, p.nodeOf(r.Target))
			}
			p.remove.waits[r.Wait.Kind]++
			if r.Ready {
				p.remove.fresh = append(p.remove.fresh, r.Target)
			}
		}
	}
}

func compareTargets(a, b history.Target) int {
	if c := strings.Compare(a.Task, b.Task); c != 0 {
		return c
	}
	return strings.Compare(a.Node, b.Node)
}

// Removals lists what is no longer wanted, or has to be removed before it is applied again, with what it waits for, by
// task and node.
func (p *Planner) Removals() []Removal {
	list := make([]Removal, 0, len(p.remove.all))
	for _, r := range p.remove.all {
		list = append(list, r.Removal)
	}
	slices.SortFunc(list, func(a, b Removal) int { return compareTargets(a.Target, b.Target) })
	return list
}

// Removal gives the removal of an instance, or nil if there is none.
func (p *Planner) Removal(t history.Target) *Removal {
	if r := p.remove.all[t]; r != nil {
		return &r.Removal
	}
	return nil
}

// Burden counts the removals for a node: it is not given back before they are done.
func (p *Planner) Burden(node string) int { return len(p.remove.byNode[node]) }

func (p *Planner) decideRemoval(r *removal) {
	row := p.state.Row(r.Target)
	r.Removal, r.way = Removal{Target: r.Target, Replaced: r.Replaced, Cause: r.Cause}, false
	if m := p.models(row.Goal); m != nil {
		r.Task = m.Task(r.Target.Task)
	}
	if r.Task == nil {
		r.Failed, r.Wait = true, Cause{Kind: history.FailedCause, Of: r.Target, Text: "no pack knows how to remove it any more"}
		return
	}
	p.locate(r, row)
	if row.Flight != nil {
		r.Wait = Cause{Kind: history.Running}
		return
	}
	r.Discharge = p.discharge(r, row)
	if f := row.Failure; r.Discharge == "" && f != nil && f.Final && f.Action == step.Remove {
		r.Failed, r.Wait = true, Cause{Kind: history.FailedCause, Of: r.Target, Text: f.Error}
		return
	}
	if r.Wait = p.consumer(r, row); r.Wait.Kind == history.Same && r.Discharge == "" {
		r.Wait = p.guarding(r)
	}
	if r.Wait.Kind == history.Same && r.Discharge == "" {
		r.Wait = p.removalHindrance(r, row)
	}
	if r.Wait.Kind == history.Same && r.Discharge == "" && len(p.presence.Over) > 0 {
		r.way = true
		r.Wait = p.obstacle(r.Target.Task, p.nodeOf(r.Target))
		r.Failed = r.Wait.Kind == history.FailedCause
	}
	r.Ready = r.Wait.Kind == history.Same
}

// locate finds out who could execute a cluster-scope removal, and when its target ended.
func (p *Planner) locate(r *removal, row *history.Row) {
	r.end = forever
	if r.Task.Step.Scope != model.Cluster || r.Task.Step.Pure() {
		return
	}
	if r.pool == nil || r.pool.role != r.Task.On {
		var hosts []string
		for _, e := range r.Task.Edges() {
			if e.Host {
				hosts = append(hosts, e.Task)
			}
		}
		r.pool = p.removalPool(r.Task.On, hosts)
		r.pool.waiting[r.Target] = r
	}
	switch {
	case r.Node != "":
		if !p.state.Lives(row.Life) {
			r.end = p.state.Node(r.Node).EndOf(row.Life.Incarnation)
		}
	case len(row.Rests) > 0 && !p.state.Rests(row):
		r.end = 0
		for node, incarnation := range row.Rests {
			r.end = max(r.end, p.state.Node(node).EndOf(incarnation))
		}
	}
	p.remove.stranded(r, r.end != forever && (r.pool.Staying() == 0 || r.pool.Staying() > r.end))
}

// discharge says why the effect is gone by itself, if it is.
func (p *Planner) discharge(r *removal, row *history.Row) string {
	s := r.Task.Step
	switch {
	case s.Pure():
		return "a value has no effect"
	case row.Skipped != nil && row.Skipped.Removal:
		return "skipped by " + row.Skipped.By + ": " + row.Skipped.Reason
	case s.Irreversible != "":
		return "irreversible: " + s.Irreversible
	}
	switch s.Scope {
	case model.Node:
		n := p.state.Node(r.Node)
		switch {
		case n.Released:
			return "the node was given back"
		case !p.state.Lives(row.Life):
			return "the incarnation has ended: " + n.EndedWhy
		case row.Boot != n.Boot && !s.Reboots:
			return "the root it wrote to ended with the boot"
		}
	case model.Cluster:
		if r.pool.Oldest() == 0 || r.pool.Oldest() > r.end {
			return "no incarnation of role " + p.CalledRole(r.Task.On) + " is left that was alive at its end: what it acted on is gone"
		}
	}
	return ""
}

// consumer finds what still uses the effect: a reader of its outputs that has not succeeded without them, or something
// that was ordered after it and is to go as well. Where the same address is applied again, only what ends with it
// counts; and what ended with its incarnation cannot be kept for its readers.
func (p *Planner) consumer(r *removal, row *history.Row) Cause {
	ended := row.Life.Node != "" && !p.state.Lives(row.Life) && r.Discharge != ""
	var first Cause
	readers := true
	ended = ended || p.cleared(r.Target, r.Target.Task, p.nodeOf(r.Target))
	for _, u := range p.remove.book.Of(r.Target.Task) {
		if u.Edge.Host && (r.Replaced || p.offers(r.Target.Task) && p.remove.strand[u.By.Task] == 0) {
			continue
		}
		y := history.Target{Task: u.By.Task}
		var n uses.Tally
		own := r.Discharge == "" && p.makesWay(u.By.Task, r.Target.Task) // waited for at the very last
		if r.Node != "" && (r.Replaced || !u.Edge.All && !u.Edge.Host) {
			if own {
				continue
			}
			y.Node = r.Node
			n = p.remove.book.Mark(y).As(u.By.Model)
		} else if n = p.remove.book.Tally(u.By); own {
			n = n.Less(p.remove.book.Mark(history.Target{Task: u.By.Task, Node: r.Node}).As(u.By.Model))
		}
		if r.Replaced || p.aside(r) { // readers may need what is applied here again
			n.Leaving -= n.Held
		}
		if n.Leaving > 0 || n.Unsettled > 0 && !u.Edge.Order && !u.Edge.Host && !r.Replaced && !p.aside(r) && !ended && !u.Once {
			readers = readers && (n.Leaving == 0 || n.Leaving == n.Held)
			if first.Kind == history.Same {
				first = Cause{Kind: history.Consumer, Of: y}
			}
		}
	}
	if r.aside {
		return first
	}
	m := p.remove.book.Mark(r.Target)
	m.Held = readers && first.Kind != history.Same
	p.remark(r.Target, m)
	return first
}

// offers reports whether the goal has any instance of a task: one that a removal with a `host.` reference can turn to.
func (p *Planner) offers(task string) bool {
	c := p.byName[task]
	return c != nil && len(c.cells) > 0
}

func (p *Planner) removalHindrance(r *removal, row *history.Row) Cause {
	if f := row.Failure; f != nil && !f.Final && f.Action == step.Remove && f.Retry.After(p.now) {
		return f.Waiting()
	}
	switch r.Task.Step.Scope {
	case model.Node:
		n := p.state.Node(r.Node)
		of := history.Target{Node: r.Node}
		switch {
		case p.goal.Destroy:
			return Cause{Kind: history.Wiping, Of: of}
		case !n.Online:
			return Cause{Kind: history.Offline, Of: of}
		case !model.Suffices(n.Level, p.model.Trust):
			return p.distrust(n)
		}
	case model.Cluster:
		if p.goal.Destroy {
			return Cause{Kind: history.Wiping}
		}
		if p.removalExecutor(r, 1) < 0 {
			return p.noExecutor(r.Task.On)
		}
	}
	return Cause{}
}

// RemovalExecutor chooses the node that executes the remove of a cluster-scope script for an attempt: one that was alive
// when its target ended, rather one that the goal keeps, and rather another than the target.
func (p *Planner) RemovalExecutor(t history.Target, attempt int) (string, Cause) {
	r := p.remove.all[t]
	if r == nil || r.pool == nil {
		return "", Cause{Kind: history.Executor, Text: "nothing is to be removed there"}
	}
	if i := p.removalExecutor(r, attempt); i >= 0 {
		return p.state.Nodes[i].Name, Cause{}
	}
	return "", p.noExecutor(r.Task.On)
}

func (p *Planner) removalExecutor(r *removal, attempt int) int {
	node := p.nodeOf(r.Target)
	old := func(i int) bool { return p.state.Nodes[i].Born <= r.end }
	kept := func(i int) bool { return i != node && old(i) && p.plays(i, r.Task.On) }
	if i := r.pool.Choose(node, attempt, kept); i >= 0 {
		return i
	}
	return r.pool.Choose(node, attempt, old)
}
