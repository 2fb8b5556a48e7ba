package clusters

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"joist/engine/history"
	"joist/engine/plan"
)

// TestSettle: nodes that have not come back in time are silent from then on, and one that comes back in that very moment is
// not taken for silent for ever: whoever tells of a node asks and tells in one.
func TestSettle(t *testing.T) {
	for _, name := range []string{"stays away", "comes back in the meantime"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.apply("a: n1")
				w.asked = func() bool { return true }
				if name != "stays away" {
					w.asked = comesBack(t, w)
				}
				w.Settle(t.Context())
				synctest.Wait()
				loop, err := w.Get("a")
				if err != nil {
					t.Fatal(err)
				}
				var online bool
				if err := loop.Look(t.Context(), func(s *history.State, _ *plan.Planner) { online = s.Node("n1").Online }); err != nil {
					t.Fatal(err)
				}
				if online != (name != "stays away") {
					t.Errorf("n1 is online: %t", online)
				}
				w.Close()
			})
		})
	}
}

// comesBack has a node found silent by the first who asks, while it comes back before that one can say so.
func comesBack(t *testing.T, w *world) (silent func() bool) {
	var asked, told atomic.Bool
	return func() bool {
		if asked.Swap(true) {
			return false
		}
		go func() {
			if err := w.Tell(t.Context(), "a", "n1"); err != nil {
				t.Error(err)
			}
			told.Store(true)
		}()
		for range 100_000 { // a clock would stand still while somebody waits for a lock
			if told.Load() {
				break
			}
			runtime.Gosched()
		}
		return true
	}
}
