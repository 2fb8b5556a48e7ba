package clusters

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"joist/engine/model"
	"joist/engine/value"
)

func roomyModel() *Compiled {
	return &Compiled{Model: &model.Model{Cluster: "demo", Roles: []model.Role{{Name: "control", Memory: 2 << 30}, {Name: "worker", Memory: 1 << 30}}}}
}

func TestRoomy(t *testing.T) {
	with := func(name, facts string) Candidate { return Candidate{Name: name, Facts: json.RawMessage(facts)} }
	machines := []Candidate{with("a", `{"memory":2147483648}`), with("b", `{"memory":1073741823}`), with("c", `{}`), with("d", ``), with("e", `{"memory":"much"}`)}
	for name, c := range map[string]struct {
		control, worker []string
		want            string
	}{
		"enough":        {[]string{"a"}, nil, ""},
		"not known":     {[]string{"c"}, []string{"d", "e"}, ""},
		"a byte less":   {nil, []string{"b"}, "machine b has 1.00 GiB of memory, and needs 1.00 GiB as worker"},
		"in both roles": {[]string{"a"}, []string{"a"}, "machine a has 2.00 GiB of memory, and needs 3.00 GiB as control and worker"},
	} {
		roles := map[string][]string{"control": c.control, "worker": c.worker}
		err := roomyModel().roomy(roles, machines)
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want+": Give it more memory") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A select passes over what is too small, and says so if nothing is left.
	c := roomyModel()
	c.Choose = map[string]Selection{"control": {Match: yes, Count: 1}}
	roles, err := choose(c, nil, []Candidate{machines[1], machines[0]})
	if err != nil || roles["control"][0] != "a" {
		t.Errorf("%v, %v", roles, err)
	}
	if _, err = choose(c, nil, machines[1:2]); err == nil || !strings.Contains(err.Error(), "b has 1.00 GiB of memory, and a control needs 2.00 GiB") {
		t.Error(err)
	}
}

// TestCramped: a machine that said what it has only after it was chosen is found out when it does.
func TestCramped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.apply("demo: n1 n2")
		for facts, want := range map[string]string{
			``:                      "",
			`{"memory":2147483648}`: "",
			`{"memory":1073741824}`: "machine n1 has 1.00 GiB of memory, and needs 2.00 GiB as m: Give it more memory, or choose another machine.",
		} {
			w.facts = json.RawMessage(facts)
			if err := w.Cramped(t.Context(), "demo", "n1"); (err == nil) != (want == "") || err != nil && err.Error() != want {
				t.Errorf("%s: %v", facts, err)
			}
			if err := errors.Join(w.Cramped(t.Context(), "demo", "n3"), w.Cramped(t.Context(), "other", "n1")); err != nil {
				t.Errorf("a machine without a role: %v", err)
			}
		}
	})
}

func TestApart(t *testing.T) {
	inner := func(cidr string) *Compiled {
		st := &model.Step{Apply: model.Action{Call: "reserve.network"}}
		return &Compiled{Model: &model.Model{
			Inputs: map[string]value.Value{"pods": value.Text(cidr), "lan": value.Text("10.0.0.0/8")},
			Tasks: []model.Task{
				{Step: st, With: []model.Argument{{Name: "within", Refs: []model.Ref{{Kind: model.RefInput, Name: "pods"}}}}},
				{Step: &model.Step{Apply: model.Action{Call: "names.put"}}, With: []model.Argument{{Refs: []model.Ref{{Kind: model.RefInput, Name: "lan"}}}}},
			},
		}}
	}
	networks := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}
	for cidr, want := range map[string]string{
		"10.200.0.0/16":  "",
		"10.77.0.128/25": "pods (10.77.0.128/25) overlaps with 10.77.0.0/24",
		"10.64.0.0/10":   "pods (10.64.0.0/10) overlaps with 10.77.0.0/24",
		"fd00::/64":      "pods (fd00::/64) is of another address family than 10.77.0.0/24",
	} {
		if err := inner(cidr).apart(networks); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", cidr, err)
		}
		if err := inner(cidr).apart(nil); err != nil {
			t.Errorf("%s, where nothing is known of networks: %v", cidr, err)
		}
	}
}

func TestReachable(t *testing.T) {
	control := model.Artifact{Name: "control", Pack: "k", Version: "1.36.3", Lag: model.Lag{Steps: 1}}
	node := model.Artifact{Name: "node", Pack: "k", Version: "1.36.3", Lag: model.Lag{Follows: "control", Behind: 3}}
	c := &Compiled{Model: &model.Model{Artifacts: []model.Artifact{control, node}}}
	for name, test := range map[string]struct{ control, node, want string }{
		"as it is":             {"1.36.3", "1.36.3", ""},
		"one minor":            {"1.35.9", "1.33.0", ""},
		"two minors":           {"1.34.9", "1.34.9", "artifact control would go from 1.34.9 to 1.36.3: at most 1 minor version at once; apiserver[c1] uses 1.34.9"},
		"back":                 {"1.37.0", "1.36.3", "artifact control would go back from 1.37.0 to 1.36.3"},
		"a worker left behind": {"1.35.0", "1.32.0", "artifact node 1.32.0 is too old for control 1.36.3: it may be 3 minor versions behind; kubelet[w1] uses it until its turn has come"},
	} {
		err := c.reachable(map[string]map[string]string{"k.control": {test.control: "apiserver[c1]"}, "k.node": {test.node: "kubelet[w1]"}})
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUpgradeIsRefused: what a cluster uses is read from its journal, not from its last goal alone.
func TestUpgradeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.apply("demo: n1 version=1.34.1")
		if _, err := w.Preview(t.Context(), Source{File: []byte("demo: n1 version=1.35.0")}); err != nil {
			t.Error(err)
		}
		const want = "artifact tool would go from 1.34.1 to 1.36.0: at most 1 minor version at once; s[n1] uses 1.34.1"
		if _, err := w.Preview(t.Context(), Source{File: []byte("demo: n1 version=1.36.0")}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Error(err)
		}
		w.refuse("demo: n1 version=1.36.0", want)
		// An attempt that failed may have changed something all the same.
		w.mu.Lock()
		w.fail = errors.New("no")
		w.mu.Unlock()
		w.apply("demo: n1 version=1.35.0")
		w.refuse("demo: n1 version=1.33.0", "would go back from 1.35.0")
	})
}
