package sim_test

import (
	"errors"
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// served gives what an instance is in place for.
func (l *ledger) served(t target) (list []target) {
	if task := l.model().Task(t.Task); task != nil {
		for _, name := range task.During {
			list = append(list, target{Task: name, Node: t.Node})
		}
	}
	return list
}

// add drafts a task, and sometimes one that is in place only while it runs.
func (g *generator) add(before []draft) []draft {
	if g.shape.demand > 0 {
		return g.onDemand(before)
	}
	if g.shape.during == 0 {
		return append(before, g.draft(before))
	}
	plain := slices.DeleteFunc(slices.Clone(before), func(d draft) bool { return len(d.during) > 0 }) // nothing else refers to a guard
	d := g.draft(plain)
	if d.pure() || d.scout || !g.chance(g.shape.during) {
		return append(before, d)
	}
	all := slices.Clone(before)
	at := slices.IndexFunc(all, func(up draft) bool { return len(up.during) > 0 && slices.Equal(up.each, d.each) })
	if at < 0 || g.chance(0.5) {
		at = len(all)
		all = append(all, g.guard(&d, plain))
	}
	all[at].during = append(slices.Clone(all[at].during), d.name)
	d.guards = append(d.guards, all[at].name)
	if g.chance(0.6) {
		d.held = append(d.held, model.Ref{Kind: model.RefDuring, Name: all[at].name, Attr: "out"})
	}
	return append(all, d)
}

// guard drafts what is in place only while d runs.
func (g *generator) guard(d *draft, before []draft) draft {
	g.serial++
	kinds := []string{"service", "service", "script"}
	if len(d.each) > 0 {
		kinds = append(kinds, "node")
	}
	guard := draft{name: fmt.Sprintf("t%d", g.serial), kind: pick(g.rng, kinds), each: d.each, attempts: 1 + g.rng.IntN(2)}
	guard.stepName = "p." + guard.name
	if guard.kind == "script" {
		guard.on = pick(g.rng, g.shape.roles)
	}
	for range g.rng.IntN(2) {
		guard.args = append(guard.args, g.expr(&guard, before))
	}
	if g.shape.when && g.chance(0.1) {
		guard.when = is{of: model.Ref{Kind: model.RefInput, Name: "y"}, want: "1"}
	}
	return guard
}

// guardRollout makes what is in place for tasks of a rollout part of it.
func (s *sketch) guardRollout(names []string) []string {
	for i := range s.tasks {
		d := &s.tasks[i]
		if slices.ContainsFunc(d.during, func(name string) bool { return slices.Contains(names, name) }) {
			names = append(names, d.name)
		}
	}
	return names
}

// release forgets tasks that are gone, and gives the guards that nothing is left for.
func (s *sketch) release() (idle []string) {
	for i := range s.tasks {
		d := &s.tasks[i]
		if len(d.during) == 0 {
			continue
		}
		d.during = slices.DeleteFunc(slices.Clone(d.during), func(name string) bool {
			return !slices.ContainsFunc(s.tasks, func(o draft) bool { return o.name == name })
		})
		if len(d.during) == 0 {
			idle = append(idle, d.name)
		}
	}
	return idle
}

// guards reports whether an instance is in place only while others run, as it was started last.
func (l *ledger) guards(t target) bool {
	if task := l.model().Task(t.Task); task != nil {
		return len(task.During) > 0
	}
	r := l.rows[t]
	if r == nil || !r.there {
		return false
	}
	m := l.models[l.goals[r.goal].Model]
	return m != nil && m.Task(t.Task) != nil && len(m.Task(t.Task).During) > 0
}

// standing is presence by `during`: what is in place only while others run is there when one of them starts, was applied for
// that start, and goes once they have ended. It is there for nothing else.
func (l *ledger) standing(e history.Started) error {
	if e.Action == step.Remove {
		for y, r := range l.rows {
			if f := r.flight; f != nil && f.Action == step.Apply && y.Node == e.Node {
				if m := l.models[l.goals[r.goal].Model]; m != nil && m.Task(y.Task) != nil && slices.Contains(m.Task(y.Task).Guards, e.Task) {
					return fmt.Errorf("during: remove of %s started while %s ran", e.Target, y)
				}
			}
		}
		return nil
	}
	task := l.model().Task(e.Task)
	for _, name := range task.Guards {
		t := target{Task: name, Node: e.Node}
		if exists, known := l.exists(t); known && !exists {
			continue
		}
		r := l.rows[t]
		if r == nil || !r.there || r.dirty || r.flight != nil {
			return fmt.Errorf("during: %s started while %s was not in place", e.Target, t)
		}
		if !l.current(t) {
			return fmt.Errorf("during: %s started while %s was not as it is wanted", e.Target, t)
		}
		if r.id < l.ended[e.Target] {
			return fmt.Errorf("during (fresh): %s started with %s of event %d, and ended at %d before", e.Target, t, r.id, l.ended[e.Target])
		}
	}
	if len(task.During) > 0 && !slices.ContainsFunc(l.served(e.Target), l.about) {
		return fmt.Errorf("during: %s started although nothing is about to start that it is in place for", e.Target)
	}
	return nil
}

// about reports whether nothing that the ledger knows of keeps an instance from starting but what has to come in first.
func (l *ledger) about(t target) bool {
	task := l.model().Task(t.Task)
	exists, known := l.exists(t)
	if task == nil || !known || !exists || l.current(t) || l.replaced(t) || l.skipped(t) || l.without[t.Node] != nil {
		return false
	}
	if r := l.rows[t]; r != nil && r.flight != nil {
		return false
	}
	_, complete := l.inputs(task, t.Node)
	return complete && l.waitsFor(task, t, true) == "" && !slices.ContainsFunc(l.disturbs(t), func(y target) bool { return l.rows[y].there })
}

// leftover names something that is in place at rest only for what runs, unless its apply or its remove failed for good, or what
// is to start with it waits only for a boot, or for a place in a rollout that came after it. What stands on nodes may be out of
// reach.
func (l *ledger) leftover() string {
	for _, t := range l.targets() {
		r := l.rows[t]
		if !r.there || r.hopeless || !l.guards(t) || slices.ContainsFunc(l.served(t), l.about) {
			continue
		}
		if m := l.models[l.goals[r.goal].Model]; m.Task(t.Task).Step.Scope == model.Service {
			return t.String()
		}
	}
	return ""
}

// standby is chaos with many tasks that are in place only while others run.
func standby(seed uint64, f fault) error {
	with := full
	with.during, with.except, with.budgets = 0.6, 0.2, seed%2 == 0
	if l := chaosOf(with, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

func duringProperties() []property {
	return []property{
		{law: "presence: in place only while it is needed", does: `nothing waits for what is in place while it runs`, seeds: 200, try: standby, faults: map[string]fault{
			"during": {skew: func(m model.Model) *model.Model {
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					m.Tasks[i].Guards = nil
				}
				return &m
			}},
		}},
		{law: "presence: one for each attempt", does: `what is in place serves a second attempt`, seeds: 50, try: standby, faults: map[string]fault{
			"during (fresh)": {meddle: func(l *lab) { // whatever stands counts as applied just now
				for _, t := range l.ledger.targets() {
					if row := l.machine.State().Row(t); row != nil && row.Flight == nil && row.Phase == history.InPlace && l.ledger.guards(t) {
						row.Started = l.machine.State().Seq
						l.machine.Plan().Touch(t)
					}
				}
			}},
		}},
	}
}
