package history_test

import (
	"testing"

	"joist/engine/history"
	"joist/engine/journal"
)

// TestTold: every kind of event is either told to the engine or decided by it, and this list says which.
func TestTold(t *testing.T) {
	told := map[string]bool{
		"goal": true, "node.seen": true, "node.ended": true, "node.released": true, "wipe.ordered": true, "wipe.begun": false, "node.returned": true, "breaker.closed": true, "forced": true, "approved": true, "skipped": true, "drifted": true, "mended": true, "watched": true,
		"cancelled": true, "ticked": true, "succeeded": true, "rebooting": true,
		"node.aside": false, "started": false, "failed": false, "discharged": false, "place.returned": false, "settling": false, "watch.asked": false, "expired": false, "stirred": false, "resumed": false, "rested": false,
	}
	for _, kind := range history.Kinds() {
		e, err := history.Decode(journal.Record{Kind: kind, Version: 1, Data: []byte(`{"node":"n","task":"t"}`)})
		if err != nil {
			t.Fatal(err)
		}
		want, known := told[kind]
		if !known {
			t.Errorf("say of event %s here, and in Told, whether it is told to the engine or decided by it", kind)
		}
		if got := history.Told(e); got != want {
			t.Errorf("Told of %s is %v", kind, got)
		}
	}
	if !history.Told(history.NodeAside{By: "test"}) {
		t.Error("a person's word about a node is not told")
	}
	if history.Told(history.Succeeded{Silent: &history.Started{}}) {
		t.Error("a pure value's success is told")
	}
}
