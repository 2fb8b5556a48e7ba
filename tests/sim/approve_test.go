package sim_test

import (
	"errors"
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/outlook"
)

// approved checks that nothing begins without the approvals that it needs: its own, of this step with these inputs, and those
// that it waits for, which are not over.
func (l *ledger) approved(task *model.Task, e history.Started) error {
	if a, ok := l.given[e.Target]; task.Step.Apply.Approve != nil && (!ok || a.Step != e.Step || a.Input != e.Input) {
		return fmt.Errorf("approval: %s is taken for approved, and nobody did", e.Target)
	}
	for _, edge := range task.Edges() {
		if up := l.model().Task(edge.Task); up == nil || up.Step.Apply.Valid == 0 {
			continue
		}
		for _, t := range l.reach(l.model(), edge, e.Node) {
			if r := l.rows[t]; r != nil && r.until != nil && !r.until.After(l.now) && !r.expired && l.without[t.Node] == nil {
				return fmt.Errorf("approval: %s started, and the approval %s was over at %s", e.Target, t, r.until)
			}
		}
	}
	return nil
}

// approve gives some of the approvals that are asked for, all with a chance of 1. It reports whether any was given.
func (l *lab) approve(chance float64) bool {
	did := false
	for _, a := range outlook.Approvals(l.machine.Plan()) {
		if l.rng.Float64() < chance && l.err == nil {
			l.advance(a.Given("sim", "drawn"))
			did = true
		}
	}
	return did
}

// asking is chaos with many approvals.
func asking(seed uint64, f fault) error {
	with := full
	with.approve = 0.4
	if l := chaosOf(with, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

func approvalProperties() []property {
	return []property{
		{law: "approval: nothing goes on without a person", does: `the core takes approvals for gates that are open`, seeds: 200, try: asking, faults: map[string]fault{
			"approval": {skew: func(m model.Model) *model.Model {
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					if s := *m.Tasks[i].Step; s.Apply.Approve != nil {
						s.Apply.When, s.Apply.Approve = s.Apply.Approve, nil
						open := argument("when", constant{truth})
						s.Apply.When = &open
						m.Tasks[i].Step = &s
					}
				}
				return &m
			}},
		}},
		{law: "approval: within its time", does: `approvals hold for ever`, seeds: 200, try: asking, faults: map[string]fault{
			"approval": {meddle: func(l *lab) {
				for _, t := range l.ledger.targets() {
					if row := l.machine.State().Row(t); row != nil && row.Approval != nil {
						row.Due = row.Due.AddDate(1, 0, 0)
					}
				}
			}},
		}},
	}
}
