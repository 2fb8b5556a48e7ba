package history

import (
	"testing"
	"time"

	"joist/engine/value"
)

// TestWipeBeforeFirstSeen: what is to be wiped of a node that was never seen is the incarnation that it comes up with; a proof of
// another one ends nothing.
func TestWipeBeforeFirstSeen(t *testing.T) {
	s, seq := New(), uint64(0)
	fold := func(e Event) {
		seq++
		s.Fold(seq, time.Unix(int64(seq), 0), e)
	}
	fold(NodeSeen{Node: "n1"})
	fold(Goal{Model: value.Sum([]byte("m")), Roles: map[string][]string{"m": {"n1"}}})
	fold(WipeOrdered{By: "me"})
	if got, ok := s.Wiping["n1"]; !ok || got != "" {
		t.Fatalf("%v", s.Wiping)
	}
	fold(NodeSeen{Node: "n1", Incarnation: "first", Boot: "b", Online: true})
	fold(NodeEnded{Node: "n1", Why: "wiped"})
	if s.Wiping["n1"] != "first" {
		t.Fatalf("what is to be wiped is %v", s.Wiping)
	}
	fold(NodeSeen{Node: "n1", Incarnation: "second", Boot: "c", Online: true})
	if s.Wiping["n1"] != "first" {
		t.Fatalf("what is to be wiped is %v", s.Wiping)
	}
	fold(NodeEnded{Node: "n1", Incarnation: "first", Why: "wiped"})
	if s.Wiping != nil {
		t.Fatalf("still to be wiped: %v", s.Wiping)
	}
}
