package reserve

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"joist/engine/addr"
	"joist/engine/entries"
	"joist/engine/step"
)

func call(t testing.TB, s *Service, c step.Call, inputs string) (string, error) {
	t.Helper()
	c.Cluster, c.Epoch, c.Inputs = "demo", 1, json.RawMessage(inputs)
	r, err := s.Handlers()[c.Name].Call(t.Context(), c)
	return string(r.Outputs), err
}

func TestNetworksAreLowestFreeAndStay(t *testing.T) {
	store := &entries.Memory{}
	s := New(store)
	const in = `{"within":"10.200.0.0/22","prefix":24}`
	for i, owner := range []string{"demo/pods[a]", "demo/pods[b]", "demo/pods[c]", "demo/pods[d]"} {
		want := `{"network":"10.200.` + string(rune('0'+i)) + `.0/24"}`
		for range 2 { // the second time it is the same one
			if got, err := call(t, s, step.Call{Action: step.Apply, Name: callNetwork, Owner: owner}, in); err != nil || got != want {
				t.Fatalf("%s: %s, %v; want %s", owner, got, err, want)
			}
		}
	}
	if _, err := call(t, s, step.Call{Action: step.Apply, Name: callNetwork, Owner: "demo/pods[e]"}, in); err == nil || !strings.Contains(err.Error(), "all are taken") {
		t.Errorf("a fifth part of four: %v", err)
	}
	before, _, err := store.List(t.Context(), entries.Scope{Service: Table})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, s, step.Call{Action: step.Remove, Name: callNetwork, Owner: "demo/pods[b]"}, in); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, s, step.Call{Action: step.Verify, Name: callNetwork, Owner: "demo/pods[b]"}, in); err == nil {
		t.Error("what was given back is still held")
	}
	if got, err := call(t, s, step.Call{Action: step.Apply, Name: callNetwork, Owner: "demo/pods[b]"}, in); err != nil || got != `{"network":"10.200.1.0/24"}` {
		t.Errorf("%s, %v", got, err)
	}
	after, _, err := store.List(t.Context(), entries.Scope{Service: Table})
	if err != nil || entries.Digest(before) != entries.Digest(after) {
		t.Errorf("taking a node away and adding it again changed the table: %v", err)
	}
}

func TestNetworkRefuses(t *testing.T) {
	s := New(&entries.Memory{})
	for in, want := range map[string]string{
		`{"within":"10.200.0.1/16","prefix":24}`: "want a network",
		`{"within":"pods","prefix":24}`:          "want a network",
		`{"within":"10.200.0.0/16","prefix":8}`:  "prefix length 8: want 16 to 32",
		`{"within":"10.0.0.0/8","prefix":30}`:    "want 8 to 24",
		`{"within":"10.0.0.0/8","more":1}`:       "do not fit",
	} {
		if _, err := call(t, s, step.Call{Action: step.Apply, Name: callNetwork, Owner: "demo/pods[a]"}, in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
	}
}

// No two owners ever have overlapping networks, whatever sizes they ask for.
func TestNetworksNeverOverlap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, held := New(&entries.Memory{}), map[string]netip.Prefix{}
		for range rapid.IntRange(1, 40).Draw(rt, "calls") {
			owner := "demo/pods[" + rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(rt, "owner") + "]"
			if rapid.Bool().Draw(rt, "remove") {
				if _, err := call(t, s, step.Call{Action: step.Remove, Name: callNetwork, Owner: owner}, `{}`); err != nil {
					rt.Fatal(err)
				}
				delete(held, owner)
				continue
			}
			bits := rapid.SampledFrom([]string{"26", "27", "28"}).Draw(rt, "bits")
			text, err := call(t, s, step.Call{Action: step.Apply, Name: callNetwork, Owner: owner}, `{"within":"10.1.0.0/25","prefix":`+bits+`}`)
			if err != nil {
				continue // full
			}
			var out networkOutputs
			if err := json.Unmarshal([]byte(text), &out); err != nil {
				rt.Fatal(err)
			}
			p := netip.MustParsePrefix(out.Network)
			for other, q := range held {
				if other != owner && p.Overlaps(q) {
					rt.Fatalf("%s has %s, and %s has %s", owner, p, other, q)
				}
			}
			held[owner] = p
		}
	})
}

func TestNames(t *testing.T) {
	store := &entries.Memory{}
	s := New(store)
	if _, err := call(t, s, step.Call{Action: step.Apply, Name: callNames, Owner: "demo/inner"}, `{"names":["kubernetes","kubernetes.default.svc","10.32.0.1","kubernetes"]}`); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, s, step.Call{Action: step.Apply, Name: callNames, Owner: "demo/own[n1]"}, `{"names":["127.0.0.1"]}`); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, s, step.Call{Action: step.Apply, Name: callNames, Owner: "demo/other"}, `{"names":["kubernetes"]}`); err == nil || !strings.Contains(err.Error(), "belongs to demo/inner") {
		t.Errorf("a name of two: %v", err)
	}
	if _, err := call(t, s, step.Call{Action: step.Apply, Name: callNames, Owner: "demo/other"}, `{"names":["*.lab"]}`); err == nil {
		t.Error("a wildcard was reserved")
	}
	names, err := Names(t.Context(), store, "demo", func(owner string) (string, error) {
		a, err := addr.Parse(owner)
		return a.Node, err
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for name, node := range names {
		got = append(got, name+"@"+node)
	}
	slices.Sort(got)
	if text := strings.Join(got, " "); text != "10.32.0.1@ 127.0.0.1@n1 kubernetes.default.svc@ kubernetes@" {
		t.Errorf("reserved %s", text)
	}
}
