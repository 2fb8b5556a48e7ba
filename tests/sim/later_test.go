package sim_test

import (
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/step"
)

// tries is what an instance has tried in a row, since it last succeeded.
type tries struct {
	failed map[step.Action]int // attempts that failed; those that came to no end yet are none
	until  time.Time           // asked to be tried again no earlier; zero if it was not, or by something else
	input  string              // that the last attempt had, with its step
	action step.Action
}

// mayFail is that an attempt which came to no end yet is no failure and is repeated, and that what fails for good had all the
// attempts of its step.
func (l *ledger) mayFail(e history.Failed) error {
	r := l.row(e.Target)
	r.tries.until = time.Time{}
	if e.Excused || r.flight == nil {
		return nil
	}
	if e.Later != "" {
		if e.Final || e.Retry == nil || e.Retry.Sub(l.now) < step.LeastAfter || e.Retry.Sub(l.now) > step.MostAfter {
			return fmt.Errorf("later: %s of %s came to no end yet, and is repeated at %v (final=%v)", e.Action, e.Target, e.Retry, e.Final)
		}
		r.tries.until, r.tries.input, r.tries.action = *e.Retry, identity(*r.flight), e.Action
		return nil
	}
	if r.tries.failed == nil {
		r.tries.failed = map[step.Action]int{}
	}
	r.tries.failed[e.Action]++
	m := l.models[l.goals[r.goal].Model]
	if !e.Final || m == nil || m.Task(e.Task) == nil {
		return nil
	}
	of := &m.Task(e.Task).Step.Apply
	if s := m.Task(e.Task).Step; e.Action == step.Remove && s.Remove != nil {
		of = s.Remove
	}
	if r.tries.failed[e.Action] < of.Attempts {
		return fmt.Errorf("later: %s of %s failed for good at its failure number %d of %d", e.Action, e.Target, r.tries.failed[e.Action], of.Attempts)
	}
	return nil
}

func identity(e history.Started) string { return e.Step.String() + string(e.Inputs) }

// tooSoon is that what asked to be tried again at a time is not tried earlier, unless it is another thing by now.
func (l *ledger) tooSoon(e history.Started) error {
	if r := l.row(e.Target); e.Action == r.tries.action && l.now.Before(r.tries.until) && (e.Action == step.Remove || r.tries.input == identity(e)) {
		return fmt.Errorf("later: %s of %s started %s before it asked to be tried again", e.Action, e.Target, r.tries.until.Sub(l.now))
	}
	return nil
}

// patient is chaos in which many actions come to no end at first.
func patient(seed uint64, f fault) error {
	sh := full
	sh.later = true
	return replayedChaos(sh, seed, f)
}

// laterProperties are what holds of attempts that come to no end yet, and mistakes that it has to find.
func laterProperties() []property {
	meddled := func(change func(*history.Failure)) fault {
		return fault{meddle: func(l *lab) {
			for _, t := range l.ledger.targets() {
				if row := l.machine.State().Row(t); row != nil && row.Failure != nil && row.Failure.Later != "" {
					change(row.Failure)
					l.machine.Plan().Touch(t)
				}
			}
		}}
	}
	return []property{
		{law: "later: no failure", does: "an attempt that came to no end yet uses up one of its step's", seeds: 100, try: patient, faults: map[string]fault{
			"later": meddled(func(f *history.Failure) { f.Waits = 0 }),
		}},
		{law: "later: not before its time", does: "the core forgets when something asked to be tried again", seeds: 100, try: patient, faults: map[string]fault{
			"later": meddled(func(f *history.Failure) { f.Retry = time.Time{} }),
		}},
	}
}
