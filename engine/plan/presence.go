package plan

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan/naming"
	"joist/engine/plan/presence"
	"joist/engine/step"
)

// learn learns names and presence from the models that matter.
func (p *Planner) learn() {
	var models []*model.Model
	for i := range p.state.Goals {
		if m := p.models(i); m != nil && (len(models) == 0 || models[len(models)-1] != m) {
			models = append(models, m)
		}
	}
	p.Names, p.presence = naming.Of(p.model, models), presence.Of(p.model, models)
}

// obstacle finds what has yet to make way for an instance before that may start.
func (p *Planner) obstacle(task string, node int) Cause {
	for _, by := range p.presence.Over[task] {
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

// wayFor gives the instance that one has to make way for, perhaps by way of others that make way for it: nothing else
// keeps that from starting.
func (p *Planner) wayFor(task string, node int) (history.Target, bool) {
	for _, of := range p.presence.Makes[task] {
		t := p.target(of, node)
		if cell := p.Cell(t); cell != nil && cell.way {
			return t, true
		}
		if r := p.remove.all[t]; r != nil && r.way {
			if r.aside {
				t = r.Cause.Of
			}
			return t, true
		}
	}
	return history.Target{}, false
}

// present is the decision about an instance that is wanted, given what it would be if nobody disturbed it.
func (p *Planner) present(task *model.Task, row *history.Row, node int, cell Cell) Cell {
	if row == nil || row.Phase == history.Absent || row.Flight != nil || cell.Verdict == Replace || len(p.presence.Makes[task.Name]) == 0 {
		return cell
	}
	if of, way := p.wayFor(task.Name, node); way {
		aside := Cell{Verdict: Replace, Cause: Cause{Kind: history.MakesWay, Of: of}, view: view{standing: pending}, aside: true}
		if cell.Settled() { // until it comes out, who reads it is not disturbed
			aside.view = cell.view
		}
		return aside
	}
	if cell.Verdict != Unchanged {
		return cell
	}
	for _, of := range p.presence.Makes[task.Name] {
		t := p.target(of, node)
		if up := p.Cell(t); up != nil && up.view.standing == pending || p.remove.all[t] != nil {
			cell.Verdict, cell.Cause = RunIf, Cause{Kind: history.MakesWay, Of: t, Text: "if that runs"}
			return cell
		}
	}
	return cell
}

// cleared reports whether, for this goal, something came out to let an instance be removed. Nothing but that kept it from
// going then: that those who read it wait now for what came out does not hold it up.
func (p *Planner) cleared(of history.Target, task string, node int) bool {
	for _, by := range p.presence.Over[task] {
		row := p.state.Columns[by].Row(node)
		out := row != nil && row.Phase != history.InPlace && row.Cause.Kind == history.MakesWay && row.Cause.Of == of && row.Started > p.state.GoalSeq
		if out || p.cleared(of, by, node) {
			return true
		}
	}
	return false
}

// absentFor reports whether an instance must not start because something that it makes way for is being removed, or is
// about to be. What the goal has is looked at by the order that `except_during` implies.
func (p *Planner) absentFor(task string, node int) Cause {
	for _, of := range p.presence.Makes[task] {
		t := p.target(of, node)
		if r := p.remove.all[t]; r != nil && r.holds {
			return Cause{Kind: history.Order, Of: t}
		}
	}
	return Cause{}
}

// wakeMakers marks what makes way for an instance for a new decision.
func (p *Planner) wakeMakers(t history.Target, node int) {
	for _, by := range p.presence.Over[t.Task] {
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
	for _, of := range p.presence.Makes[t.Task] {
		if c := p.byName[of]; c != nil {
			c.taintAt(c.at(node))
		}
		if r := p.remove.all[history.Target{Task: of, Node: t.Node}]; r != nil {
			p.remove.mark(r)
		}
		p.wakeDisturbed(history.Target{Task: of, Node: t.Node}, node)
	}
}

// makesWay reports whether instances of a task make way for those of another one.
func (p *Planner) makesWay(by, of string) bool { return slices.Contains(p.presence.Makes[by], of) }

// aside reports whether what is to go has to make way for something in any case: it waits for nobody who reads it then.
func (p *Planner) aside(r *removal) bool {
	_, way := p.wayFor(r.Target.Task, p.nodeOf(r.Target))
	return way
}

// comingOut finds something that an instance depends on and that is not in place for long: it is about to make way, or reads
// what is. Whoever is in place stays so, and nobody starts with it.
func (p *Planner) comingOut(c *column, node int, order bool) (history.Target, bool) {
	if len(p.presence.Makes) == 0 {
		return history.Target{}, false
	}
	for _, e := range c.waits {
		switch k := e.to.at(e.to.nodeFor(node)); {
		case e.host || e.order && !order:
		case e.all && e.to.agg.stirs > 0:
			return history.Target{Task: e.to.task.Name}, true
		case !e.all && k >= 0 && e.to.cells[k].stirs:
			return p.target(e.to.task.Name, e.to.targets[k]), true
		}
	}
	return history.Target{}, false
}

// stirred reports whether an instance that is in place is about to wait for what it reads.
func (p *Planner) stirred(c *column, node int, cell *Cell) bool {
	if cell.view.standing != settled || c.task.Step.Once || c.task.Asked != "" {
		return false
	}
	_, about := p.comingOut(c, node, false)
	return about
}

// nodeFor is the node index of the instance that one for a node depends on.
func (c *column) nodeFor(node int) int {
	if len(c.task.Each) == 0 {
		return -1
	}
	return node
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
