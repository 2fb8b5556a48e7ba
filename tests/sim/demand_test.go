package sim_test

import (
	"slices"

	"joist/engine/model"
	"joist/engine/step"
)

// onDemand adds a task that may run on demand, together with all others that do. Nothing else refers to those.
func (g *generator) onDemand(before []draft) []draft {
	asked := g.chance(g.shape.demand)
	near := before
	if !asked {
		near = slices.DeleteFunc(slices.Clone(before), func(d draft) bool { return d.asked != "" })
	}
	d := g.draft(near)
	if asked {
		d.asked, d.except = "check", nil
	}
	return append(before, d)
}

// asked reports whether an instance that runs on demand is wanted: a person has asked for it and it has not been done since, or what it
// did stands as it was.
func (l *ledger) asked(task *model.Task, t target) bool {
	r := l.rows[t]
	return l.asks[t] || r != nil && (r.flight != nil && r.flight.Action == step.Apply || r.there && !r.dirty && l.lives(task, t) && !l.another(task, t))
}

// another reports whether what stands was made by another step than the task calls now.
func (l *ledger) another(task *model.Task, t target) bool {
	r := l.rows[t]
	was := l.models[l.goals[r.goal].Model]
	return was != nil && was.Task(t.Task) != nil && !task.Step.Is(was.Task(t.Task).Step.Name)
}

// demanding is chaos in which much runs on demand.
func demanding(seed uint64, f fault) error {
	sh := full
	sh.demand = 0.5
	return replayedChaos(sh, seed, f)
}

// demandProperties are what holds of what runs on demand, and mistakes that it has to find.
func demandProperties() []property {
	meddle := func(forced bool) fault {
		return fault{meddle: func(l *lab) {
			for _, t := range l.ledger.targets() {
				task, row := l.ledger.model().Task(t.Task), l.machine.State().Row(t)
				if task != nil && task.Asked != "" && row != nil && row.Forced != forced {
					row.Forced = forced
					l.machine.Plan().Touch(t)
				}
			}
		}}
	}
	return []property{
		{law: "demand: it runs when somebody asks", does: "the core takes everything on demand for asked for", seeds: 100, try: demanding, faults: map[string]fault{"law 5": meddle(true)}},
		{law: "demand: what was asked for is done", does: "the core forgets in memory what was asked for", seeds: 100, try: demanding, faults: map[string]fault{"rest": meddle(false)}},
	}
}
