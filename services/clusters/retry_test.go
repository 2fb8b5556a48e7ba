package clusters

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"joist/engine/history"
)

// TestRetryAlone: a retry, or a breaker closed by hand, never brings back a goal that another one took the place of meanwhile.
func TestRetryAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.Close() }()
		var unknown *UnknownError
		if err := w.Retry(t.Context(), "demo", "eve", ""); !errors.As(err, &unknown) {
			t.Errorf("a retry of no cluster: %v", err)
		}
		for round := range 200 {
			w.apply("demo: n1")
			var work sync.WaitGroup
			for range 4 {
				work.Go(func() {
					for range 5 {
						if err := w.Retry(t.Context(), "demo", "eve", "again", history.BreakerClosed{Rollout: "r", By: "eve"}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			work.Go(func() {
				if err := w.Destroy(t.Context(), "demo", "ada"); err != nil {
					t.Error(err)
				}
			})
			work.Wait()
			if _, g := w.rests("demo"); !g.Destroy {
				t.Fatalf("round %d: its destruction was accepted, and undone by %s", round, g.By)
			}
			synctest.Wait()
		}
	})
}
