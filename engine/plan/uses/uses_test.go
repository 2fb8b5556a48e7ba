package uses_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"joist/engine/history"
	"joist/engine/plan/uses"
	"joist/engine/value"
)

// TestTallies holds tallies that are kept up instance by instance against counts of all instances.
func TestTallies(t *testing.T) {
	models := []value.Digest{{}, value.Sum([]byte("a")), value.Sum([]byte("b"))}
	rapid.Check(t, func(t *rapid.T) {
		b, marks := uses.New(), map[history.Target]uses.Mark{}
		count := func(u uses.User) uses.Tally {
			var n uses.Tally
			for of, m := range marks {
				if one := m.As(u.Model); of.Task == u.Task && u.Model != (value.Digest{}) {
					n = uses.Tally{Leaving: n.Leaving + one.Leaving, Held: n.Held + one.Held, Unsettled: n.Unsettled + one.Unsettled}
				}
			}
			return n
		}
		zeros := func(n uses.Tally) string {
			return fmt.Sprint(n.Leaving == 0, n.Leaving == n.Held, n.Unsettled == 0)
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			of := history.Target{Task: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "task"), Node: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node")}
			var m uses.Mark
			if rapid.Bool().Draw(t, "counts") {
				leaving := rapid.Bool().Draw(t, "leaving")
				m = uses.Mark{Leaving: leaving, Unsettled: !leaving, Held: leaving && rapid.Bool().Draw(t, "held"),
					Started: rapid.SampledFrom(models[1:]).Draw(t, "started"), Stood: rapid.SampledFrom(models).Draw(t, "stood")}
			}
			before := map[uses.User]string{}
			for _, d := range models[1:] {
				before[uses.User{Model: d, Task: of.Task}] = zeros(count(uses.User{Model: d, Task: of.Task}))
			}
			was := marks[of]
			changed, crossed := b.Remark(of, m)
			if marks[of] = m; changed != (was != m) {
				t.Fatalf("changed = %v from %+v to %+v", changed, was, m)
			}
			for u, z := range before {
				n := count(u)
				if b.Tally(u) != n {
					t.Fatalf("tally of %s is %+v, want %+v", u.Task, b.Tally(u), n)
				}
				if z != zeros(n) && !crossed {
					t.Fatalf("%s went from %s to %s, and that was not said", u.Task, z, zeros(n))
				}
			}
		}
	})
}
