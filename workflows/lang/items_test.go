package lang_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"joist/engine/history"
	"joist/engine/model"
	"joist/workflows/lang"
)

const itemsPack = `pack "p" {
  version = "1.0.0"
  summary = "A pack whose tasks have items."
}
step "make" {
  scope = "node"
  input "name" { type = fqdn }
  input "size" { type = number }
  output "fqdn" { type = fqdn }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
step "read" {
  scope = "node"
  input "mine" { type = map(object({ fqdn = fqdn })) }
  input "all" { type = map(map(object({ fqdn = fqdn }))) }
  input "zones" { type = map(object({ fqdn = fqdn })) }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
step "put" {
  scope = "service"
  input "name" { type = fqdn }
  input "addresses" { type = list(address) }
  output "fqdn" { type = fqdn }
  apply { call = "names.put" }
}
workflow "inner" {
  role "m" { min = 1 }
  input "disks" { type = map(object({ size = number })) }
  input "zones" { type = set(string) }
  output "volumes" {
    value = task.volume
    each  = role.m
  }
  task "volume" {
    step = make
    each = role.m
    for  = { for k, v in input.disks : k => v if v.size > 0 }
    with = { name = "${item.key}.${node.name}.lab", size = item.value.size }
  }
  task "zone" {
    step = put
    for  = input.zones
    with = { name = "${item.key}.${item.value}", addresses = [] }
  }
  task "use" {
    step  = read
    each  = role.m
    with  = { mine = task.volume, all = all.volume, zones = task.zone }
    after = [task.volume, all.volume, task.zone]
  }
  rollout "m" { tasks = [task.volume] }
}
workflow "outer" {
  role "m" { min = 1 }
  input "disks" { type = map(object({ size = number })) }
  input "zones" { type = set(string) }
  task "in" {
    step  = inner
    roles = { m = role.m }
    with  = { disks = input.disks, zones = input.zones }
  }
  task "again" {
    step = make
    each = role.m
    with = { name = task.in.volumes["data"].fqdn, size = 1 }
  }
}
`

// withItems compiles the pack for two machines.
func withItems(t *testing.T, flow, with string) (*model.Model, lang.Diagnostics) {
	t.Helper()
	p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(itemsPack), "files/run.sh": []byte("#!/bin/sh\n")}, catalogue)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	c, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, "cluster \"demo\" {\n  workflow = p.%s\n  packs = { p = { source = \"builtin\" } }\n  nodes = { m = [\"n1\", \"n2\"] }\n  with = %s\n}\n", flow, with))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	return lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": p}, Cluster: c})
}

func (n *nodes) pursue(t *testing.T, flow, with string) string {
	t.Helper()
	m, ds := withItems(t, flow, with)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	n.ran = nil
	n.models[m.Digest] = m
	n.do(history.Goal{Model: m.Digest, Roles: map[string][]string{"m": {"n1", "n2"}}, Changed: true})
	n.up("n1", "n2")
	if s := n.m.State(); s.Outcome != "converged" {
		t.Fatalf("outcome %q: %s\nran %s", s.Outcome, s.Detail, strings.Join(n.ran, " "))
	}
	slices.Sort(n.ran)
	return strings.Join(n.ran, " ")
}

// TestItems: a task has an instance for each item of a map or set, on each node if it has nodes. Who refers to it sees
// them all by item; an item that is new runs, one that changed runs again, and one that is gone is removed.
func TestItems(t *testing.T) {
	n := newNodes(t)
	got := n.pursue(t, "inner", `{ disks = { data = { size = 2 }, log = { size = 1 }, none = { size = 0 } }, zones = ["a", "b"] }`)
	if want := "use[n1] use[n2] volume:data[n1] volume:data[n2] volume:log[n1] volume:log[n2] zone:a zone:b"; got != want {
		t.Errorf("ran %s\nwant %s", got, want)
	}
	for instance, want := range map[string]string{
		"volume:data[n2]": `{"name":"data.n2.lab","size":2}`,
		"zone:b":          `{"addresses":[],"name":"b.b"}`,
		"use[n1]": `{"all":{"n1":{"data":{"fqdn":"data.n1.lab"},"log":{"fqdn":"log.n1.lab"}},"n2":{"data":{"fqdn":"data.n2.lab"},"log":{"fqdn":"log.n2.lab"}}},` +
			`"mine":{"data":{"fqdn":"data.n1.lab"},"log":{"fqdn":"log.n1.lab"}},"zones":{"a":{"fqdn":"a.a"},"b":{"fqdn":"b.b"}}}`,
	} {
		if n.inputs[instance] != want {
			t.Errorf("%s was given %s, want %s", instance, n.inputs[instance], want)
		}
	}
	got = n.pursue(t, "inner", `{ disks = { data = { size = 3 }, "log.2" = { size = 1 } }, zones = ["b"] }`)
	if want := `remove volume:log[n1] remove volume:log[n2] remove zone:a use[n1] use[n2] volume:data[n1] volume:data[n2] volume:log.2[n1] volume:log.2[n2]`; got != want {
		t.Errorf("ran %s\nwant %s", got, want)
	}
	if got = n.pursue(t, "inner", `{ disks = { data = { size = 3 }, "log.2" = { size = 1 } }, zones = ["b"] }`); got != "" {
		t.Errorf("nothing changed, and it ran %s", got)
	}
	if got, want := n.pursue(t, "inner", `{ disks = {}, zones = [] }`), "remove volume:data[n1] remove volume:data[n2] remove volume:log.2[n1] remove volume:log.2[n2] remove zone:b use[n1] use[n2]"; got != want {
		t.Errorf("ran %s\nwant %s", got, want)
	}
}

// TestItemsOfCalledWorkflow: items follow from what the cluster file gives, also by way of a called workflow's inputs.
func TestItemsOfCalledWorkflow(t *testing.T) {
	m, ds := withItems(t, "outer", `{ disks = { data = { size = 2 } }, zones = [] }`)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	var names []string
	for i := range m.Tasks {
		names = append(names, m.Tasks[i].Name)
	}
	if got := strings.Join(names, " "); got != "in.volume:data in.use again" || !slices.Equal(m.Rollouts[0].Tasks, []string{"in.volume:data"}) {
		t.Errorf("tasks %s, rollout over %v", got, m.Rollouts[0].Tasks)
	}
	n := newNodes(t)
	n.pursue(t, "outer", `{ disks = { data = { size = 2 } }, zones = [] }`)
	if got := n.inputs["again[n2]"]; got != `{"name":"data.n2.lab","size":1}` {
		t.Errorf("again[n2] was given %s", got)
	}
}

// TestItemKeys: keys stand in addresses.
func TestItemKeys(t *testing.T) {
	for with, want := range map[string]string{
		`{ disks = { "a/b" = { size = 1 } }, zones = [] }`:                     `"a/b" cannot be the key of an item`,
		`{ disks = {}, zones = [""] }`:                                         `"" cannot be the key of an item`,
		`{ disks = {}, zones = ["` + strings.Repeat("z", 101) + `"] }`:         "cannot be the key of an item",
		`{ disks = {}, zones = [for i in [` + numbers(1001) + `] : "z${i}"] }`: "more than 1000 items",
	} {
		_, ds := withItems(t, "inner", with)
		if got := ds.Text(); !strings.Contains(got, want) || !strings.Contains(got, "c.hcl:5:") || !strings.Contains(got, `It is the for of task `) {
			t.Errorf("%.60s: %s\n\twant %s", with, got, want)
		}
	}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d, ", i)
	}
	return b.String()
}
