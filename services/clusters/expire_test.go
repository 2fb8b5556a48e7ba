package clusters

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/history"
	"joist/engine/plan"
)

func (w *world) rests(name string) (outcome string, g history.Goal) {
	w.t.Helper()
	loop, err := w.Get(name)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := loop.Look(w.t.Context(), func(s *history.State, _ *plan.Planner) { outcome, g = s.Outcome, *s.Goal() }); err != nil {
		w.t.Fatal(err)
	}
	return outcome, g
}

// TestExpire: a cluster goes when its time is over, also after a restart, and what cannot be taken away at first is tried
// again; one without a time stays.
func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watch := func() func() {
			ctx, cancel := context.WithCancel(t.Context())
			go w.Expire(ctx)
			return cancel
		}
		stop := watch()
		w.apply("stays: n1")
		if _, err := w.ApplyFor(t.Context(), Source{File: []byte("goes: n2")}, "ci", 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		if got, _ := w.rests("goes"); got != history.OutcomeConverged {
			t.Errorf("before its time it is %s", got)
		}
		stop()
		w.Close()
		w.start()
		w.mu.Lock()
		w.fail = errors.New("not now")
		w.mu.Unlock()
		stop = watch()
		defer func() { stop(); w.Close() }()
		time.Sleep(time.Minute + 2*expireEvery)
		if got, g := w.rests("goes"); got != history.OutcomeStopped || !g.Destroy {
			t.Errorf("it could not be taken away, and is %q", got)
		}
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		time.Sleep(expireAgain + 2*expireEvery)
		if got, _ := w.rests("goes"); got != history.OutcomeDestroyed {
			t.Errorf("when it could be taken away it is %q", got)
		}
		if got := w.owners(); got != "map[n1:stays n2: n3:]" {
			t.Error(got)
		}
		last := w.Clusters.loops["goes"].Journal().Last()
		time.Sleep(time.Hour)
		if now := w.Clusters.loops["goes"].Journal().Last(); now != last {
			t.Error("a destroyed cluster is destroyed again and again")
		}
		if len(w.forgot) != 1 || w.forgot[0] != "goes" {
			t.Errorf("secrets were forgotten of %q", w.forgot)
		}
		if got, _ := w.rests("stays"); got != history.OutcomeConverged {
			t.Errorf("the other one is %q", got)
		}
	})
}
