package balance_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"joist/engine/entries"
	"joist/engine/step"
	"joist/services/balance"
)

// TestForesee: an endpoint that nobody could reach is refused before anything is made of it.
func TestForesee(t *testing.T) {
	f := newFixture(t, &entries.Memory{})
	f.must(t, "balance.front", step.Apply, "a/front", object{"name": "api.a.lab", "port": 6443})
	call := func(owner, name string, port any) step.Call {
		raw, err := json.Marshal(object{"name": name, "port": port, "ready": nil})
		if err != nil {
			t.Fatal(err)
		}
		cluster, _, _ := strings.Cut(owner, "/")
		return step.Call{Name: "balance.front", Action: step.Apply, Cluster: cluster, Owner: owner, Inputs: raw}
	}
	other := step.Call{Name: "certs.sign", Cluster: "b", Owner: "b/cert", Inputs: json.RawMessage(`{}`)}
	many := []step.Call{}
	for _, name := range []string{"1.b.lab", "2.b.lab", "3.b.lab", "4.b.lab", "5.b.lab", "6.b.lab"} { // of six addresses one is taken
		many = append(many, call("b/"+name, name, 1))
	}
	for name, c := range map[string]struct {
		calls []step.Call
		at    int
		input string
		why   string
	}{
		"nothing":             {nil, 0, "", ""},
		"others":              {[]step.Call{other}, 0, "", ""},
		"its own again":       {[]step.Call{call("a/front", "api.a.lab", 6443)}, 0, "", ""},
		"another port":        {[]step.Call{call("b/front", "api.a.lab", 6444)}, 0, "", ""},
		"another cluster's":   {[]step.Call{other, call("b/front", "api.a.lab", 6443)}, 1, "name", "https://api.a.lab:6443 leads to cluster a already, so nobody would reach this cluster there"},
		"twice":               {[]step.Call{call("b/x", "api.b.lab", 1), call("b/y", "api.b.lab", 1)}, 1, "name", "b/x and b/y both want to be reached at https://api.b.lab:1"},
		"port 0":              {[]step.Call{call("b/front", "api.b.lab", 0)}, 0, "port", "nobody could reach b/front at 0: that is no port"},
		"port 65536":          {[]step.Call{call("b/front", "api.b.lab", 65536)}, 0, "port", "nobody could reach b/front at 65536: that is no port"},
		"half a port":         {[]step.Call{call("b/front", "api.b.lab", 1.5)}, 0, "port", "nobody could reach b/front at 1.5: that is no port"},
		"no domain":           {[]step.Call{call("b/front", "api", 1)}, 0, "name", `nobody could reach b/front as "api": that is no domain name`},
		"no address is left":  {many, 5, "", "nobody could reach https://6.b.lab:1: all addresses of 127.9.0.0/29 are taken"},
		"an address for each": {many[:5], 0, "", ""},
	} {
		r, err := f.Foresee(t.Context(), c.calls)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case r == nil && c.why == "":
		case r == nil || c.why == "" || r.Call != c.at || r.Input != c.input || !strings.HasPrefix(r.Why, c.why) || r.Advice == "":
			t.Errorf("%s: %+v, want call %d, input %q, %s", name, r, c.at, c.input, c.why)
		}
	}
	if len(f.names.calls) != 1 || len(f.Status()) != 1 {
		t.Errorf("looking has changed something: %q, %v", f.names.calls, f.Status())
	}
}

// TestForeseeAsksForNames: a front is also reached by a name, and what that service says of it is said of the front.
func TestForeseeAsksForNames(t *testing.T) {
	f := newFixture(t, &entries.Memory{})
	var asked []step.Call
	var failure error
	s, err := balance.New(balance.Config{
		Store: f.store, Driver: f.driver, Frontends: balance.Prefix(netip.MustParsePrefix("127.9.0.0/29")), Log: discard,
		Foresee: func(_ context.Context, calls []step.Call) (*step.Refusal, error) {
			asked = calls
			return &step.Refusal{Call: 0, Input: "name", Why: "no"}, failure
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := []step.Call{{Name: "certs.sign"}, {Name: "balance.front", Owner: "b/front", Inputs: json.RawMessage(`{"name":"api.b.lab","port":1,"ready":null}`)}}
	r, err := s.Foresee(t.Context(), calls)
	if err != nil || r == nil || r.Call != 1 || r.Why != "no" || len(asked) != 1 || asked[0].Name != "names.put" || asked[0].Owner != "b/front" || calls[1].Name != "balance.front" {
		t.Errorf("%+v, %v, asked %+v", r, err, asked)
	}
	failure = errors.New("lost")
	if _, err := s.Foresee(t.Context(), calls); !errors.Is(err, failure) {
		t.Error(err)
	}
}
