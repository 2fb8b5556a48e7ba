package plan

import (
	"maps"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
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

// updateRemovals looks at everything that was started and is not wanted as it stands.
func (p *Planner) updateRemovals() {
	p.removals = p.removals[:0]
	gone := map[history.Target]bool{}
	for _, name := range slices.Sorted(maps.Keys(p.state.Columns)) {
		for i, row := range p.state.Columns[name].Rows {
			if row == nil || row.Phase == history.Absent {
				continue
			}
			t := p.target(name, i-1)
			cell := p.Cell(t)
			if cell != nil && cell.Verdict != Absent && cell.Verdict != Replace {
				continue
			}
			r := Removal{Target: t, Replaced: cell != nil && cell.Verdict == Replace, Cause: Cause{Kind: history.Unwanted}}
			if r.Replaced {
				r.Cause = cell.Cause
			}
			if m := p.models(row.Goal); m != nil {
				r.Task = m.Task(name)
			}
			gone[t] = true
			p.removals = append(p.removals, r)
		}
	}
	for i := range p.removals {
		p.decideRemoval(&p.removals[i], gone)
	}
}

func (p *Planner) decideRemoval(r *Removal, gone map[history.Target]bool) {
	row := p.state.Row(r.Target)
	if row.Flight != nil {
		r.Wait = Cause{Kind: history.Running}
		return
	}
	if f := row.Failure; f != nil && f.Final && f.Action == "remove" {
		r.Failed, r.Wait = true, Cause{Kind: history.FailedCause, Of: r.Target, Text: f.Error}
		return
	}
	r.Discharge = p.discharge(r, row)
	if r.Wait = p.consumer(r, gone); r.Wait.Kind != history.Same {
		return
	}
	if r.Discharge == "" {
		r.Wait = p.removalHindrance(r, row)
	}
	r.Ready = r.Wait.Kind == history.Same
}

// discharge says why the effect is gone by itself, if it is.
func (p *Planner) discharge(r *Removal, row *history.Row) string {
	if r.Task == nil {
		return "no pack knows how to remove it any more"
	}
	s := r.Task.Step
	switch {
	case s.Pure():
		return "a value has no effect"
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
		case row.Boot != n.Boot:
			return "the root it wrote to ended with the boot"
		}
	case model.Cluster:
		if r.Task.On != "" && len(p.executors(r, row)) == 0 {
			return "no incarnation of role " + r.Task.On + " is left: what it acted on is gone"
		}
	}
	return ""
}

// executors lists the nodes that could execute a removal if they answered: those of the task's `on` role, now or when it
// was last started, whose incarnation lives.
func (p *Planner) executors(r *Removal, row *history.Row) []string {
	candidates := p.Role(r.Task.On)
	candidates = append(candidates, p.state.Goals[row.Goal].Roles[r.Task.On]...)
	candidates = slices.DeleteFunc(candidates, func(name string) bool {
		n := p.state.Node(name)
		return n == nil || !n.Alive()
	})
	slices.Sort(candidates)
	return slices.Compact(candidates)
}

// consumer finds what still uses the effect: a reader of its outputs that is not settled without them, or something that
// was ordered after it and is to go as well.
func (p *Planner) consumer(r *Removal, gone map[history.Target]bool) Cause {
	for _, name := range slices.Sorted(maps.Keys(p.state.Columns)) {
		for i, row := range p.state.Columns[name].Rows {
			if row == nil || row.Phase == history.Absent {
				continue
			}
			y := p.target(name, i-1)
			if y == r.Target {
				continue
			}
			m := p.models(row.Goal)
			if m == nil {
				continue
			}
			t := m.Task(name)
			if t == nil {
				continue
			}
			if p.uses(t, y, r, gone[y]) {
				return Cause{Kind: history.Consumer, Of: y}
			}
		}
	}
	return Cause{}
}

func (p *Planner) uses(t *model.Task, y history.Target, r *Removal, leaving bool) bool {
	for _, e := range t.Edges() {
		if e.Task != r.Target.Task || e.Host {
			continue
		}
		if !e.All && r.Node != "" && y.Node != r.Node {
			continue
		}
		if leaving {
			return true
		}
		if e.Order || r.Replaced || t.Step.Once {
			continue
		}
		if cell := p.Cell(y); cell != nil && !cell.Settled() {
			return true
		}
	}
	return false
}

func (p *Planner) removalHindrance(r *Removal, row *history.Row) Cause {
	switch r.Task.Step.Scope {
	case model.Node:
		n := p.state.Node(r.Node)
		if p.goal.Destroy {
			return Cause{Kind: history.Wiping, Of: history.Target{Node: r.Node}}
		}
		if !n.Online {
			return Cause{Kind: history.Offline, Of: history.Target{Node: r.Node}}
		}
	case model.Cluster:
		if p.goal.Destroy {
			return Cause{Kind: history.Wiping}
		}
		if _, why := p.RemovalExecutor(r, 1); why.Kind != history.Same {
			return why
		}
	}
	return Cause{}
}

// RemovalExecutor chooses the node that executes the remove of a cluster-scope script for an attempt: rather one that
// the goal keeps, and rather another than the target.
func (p *Planner) RemovalExecutor(r *Removal, attempt int) (string, Cause) {
	row := p.state.Row(r.Target)
	var first, last []string
	for _, name := range p.executors(r, row) {
		n := p.state.Node(name)
		if !n.Online || !p.hostReady(nil, r.Task, p.state.Index(name)) {
			continue
		}
		if name == r.Node || !slices.Contains(p.Role(r.Task.On), name) {
			last = append(last, name)
			continue
		}
		first = append(first, name)
	}
	if len(first) == 0 {
		first = last
	}
	if len(first) == 0 {
		return "", Cause{Kind: history.Executor, Text: "no node of role " + r.Task.On + " can execute it now"}
	}
	return first[(attempt-1)%len(first)], Cause{}
}
