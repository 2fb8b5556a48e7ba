package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/services/names"
	"joist/workflows/lang"
)

// tasksPerNode is how many instances each node has.
const tasksPerNode = 20

// workload is a cluster of nodes with twenty tasks each: a name, and a chain on the node that begins with it. With
// gather, the nineteenth task looks at the names of all nodes. The twentieth has an input from the cluster file.
type workload struct {
	nodes  int
	gather bool
	knob   string // the cluster file's input
}

const packSource = `pack "load" {
  version = "0.1.0"
  summary = "A graph to measure with."
  trust   = "claimed"
}

step "name" {
  scope = "service"
  input "name" { type = fqdn }
  input "addresses" { type = list(address) }
  output "fqdn" { type = fqdn }
  apply { call = "names.put" }
}

step "link" {
  scope = "node"
  input "previous" { type = string }
  output "out" { type = string }
  apply { script = "files/link.sh" }
  irreversible = "only simulated"
}

step "hosts" {
  scope = "node"
  input "previous" { type = string }
  input "entries" { type = map(object({ fqdn = fqdn })) }
  output "out" { type = string }
  apply { script = "files/link.sh" }
  irreversible = "only simulated"
}

step "tuned" {
  scope = "node"
  input "previous" { type = string }
  input "knob" { type = string }
  output "out" { type = string }
  apply { script = "files/link.sh" }
  irreversible = "only simulated"
}
`

// linkScript is what every step of a node runs, where anything is run at all.
const linkScript = "#!/bin/sh\nprintf '{\"out\":\"done\"}' >\"$JOIST_OUTPUTS\"\n"

func (w workload) files() map[string][]byte {
	var b strings.Builder
	b.WriteString("workflow \"cluster\" {\n  role \"node\" { min = 1 }\n  input \"domain\" { type = fqdn }\n  input \"knob\" { type = string }\n")
	b.WriteString("  task \"t01\" {\n    step = name\n    each = role.node\n    with = { name = \"${node.name}.${input.domain}\", addresses = [node.address] }\n  }\n")
	previous := "task.t01.fqdn"
	for i := 2; i <= tasksPerNode; i++ {
		s, more := "link", ""
		switch {
		case i == tasksPerNode:
			s, more = "tuned", ", knob = input.knob"
		case i == tasksPerNode-1 && w.gather:
			s, more = "hosts", ", entries = all.t01"
		}
		fmt.Fprintf(&b, "  task \"t%02d\" {\n    step = %s\n    each = role.node\n    with = { previous = %s%s }\n  }\n", i, s, previous, more)
		previous = fmt.Sprintf("task.t%02d.out", i)
	}
	b.WriteString("}\n")
	return map[string][]byte{"pack.hcl": []byte(packSource), "cluster.hcl": []byte(b.String()), "files/link.sh": []byte(linkScript)}
}

// names of the nodes, sorted.
func (w workload) names() []string {
	list := make([]string, w.nodes)
	for i := range list {
		list[i] = fmt.Sprintf("n%06d", i)
	}
	return list
}

// compile makes the model as the engine does: from the sources, the cluster file naming every node.
func (w workload) compile() (*model.Model, error) {
	pack, ds := lang.Load(w.files(), lang.Catalogue{Calls: names.Signatures()})
	if ds.HasErrors() {
		return nil, errors.New(ds.Text())
	}
	src := fmt.Sprintf("cluster \"load\" {\n  workflow = load.cluster\n  packs    = { load = { source = \"./load\", version = \"~> 0.1\" } }\n"+
		"  nodes    = { node = [%q] }\n  with     = { domain = \"load.lab\", knob = %q }\n}\n", strings.Join(w.names(), `", "`), w.knob)
	src = strings.ReplaceAll(src, `\"`, `"`)
	file, ds := lang.LoadCluster("load.hcl", []byte(src))
	if ds.HasErrors() {
		return nil, errors.New(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"load": pack}, Cluster: file})
	if ds.HasErrors() {
		return nil, errors.New(ds.Text())
	}
	return m, nil
}

func (w workload) goal(m *model.Model) history.Goal {
	return history.Goal{Model: m.Digest, Roles: map[string][]string{"node": w.names()}, By: "bench", Changed: true}
}

// seen is a simulated node that is up.
func seen(i int, name string) history.NodeSeen {
	return history.NodeSeen{
		Node: name, Incarnation: name + "-1", Boot: name + "-1", Level: model.Vouched, Online: true,
		Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Facts: json.RawMessage(`{"cpus":2,"memory":8589934592}`),
	}
}

// outputs of a simulated step.
func outputs(t history.Target) json.RawMessage {
	return json.RawMessage(`{"out":"` + t.Task + "/" + t.Node + `"}`)
}

// namesPut is the service operation, simulated.
func namesPut(_ context.Context, c step.Call) (step.Result, error) {
	var in struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(c.Inputs, &in); err != nil {
		return step.Result{}, err
	}
	return step.Result{Outputs: json.RawMessage(`{"fqdn":"` + in.Name + `"}`)}, nil
}

// library gives the models that were compiled here.
type library map[string]*model.Model

func libraryOf(models ...*model.Model) library {
	l := library{}
	for _, m := range models {
		l[m.Digest.String()] = m
	}
	return l
}

// find gives a goal's model, or nil.
func (l library) find(g history.Goal) *model.Model { return l[g.Model.String()] }

// Model implements drive.Library.
func (l library) Model(_ context.Context, g history.Goal) (*model.Model, error) {
	if m := l.find(g); m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("there is no model %s", g.Model.Short())
}
