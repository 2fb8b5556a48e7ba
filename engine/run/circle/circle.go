// Package circle finds what waits for itself at run time: what has to come out of the way of something, and whose remove nobody can
// execute before that has run. model.Circles refuses packs in which that is sure to happen; which nodes play which roles, and what an
// earlier goal left behind, is known only here.
package circle

import (
	"fmt"

	"joist/engine/history"
	"joist/engine/plan"
)

// Says gives the circle that a removal which nobody can execute is part of, as a phrase; empty if there is none.
func Says(p *plan.Planner, t history.Target) string {
	r := p.Removal(t)
	if r == nil || r.Wait.Kind != history.Executor || r.Task == nil {
		return ""
	}
	for _, need := range needs(p, r) {
		if w := (walk{p, t, map[history.Target]bool{}}); w.leads(need) {
			return fmt.Sprintf("%s can never come out: who executes its remove needs %s, and that waits until it is out; change the packs so that it does not", p.Called(t), p.Called(need))
		}
	}
	return ""
}

// First is Says for the first removal that has something to say.
func First(p *plan.Planner) string {
	for _, r := range p.Removals() {
		if says := Says(p, r.Target); says != "" {
			return says
		}
	}
	return ""
}

// needs lists what has to be in place on nodes that could execute a removal.
func needs(p *plan.Planner, r *plan.Removal) []history.Target {
	var list []history.Target
	for _, e := range r.Task.Edges() {
		if !e.Host {
			continue
		}
		for _, node := range p.Role(r.Task.On) {
			list = append(list, history.Target{Task: e.Task, Node: node})
		}
	}
	return list
}

type walk struct {
	p    *plan.Planner
	to   history.Target
	seen map[history.Target]bool
}

// leads reports whether what an instance waits for is in the end the one that is looked for.
func (w walk) leads(t history.Target) bool {
	if t == w.to {
		return true
	}
	if t.Task == "" || w.seen[t] {
		return false
	}
	w.seen[t] = true
	if r := w.p.Removal(t); r != nil {
		if r.Wait.Kind != history.Executor || r.Task == nil {
			return w.leads(r.Wait.Of)
		}
		for _, need := range needs(w.p, r) {
			if w.leads(need) {
				return true
			}
		}
		return false
	}
	if cell := w.p.Cell(t); cell != nil {
		return cell.Open() && w.leads(cell.Wait.Of)
	}
	for _, node := range w.p.Targets(t.Task) { // all instances of a task together
		if node != "" && w.leads(history.Target{Task: t.Task, Node: node}) {
			return true
		}
	}
	return false
}
