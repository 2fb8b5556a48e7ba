package names_test

import (
	"encoding/json"
	"strings"
	"testing"

	"joist/engine/entries"
	"joist/engine/step"
)

// TestForesee: a name that could not be served is refused before anything is made of it, whatever address it is to have.
func TestForesee(t *testing.T) {
	t.Parallel()
	s, _ := start(t, &entries.Memory{})
	if _, err := call(s, step.Apply, "a/name", `{"name":"n1.demo.lab","addresses":["10.0.0.2"]}`); err != nil {
		t.Fatal(err)
	}
	version := s.Version()
	for in, want := range map[string]string{
		`{"name":"api.b.lab"}`:    "",
		`{"name":"n2.demo.lab"}`:  "b/name could not be found by the name n2.demo.lab: cluster a has the zone demo.lab",
		`{"name":"api.lab"}`:      "b/name could not be found by the name api.lab: cluster a has the zone demo.lab",
		`{"name":"x.b.demo.lab"}`: "b/name could not be found by the name x.b.demo.lab: cluster a has the zone demo.lab",
		`{"name":"api"}`:          `b/name would have a name that cannot be served: name "api" has no domain`,
		`{"name":"ns.b.lab"}`:     "b/name would have a name that cannot be served: name ns.b.lab is that of the name server itself",
		`{"name":"a..lab"}`:       "b/name would have a name that cannot be served:",
		`{"name":7}`:              "the name of b/name cannot be served: its inputs do not fit",
	} {
		calls := []step.Call{{Name: "certs.sign", Cluster: "b"}, {Name: "names.put", Cluster: "b", Owner: "b/name", Inputs: json.RawMessage(in)}}
		r, err := s.Foresee(t.Context(), calls)
		switch {
		case err != nil:
			t.Errorf("%s: %v", in, err)
		case r == nil && want == "":
		case r == nil || want == "" || r.Call != 1 || !strings.HasPrefix(r.Why, want) || r.Advice == "":
			t.Errorf("%s: %+v, want %s", in, r, want)
		}
	}
	own := []step.Call{{Name: "names.put", Cluster: "a", Owner: "a/front", Inputs: json.RawMessage(`{"name":"api.demo.lab"}`)}}
	if r, err := s.Foresee(t.Context(), own); r != nil || err != nil || s.Version() != version {
		t.Errorf("%+v, %v, version %d", r, err, s.Version())
	}
}
