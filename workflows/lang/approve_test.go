package lang_test

import (
	"strings"
	"testing"
	"time"

	"joist/workflows/lang"
)

const approvalPack = `pack "p" {
  version = "1.0.0"
  summary = "A pack with an approval."
}
step "ok" {
  scope = "cluster"
  input "version" { type = string }
  input "shown" { type = string }
  apply {
    approve = "Go to ${input.version}?"
    valid   = "24h"
  }
}
workflow "all" {
  role "m" {}
  input "version" { type = string }
  task "ok" {
    step = ok
    with = { version = input.version, shown = "x" }
  }
}
`

// TestApprove: an approval is a step that asks, holds for a time, and yields nothing; all its inputs are approved.
func TestApprove(t *testing.T) {
	load := func(src string) (*lang.Pack, string) {
		p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(src)}, lang.Catalogue{})
		if p != nil {
			ds = append(ds, lang.Check(map[string]*lang.Pack{p.Name: p})...)
		}
		return p, ds.Text()
	}
	p, said := load(approvalPack)
	if said != "" {
		t.Fatalf("it says:\n%s", said)
	}
	c, ds := lang.LoadCluster("c.hcl", []byte("cluster \"c\" {\n  workflow = p.all\n  packs = { p = { source = \"./p\" } }\n  nodes = { m = [\"n1\"] }\n  with = { version = \"2\" }\n}\n"))
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": p}, Cluster: c})
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	if a := m.Tasks[0].Step.Apply; a.Approve == nil || a.Valid != 24*time.Hour || !m.Tasks[0].Step.Pure() {
		t.Errorf("apply is %+v", a)
	}
	for _, c := range []struct{ old, with, says string }{
		{`apply {`, "output \"by\" { type = string }\n  apply {", "an approval has no outputs"},
		{`scope = "cluster"`, "scope = \"cluster\"\n  once = true", "an approval would hold whatever changes"},
		{`approve = "Go to ${input.version}?"`, `when = input.version == input.shown`, "only an approval is valid for a time"},
		{`"Go to ${input.version}?"`, `true`, "asks for an approval of nothing that can be read"},
		{`"Go to ${input.version}?"`, `""`, `approve = "Go to ${input.version}?"`},
		{`valid   = "24h"`, `valid = "soon"`, `"soon" is not a duration`},
		{`${input.version}`, `${task.x.y}`, "a step's body sees its inputs and nothing else"},
	} {
		if _, said := load(strings.Replace(approvalPack, c.old, c.with, 1)); !strings.Contains(said, c.says) || !strings.Contains(said, "pack.hcl:") {
			t.Errorf("with %q it does not say %q but\n%s", c.with, c.says, said)
		}
	}
}
