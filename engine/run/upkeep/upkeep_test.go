package upkeep

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"joist/engine/history"
)

// TestDue: verifies of one instance come exactly so often, whenever somebody looks; those of many are spread over the time.
func TestDue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(int64(10*time.Second), int64(48*time.Hour)).Draw(t, "every"))
		after := time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(t, "after"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos"))
		of := history.Target{Task: rapid.StringMatching("[a-z]{1,8}").Draw(t, "task"), Node: rapid.StringMatching("n[0-9]{1,4}").Draw(t, "node")}
		at := Due(of, every, after)
		if !at.After(after) || at.After(after.Add(every)) {
			t.Fatalf("due %v after %v, every %v", at.Sub(after), after, every)
		}
		if again := Due(of, every, at); !again.Equal(at.Add(every)) {
			t.Fatalf("due %v, then %v after that", at, again.Sub(at))
		}
		if between := Due(of, every, at.Add(-1)); !between.Equal(at) {
			t.Fatalf("due %v, and just before that %v", at, between)
		}
	})
	var tenths [10]int
	for i := range 10_000 {
		tenths[int(10*offset(history.Target{Task: "member", Node: fmt.Sprintf("n%d", i)}, time.Hour)/time.Hour)]++
	}
	for i, n := range tenths {
		if n < 800 || n > 1200 {
			t.Errorf("%d of 10,000 instances are verified in tenth %d of the hour", n, i)
		}
	}
}
