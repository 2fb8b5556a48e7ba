// Package outlook says for people and programs what a plan means: every instance with its verdict, cause and state, what
// of it is not known yet, what it is likely to take, and what is at the bottom of everything that waits. It decides nothing.
package outlook

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
)

// Item is one instance of a plan.
type Item struct {
	history.Target
	Step    string       `json:"step,omitempty"`
	Verdict plan.Verdict `json:"verdict"`
	State   State        `json:"state"`
	Cause   plan.Cause   `json:"cause,omitzero"`
	Wait    plan.Cause   `json:"wait,omitzero"`
	Attempt int          `json:"attempt,omitempty"` // of what is in flight, or failed last
	Error   string       `json:"error,omitempty"`   // of the last failure
	Seconds float64      `json:"seconds,omitempty"` // how long the last success took
	Agent   string       `json:"agent,omitempty"`   // node that executes what is in flight
	Reboots bool         `json:"reboots,omitempty"` // its node reboots for what is to be done
	Asked   string       `json:"asked,omitempty"`   // it runs when somebody asks for this, alone or with others; empty for by itself, and for what the goal has not

	Expected float64      `json:"expected,omitempty"` // seconds it is likely to take, by what it or its like took before; 0 if unknown
	Known    []Pending    `json:"known,omitempty"`    // inputs that are not known yet
	Input    value.Digest `json:"input,omitzero"`     // of the inputs it is to run with, if those are known
}

// State says how an instance is now.
type State string

// The states.
const (
	InPlace  State = "in place"
	Running  State = "running"
	Ready    State = "ready"
	Waiting  State = "waiting"
	Failed   State = "failed"
	Blocked  State = "blocked"
	Absent   State = "absent"
	Removing State = "removing"
	SetAside State = "set aside" // its node is
	Skipped  State = "skipped"   // a person wants the goal without it
)

// Items lists every instance of the goal and everything that is to be removed.
func Items(p *plan.Planner) []Item {
	var items []Item
	usual := map[string]float64{}
	p.Each(func(t history.Target, task *model.Task, cell *plan.Cell) {
		it := itemOf(p, t, task, cell)
		if it.Verdict == plan.Run || it.Verdict == plan.RunIf || it.Verdict == plan.Replace {
			it.Reboots = task.Step.Reboots || cell.Wait.Kind == history.InScout
			if it.Expected = it.Seconds; it.Expected == 0 {
				if _, ok := usual[t.Task]; !ok {
					usual[t.Task] = median(p.State().Columns[t.Task])
				}
				it.Expected = usual[t.Task]
			}
		}
		items = append(items, it)
	})
	return append(items, removals(p)...)
}

// Asked lists the instances that run when somebody asks for a task, or for a call of a workflow, by the name that people use.
func Asked(p *plan.Planner, name string) []history.Target {
	var list []history.Target
	p.Each(func(t history.Target, task *model.Task, _ *plan.Cell) {
		if task.Asked == name && len(task.During) == 0 { // otherwise it comes with what it is in place for
			list = append(list, t)
		}
	})
	return list
}

// OpenItems lists the instances that are neither in place nor absent or have drifted, and the removals. It costs what it lists.
func OpenItems(p *plan.Planner) []Item {
	var items []Item
	p.Each(func(t history.Target, task *model.Task, cell *plan.Cell) {
		if cell.Open() || cell.Verdict == plan.Skipped || Drifted(cell) {
			items = append(items, itemOf(p, t, task, cell))
		}
	})
	return append(items, removals(p)...)
}

// Drifted reports whether an instance in place was found otherwise, and waits for a person.
func Drifted(cell *plan.Cell) bool {
	return cell.Verdict == plan.Kept && cell.Cause.Kind == history.Drift
}

func removals(p *plan.Planner) []Item {
	var items []Item
	for _, r := range p.Removals() {
		if r.Replaced {
			continue
		}
		it := Item{Target: r.Target, Verdict: plan.Remove, State: Waiting, Cause: r.Cause, Wait: r.Wait}
		if r.Task != nil {
			it.Step = r.Task.Step.Name
		}
		it.history(p.State().Row(r.Target))
		switch {
		case r.Failed:
			it.State = Failed
		case it.Attempt > 0 && r.Wait.Kind == history.Running:
			it.State = Removing
		case r.Ready:
			it.State = Ready
		}
		items = append(items, it)
	}
	return items
}

// One gives an instance of the goal, or a removal; false if there is none of that name.
func One(p *plan.Planner, t history.Target) (Item, bool) {
	if cell := p.Cell(t); cell != nil {
		return itemOf(p, t, p.Task(t.Task), cell), true
	}
	if p.Removal(t) != nil {
		for _, it := range removals(p) {
			if it.Target == t {
				return it, true
			}
		}
	}
	return Item{}, false
}

// StateOf says how an instance of the goal is now.
func StateOf(cell *plan.Cell) State {
	switch {
	case cell.Verdict == plan.Unchanged && cell.Cause.Kind == history.During: // what it is in place for runs
		return InPlace
	case cell.Wait.Kind == history.Running:
		return Running
	case cell.Failed():
		return Failed
	case cell.Verdict == plan.Aside:
		return SetAside
	case cell.Settled():
		return InPlace
	case cell.Verdict == plan.Skipped:
		return Skipped
	case cell.Verdict == plan.Absent:
		return Absent
	case cell.Verdict == plan.Blocked:
		return Blocked
	case cell.Ready:
		return Ready
	}
	return Waiting
}

func itemOf(p *plan.Planner, t history.Target, task *model.Task, cell *plan.Cell) Item {
	it := Item{Target: t, Step: task.Step.Name, Verdict: cell.Verdict, State: StateOf(cell), Cause: cell.Cause.Since(p.State().Row(t)), Wait: cell.Wait, Input: cell.Digests().Input}
	if len(task.During) == 0 && (cell.Verdict != plan.Absent || cell.Cause.Kind == history.Unasked) {
		it.Asked = task.Asked
	}
	if cell.Open() && it.Input == (value.Digest{}) {
		it.Known = pendingInputs(p, t, task)
	}
	it.history(p.State().Row(t))
	return it
}

func (it *Item) history(row *history.Row) {
	if row == nil {
		return
	}
	if f := row.Failure; f != nil {
		it.Attempt = f.Attempt
		if f.Later == "" {
			it.Error = f.Error
		}
	}
	if row.Flight != nil {
		it.Attempt, it.Agent = row.Flight.Attempt, row.Flight.Agent
	}
	if row.Phase == history.InPlace && row.Done.After(row.Begun) {
		it.Seconds = row.Done.Sub(row.Begun).Seconds()
	}
}

// danger is the order of verdicts for people: the dangerous first.
func danger(v plan.Verdict) int {
	return slices.Index([]plan.Verdict{plan.Remove, plan.Replace, plan.Blocked, plan.Aside, plan.Run, plan.RunIf, plan.Skipped, plan.Kept, plan.Absent, plan.Unchanged}, v)
}

// SortForPeople puts the dangerous first and keeps the order otherwise.
func SortForPeople(items []Item) {
	slices.SortStableFunc(items, func(a, b Item) int { return danger(a.Verdict) - danger(b.Verdict) })
}

// Tally counts a plan's instances.
type Tally struct {
	Verdicts, States map[string]int
	Nodes            map[string]map[string]int // states by node
}

// Count counts every instance of the goal and every removal, without making a list of them.
func Count(p *plan.Planner) Tally {
	n := Tally{Verdicts: map[string]int{}, States: map[string]int{}, Nodes: map[string]map[string]int{}}
	add := func(node string, v plan.Verdict, s State) {
		n.Verdicts[v.String()]++
		n.States[string(s)]++
		if node != "" {
			if n.Nodes[node] == nil {
				n.Nodes[node] = map[string]int{}
			}
			n.Nodes[node][string(s)]++
		}
	}
	p.Each(func(t history.Target, _ *model.Task, cell *plan.Cell) { add(t.Node, cell.Verdict, StateOf(cell)) })
	for _, it := range removals(p) {
		add(it.Node, it.Verdict, it.State)
	}
	return n
}
