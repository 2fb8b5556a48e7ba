package plan

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// Planner holds the decisions about every instance of one goal.
type Planner struct {
	state  *history.State
	model  *model.Model // of the newest goal; an empty one for a goal that destroys
	goal   *history.Goal
	models func(goal int) *model.Model
	tasks  []*column
	byName map[string]*column
	roles  map[string][]int // node indexes by role, sorted by name
	wanted map[int]bool     // nodes that the goal has
	known  map[model.Ref]value.Value
	above  map[string][]string // by task, the single tasks with `on` that it depends on
	fresh  []history.Target    // became ready since last asked

	removals []Removal
}

// column is the decisions about one task.
type column struct {
	task    *model.Task
	at      int // position in Planner.tasks
	rows    *history.Column
	targets []int // node indexes; -1 for the single instance
	place   map[int]int
	cells   []Cell
	dirty   []bool
	stale   int // how many are dirty

	waits  []edge // what it waits for
	wakes  []edge // what waits for it: to is the dependant
	agg    aggregate
	shared []sharedArgument
	out    value.Type
	values map[int]parsed // outputs in use, by node index
	gather gathered
}

type edge struct {
	to    *column
	all   bool
	order bool
	host  bool
}

// aggregate is what readers of `all.T` see.
type aggregate struct {
	pending, blocked int
	generation       int // grows when a settled output changes
}

type parsed struct {
	of value.Digest
	v  value.Value
}

type gathered struct {
	generation int
	ready      bool
	digest     value.Digest
	v          value.Value
	filled     bool // v is there, and wholly known
}

type sharedArgument struct {
	ref    value.Digest
	v      value.Value
	digest value.Digest
	err    error
	fresh  bool
}

// New plans the newest goal of a state from scratch. models gives the checked model of any goal that a live row names.
func New(state *history.State, models func(goal int) *model.Model) *Planner {
	p := &Planner{
		state: state, models: models, goal: state.Goal(), model: &model.Model{},
		byName: map[string]*column{}, roles: map[string][]int{}, wanted: map[int]bool{},
		known: map[model.Ref]value.Value{}, above: map[string][]string{},
	}
	if p.goal == nil {
		return p
	}
	if m := models(len(state.Goals) - 1); m != nil && !p.goal.Destroy {
		p.model = m
	}
	for role, names := range p.goal.Roles {
		for _, name := range slices.Sorted(slices.Values(names)) {
			i := state.Index(name)
			p.roles[role] = append(p.roles[role], i)
			p.wanted[i] = true
		}
	}
	p.build()
	for _, c := range p.tasks {
		c.taint()
	}
	p.Update()
	return p
}

func (p *Planner) build() {
	for i := range p.model.Tasks {
		t := &p.model.Tasks[i]
		if p.state.Columns[t.Name] == nil {
			p.state.Columns[t.Name] = &history.Column{}
		}
		c := &column{task: t, at: i, rows: p.state.Columns[t.Name], out: t.Step.OutputType(), values: map[int]parsed{}, shared: make([]sharedArgument, len(t.With))}
		c.targets = p.targetsOf(t)
		c.place = make(map[int]int, len(c.targets))
		for k, node := range c.targets {
			c.place[node] = k
		}
		c.cells = make([]Cell, len(c.targets))
		for k := range c.cells {
			c.cells[k].view.standing = pending
		}
		c.agg.pending = len(c.cells)
		c.dirty = make([]bool, len(c.targets))
		p.tasks = append(p.tasks, c)
		p.byName[t.Name] = c
		above := map[string]bool{}
		for _, e := range t.Edges() {
			up := p.byName[e.Task]
			c.waits = append(c.waits, edge{to: up, all: e.All, order: e.Order, host: e.Host})
			up.wakes = append(up.wakes, edge{to: c, all: e.All || e.Host, order: e.Order, host: e.Host})
			if up.task.On != "" && len(up.task.Each) == 0 {
				above[e.Task] = true
			}
			for _, name := range p.above[e.Task] {
				above[name] = true
			}
		}
		for name := range above {
			p.above[t.Name] = append(p.above[t.Name], name)
		}
		slices.Sort(p.above[t.Name])
	}
}

func (p *Planner) targetsOf(t *model.Task) []int {
	if len(t.Each) == 0 {
		return []int{-1}
	}
	var targets []int
	for _, role := range t.Each {
		targets = append(targets, p.roles[role]...)
	}
	slices.SortFunc(targets, func(a, b int) int {
		return compare(p.state.Nodes[a].Name, p.state.Nodes[b].Name)
	})
	return slices.Compact(targets)
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// taint marks every instance of the task for a new decision.
func (c *column) taint() {
	for k := range c.dirty {
		c.taintAt(k)
	}
}

func (c *column) taintAt(k int) {
	if !c.dirty[k] {
		c.dirty[k] = true
		c.stale++
	}
}

// Touch marks an instance for a new decision: its history has changed.
func (p *Planner) Touch(t history.Target) {
	c := p.byName[t.Task]
	if c == nil {
		return
	}
	node := -1
	if t.Node != "" {
		node = p.state.Index(t.Node)
	}
	if k, ok := c.place[node]; ok {
		c.taintAt(k)
	}
}

// TouchNode marks everything that looks at a node for a new decision: its incarnation, address, facts or connection
// have changed.
func (p *Planner) TouchNode(name string) {
	node := p.state.Index(name)
	clear(p.known)
	for _, c := range p.tasks {
		if k, ok := c.place[node]; ok {
			c.taintAt(k)
		}
		if c.task.On != "" || looksAtRoles(c.task) {
			c.taint()
		}
	}
}

func looksAtRoles(t *model.Task) bool {
	for _, a := range t.With {
		for _, r := range a.Refs {
			if r.Kind == model.RefRole {
				return true
			}
		}
	}
	return t.When != nil
}

// Update brings every decision up to date, upstream first.
func (p *Planner) Update() {
	for _, c := range p.tasks {
		if c.stale > 0 {
			p.updateColumn(c)
		}
	}
	p.updateRemovals()
}

func (p *Planner) updateColumn(c *column) {
	before := c.agg
	for k := range c.cells {
		if !c.dirty[k] {
			continue
		}
		c.dirty[k] = false
		c.stale--
		old := c.cells[k].view
		c.cells[k] = p.decide(c, c.targets[k])
		now := c.cells[k].view
		if c.cells[k].Ready {
			p.fresh = append(p.fresh, p.target(c.task.Name, c.targets[k]))
		}
		if old == now {
			continue
		}
		c.count(old, -1)
		c.count(now, +1)
		if now.standing == settled || old.standing == settled || now.standing == absent || old.standing == absent {
			c.agg.generation++
		}
		p.wakeSame(c, c.targets[k])
	}
	if before != c.agg {
		p.wakeAll(c, before)
	}
}

func (c *column) count(v view, by int) {
	switch v.standing {
	case pending:
		c.agg.pending += by
	case blocked:
		c.agg.blocked += by
	}
}

// wakeSame taints the dependants that read the instance for node directly.
func (p *Planner) wakeSame(c *column, node int) {
	for _, e := range c.wakes {
		switch {
		case e.all:
		case node < 0:
			e.to.taint()
		default:
			if k, ok := e.to.place[node]; ok {
				e.to.taintAt(k)
			}
		}
	}
}

// wakeAll taints the readers of `all.T`, which see the instances together: only once all of them are settled, and when
// that ceases.
func (p *Planner) wakeAll(c *column, before aggregate) {
	together := func(a aggregate) standing {
		switch {
		case a.blocked > 0:
			return blocked
		case a.pending > 0:
			return pending
		}
		return settled
	}
	if together(before) == together(c.agg) && together(c.agg) == pending {
		for _, e := range c.wakes {
			if e.host {
				e.to.taint()
			}
		}
		return
	}
	for _, e := range c.wakes {
		if e.all {
			e.to.taint()
		}
	}
}

// Cell gives the decision about an instance of the goal, or nil if the goal has none of that name.
func (p *Planner) Cell(t history.Target) *Cell {
	c := p.byName[t.Task]
	if c == nil {
		return nil
	}
	node := -1
	if t.Node != "" {
		node = p.state.Index(t.Node)
	}
	if k, ok := c.place[node]; ok {
		return &c.cells[k]
	}
	return nil
}

// Fresh lists the instances that were decided to be ready since it was last called, in the order of the decisions.
func (p *Planner) Fresh() []history.Target {
	fresh := p.fresh
	p.fresh = nil
	return fresh
}

// Each calls f for every instance of the goal, tasks in dependency order and nodes by name.
func (p *Planner) Each(f func(history.Target, *model.Task, *Cell)) {
	for _, c := range p.tasks {
		for k := range c.cells {
			f(p.target(c.task.Name, c.targets[k]), c.task, &c.cells[k])
		}
	}
}

// Removals lists what is no longer wanted, or has to be removed before it is applied again, with what it waits for.
func (p *Planner) Removals() []Removal { return p.removals }

// Model gives the model of the newest goal; it has no tasks if everything is to be destroyed.
func (p *Planner) Model() *model.Model { return p.model }

// Above lists the single tasks with `on` that a task depends on, directly or not.
func (p *Planner) Above(task string) []string { return p.above[task] }

// Role lists the names of a role's nodes, sorted.
func (p *Planner) Role(name string) []string {
	var names []string
	for _, i := range p.roles[name] {
		names = append(names, p.state.Nodes[i].Name)
	}
	return names
}

// Wants reports whether the goal has the node.
func (p *Planner) Wants(node string) bool { return p.wanted[p.state.Index(node)] }

func (p *Planner) target(task string, node int) history.Target {
	if node < 0 {
		return history.Target{Task: task}
	}
	return history.Target{Task: task, Node: p.state.Nodes[node].Name}
}

// ModelOf gives the model of any goal that a live row names, or nil.
func (p *Planner) ModelOf(goal int) *model.Model { return p.models(goal) }
