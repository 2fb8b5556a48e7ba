package run

import (
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// TestLater: an attempt that came to no end yet uses up none of the step's attempts, opens no breaker, and is repeated when
// the step asked for it, or less and less often.
func TestLater(t *testing.T) {
	w := newWorld(t)
	m := mod("a each=m attempts")
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a"}, Roles: []string{"m"}}}
	says := "retry after 90s: no quorum"
	w.answer = func(string) (string, string) { return "", says }
	w.goal(m, "n1")
	w.up("a", "n1")
	cell := func() string { return w.m.Plan().Cell(history.Target{Task: "a", Node: "n1"}).Wait.Because() }
	if got := cell(); got != "it asked to be tried again later (no quorum)" {
		t.Errorf("it waits: %s", got)
	}
	w.outcome("")
	w.now = w.now.Add(89 * time.Second)
	w.do()
	w.expect("a[n1]")
	w.now = w.now.Add(time.Second)
	w.do()
	w.expect("a[n1]")
	says = "waiting for the disk in bay 3"
	for _, after := range []time.Duration{90 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
		w.now = w.now.Add(after - time.Second)
		w.do()
		w.expect()
		w.now = w.now.Add(time.Second)
		w.do()
		w.expect("a[n1]")
	}
	if got := cell(); got != "it asked to be tried again later (waiting for the disk in bay 3)" {
		t.Errorf("it waits: %s", got)
	}
	if f := w.m.State().Budgets["r"].Failures; f != 0 {
		t.Errorf("%d failures", f)
	}
	says = "broken" // and its own attempts are all left
	for range 4 {
		w.now = w.now.Add(time.Hour)
		w.do()
	}
	w.expect("a[n1]", "a[n1]", "a[n1]")
	w.outcome("stopped")
	if f := w.m.State().Budgets["r"].Failures; f != 1 {
		t.Errorf("%d failures", f)
	}
}

// TestSkipRemoval: a removal that failed for good is taken for done on a person's word.
func TestSkipRemoval(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("a each=m", "b each=m: task.a"), "n1")
	w.up("a", "n1")
	w.expect("a[n1]", "b[n1]")
	w.answer = func(what string) (string, string) {
		if what == "remove b[n1]" {
			return "", "stuck"
		}
		return "", ""
	}
	w.goal(mod("a each=m"), "n1")
	w.expect("remove b[n1]")
	w.outcome("stopped")
	w.do(history.Skipped{Target: history.Target{Task: "b", Node: "n1"}, By: "ada", Reason: "gone with the shelf"})
	w.expect("discharge b[n1]")
	w.outcome("converged")
}

// TestSkip: what is ordered after a skipped instance goes on, what reads its outputs does not, until the goal changes.
func TestSkip(t *testing.T) {
	w := newWorld(t)
	build := func() *model.Model {
		m := mod("a each=m", "b each=m: task.a", "c each=m: after=a", "d: all.a")
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a"}, Roles: []string{"m"}, Together: true}}
		return m
	}
	w.answer = func(what string) (string, string) {
		if what == "a[n1]" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(build(), "n1", "n2")
	w.up("a", "n1", "n2")
	w.outcome("stopped")
	w.expect("a[n1]") // the breaker is open
	w.do(history.Skipped{Target: history.Target{Task: "a", Node: "n1"}, By: "ada", Reason: "no spare"})
	w.do(history.BreakerClosed{Rollout: "r", By: "ada"})
	w.expect("c[n1]", "a[n2]", "b[n2]", "c[n2]", "d") // and is not in all.a
	w.outcome("stopped")
	b := w.m.Plan().Cell(history.Target{Task: "b", Node: "n1"})
	if got := b.Cause.Because(); got != "a[n1] was skipped, whose outputs it reads" {
		t.Errorf("b[n1] is %s: %s", b.Verdict, got)
	}
	if len(w.m.State().Budgets["r"].Places) != 0 {
		t.Errorf("a skipped node keeps its place: %v", w.m.State().Budgets["r"].Places)
	}
	w.answer = nil
	again := *w.m.State().Goal()
	again.Changed = false
	w.do(again)
	w.expect()
	w.do(history.Forced{Target: history.Target{Task: "a", Node: "n1"}, By: "ada"})
	w.expect("a[n1]", "b[n1]", "d")
	w.outcome("converged")
}

// TestLaterAndGoal: a goal that comes while an attempt is in flight forgets failures, and not that attempts before it came to no end.
func TestLaterAndGoal(t *testing.T) {
	s, of := history.New(), history.Target{Task: "a"}
	retry := time.Unix(2_000_000_001, 0)
	for i, e := range []history.Event{
		history.Goal{Changed: true},
		history.Started{Target: of, Action: step.Apply, Attempt: 1},
		history.Failed{Target: of, Action: step.Apply, Attempt: 1, Later: step.WaitingFor, Error: "a disk", Retry: &retry},
		history.Started{Target: of, Action: step.Apply, Attempt: 2},
		history.Goal{},
	} {
		s.Fold(uint64(i+1), time.Unix(2_000_000_000, 0), e)
	}
	if f := s.Row(of).Flight; f == nil || f.Waits != 1 {
		t.Errorf("in flight: %+v", f)
	}
}
