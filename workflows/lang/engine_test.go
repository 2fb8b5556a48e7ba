package lang_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/workflows/lang"
)

// nodes performs what the engine asks for at once, and answers with outputs of the declared types.
type nodes struct {
	t      *testing.T
	m      *run.Machine
	models map[value.Digest]*model.Model
	inputs map[string]string // last inputs by instance
	ran    []string
	cert   json.RawMessage
	csr    string
}

func (n *nodes) Model(g history.Goal) *model.Model { return n.models[g.Model] }
func (n *nodes) Blob(value.Digest) []byte          { return nil }

var now = time.Unix(1_000_000, 0)

func newNodes(t *testing.T) *nodes {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	object, err := json.Marshal(map[string]string{"leaf": leaf, "chain": "", "root": leaf})
	if err != nil {
		t.Fatal(err)
	}
	n := &nodes{t: t, models: map[value.Digest]*model.Model{}, inputs: map[string]string{}, cert: object}
	n.csr = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
	n.m = run.New(history.New(), n)
	return n
}

func (n *nodes) goal(m *model.Model, names ...string) {
	n.models[m.Digest] = m
	n.do(history.Goal{Model: m.Digest, Roles: map[string][]string{"member": names}, Changed: true, Destroy: len(names) == 0})
}

func (n *nodes) up(names ...string) {
	for i, name := range names {
		n.do(history.NodeSeen{Node: name, Incarnation: "i-" + name, Boot: "b-" + name, Address: fmt.Sprintf("10.0.0.%d", i+1), Level: model.Vouched, Online: true})
	}
}

func (n *nodes) do(events ...history.Event) {
	n.t.Helper()
	queue := n.m.Advance(now, events...).Effects
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		switch e := e.(type) {
		case run.Dispatch:
			queue = append(queue, n.finish(e.Target, e.ID, e.Action, e.Inputs)...)
		case run.Call:
			queue = append(queue, n.finish(e.Target, e.ID, e.Action, e.Inputs)...)
		case run.Wipe:
			queue = append(queue, n.m.Advance(now, history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: "wiped", Wiped: true}).Effects...)
		case run.Release:
			queue = append(queue, n.m.Advance(now, history.NodeReleased{Node: e.Node}).Effects...)
		}
	}
}

func (n *nodes) finish(t history.Target, id uint64, action step.Action, inputs map[string]value.Value) []run.Effect {
	n.t.Helper()
	name := t.Task
	if t.Node != "" {
		name += "[" + t.Node + "]"
	}
	given, err := json.Marshal(inputs)
	if err != nil {
		n.t.Fatalf("%s %s: %v", action, name, err)
	}
	report := run.Report{ID: id}
	if action == step.Apply {
		n.ran = append(n.ran, name)
		n.inputs[name] = string(given)
		report.Outputs = n.outputs(t, inputs)
	} else {
		n.ran = append(n.ran, string(action)+" "+name)
	}
	if e, ok := n.m.Conclude(now, t, report); ok {
		return n.m.Advance(now, e).Effects
	}
	return nil
}

func (n *nodes) outputs(t history.Target, inputs map[string]value.Value) json.RawMessage {
	var s *model.Step
	for _, m := range n.models {
		if task := m.Task(t.Task); task != nil {
			s = task.Step
		}
	}
	out := map[string]any{}
	for _, f := range s.Outputs {
		switch f.Type.Kind {
		case value.FQDN:
			out[f.Name] = inputs["name"]
		case value.URL:
			out[f.Name] = "https://" + t.Task + t.Node + ":2379"
		case value.Path:
			out[f.Name] = "/run/" + t.Node
		case value.CSR:
			out[f.Name] = n.csr
		case value.Certificate:
			out[f.Name] = n.cert
		case value.Map:
			out[f.Name] = map[string]string{"n1": "https://n1:2380"}
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		n.t.Fatal(err)
	}
	return data
}

// TestEngineRunsDesignExample: the engine's core converges what the language makes of the design's example, and nodes that
// join and leave again touch only what depends on them.
func TestEngineRunsDesignExample(t *testing.T) {
	n := newNodes(t)
	m := compile(t)
	n.goal(m, "n1", "n2", "n3")
	n.up("n1", "n2", "n3")
	if s := n.m.State(); s.Outcome != "converged" {
		t.Fatalf("outcome %q: %s\nran %s", s.Outcome, s.Detail, strings.Join(n.ran, " "))
	}
	if len(n.ran) != 28 { // nine tasks for each of three nodes, and the front; founders is computed
		t.Errorf("ran %d: %v", len(n.ran), n.ran)
	}
	for instance, want := range map[string]string{
		"name[n2]":    `{"addresses":["10.0.0.2"],"name":"n2.demo.lab"}`,
		"hosts[n1]":   `{"entries":{"n1":{"fqdn":"n1.demo.lab"},"n2":{"fqdn":"n2.demo.lab"},"n3":{"fqdn":"n3.demo.lab"}}}`,
		"backend[n3]": `{"address":"10.0.0.3","front":"https://front:2379","port":2379}`,
	} {
		if n.inputs[instance] != want {
			t.Errorf("%s was given %s, want %s", instance, n.inputs[instance], want)
		}
	}
	founder := `"founders":{"n1":{"id":"i-n1","url":"https://n1.demo.lab:2380"},"n2":{"id":"i-n2","url":"https://n2.demo.lab:2380"},"n3":{"id":"i-n3","url":"https://n3.demo.lab:2380"}}`
	if got := n.inputs["seat[n2]"]; !strings.Contains(got, founder) || !strings.Contains(got, `"id":"i-n2"`) {
		t.Errorf("seat[n2] was given %s", got)
	}

	n.ran = nil
	n.goal(compile(t), "n1", "n2", "n3")
	if len(n.ran) != 0 || n.m.State().Outcome != "converged" {
		t.Errorf("nothing changed, and it ran %v", n.ran)
	}

	n.goal(m, "n1", "n2", "n3", "n4")
	n.up("n4")
	slices.Sort(n.ran)
	want := "backend[n4] cert[n4] disk[n4] hosts[n1] hosts[n2] hosts[n3] hosts[n4] key[n4] member[n4] name[n4] seat[n4] voter[n4]"
	if got := strings.Join(n.ran, " "); got != want || n.m.State().Outcome != "converged" {
		t.Errorf("outcome %q (%s); ran\n%s\nwant\n%s", n.m.State().Outcome, n.m.State().Detail, got, want)
	}

	n.ran = nil
	n.goal(m, "n1", "n2", "n3")
	slices.Sort(n.ran)
	for _, r := range n.ran {
		if !strings.Contains(r, "n4") && !strings.HasPrefix(r, "hosts[") {
			t.Errorf("n4 left, and %s ran", r)
		}
	}
	if n.m.State().Outcome != "converged" || !slices.Contains(n.ran, "remove seat[n4]") {
		t.Errorf("outcome %q: %s\nran %s", n.m.State().Outcome, n.m.State().Detail, strings.Join(n.ran, " "))
	}
}

// TestEngineRunsComposition: a workflow called by another one converges too.
func TestEngineRunsComposition(t *testing.T) {
	var m *model.Model
	var ds lang.Diagnostics
	if m, ds = composed(t, `{ control = ["a", "b", "c"], worker = ["d"] }`); len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	n := newNodes(t)
	n.models[m.Digest] = m
	n.do(history.Goal{Model: m.Digest, Roles: map[string][]string{"control": {"a", "b", "c"}, "worker": {"d"}}, Changed: true})
	n.up("a", "b", "c", "d")
	if s := n.m.State(); s.Outcome != "converged" {
		t.Fatalf("outcome %q: %s\nran %s", s.Outcome, s.Detail, strings.Join(n.ran, " "))
	}
	want := `{"domain":"STORE.DEMO.LAB","mine":"https://store.memberb:2379/b/2379","urls":{"a":"https://store.membera:2379/a/2379","b":"https://store.memberb:2379/b/2379","c":"https://store.memberc:2379/c/2379"}}`
	if got := n.inputs["control[b]"]; got != want {
		t.Errorf("control[b] was given %s, want %s", got, want)
	}
}
