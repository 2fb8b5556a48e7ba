package lang_test

import (
	"fmt"
	"strings"
	"testing"

	"joist/engine/history"
	"joist/workflows/lang"
)

// TestWas: a step or workflow that has another name now is the same one: nothing is removed or run again. Who uses a former
// name is told the one it has, and served.
func TestWas(t *testing.T) {
	pack := func(step, stepWas, flow, flowWas, refers string) *lang.Pack {
		p, ds := lang.Load(map[string][]byte{"files/run.sh": []byte("#!/bin/sh\n"), "pack.hcl": fmt.Appendf(nil, `pack "p" {
  version = "1.0.0"
  summary = "A pack whose things are renamed."
}
step %q {
  scope = "node"
  %s
  input "name" { type = fqdn }
  output "fqdn" { type = fqdn }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
workflow %q {
  %s
  role "m" { min = 1 }
  slot "t" {
    step = %s
    each = role.m
    with = { name = "a.lab" }
  }
}
`, step, stepWas, flow, flowWas, refers)}, catalogue)
		if len(ds) > 0 {
			t.Fatal(ds.Text())
		}
		return p
	}
	n := newNodes(t)
	for i, c := range []struct {
		p        *lang.Pack
		flow     string
		slot     string
		ran      string
		warnings []string
	}{
		{pack("one", "", "first", "", "one"), "first", "", "t[n1]", nil},
		{pack("two", `was = ["one"]`, "second", `was = ["first"]`, "two"), "second", "", "", nil},
		{pack("three", `was = ["two", "one"]`, "third", `was = ["second", "first"]`, "one"), "first", "one", "", []string{"pack.hcl:17", `"one" is called "three" now`, `"first" is called "third" now`}},
		{pack("four", `was = "two"`, "third", "", "four"), "third", "", "remove t[n1] t[n1]", nil}, // three is another step
	} {
		slots := ""
		if c.slot != "" {
			slots = "slots = { t = p." + c.slot + " }"
		}
		file, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, "cluster \"demo\" {\n  workflow = p.%s\n  packs = { p = { source = \"builtin\" } }\n  nodes = { m = [\"n1\"] }\n  %s\n}\n", c.flow, slots))
		if len(ds) > 0 {
			t.Fatal(ds.Text())
		}
		m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": c.p}, Cluster: file})
		if m == nil || len(c.warnings) == 0 && len(ds) > 0 {
			t.Fatalf("%d: %s", i, ds.Text())
		}
		for _, w := range c.warnings {
			if !strings.Contains(ds.Text(), w) {
				t.Errorf("%d: %s\n\twant %s", i, ds.Text(), w)
			}
		}
		n.ran = nil
		n.models[m.Digest] = m
		n.do(history.Goal{Model: m.Digest, Roles: map[string][]string{"m": {"n1"}}, Changed: true})
		n.up("n1")
		if got := strings.Join(n.ran, " "); got != c.ran || n.m.State().Outcome != "converged" {
			t.Errorf("%d: ran %q, want %q; %s", i, got, c.ran, n.m.State().Outcome)
		}
	}
}
