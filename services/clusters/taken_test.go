package clusters

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/history"
)

// TestRunTaken: a run makes a cluster only where there is none, and takes away only what it made, whatever became of it meanwhile.
func TestRunTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.Close() }()
		one, two := Said{By: "ci", Run: "one", Life: time.Hour}, Said{By: "ci", Run: "two"}
		as := func(said Said) error {
			_, err := w.ApplyAs(t.Context(), Source{File: []byte("demo: n1")}, said)
			synctest.Wait()
			return err
		}
		taken := func(what string, err error) {
			t.Helper()
			var e *TakenError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), "there is a cluster demo already") {
				t.Errorf("%s: %v", what, err)
			}
		}
		w.apply("demo: n1")
		before := w.length()
		taken("a run took over a person's cluster", as(one))
		taken("a run destroyed a person's cluster", w.DestroyAs(t.Context(), "demo", one))
		if w.length() != before {
			t.Error("what was refused is in the journal")
		}
		if err := w.Destroy(t.Context(), "demo", "ada"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := as(one); err != nil {
			t.Fatalf("the cluster was destroyed, and a run could not make it anew: %v", err)
		}
		taken("two runs share a cluster", as(two))
		taken("a run destroyed another's cluster", w.DestroyAs(t.Context(), "demo", two))
		if err := w.Retry(t.Context(), "demo", "ada", ""); err != nil {
			t.Fatal(err)
		}
		if err := w.DestroyAs(t.Context(), "demo", one); err != nil {
			t.Errorf("after a retry it is not its run's any more: %v", err)
		}
		synctest.Wait()
		if got, g := w.rests("demo"); got != history.OutcomeDestroyed || g.Run != "one" {
			t.Errorf("it is %s, run %q", got, g.Run)
		}
		if err := as(two); err != nil {
			t.Fatal(err)
		}
		w.apply("demo: n1 n2")
		taken("a run destroyed what a person made of its cluster", w.DestroyAs(t.Context(), "demo", two))
	})
}
