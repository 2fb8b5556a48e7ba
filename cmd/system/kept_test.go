package system

import (
	"strings"
	"testing"

	"joist/engine/model"
	"joist/services/clusters"
	"joist/workflows/lang/archive"
)

// circling is a pack of which versions before did not see that something in it could not come out of the way again.
var circling = map[string][]byte{
	"pack.hcl": []byte(`pack "p" {
  version = "1.0.0"
  summary = "A pack with a circle."
}
`),
	"lib.hcl": []byte(`step "make" {
  scope = "node"
  output "file" { type = path }
  apply { script = "files/run.sh" }
  irreversible = "a test"
}
step "tell" {
  scope = "cluster"
  input "file" { type = path }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
step "boot" {
  scope   = "node"
  reboots = true
  input "boot" {
    type     = string
    optional = true
  }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
step "asks" {
  scope = "cluster"
  apply { approve = true }
}
workflow "w" {
  role "a" { min = 1 }
  task "x" {
    step = make
    each = role.a
  }
  task "out" {
    step          = tell
    each          = role.a
    on            = role.a
    with          = { file = host.x.file }
    except_during = [task.x]
  }
  task "kernel" {
    step          = boot
    each          = role.a
    except_during = [task.x]
  }
  task "again" {
    step = boot
    each = role.a
    with = { boot = node.boot }
  }
  task "meanwhile" {
    step   = boot
    each   = role.a
    during = [task.x]
  }
}
`),
	"files/run.sh": []byte("#!/bin/sh\n"),
}

// TestKept: what is refused of a new goal only since this version is none of a goal that a cluster has: otherwise nobody could take the
// cluster up any more, nor destroy it.
func TestKept(t *testing.T) {
	s := clusters.Source{FileName: "c.hcl", Packs: map[string][]byte{"p": archive.Pack(circling)}, File: []byte(`cluster "c" {
  workflow = p.w
  packs    = { p = { source = "./p" } }
  nodes    = { a = ["n1"] }
  storage  = "disk"
}
`)}
	if _, err := (compiler{}).Compile(t.Context(), s); err == nil || !strings.Contains(err.Error(), "(and 4 more)") { // one of each of the tasks but x, and of asks
		t.Errorf("a new goal: %v", err)
	}
	s.Pins = map[string]model.Pin{}
	if c, err := (compiler{}).Compile(t.Context(), s); err != nil || len(c.Model.Tasks) != 5 {
		t.Errorf("the goal that a cluster has: %v", err)
	}
}
