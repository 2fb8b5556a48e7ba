package packs_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/run"
	"joist/engine/run/upkeep"
	"joist/engine/step"
)

// TestKubernetesDrifts: what the scripts once for the cluster did is looked at. What a verify found is said, and applied again; what
// nothing can look at without doing it, or what people may change, is not.
func TestKubernetesDrifts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.Close()
		gone := map[history.Target]string{}
		b.perform = func(o drive.Order) (json.RawMessage, error) {
			b.mu.Lock()
			text := gone[o.Target]
			if o.Action == step.Apply {
				delete(gone, o.Target)
			}
			b.mu.Unlock()
			switch {
			case o.Action == step.Apply:
				return b.outputs(o.Step, o.Target, o.Clear), nil
			case o.Action == step.Verify && text != "":
				return nil, errors.New(text)
			}
			return nil, nil
		}
		b.up("c1", "c2", "c3", "w5", "w6")
		b.pursue(must(t, goal(3, 2), "", nil), goal(3, 2))

		observed := map[history.Target]string{
			{Task: "roles"}:                  "not as applied: rbac.authorization.k8s.io.v1.ClusterRoleBinding..joist:operators",
			{Task: "member", Node: "w5"}:     "node w5 is not in the cluster any more",
			{Task: "etcd.voter", Node: "c2"}: "https://c2.etcd.demo.lab:2379 is no member any more",
		}
		states := map[history.Target]upkeep.LookState{
			{Task: "dns"}: upkeep.LookInPlace, {Task: "member", Node: "w6"}: upkeep.LookInPlace, {Task: "etcd.voter", Node: "c1"}: upkeep.LookInPlace,
			{Task: "etcd.seat", Node: "c1"}: upkeep.LookLeftOut, {Task: "in_service", Node: "w5"}: upkeep.LookLeftOut,
		}
		b.mu.Lock()
		b.ran = nil
		for target, text := range observed {
			gone[target], states[target] = "it ended with exit code 1\n"+text, upkeep.LookDrifted
		}
		b.mu.Unlock()
		number, err := b.Verify(t.Context(), "test", slices.Collect(maps.Keys(states)))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // what was found is applied again meanwhile
		var inquiry upkeep.Inquiry
		if err := b.Inspect(t.Context(), func(m *run.Machine) { inquiry, err = m.Inquiry(number, 0, 100) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || len(inquiry.Ended) != len(states) {
			t.Errorf("%v, %+v", err, inquiry)
		}
		for _, l := range inquiry.Ended {
			want := observed[l.Target]
			if states[l.Target] == upkeep.LookLeftOut {
				want = "its step has no verify"
			}
			if l.State != states[l.Target] || !strings.HasSuffix(l.Observed, want) {
				t.Errorf("%s is %s: %s", l.Target, l.State, l.Observed)
			}
		}
		ran := b.rest()
		for target := range states {
			again := slices.Contains(ran, did{step.Apply, target})
			if drifted := observed[target] != ""; again != drifted {
				t.Errorf("%s drifted: %v, was applied again: %v", target, drifted, again)
			}
		}
		for target := range observed {
			order(t, ran, "verify "+target.String(), "apply "+target.String())
		}
	})
}
