package plan

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// presence is who makes way for whom (`except_during`), by task. Both stand for the same target.
type presence struct {
	makes map[string][]string // a task, to those that it makes way for
	over  map[string][]string // a task, to those that make way for it
}

// buildPresence learns who makes way for whom: as the goal's model says, and for what the goal has no task for any more,
// as the models say that something live was started with.
func (p *Planner) buildPresence() {
	p.presence = presence{makes: map[string][]string{}, over: map[string][]string{}}
	seen := map[value.Digest]bool{}
	for i := range p.state.Goals {
		digest := p.state.Goals[i].Model
		m := p.models(i)
		if m == nil || seen[digest] {
			continue
		}
		seen[digest] = true
		for k := range m.Tasks {
			t := &m.Tasks[k]
			for _, of := range t.Except {
				if m != p.model && p.byName[of] != nil || slices.Contains(p.presence.makes[t.Name], of) {
					continue
				}
				p.presence.makes[t.Name] = append(p.presence.makes[t.Name], of)
				p.presence.over[of] = append(p.presence.over[of], t.Name)
			}
		}
	}
}

// obstacle finds what has yet to make way for an instance before that may start.
func (p *Planner) obstacle(task string, node int) Cause {
	for _, by := range p.presence.over[task] {
		row := p.state.Columns[by].Row(node)
		if row == nil || row.Phase == history.Absent {
			continue
		}
		of := p.target(by, node)
		if f := row.Failure; row.Flight == nil && f != nil && f.Final && f.Action == step.Remove {
			return Cause{Kind: history.FailedCause, Of: of, Text: f.Error}
		}
		return Cause{Kind: history.InTheWay, Of: of}
	}
	return Cause{}
}

// wayFor gives the instance that one has to make way for: nothing else keeps that from starting.
func (p *Planner) wayFor(task string, node int) (history.Target, bool) {
	for _, of := range p.presence.makes[task] {
		t := p.target(of, node)
		if cell := p.Cell(t); cell != nil && cell.way {
			return t, true
		}
		if r := p.remove.all[t]; r != nil && r.way {
			return t, true
		}
	}
	return history.Target{}, false
}

// present is the decision about an instance that is wanted, given what it would be if nobody disturbed it.
func (p *Planner) present(task *model.Task, row *history.Row, node int, cell Cell) Cell {
	if row == nil || row.Phase == history.Absent || row.Flight != nil || cell.Verdict == Replace || len(p.presence.makes[task.Name]) == 0 {
		return cell
	}
	if of, way := p.wayFor(task.Name, node); way {
		return Cell{Verdict: Replace, Cause: Cause{Kind: history.MakesWay, Of: of}, view: view{standing: pending}, aside: true, stands: cell.Settled()}
	}
	if cell.Verdict != Unchanged {
		return cell
	}
	for _, of := range p.presence.makes[task.Name] {
		t := p.target(of, node)
		if up := p.Cell(t); up != nil && up.view.standing == pending || p.remove.all[t] != nil {
			cell.Verdict, cell.Cause = RunIf, Cause{Kind: history.MakesWay, Of: t, Text: "if that runs"}
			return cell
		}
	}
	return cell
}

// absentFor reports whether an instance must not start because something that it makes way for is being removed, or is
// about to be. What the goal has is looked at by the order that `except_during` implies.
func (p *Planner) absentFor(task string, node int) Cause {
	for _, of := range p.presence.makes[task] {
		t := p.target(of, node)
		if r := p.remove.all[t]; r != nil && r.Discharge == "" && (r.way || r.Wait.Kind == history.Running) {
			return Cause{Kind: history.Order, Of: t}
		}
	}
	return Cause{}
}

// wakeMakers marks what makes way for an instance for a new decision.
func (p *Planner) wakeMakers(t history.Target, node int) {
	for _, by := range p.presence.over[t.Task] {
		if c := p.byName[by]; c != nil {
			c.taintAt(c.at(node))
			p.again = true
		}
		if r := p.remove.all[history.Target{Task: by, Node: t.Node}]; r != nil {
			p.remove.mark(r)
			p.again = true
		}
	}
}

// wakeDisturbed marks what an instance makes way for for a new decision.
func (p *Planner) wakeDisturbed(t history.Target, node int) {
	for _, of := range p.presence.makes[t.Task] {
		if c := p.byName[of]; c != nil {
			c.taintAt(c.at(node))
		}
		if r := p.remove.all[history.Target{Task: of, Node: t.Node}]; r != nil {
			p.remove.mark(r)
		}
	}
}

// makesWay reports whether instances of a task make way for those of another one.
func (p *Planner) makesWay(by, of string) bool { return slices.Contains(p.presence.makes[by], of) }

// aside reports whether what is to go has to make way for something in any case: it waits for nobody who reads it then.
func (p *Planner) aside(r *removal) bool {
	_, way := p.wayFor(r.Target.Task, p.nodeOf(r.Target))
	return way
}

// less takes what one instance counts out of a tally.
func (n tally) less(one tally) tally {
	return tally{n.leaving - one.leaving, n.held - one.held, n.unsettled - one.unsettled}
}
