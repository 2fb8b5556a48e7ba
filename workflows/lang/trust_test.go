package lang_test

import (
	"strings"
	"testing"

	"joist/engine/model"
	"joist/workflows/lang"
)

// TestTrustBoot: a cluster that trusts the boot network is warned, and is another cluster than one that does not.
func TestTrustBoot(t *testing.T) {
	compile := func(more string) (*model.Model, lang.Diagnostics) {
		file, ds := lang.LoadCluster("c.hcl", []byte(`cluster "c" {
  workflow = inner.cluster
  packs    = { inner = { source = "./inner" } }
  nodes    = { member = ["a", "b", "c"] }
  with     = { domain = "x.y" }
`+more+`}
`))
		if file == nil {
			t.Fatal(ds.Text())
		}
		p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(inner), "files/run.sh": []byte("#!/bin/sh\n")}, catalogue)
		if p == nil {
			t.Fatal(ds.Text())
		}
		return lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"inner": p}, Cluster: file})
	}
	careful, ds := compile("")
	if careful == nil || careful.TrustBoot || strings.Contains(ds.Text(), "boot network") {
		t.Fatalf("without the word: %+v\n%s", careful, ds.Text())
	}
	trusting, ds := compile("  reboot   = \"trust-boot-network\"\n")
	if trusting == nil || !trusting.TrustBoot || trusting.Digest == careful.Digest || !strings.Contains(ds.Text(), "whoever can answer for the machine on the boot network") {
		t.Errorf("with it: %+v\n%s", trusting, ds.Text())
	}
}
