package packs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/cmd/system"
	"joist/content"
	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/entries"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/services/reserve"
	"joist/services/secrets"
	"joist/workflows/lang"
)

// did is one action of an instance that came to its end.
type did struct {
	action step.Action
	history.Target
}

func (d did) String() string { return string(d.action) + " " + d.Target.String() }

// bed is a cluster on a real loop, whose nodes and services do what they are asked after a second of the bubble's time.
type bed struct {
	*drive.Cluster
	t        *testing.T
	models   map[value.Digest]*model.Model
	current  *model.Model
	reserve  *reserve.Service
	request  string // a CSR
	issued   []string
	mu       sync.Mutex
	ran      []did
	sent     []string // all that left the engine towards nodes, as text
	attempts map[uint64]bool
	flying   sync.WaitGroup // what nodes still do

	// perform does a step on a node, and gives its outputs; nil makes them up.
	perform func(o drive.Order) (json.RawMessage, error)
	// sign makes certificates; nil gives out one of issued.
	sign step.Handler
}

// newBed opens an empty cluster. It has to be called inside a bubble.
func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, models: map[value.Digest]*model.Model{}, reserve: reserve.New(&entries.Memory{}), attempts: map[uint64]bool{}}
	b.request = request(t)
	for range 2 {
		b.issued = append(b.issued, certificate(t))
	}
	store := &journal.Memory{}
	keeper, err := secrets.Open(t.Context(), secrets.Config{Folder: filepath.Join(t.TempDir(), "secrets"), Blobs: store, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	services := map[string]step.Handler{}
	for _, s := range system.Signatures() {
		services[s.Call] = step.HandlerFunc(b.call)
	}
	for name, h := range secrets.Handlers(rand.Reader) {
		services[name] = h
	}
	b.Cluster, err = drive.Open(t.Context(), drive.Config{
		Cluster: "demo", Holder: "test", Store: store, Blobs: store, Library: b, Services: services, Nodes: b, Site: b, Secrets: keeper,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Model implements drive.Library.
func (b *bed) Model(_ context.Context, g history.Goal) (*model.Model, error) {
	return b.models[g.Model], nil
}

// Perform implements drive.Nodes.
func (b *bed) Perform(ctx context.Context, o drive.Order) error {
	b.mu.Lock()
	again := b.attempts[o.ID]
	b.attempts[o.ID] = true
	for _, in := range o.Clear {
		b.sent = append(b.sent, string(in))
	}
	b.mu.Unlock()
	if again {
		return nil
	}
	b.flying.Go(func() {
		time.Sleep(time.Second)
		r := run.Report{ID: o.ID}
		switch {
		case b.perform != nil:
			var err error
			if r.Outputs, err = b.perform(o); err != nil {
				r.Error = err.Error()
			}
		case o.Action == step.Apply:
			r.Outputs = b.outputs(o.Step, o.Target, o.Clear)
		}
		b.note(did{o.Action, o.Target})
		_ = b.Report(context.WithoutCancel(ctx), o.Target, r) // the loop has ended, if it fails
	})
	return nil
}

// Close ends the loop, and waits until nodes have done what they were asked.
func (b *bed) Close() {
	b.Cluster.Close()
	b.flying.Wait()
}

// Abort implements drive.Nodes.
func (b *bed) Abort(context.Context, drive.Order) error { return nil }

// HandOver implements drive.Site.
func (b *bed) HandOver(context.Context, string, string, string) error { return nil }

// Raise implements drive.Site.
func (b *bed) Raise(context.Context, string, string) error { return nil }

// Fence implements drive.Site.
func (b *bed) Fence(context.Context, string, string, string) (string, error) { return "off", nil }

// Wipe implements drive.Site.
func (b *bed) Wipe(context.Context, string, string, string) (string, error) { return "wiped", nil }

// Release implements drive.Site.
func (b *bed) Release(context.Context, string, string) error { return nil }

func (b *bed) note(d did) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ran = append(b.ran, d)
}

// call is every operation of the services but those that are cheap to have for real.
func (b *bed) call(ctx context.Context, c step.Call) (step.Result, error) {
	time.Sleep(time.Second)
	i, err := addr.Parse(c.Owner)
	if err != nil {
		return step.Result{}, err
	}
	t := history.Target{Task: i.Task, Node: i.Node}
	b.note(did{c.Action, t})
	if h := b.reserve.Handlers()[c.Name]; h != nil {
		return h.Call(ctx, c)
	}
	if c.Name == "certs.sign" && b.sign != nil {
		return b.sign.Call(ctx, c)
	}
	if c.Action != step.Apply {
		return step.Result{}, nil
	}
	var in map[string]json.RawMessage
	if err := json.Unmarshal(c.Inputs, &in); err != nil {
		return step.Result{}, err
	}
	return step.Result{Outputs: b.outputs(b.current.Task(t.Task).Step, t, in)}, nil
}

// outputs makes up what a step yields: an input of the same name, or something of the type that tells tasks and nodes
// apart.
func (b *bed) outputs(s *model.Step, t history.Target, in map[string]json.RawMessage) json.RawMessage {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]json.RawMessage{}
	for _, f := range s.Outputs {
		if v, ok := in[f.Name]; ok {
			out[f.Name] = v
			continue
		}
		name := strings.NewReplacer("[", "-", "]", "", ".", "-", "_", "-").Replace(t.String())
		var v any
		switch f.Type.Kind {
		case value.Path:
			v = "/x/" + t.Task // the same on each node, as real steps have it
		case value.CSR:
			v = b.request
		case value.Certificate:
			pem := b.issued[0]
			v = map[string]string{"leaf": pem, "chain": pem, "root": pem}
		case value.URL:
			v = "https://" + name + ".demo.lab"
		case value.FQDN:
			if v = in["name"]; in["name"] == nil {
				v = name + ".demo.lab"
			}
		case value.Map:
			v = map[string]string{}
		case value.List:
			v = []string{}
		case value.String:
			v = "text"
		default:
			panic(fmt.Sprintf("no output of type %s for %s", f.Type, t))
		}
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		out[f.Name] = data
	}
	data, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	return data
}

// pursue makes a cluster file the goal, and waits until the cluster comes to rest; it gives what was done for it.
func (b *bed) pursue(m *model.Model, roles map[string][]string) []did {
	b.t.Helper()
	b.mu.Lock()
	b.models[m.Digest], b.current, b.ran = m, m, nil
	b.mu.Unlock()
	if err := b.Pursue(b.t.Context(), history.Goal{Model: m.Digest, Roles: roles, By: "test", Changed: true}); err != nil {
		b.t.Fatal(err)
	}
	return b.rest()
}

// rest waits until the cluster comes to rest.
func (b *bed) rest() []did {
	b.t.Helper()
	for range 7200 {
		time.Sleep(time.Second)
		outcome, waits := "", []string{}
		if err := b.Look(b.t.Context(), func(s *history.State, p *plan.Planner) {
			outcome = s.Outcome
			for _, it := range outlook.Items(p) {
				if it.State != "in place" && it.State != "absent" {
					waits = append(waits, fmt.Sprintf("%s %s: %s %s", it.Target, it.State, it.Wait.Because(), it.Error))
				}
			}
		}); err != nil {
			b.t.Fatal(err)
		}
		if outcome == history.OutcomeConverged {
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.Clone(b.ran)
		}
		if outcome != "" {
			b.t.Fatalf("came to rest as %q:\n%s", outcome, strings.Join(waits, "\n"))
		}
	}
	var waits []string
	_ = b.Look(b.t.Context(), func(_ *history.State, p *plan.Planner) {
		for _, it := range outlook.Items(p) {
			if it.State != "in place" && it.State != "absent" {
				waits = append(waits, fmt.Sprintf("%s %s: %s %s", it.Target, it.State, it.Wait.Because(), it.Error))
			}
		}
	})
	b.t.Fatalf("did not come to rest within two hours:\n%s", strings.Join(waits, "\n"))
	return nil
}

// up lets machines speak to the engine for the first time.
func (b *bed) up(names ...string) {
	b.t.Helper()
	for _, name := range names {
		seen := history.NodeSeen{
			Node: name, Incarnation: "life-of-" + name, Boot: "boot-of-" + name, Address: "10.77.0.1" + strings.TrimLeft(name, "cnw"), Level: model.Vouched, Online: true,
			Facts: json.RawMessage(`{"memory":4294967296}`),
		}
		if err := b.Seen(b.t.Context(), seen); err != nil {
			b.t.Fatal(err)
		}
	}
}

// compile makes the model of a cluster of a shipped workflow; change alters files of packs, by "pack/path".
func compile(t *testing.T, file string, change map[string]func(string) string) (*model.Model, lang.Diagnostics) {
	t.Helper()
	f, ds := lang.LoadCluster("demo.hcl", []byte(file))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	packs := map[string]*lang.Pack{}
	for name := range f.Packs {
		files, err := content.Find(name, content.Builtin, "")
		if err != nil {
			t.Fatal(err)
		}
		for path, body := range files {
			if edit := change[name+"/"+path]; edit != nil {
				files[path] = []byte(edit(string(body)))
			}
		}
		p, ds := lang.Load(files, system.Catalogue())
		if len(ds) > 0 {
			t.Fatal(ds.Text())
		}
		packs[name] = p
	}
	return lang.Compile(lang.Source{Packs: packs, Cluster: f})
}

func request(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
