package run

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/limit"
)

// class is the order in which nodes take places: what is broken goes before what works, and leaving comes last.
type class int

const (
	classEnded   class = iota // removals of ended or unreachable nodes
	classChanged              // nodes that have it already
	classNew
	classLeaving
)

// group is a rollout in pursuit: who waits for a place, in the order in which they are to have one.
type group struct {
	*model.Rollout
	total   int                         // nodes before the change
	ready   []history.Target            // of nodes that hold a place
	waiting map[string][]history.Target // of nodes that hold none, by node
	queue   nodeQueue                   // those nodes
	touched map[string]bool             // nodes that may be done
	due     map[string]bool             // nodes whose watch something has to come of
	domains *domains                    // nil unless places are spread
	founder string                      // a node that has completed the group; empty if none is known
}

// groupsOf makes the groups of the plan's model.
func (m *Machine) groupsOf() {
	clear(m.groups)
	m.rollouts = nil
	rollouts := m.plan.Model().Rollouts
	for i := range rollouts {
		g := &group{Rollout: &rollouts[i], waiting: map[string][]history.Target{}, touched: map[string]bool{}, due: map[string]bool{}}
		g.total = m.before(g.Roles)
		if spent := m.state.Budgets[g.Name]; spent != nil {
			for node := range spent.Places {
				g.touched[node] = true
			}
		}
		for _, task := range g.Tasks {
			m.groups[task] = g
		}
		m.rollouts = append(m.rollouts, g)
		m.findFounder(g)
		m.spreads(g)
	}
	m.rewatch()
}

// count counts the nodes of some roles, each once.
func count(roles []string, given map[string][]string) int {
	nodes := map[string]bool{}
	for _, role := range roles {
		for _, name := range given[role] {
			nodes[name] = true
		}
	}
	return len(nodes)
}

func (m *Machine) findFounder(g *group) {
	g.founder = ""
	if !g.Together {
		return
	}
	for _, n := range m.state.Nodes {
		if m.completed(g, n.Name) {
			g.founder = n.Name
			return
		}
	}
}

// found notes that a node has completed the group, if it has: also because what it has not is found not to be wanted there, which a
// new goal's plan says only once it is made.
func (m *Machine) found(g *group, node string) {
	if g.Together && g.founder == "" && m.completed(g, node) {
		g.founder = node
	}
}

// completed reports whether a living node has, or had in its life, everything of the group that it is to have. What makes
// way for others of the group is often out, and says nothing about that.
func (m *Machine) completed(g *group, node string) bool {
	if n := m.state.Node(node); n == nil || !n.Alive() {
		return false
	}
	some := false
	for _, task := range g.Tasks {
		if of := m.plan.Task(task); of != nil && (len(of.During) > 0 || slices.ContainsFunc(of.Except, func(name string) bool { return slices.Contains(g.Tasks, name) })) {
			continue
		}
		t := history.Target{Task: task, Node: node}
		row := m.state.Row(t)
		if row == nil || row.Phase == history.Absent {
			if cell := m.plan.Cell(t); cell == nil || cell.Verdict == plan.Absent {
				continue
			}
			return false
		}
		if row.Done.IsZero() || !m.state.Lives(row.Life) {
			return false
		}
		some = true
	}
	return some
}

// together reports whether the group starts at once, because no living node has completed it.
func (m *Machine) together(g *group) bool {
	if !g.Together {
		return false
	}
	if g.founder != "" && !m.completed(g, g.founder) {
		m.findFounder(g)
	}
	return g.founder == ""
}

// open reports whether the rollout's breaker lets anything start.
func (m *Machine) open(g *group) bool {
	spent := m.state.Budgets[g.Name]
	return spent == nil || spent.Failures < limit.Places(g.StopAfter, g.total)
}

// free counts the places that may be taken now.
func (m *Machine) free(g *group) int {
	taken, proven := 0, 0
	if spent := m.state.Budgets[g.Name]; spent != nil {
		taken, proven = len(spent.Places), len(spent.Proven)
	}
	return limit.Of(g.Rollout, proven, g.total) - taken
}

func (m *Machine) holds(g *group, node string) bool {
	spent := m.state.Budgets[g.Name]
	return spent != nil && spent.Places[node]
}

// Held says why something ready does not start: its rollout has no place for it, or was stopped by failures, or a person
// cancelled the pursuit. The zero cause means that nothing holds it.
func (m *Machine) Held(t history.Target) plan.Cause {
	if m.state.Outcome == history.OutcomeCancelled {
		return plan.Cause{Kind: history.CancelledBy, Text: m.state.Detail}
	}
	if held := m.Policed(t); held.Kind != history.Same {
		return held
	}
	g := m.groups[t.Task]
	if g == nil || t.Node == "" || m.together(g) && m.open(g) {
		return plan.Cause{}
	}
	if !m.open(g) {
		return plan.Cause{Kind: history.NoPlace, Of: m.broke(g), Text: "rollout " + g.CalledNow() + " was stopped by failures"}
	}
	if m.holds(g, t.Node) || m.free(g) > 0 && !m.crowded(g, t.Node) {
		return plan.Cause{}
	}
	holders := slices.Sorted(maps.Keys(m.state.Budgets[g.Name].Places))
	of := history.Target{}
	if len(holders) > 0 {
		of.Node = holders[0]
	}
	if more := len(holders) - 5; more > 0 {
		holders = append(holders[:5], fmt.Sprintf("%d more", more))
	}
	text := "the places of rollout " + g.CalledNow() + " are taken by "
	if m.free(g) > 0 {
		text = "its failure domain has its share of the places of rollout " + g.CalledNow() + ", which are taken by "
	}
	return plan.Cause{Kind: history.NoPlace, Of: of, Text: text + strings.Join(holders, ", ")}
}

// Rollout is how far a rollout is, for people.
type Rollout struct {
	Name      string
	Tasks     []string
	Total     int      // nodes before the change: what percentages are of
	Limit     int      // places that may be taken now
	Places    []string // nodes that hold one
	Settling  []string // of those, that are watched
	Proven    int      // nodes whose whole group came to be in place since a person's last change
	Failures  int      // since the breaker was last closed
	StopAfter int      // failures that open the breaker
	Stopped   bool     // the breaker is open
	Broke     history.Target
}

// Rollouts says how far each rollout of the goal is.
func (m *Machine) Rollouts() []Rollout {
	var list []Rollout
	for _, g := range m.rollouts {
		r := Rollout{Name: g.Name, Tasks: g.Tasks, Total: g.total, StopAfter: limit.Places(g.StopAfter, g.total), Stopped: !m.open(g)}
		if b := m.state.Budgets[g.Name]; b != nil {
			r.Places, r.Proven, r.Failures = slices.Sorted(maps.Keys(b.Places)), len(b.Proven), b.Failures
			r.Settling = slices.Sorted(maps.Keys(b.Settling))
		}
		r.Limit = m.free(g) + len(r.Places)
		if r.Failures > 0 {
			r.Broke = m.broke(g)
		}
		list = append(list, r)
	}
	return list
}

// broke finds an instance of the group that failed for good; none if those failures are forgotten.
func (m *Machine) broke(g *group) history.Target {
	for _, task := range g.Tasks {
		for i, row := range m.rows(task) {
			if i > 0 && row != nil && row.Failure != nil && row.Failure.Final {
				return history.Target{Task: task, Node: m.state.Nodes[i-1].Name}
			}
		}
	}
	return history.Target{}
}

func (m *Machine) rows(task string) []*history.Row {
	if c := m.state.Columns[task]; c != nil {
		return c.Rows
	}
	return nil
}

// line puts an instance that is ready in its group's line. It reports false if the instance needs no place.
func (m *Machine) line(t history.Target) bool {
	g := m.groups[t.Task]
	if g == nil || t.Node == "" {
		return false
	}
	if r := m.plan.Removal(t); r != nil && r.Ready && (r.Discharge != "" || len(r.Task.During) > 0) {
		return false
	}
	if m.holds(g, t.Node) {
		g.ready = append(g.ready, t)
		return true
	}
	if len(g.waiting[t.Node]) == 0 {
		heap.Push(&g.queue, queued{m.class(g, t.Node), t.Node})
	}
	if !slices.Contains(g.waiting[t.Node], t) {
		g.waiting[t.Node] = append(g.waiting[t.Node], t)
	}
	return true
}

// admit starts what has a place, or may take one, the first in order first. It reports whether anything happened.
func (m *Machine) admit(now time.Time, g *group) bool {
	did := false
	var aside []queued // whose failure domains have their share
	defer func() {
		for _, q := range aside {
			heap.Push(&g.queue, q)
		}
	}()
	for {
		if m.open(g) {
			g.sort()
		}
		for len(g.ready) > 0 && m.open(g) {
			t := g.ready[0]
			g.ready = g.ready[1:]
			did = m.start(now, t, g.Name) || did
		}
		if len(g.queue) == 0 || !m.open(g) {
			return did
		}
		q := g.queue[0]
		if c := m.class(g, q.node); c != q.class {
			g.queue[0].class = c
			heap.Fix(&g.queue, 0)
			continue
		}
		if !m.holds(g, q.node) && !m.together(g) && m.free(g) <= 0 {
			return did
		}
		heap.Pop(&g.queue)
		if !m.holds(g, q.node) && !m.together(g) && m.crowded(g, q.node) {
			aside = append(aside, q)
			continue
		}
		g.ready = g.waiting[q.node]
		delete(g.waiting, q.node)
	}
}

// sort puts what has a place in an order that does not depend on when it came, so that a machine that was there all along and
// one that took the journal up decide the same.
func (g *group) sort() {
	if len(g.ready) < 2 {
		return
	}
	slices.SortFunc(g.ready, func(a, b history.Target) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(slices.Index(g.Tasks, a.Task), slices.Index(g.Tasks, b.Task)))
	})
}

func (m *Machine) class(g *group, node string) class {
	n := m.state.Node(node)
	if !m.plan.Wants(node) {
		if n.Alive() && n.Online {
			return classLeaving
		}
		return classEnded
	}
	class := classNew
	for _, task := range g.Tasks {
		t := history.Target{Task: task, Node: node}
		row := m.state.Row(t)
		if row == nil || row.Phase == history.Absent {
			continue
		}
		if m.plan.Removal(t) != nil && !m.state.Lives(row.Life) {
			return classEnded
		}
		class = classChanged
	}
	return class
}

// returnPlaces gives back the places of nodes whose whole group is in place, or gone. A leaving node whose next removal
// has to wait for others gives its place back too, because those may need it.
func (m *Machine) returnPlaces(now time.Time) bool {
	did := false
	for _, g := range m.rollouts {
		if len(g.touched)+len(g.due) == 0 {
			continue
		}
		var done []string
		maps.Copy(g.touched, g.due)
		for node := range g.touched {
			switch {
			case !m.holds(g, node):
				delete(g.due, node)
			case m.groupDone(g, node):
				delete(g.due, node)
				done = append(done, node)
			}
		}
		g.touched = map[string]bool{}
		slices.Sort(done)
		for _, node := range done {
			began, settled := m.settles(now, g, node)
			if did = did || began; !settled {
				continue
			}
			m.take(now, history.PlaceReturned{Rollout: g.Name, Node: node, Proven: m.proven(g, node)})
			did = true
		}
	}
	return did
}

// lend gives back the places of nodes that wait for others, if nothing else can go on and somebody asks for a place: the
// others may be who they wait for. Where something failed the place is kept.
func (m *Machine) lend(now time.Time) bool {
	if m.state.Outcome == history.OutcomeCancelled || len(m.state.Wiping) > 0 || m.flying > 0 || m.plan.Progress().Retrying > 0 {
		return false
	}
	m.sift(now)
	did := false
	for _, g := range m.rollouts {
		spent := m.state.Budgets[g.Name]
		if spent == nil || !m.open(g) || !m.sought(g) {
			continue
		}
		for _, node := range slices.Sorted(maps.Keys(spent.Places)) {
			if !m.watched(g, node) && m.waits(g, node) {
				m.take(now, history.PlaceReturned{Rollout: g.Name, Node: node})
				did = true
			}
		}
	}
	return did
}

// watched reports whether a node keeps its place for its watch alone. What is to be done again, whatever for, is watched anew.
func (m *Machine) watched(g *group, node string) bool {
	_, watching := m.state.Budgets[g.Name].Settling[node]
	return watching && m.groupDone(g, node)
}

// sought reports whether somebody asks for a place. What is not ready any more stands in its line until its turn comes, and asks
// for none: a machine that took the journal up does not have it there.
func (m *Machine) sought(g *group) bool {
	for _, list := range g.waiting {
		for _, t := range list {
			if r := m.plan.Removal(t); r != nil && r.Ready {
				return true
			} else if cell := m.plan.Cell(t); r == nil && cell != nil && cell.Ready {
				return true
			}
		}
	}
	return false
}

// waits reports whether everything of the group that a node has yet to do waits for other instances.
func (m *Machine) waits(g *group, node string) bool {
	for _, task := range g.Tasks {
		t := history.Target{Task: task, Node: node}
		var wait plan.Cause
		if r := m.plan.Removal(t); r != nil {
			wait = r.Wait
		} else if cell := m.plan.Cell(t); cell != nil && !cell.Settled() && cell.Verdict != plan.Absent {
			wait = cell.Wait
		} else {
			continue
		}
		if k := wait.Kind; k != history.Upstream && k != history.Order && k != history.Consumer && k != history.InTheWay && k != history.Unguarded {
			return false
		}
	}
	return true
}

func (m *Machine) groupDone(g *group, node string) bool {
	for _, task := range g.Tasks {
		t := history.Target{Task: task, Node: node}
		if cell := m.plan.Cell(t); cell != nil && cell.Verdict != plan.Absent {
			if !cell.Settled() && cell.Verdict != plan.Skipped && cell.Verdict != plan.Aside {
				return false
			}
			continue
		}
		row := m.state.Row(t)
		if row == nil || row.Phase == history.Absent {
			continue
		}
		if r := m.plan.Removal(t); r == nil || r.Wait.Kind != history.Consumer || r.Replaced {
			return false
		}
	}
	return true
}

// proven reports whether a node that gives its place back has something of the group.
func (m *Machine) proven(g *group, node string) bool {
	if m.state.Node(node).Aside != nil {
		return false
	}
	return slices.ContainsFunc(g.Tasks, func(task string) bool {
		cell := m.plan.Cell(history.Target{Task: task, Node: node})
		return cell != nil && cell.Settled()
	})
}

// queued is a node in a group's line.
type queued struct {
	class class
	node  string
}

type nodeQueue []queued

func (q nodeQueue) Len() int { return len(q) }
func (q nodeQueue) Less(i, j int) bool {
	return q[i].class < q[j].class || q[i].class == q[j].class && q[i].node < q[j].node
}
func (q nodeQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *nodeQueue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *nodeQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}
