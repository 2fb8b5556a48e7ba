package sim_test

import (
	"slices"

	"joist/engine/history"
	"joist/engine/outlook"
	"joist/engine/step"
)

// skip is a person's word that an instance is done without, or that its removal is taken for done.
type skip struct{ removal bool }

// skipped reports whether the goal is pursued without an instance. What is there and another thing is removed first; what is in
// flight ends first; and a node that has not come up is waited for.
func (l *ledger) skipped(t target) bool {
	r := l.rows[t]
	if r == nil || r.skip == nil || r.skip.removal || r.flight != nil || l.guards(t) || !l.wanted(t) || t.Node != "" && !l.node(t.Node).alive() && !l.scouts(t) {
		return false
	}
	task := l.model().Task(t.Task)
	return task != nil && (!r.there || !l.replaced(t))
}

// skip says now and then that something is done without which is not in place, or that a removal is done which fails.
func (l *lab) skip() {
	if l.word == nil || l.err != nil || l.word.Float64() >= l.gen.shape.skips {
		return
	}
	var list []target
	for _, r := range l.machine.Plan().Removals() {
		if r.Failed {
			list = append(list, r.Target)
		}
	}
	if len(list) == 0 || l.word.IntN(2) == 0 {
		for _, it := range outlook.Items(l.machine.Plan()) {
			if cell := l.machine.Plan().Cell(it.Target); cell != nil && cell.Open() && l.machine.Plan().Removal(it.Target) == nil && !l.ledger.guards(it.Target) {
				list = append(list, it.Target)
			}
		}
	}
	list = slices.DeleteFunc(list, func(t target) bool {
		row := l.machine.State().Row(t)
		return row != nil && row.Flight != nil
	})
	if len(list) > 0 {
		l.advance(history.Skipped{Target: list[l.word.IntN(len(list))], By: "sim", Reason: "drawn"})
	}
}

// skipping is chaos in which a person skips much of what does not come to be in place.
func skipping(seed uint64, f fault) error {
	sh := full
	sh.skips = 0.8
	return replayedChaos(sh, seed, f)
}

// skipProperties are what holds of what a person skips, and mistakes that it has to find.
func skipProperties() []property {
	return []property{
		{law: "skip: nothing starts there", does: "the core forgets in memory what a person skipped", seeds: 100, try: skipping, faults: map[string]fault{"skip": {meddle: func(l *lab) {
			for _, t := range l.ledger.targets() {
				if row := l.machine.State().Row(t); row != nil && row.Skipped != nil {
					row.Skipped = nil
					l.machine.Plan().Touch(t)
				}
			}
		}}}},
		{law: "skip: removals on a person's word", does: "a removal that failed is taken for done", seeds: 100, try: skipping, faults: map[string]fault{"skip": {meddle: func(l *lab) {
			for _, t := range l.ledger.targets() {
				if row := l.machine.State().Row(t); row != nil && row.Failure != nil && row.Failure.Final && row.Failure.Action == step.Remove {
					row.Skipped = &history.Skip{By: "nobody", Removal: true}
					l.machine.Plan().Touch(t)
				}
			}
		}}}},
	}
}
