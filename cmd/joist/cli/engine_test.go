package cli_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/cmd/system/restapi"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal/sqlstore"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/pki/authority"
	"joist/pki/enrol"
	"joist/services/api"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
	"joist/services/boot/phase"
	"joist/services/certs"
	"joist/services/clusters"
	"joist/services/secrets"
	"joist/services/site"
	"joist/workflows/lang/diag"
)

// refs is an expression that yields what it refers to.
type refs []model.Ref

func (r refs) Refs() []model.Ref { return r }

func (r refs) Eval(s model.Scope) (value.Value, error) {
	m := map[string]value.Value{"of": value.Text(fmt.Sprint([]model.Ref(r)))}
	for i, one := range r {
		m[fmt.Sprintf("v%d", i)] = s.Lookup(one)
	}
	return value.Dict(m), nil
}

// undecidable is an expression that can never be evaluated.
type undecidable struct{ refs }

func (undecidable) Eval(model.Scope) (value.Value, error) {
	return value.Value{}, errors.New("no such thing")
}

func argument(name string, list ...model.Ref) model.Argument {
	shared := !slices.ContainsFunc(list, func(r model.Ref) bool { return r.Kind == model.RefTask || r.Kind == model.RefNode })
	return model.Argument{Name: name, Expr: refs(list), Refs: list, Digest: value.Sum([]byte(fmt.Sprint(list))), Shared: shared}
}

// compiler reads a little language of its own, a word of it per line:
//
//	cluster demo
//	nodes n1 n2
//	rollout member
//	task name each service
//	task member each : task.name
//	output first name
type compiler struct{}

func (compiler) Compile(_ context.Context, s clusters.Source) (*clusters.Compiled, error) {
	m := &model.Model{Digest: value.Sum(s.File), Trust: model.Claimed, Workflow: "test.cluster", Roles: []model.Role{{Name: "m", Min: 1}}}
	out := &clusters.Compiled{Model: m, Choose: map[string]clusters.Selection{}}
	for line := range strings.Lines(string(s.File)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "cluster":
			m.Cluster = words[1]
		case "nodes":
			out.Choose["m"] = clusters.Selection{Names: words[1:]}
		case "select":
			n, err := strconv.Atoi(words[1])
			if err != nil {
				return nil, err
			}
			out.Choose["m"] = clusters.Selection{Count: n, Match: func(string, json.RawMessage) (bool, error) { return true, nil }}
		case "trust":
			m.Trust = words[1]
		case "policy": // refuses every wipe
			m.Policies = append(m.Policies, model.Policy{Name: words[1], Refuse: model.Wiping, Bounded: true, Override: true})
		case "rollout":
			m.Rollouts = append(m.Rollouts, model.Rollout{Name: "r", Tasks: words[1:], Roles: []string{"m"}})
		case "task":
			m.Tasks = append(m.Tasks, task(words[1:]))
		case "output":
			m.Outputs = append(m.Outputs, model.Output{Argument: argument(words[1], model.Ref{Kind: model.RefAll, Name: words[2]})})
		case "drift": // waits for a person
			m.Drift = model.Drift{Every: time.Hour, AtOnce: 4, Waits: true}
		case "wrong":
			return nil, diag.Diagnostics{{
				Severity: diag.Error, Summary: "nothing is called wrong", Detail: "Call it right.", File: s.FileName, Line: 3, Column: 1, EndLine: 3, EndCol: 6, Source: "wrong",
			}}
		case "warn":
			out.Warnings = "a warning\n"
		default:
			return nil, fmt.Errorf("%s: there is no %q", s.FileName, words[0])
		}
	}
	return out, nil
}

func task(words []string) model.Task {
	s := &model.Step{Name: "test." + words[0], Digest: value.Sum([]byte(words[0])),
		Apply:   model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1, Backoff: time.Second},
		Remove:  &model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1, Backoff: time.Second},
		Outputs: []model.Field{{Name: "out", Type: value.Type{Kind: value.String}}, {Name: "token", Type: value.Of(value.Secret, value.Type{Kind: value.String}), Optional: true}}}
	t := model.Task{Name: words[0], Step: s}
	for _, w := range words[1:] {
		kind, name, _ := strings.Cut(w, ".")
		switch {
		case w == "each":
			t.Each = []string{"m"}
		case w == "service":
			s.Scope, s.Remove, s.Apply = model.Service, nil, model.Action{Call: "x.put", Timeout: time.Minute, Attempts: 1}
		case w == "approve":
			s.Scope, s.Remove, s.Outputs = model.Cluster, nil, nil
			s.Apply = model.Action{Approve: &model.Argument{Name: "approve", Expr: question{}, Shared: true}}
		case kind == "after":
			t.After = append(t.After, model.After{Task: name, All: true, Share: model.Every})
		case w == "verify":
			s.Verify = &model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1}
		case kind == "demand":
			t.Asked = name
		case w == "unwanted":
			a := argument("when")
			a.Expr = never{}
			t.When, t.Range = &a, model.Range{File: "test.hcl", Line: 7, Col: 1}
		case w == "undecidable":
			a := argument("u")
			a.Expr = undecidable{}
			t.With, s.Inputs = append(t.With, a), append(s.Inputs, model.Field{Name: "u"})
		case kind == "task", kind == "all":
			in, ref := fmt.Sprintf("i%d", len(t.With)), model.Ref{Kind: model.RefTask, Name: name, Attr: "out"}
			if kind == "all" {
				ref = model.Ref{Kind: model.RefAll, Name: name}
			}
			t.With = append(t.With, argument(in, ref))
			s.Inputs = append(s.Inputs, model.Field{Name: in})
		}
	}
	return t
}

// never is a condition that does not hold.
type never struct{}

func (never) Refs() []model.Ref                     { return nil }
func (never) Eval(model.Scope) (value.Value, error) { return value.Truth(false), nil }

// question is what a person is asked.
type question struct{ refs }

func (question) Eval(model.Scope) (value.Value, error) {
	return value.Text("are the disks the right ones?"), nil
}

// engine is a whole engine with simulated nodes, served on a socket.
type engine struct {
	t      *testing.T
	dir    string
	socket string

	mu     sync.Mutex
	fail   map[string]string // error by instance
	gone   map[string]string // what a verify says, by instance
	hold   map[string]bool   // instances that never answer
	runs   map[string]int
	lives  map[string]int // machines that were wiped and came up again
	api    *api.Server
	all    *clusters.Clusters
	ready  chan struct{} // closed once all is set: a resumed cluster asks for its nodes before that
	book   *site.Book
	db     *sqlstore.DB
	stop   context.CancelFunc
	served chan error
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{t: t, dir: t.TempDir(), fail: map[string]string{}, gone: map[string]string{}, hold: map[string]bool{}, runs: map[string]int{}, lives: map[string]int{}}
	e.socket = filepath.Join(e.dir, "s")
	e.start()
	t.Cleanup(e.end)
	for _, n := range []string{"n1", "n2", "n3"} {
		must(t, e.book.Define(t.Context(), site.Defined{Name: n, MACs: []string{"02:00:00:00:00:" + fmt.Sprintf("%02x", n[1])}, Provider: "sim", Facts: json.RawMessage(`{"memory":1}`)}))
	}
	return e
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (e *engine) start() {
	e.t.Helper()
	ctx := context.Background()
	var err error
	e.db, err = sqlstore.Open(ctx, sqlstore.Config{Dir: filepath.Join(e.dir, "data"), Holder: "test"})
	must(e.t, err)
	e.book, err = site.Open(ctx, site.Config{Store: e.db.Journals(), Holder: "test", Random: rand.Reader})
	must(e.t, err)
	e.ready = make(chan struct{})
	keeper, err := secrets.Open(ctx, secrets.Config{Folder: filepath.Join(e.dir, "secrets"), Blobs: e.db.Blobs(), Random: rand.Reader})
	must(e.t, err)
	e.all, err = clusters.Open(ctx, clusters.Config{
		Compiler: compiler{}, Site: machines{e},
		Drop: func(ctx context.Context, d clusters.Dropped) error {
			return restapi.Drop(ctx, e.book, e.db.Journals(), d)
		},
		Drive: drive.Config{
			Holder: "test", Store: e.db.Journals(), Blobs: e.db.Blobs(), Nodes: e, Site: e, Secrets: keeper,
			Services: map[string]step.Handler{"x.put": step.HandlerFunc(e.serve)},
		},
	})
	must(e.t, err)
	close(e.ready)
	store, err := artifacts.Open(filepath.Join(e.dir, "artifacts"))
	must(e.t, err)
	e.api, err = restapi.New(restapi.Parts{
		Info: api.Info{Version: "test", Data: "DATA", Started: time.Now()}, Clusters: e.all, Site: e.book, Store: e.db.Journals(),
		Online: func(string) (string, bool) { return "10.0.0.1", true },
		Phase: func(m site.Machine) phase.Report {
			now := time.Now()
			if m.Name != "n3" {
				return phase.Report{}
			}
			return phase.Describe([]phase.Mark{{Phase: phase.Script, At: now.Add(-200 * time.Second)}, {Phase: phase.Kernel, At: now.Add(-190 * time.Second)}}, now)
		},
		Notices: func() []string { return []string{"the second thing (just now)", "the first thing (3 min ago)"} },
		Wipe: func(_ context.Context, machine, by string) (string, error) {
			if by == "" {
				return "", errors.New("nobody asked")
			}
			return "vda was discarded", nil
		},
		Console: func(_ context.Context, machine string, w io.Writer, _ api.ConsoleView) error {
			_, err := io.WriteString(w, "console of "+machine+"\n")
			return err
		},
		Operator: func(_ context.Context, cluster string, who certs.Person) (authority.Certificate, error) {
			if _, err := authority.ParseCSR(who.CSR); err != nil {
				return authority.Certificate{}, err
			}
			return authority.Certificate{Leaf: "leaf of " + cluster + "\n", Chain: "chain\n", Root: "root\n", NotAfter: time.Now().Add(time.Hour)}, nil
		},
		Log:       func(_, instance string) []string { return []string{"the last words of " + instance + "\x1b]0;owned\a"} },
		Artifacts: restapi.NewArtifacts(store, checker{store}, noSets{}),
	})
	must(e.t, err)
	l, err := api.Listen(e.socket)
	must(e.t, err)
	serve, stop := context.WithCancel(ctx)
	e.stop, e.served = stop, make(chan error, 1)
	go func() { e.served <- e.api.Serve(serve, l) }()
}

// end stops the engine; start takes the data up again.
func (e *engine) end() {
	e.t.Helper()
	if e.stop == nil {
		return
	}
	e.stop()
	must(e.t, <-e.served)
	e.stop = nil
	e.all.Close()
	must(e.t, e.db.Close())
}

func (e *engine) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *engine) did(instance string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[instance]
}

// answer gives what became of an attempt; false for nothing at all.
func (e *engine) answer(instance string, action step.Action) (outputs json.RawMessage, err string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hold[instance] {
		return nil, "", false
	}
	if action == step.Verify {
		return nil, e.gone[instance], true
	}
	e.runs[instance]++
	if text := e.fail[instance]; text != "" {
		return nil, text, true
	}
	if action == step.Remove {
		return nil, "", true
	}
	return json.RawMessage(`{"out":"` + instance + `","token":"hush"}`), "", true
}

func (e *engine) serve(_ context.Context, c step.Call) (step.Result, error) {
	_, instance, _ := strings.Cut(c.Owner, "/")
	out, text, _ := e.answer(instance, c.Action)
	if text != "" {
		return step.Result{}, errors.New(text)
	}
	return step.Result{Outputs: out}, nil
}

// Perform and Abort implement drive.Nodes.
func (e *engine) Perform(ctx context.Context, o drive.Order) error {
	out, text, ok := e.answer(o.Target.String(), o.Action)
	if !ok {
		return nil
	}
	<-e.ready
	loop, err := e.all.Get(o.Cluster)
	if err != nil {
		return err
	}
	return loop.Report(ctx, o.Target, run.Report{ID: o.ID, Outputs: out, Error: text})
}

func (e *engine) Abort(ctx context.Context, o drive.Order) error {
	<-e.ready
	loop, err := e.all.Get(o.Cluster)
	if err != nil {
		return err
	}
	return loop.Report(ctx, o.Target, run.Report{ID: o.ID, Error: "aborted", Excused: true})
}

// Raise, HandOver, Fence, Wipe and Release implement drive.Site.
func (e *engine) Raise(ctx context.Context, cluster, node string) error {
	<-e.ready
	e.set(func() { e.lives[node]++ })
	return e.all.Tell(ctx, cluster, node)
}

func (e *engine) HandOver(context.Context, string, string, string) error { return nil }

func (e *engine) Fence(context.Context, string, string, string) (string, error) {
	return "fenced", nil
}
func (e *engine) Wipe(context.Context, string, string, string) (string, error) { return "wiped", nil }
func (e *engine) Release(ctx context.Context, cluster, node string) error {
	return e.book.Free(ctx, cluster, node)
}

// machines implements clusters.Site: every machine is up at once.
type machines struct{ e *engine }

func (m machines) Claim(ctx context.Context, c clusters.Claim, choose func([]clusters.Candidate) ([]string, error)) error {
	return m.e.book.Claim(ctx, site.Claim{Cluster: c.Cluster, Disk: c.Disk}, func(list []site.Machine) ([]string, error) {
		var all []clusters.Candidate
		for _, one := range list {
			all = append(all, clusters.Candidate{Name: one.Name, Cluster: one.Cluster, Facts: one.Facts(), Online: true})
		}
		return choose(all)
	})
}

func (m machines) Claims() map[string][]string { return m.e.book.Claims() }

func (m machines) Free(ctx context.Context, cluster, name string) error {
	return m.e.book.Free(ctx, cluster, name)
}

func (m machines) Seen(name string) (history.NodeSeen, bool) {
	if _, ok := m.e.book.Lookup(name); !ok {
		return history.NodeSeen{}, false
	}
	life := ""
	m.e.set(func() { life = strings.Repeat("+", m.e.lives[name]) })
	return history.NodeSeen{Node: name, Incarnation: "inc-" + name + life, Boot: "boot-" + name, Address: "10.0.0.1", Level: enrol.Approved.String(), Online: true}, true
}

// checker reads every file anew.
type checker struct{ store *artifacts.Store }

func (c checker) Verify(ctx context.Context, d value.Digest, _ bool) error {
	return c.store.Verify(ctx, artifacts.Digest("sha256-"+d.String()))
}

type noSets struct{}

func (noSets) Add(context.Context, bootset.Manifest) error      { return nil }
func (noSets) List(context.Context) ([]bootset.Manifest, error) { return nil, nil }
