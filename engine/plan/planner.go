package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan/naming"
	"joist/engine/plan/once"
	"joist/engine/plan/presence"
	"joist/engine/value"
)

// Planner holds the decisions about every instance of one goal.
type Planner struct {
	naming.Names // what people call things; everything else here goes by what they stand by

	state    *history.State
	model    *model.Model // of the newest goal; an empty one for a goal that destroys
	goal     history.Goal
	now      time.Time
	models   func(goal int) *model.Model
	tasks    []*column
	scouts   []*column // of those, that run in the discovery image
	byName   map[string]*column
	roles    map[string]*role
	wanted   []bool // by node index: the goal has it
	known    map[model.Ref]value.Value
	fixed    map[string]value.Digest // digests of the top workflow's inputs
	parts    map[model.Expr]*once.Value
	above    map[string][]string // by task, the single tasks with `on` that it depends on
	pools    map[string]*executors
	fresh    []history.Target // became ready since last asked
	done     []history.Target // came to be as the goal wants it since last asked
	counts   counts           // of the goal's instances
	remove   removals
	presence presence.Presence
	halted   map[string]bool // tasks whose rollout lets nothing start
	again    bool            // something was marked while removals were decided
	rewind   bool            // something was marked that is decided before what marked it
}

// role is the nodes that play a role in the goal.
type role struct {
	nodes      []int  // indexes, sorted by name
	generation uint64 // grows when anything about one of them changes

	absentAt    uint64 // generation, plus one, at which those that have not come up were counted
	absentCount int
	absentFirst string
}

// column is the decisions about one task.
type column struct {
	task    *model.Task
	rows    *history.Column
	targets []int   // node indexes, sorted by name; -1 for the single instance
	place   []int32 // by node index + 1: position in targets + 1, 0 for none
	cells   []Cell
	all     bool   // every instance is marked for a new decision
	dirty   []bool // those that are marked
	stale   []int  // their positions

	waits                  []edge // what it waits for
	wakes                  []edge // what waits for it: to is the dependant
	looks                  []string
	agg                    aggregate
	shared                 []once.Value
	out                    value.Type
	values                 map[int]parsed // outputs in use, by node index
	gather                 gathered
	last                   int // position of the instance that came to be in place last, found at lastGeneration
	lastAt, lastGeneration uint64
	hosts                  []*executors
	pool                   *executors // of executors, for a cluster-scope script
}

type edge struct {
	to    *column
	all   bool
	share model.Share // with all: how many of them
	order bool
	host  bool
}

// aggregate is what readers of `all.T` see.
type aggregate struct {
	pending, blocked int
	total, absent    int
	stirs            int    // in place still, and not for long
	generation       uint64 // grows when a settled output changes
}

// counts says how many instances are not as the goal wants them, and what they wait for.
type counts struct {
	open, ready int
	drifted     int // in place, drifted, and waiting for a person
	waits       map[history.CauseKind]int
}

func (n *counts) add(c *Cell, by int) {
	if c.Verdict == Kept && c.Cause.Kind == history.Drift {
		n.drifted += by
	}
	if c.view.standing == settled || c.view.standing == absent {
		return
	}
	n.open += by
	if c.Ready {
		n.ready += by
	}
	n.waits[c.Wait.Kind] += by
}

type parsed struct {
	of value.Digest
	v  value.Value
}

type gathered struct {
	generation uint64
	ready      bool
	digest     value.Digest
	v          value.Value
	filled     bool // v is there, and wholly known
}

// New plans the newest goal of a state from scratch. models gives the checked model of any goal that a live row names.
func New(state *history.State, models func(goal int) *model.Model) *Planner {
	p := &Planner{
		state: state, models: models, model: &model.Model{}, now: state.Now,
		byName: map[string]*column{}, roles: map[string]*role{}, known: map[model.Ref]value.Value{}, fixed: map[string]value.Digest{}, parts: map[model.Expr]*once.Value{},
		above: map[string][]string{}, pools: map[string]*executors{}, halted: map[string]bool{}, counts: counts{waits: map[history.CauseKind]int{}},
	}
	p.remove.init()
	goal := state.Goal()
	if goal == nil {
		return p
	}
	p.goal = *goal
	if m := models(len(state.Goals) - 1); m != nil && !goal.Destroy {
		p.model = m
	}
	p.assign()
	p.build()
	for _, c := range p.tasks {
		c.taint()
	}
	p.buildRemovals()
	p.Update()
	return p
}

// At tells the planner the time, by which retries become due.
func (p *Planner) At(now time.Time) { p.now = now }

// Now is the time that the planner was told last.
func (p *Planner) Now() time.Time { return p.now }

// assign takes the goal's nodes by role. It returns the roles that changed.
func (p *Planner) assign() map[string]bool {
	changed := map[string]bool{}
	p.wanted = make([]bool, len(p.state.Nodes))
	names := map[string]bool{}
	for name := range p.goal.Roles {
		names[name] = true
	}
	for name := range p.roles {
		names[name] = true
	}
	for name := range names {
		given := slices.Sorted(slices.Values(p.goal.Roles[name]))
		nodes := make([]int, 0, len(given))
		for _, node := range slices.Compact(given) {
			i := p.state.Index(node)
			for len(p.wanted) <= i {
				p.wanted = append(p.wanted, false)
			}
			nodes = append(nodes, i)
			p.wanted[i] = true
		}
		r := p.roles[name]
		if r == nil {
			r = &role{}
			p.roles[name] = r
		}
		if !slices.Equal(r.nodes, nodes) {
			r.nodes = nodes
			r.generation++
			changed[name] = true
		}
	}
	return changed
}

func (p *Planner) build() {
	for i := range p.model.Tasks {
		t := &p.model.Tasks[i]
		c := &column{task: t, out: t.Step.OutputType(), values: map[int]parsed{}, shared: make([]once.Value, len(t.With)), looks: rolesOf(t)}
		c.aim(p.targetsOf(t), p.counts.waits)
		p.counts.open += len(c.cells)
		p.tasks = append(p.tasks, c)
		p.byName[t.Name] = c
		if t.Step.Scout {
			p.scouts = append(p.scouts, c)
		}
		p.connect(c)
	}
}

// connect joins a task to what it waits for.
func (p *Planner) connect(c *column) {
	t := c.task
	above := map[string]bool{}
	var hosts []string
	for _, e := range t.Edges() {
		up := p.byName[e.Task]
		c.waits = append(c.waits, edge{to: up, all: e.All, share: e.Share, order: e.Order, host: e.Host})
		up.wakes = append(up.wakes, edge{to: c, all: e.All, share: e.Share, order: e.Order, host: e.Host})
		if e.Host {
			hosts = append(hosts, e.Task)
		}
		if up.task.On != "" && len(up.task.Each) == 0 {
			above[e.Task] = true
		}
		for _, name := range p.above[e.Task] {
			above[name] = true
		}
	}
	p.above[t.Name] = slices.Sorted(maps.Keys(above))
	if t.Step.Scope == model.Cluster && !t.Step.Pure() {
		c.pool = p.poolOf(t.On, hosts)
		c.pool.users = append(c.pool.users, c)
	}
}

// aim gives the column its instances; all are undecided.
func (c *column) aim(targets []int, waits map[history.CauseKind]int) {
	c.targets = targets
	c.cells = make([]Cell, len(targets))
	for k := range c.cells {
		c.cells[k].view.standing = pending
	}
	waits[history.Same] += len(c.cells)
	c.agg.pending, c.agg.total = len(c.cells), len(c.cells)
	c.dirty = make([]bool, len(targets))
	c.index()
}

func (c *column) index() {
	most := -1
	for _, node := range c.targets {
		most = max(most, node)
	}
	c.place = make([]int32, most+2)
	for k, node := range c.targets {
		c.place[node+1] = int32(k + 1)
	}
}

// at gives the position of the instance for a node index, -1 if there is none.
func (c *column) at(node int) int {
	if node+1 >= len(c.place) {
		return -1
	}
	return int(c.place[node+1]) - 1
}

func (p *Planner) targetsOf(t *model.Task) []int {
	if len(t.Each) == 0 {
		return []int{-1}
	}
	if len(t.Each) == 1 {
		return slices.Clone(p.roleNodes(t.Each[0]))
	}
	var targets []int
	for _, role := range t.Each {
		targets = append(targets, p.roleNodes(role)...)
	}
	slices.SortFunc(targets, func(a, b int) int { return strings.Compare(p.state.Nodes[a].Name, p.state.Nodes[b].Name) })
	return slices.Compact(targets)
}

func (p *Planner) roleNodes(name string) []int {
	if r := p.roles[name]; r != nil {
		return r.nodes
	}
	return nil
}

// rolesOf lists the roles whose nodes a task looks at.
func rolesOf(t *model.Task) []string {
	var names []string
	look := func(a *model.Argument) {
		for _, r := range a.Refs {
			if r.Kind == model.RefRole && !slices.Contains(names, r.Name) {
				names = append(names, r.Name)
			}
		}
	}
	for i := range t.With {
		look(&t.With[i])
	}
	if t.When != nil {
		look(t.When)
	}
	return names
}

// Cell gives the decision about an instance of the goal, or nil if the goal has none of that name.
func (p *Planner) Cell(t history.Target) *Cell {
	if c := p.byName[t.Task]; c != nil {
		if k := c.at(p.nodeOf(t)); k >= 0 {
			return &c.cells[k]
		}
	}
	return nil
}

// nodeOf gives a target's node index, -1 for a single instance and -2 for a node that was never named.
func (p *Planner) nodeOf(t history.Target) int {
	if t.Node == "" {
		return -1
	}
	if i, ok := p.state.Find(t.Node); ok {
		return i
	}
	return len(p.state.Nodes)
}

// Fresh lists the instances that were decided to be ready, to be removed or to run, since it was last called, in the
// order of the decisions.
func (p *Planner) Fresh() []history.Target {
	// Removals are looked at again in the order of what happened. That says nothing of them, and events that are told
	// together would come to other decisions than the same ones told one by one.
	slices.SortFunc(p.remove.fresh, compareTargets)
	fresh := append(p.remove.fresh, p.fresh...)
	p.remove.fresh, p.fresh = nil, nil
	return fresh
}

// Done lists the instances that came to be as the goal wants them, or to be gone, since it was last called.
func (p *Planner) Done() []history.Target {
	done := p.done
	p.done = nil
	return done
}

// Each calls f for every instance of the goal, tasks in dependency order and nodes by name.
func (p *Planner) Each(f func(history.Target, *model.Task, *Cell)) {
	for _, c := range p.tasks {
		for k := range c.cells {
			f(p.target(c.task.Name, c.targets[k]), c.task, &c.cells[k])
		}
	}
}

// Model gives the model of the newest goal; it has no tasks if everything is to be destroyed.
func (p *Planner) Model() *model.Model { return p.model }

// Task gives a task of the newest goal's model, or nil.
func (p *Planner) Task(name string) *model.Task {
	if c := p.byName[name]; c != nil {
		return c.task
	}
	return nil
}

// Above lists the single tasks with `on` that a task depends on, directly or not.
func (p *Planner) Above(task string) []string { return p.above[task] }

// Role lists the names of a role's nodes, sorted.
func (p *Planner) Role(name string) []string {
	var names []string
	for _, i := range p.roleNodes(name) {
		names = append(names, p.state.Nodes[i].Name)
	}
	return names
}

// Plays reports whether the goal has a node in a role.
func (p *Planner) Plays(node, role string) bool {
	_, found := slices.BinarySearch(p.goal.Roles[role], node)
	return found
}

// Wants reports whether the goal has the node.
func (p *Planner) Wants(node string) bool {
	i, ok := p.state.Find(node)
	return ok && i < len(p.wanted) && p.wanted[i]
}

// Progress says how far the goal is.
type Progress struct {
	Open     int // instances and removals that are not done
	Total    int
	Awaiting int // of those, that wait for nodes to come up, to answer or to be trusted
	Retrying int // of those, that wait for the time of their next attempt
	Asking   int // of those, that wait for a person's approval
	Scouting int // of those, that wait for their node's next boot
	Wiping   int // removals that wait for nodes to be wiped
	Drifted  int // instances in place that have drifted and wait for a person
}

// Progress counts what is not done. It costs nothing.
func (p *Planner) Progress() Progress {
	w, r := p.counts.waits, p.remove.waits
	n := Progress{
		Open:     p.counts.open + len(p.remove.all),
		Total:    len(p.remove.all),
		Awaiting: w[history.NotUp] + w[history.Offline] + w[history.Distrust] + w[history.Executor] + r[history.Offline] + r[history.Executor],
		Retrying: w[history.RetryWait] + r[history.RetryWait] + w[history.LaterWait] + r[history.LaterWait],
		Asking:   w[history.AskedFor],
		Scouting: w[history.InScout],
		Wiping:   r[history.Wiping],
		Drifted:  p.counts.drifted,
	}
	for _, c := range p.tasks {
		n.Total += len(c.cells)
	}
	return n
}

func (p *Planner) target(task string, node int) history.Target {
	if node < 0 {
		return history.Target{Task: task}
	}
	return history.Target{Task: task, Node: p.state.Nodes[node].Name}
}

// ModelOf gives the model of any goal that a live row names, or nil.
func (p *Planner) ModelOf(goal int) *model.Model { return p.models(goal) }
