package lang_test

import (
	"fmt"
	"strings"
	"testing"

	"joist/engine/model"
	"joist/workflows/lang"
)

// TestDuring: what is in place while tasks run comes before them, is part of their rollout, and is read outside their digests.
func TestDuring(t *testing.T) {
	src := strings.Replace(inner, "step ", `step "pass" {
  scope = "node"
  output "word" { type = string }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}

step "enter" {
  scope = "node"
  input "word" { type = string }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}

workflow "entry" {
  role "m" { min = 1 }
  task "enter" {
    step = enter
    each = role.m
    for  = toset(["1", "2"])
    with = { word = "${item.key} ${task.pass.word}" }
  }
  task "pass" {
    step   = pass
    each   = role.m
    during = [task.enter]
  }
  rollout "r" { tasks = [task.enter] }
}

step `, 1)
	file, ds := lang.LoadCluster("c.hcl", []byte(`cluster "c" {
  workflow = inner.entry
  packs    = { inner = { source = "./inner" } }
  nodes    = { m = ["a", "b"] }
}
`))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"inner": packOf(t, src)}, Cluster: file})
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	if got := m.Tasks[0]; got.Name != "pass" || len(got.During) != 2 {
		t.Errorf("first comes %s, in place while %v run", got.Name, got.During)
	}
	for _, enter := range m.Tasks[1:] {
		if fmt.Sprint(enter.Guards) != "[pass]" || !enter.With[0].Outside() || !enter.With[0].Uses(model.RefDuring) {
			t.Errorf("%s runs with %v and looks at %v", enter.Name, enter.Guards, enter.With[0].Refs)
		}
	}
	if got := m.Rollouts[0].Tasks; len(got) != 3 || got[2] != "pass" {
		t.Errorf("the rollout is over %v", got)
	}
}
