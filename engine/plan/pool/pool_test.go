package pool_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"joist/engine/plan/pool"
)

// TestPool holds a pool that is kept up node by node against one that is filled anew, and its choice against what it is to be.
func TestPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nodes = 6
		looks := map[int]pool.Look{}
		draw := func(n int) {
			looks[n] = pool.Look{Able: rapid.Bool().Draw(t, "able"), Born: uint64(rapid.IntRange(0, 5).Draw(t, "born")), Plays: rapid.Bool().Draw(t, "plays")}
		}
		for n := range nodes {
			draw(n)
		}
		members := slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.IntRange(0, nodes-1), 0, nodes, rapid.ID[int]).Draw(t, "members")))
		look := func(n int) pool.Look { return looks[n] }
		var o pool.Pool
		o.Fill(members, nodes, look)
		for range rapid.IntRange(0, 8).Draw(t, "changes") {
			n := rapid.IntRange(-1, nodes).Draw(t, "node")
			if n >= 0 && n < nodes {
				draw(n)
			}
			before := [3]uint64{uint64(min(o.Count(), 1)), o.Oldest(), o.Staying()}
			changed, crossed := o.Examine(n, look)
			if !slices.Contains(members, n) && changed {
				t.Fatalf("node %d is no member and changed the pool", n)
			}
			if crossed != (before != [3]uint64{uint64(min(o.Count(), 1)), o.Oldest(), o.Staying()}) {
				t.Fatalf("crossed = %v, before %v, now %d %d %d", crossed, before, o.Count(), o.Oldest(), o.Staying())
			}
		}
		var anew pool.Pool
		anew.Fill(members, nodes, look)
		if anew.Count() != o.Count() || anew.Oldest() != o.Oldest() || anew.Staying() != o.Staying() {
			t.Fatalf("kept up: %d %d %d, anew: %d %d %d", o.Count(), o.Oldest(), o.Staying(), anew.Count(), anew.Oldest(), anew.Staying())
		}
		not := rapid.IntRange(0, nodes-1).Draw(t, "not")
		fits := func(n int) bool { return n != not }
		able := slices.ContainsFunc(members, func(n int) bool { return looks[n].Able && n != not })
		chosen := map[int]bool{}
		for attempt := 1; attempt <= len(members); attempt++ {
			n := o.Choose(rapid.IntRange(-1, nodes).Draw(t, "target"), attempt, fits)
			if (n >= 0) != able || n >= 0 && (!looks[n].Able || n == not || !slices.Contains(members, n)) {
				t.Fatalf("attempt %d: chose %d", attempt, n)
			}
			chosen[n] = true
		}
	})
}
