package lang_test

import (
	"slices"
	"strings"
	"testing"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang"
)

const supplied = `pack "p" {
  version = "1.0.0"
  summary = "Steps with artifacts."
}

artifact "open" {
  version = "1.36.3"
  kind    = "bundle"
  licence = "Apache-2.0"
}

artifact "shipped" {
  version = "2"
  arch    = "arm64"
  sha256  = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
  size    = 5
  licence = "MIT"
  url     = "https://example.net/shipped"
}

artifact "unused" {
  version = "1"
  licence = "MIT"
}

step "both" {
  scope     = "node"
  artifacts = [shipped, open]
  apply { script = "files/run.sh" }
  irreversible = "a test"
}

step "none" {
  scope = "node"
  apply { script = "files/run.sh" }
  irreversible = "a test"
}

workflow "cluster" {
  role "m" {}
  task "a" {
    step = both
    each = role.m
  }
  task "b" {
    step = both
    each = role.m
  }
  task "c" {
    step = none
    each = role.m
  }
}
`

func compileSupplied(t *testing.T, pins map[string]model.Pin, frozen value.Digest) *model.Model {
	t.Helper()
	p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(supplied), "files/run.sh": []byte("#!/bin/sh\n")}, catalogue)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	c, ds := lang.LoadCluster("c.hcl", []byte("cluster \"demo\" {\n  workflow = p.cluster\n  packs = { p = { source = \"./p\" } }\n  nodes = { m = [\"n1\"] }\n  frozen = \"winter\"\n}\n"))
	if ds.HasErrors() || c.Frozen != "winter" {
		t.Fatal(ds.Text(), c)
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": p}, Cluster: c, Pins: pins, Frozen: frozen})
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	return m
}

func TestArtifacts(t *testing.T) {
	one, two := value.Sum([]byte("one")), value.Sum([]byte("two"))
	var shipped value.Digest
	if err := shipped.UnmarshalText([]byte("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")); err != nil {
		t.Fatal(err)
	}
	open := compileSupplied(t, nil, value.Digest{})
	if got := open.Artifacts; len(got) != 2 || got[0].PinName() != "p.open" || got[1].PinName() != "p.shipped" || got[0].Digest != (value.Digest{}) || got[1].Digest != shipped ||
		got[0].Kind != model.Bundle || got[0].Arch != "amd64" || got[1].Arch != "arm64" || got[1].Size != 5 || got[1].URL == "" {
		t.Errorf("artifacts %+v", got)
	}
	pins := map[string]model.Pin{"p.open": {Digest: one, Size: 7}, "p.shipped": {Digest: two, Size: 9}}
	m := compileSupplied(t, pins, value.Digest{})
	if got := m.Task("a").Step.Artifacts; len(got) != 2 || got[0].Digest != one || got[0].Size != 7 || got[1].Digest != shipped || got[1].Size != 5 {
		t.Errorf("artifacts %+v", got) // a checksum that ships takes precedence
	}
	if m.Task("a").Step != m.Task("b").Step || !slices.Equal(m.Artifacts, m.Task("a").Step.Artifacts) {
		t.Error("one step became two")
	}
	// Another file is another step, and another model, and nothing else.
	pins["p.open"] = model.Pin{Digest: two, Size: 7}
	other := compileSupplied(t, pins, value.Digest{})
	if m.Digest == other.Digest || m.Task("a").Step.Digest == other.Task("a").Step.Digest || m.Task("c").Step.Digest != other.Task("c").Step.Digest {
		t.Error("the digests do not follow the files")
	}
	if m.Task("a").Step.Digest == m.Task("c").Step.Digest {
		t.Error("a step's digest does not cover its artifacts")
	}
	if again := compileSupplied(t, pins, value.Digest{}); again.Digest != other.Digest || again.Task("a").Step.Digest != other.Task("a").Step.Digest {
		t.Error("the same pins give another model")
	}
	if frozen := compileSupplied(t, pins, one); frozen.Digest == other.Digest || frozen.Frozen != one || frozen.Task("a").Step.Digest != other.Task("a").Step.Digest {
		t.Error("the model's digest does not cover the frozen set, or a step's does")
	}
	renamed := strings.Replace(supplied, `kind    = "bundle"`, `kind    = "program"`, 1)
	p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(renamed), "files/run.sh": []byte("#!/bin/sh\n")}, catalogue)
	if ds.HasErrors() || p.Steps()["both"].Digest == open.Task("a").Step.Digest {
		t.Error("what a script finds changed, and the step's digest did not")
	}
}
