package clusters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/run/upkeep"
	"joist/engine/step"
	"joist/engine/value"
)

func yes(string, json.RawMessage) (bool, error) { return true, nil }

func machine(name, cluster string, online bool) Candidate {
	return Candidate{Name: name, Cluster: cluster, Online: online}
}

func TestChoose(t *testing.T) {
	free := func(names ...string) (list []Candidate) {
		for _, n := range names {
			list = append(list, machine(n, "", false))
		}
		return list
	}
	for name, test := range map[string]struct {
		control, worker Selection
		before          map[string][]string
		machines        []Candidate
		want            string
	}{
		"by name":          {Selection{Names: []string{"b", "a"}}, Selection{}, nil, free("a", "b", "c"), "control:[a b]"},
		"named twice":      {Selection{Names: []string{"a", "a"}}, Selection{}, nil, free("a"), "control:[a]"},
		"not there":        {Selection{Names: []string{"z"}}, Selection{}, nil, free("a"), "cannot give z to role control of cluster demo: there is no machine of that name"},
		"of another":       {Selection{Names: []string{"a"}}, Selection{}, nil, []Candidate{machine("a", "other", true)}, "cannot give a to role control of cluster demo: cluster other has it; choose another machine, or take it out of that cluster first"},
		"first by name":    {Selection{Match: yes, Count: 2}, Selection{}, nil, free("c", "a", "b"), "control:[a b]"},
		"living first":     {Selection{Match: yes, Count: 1}, Selection{}, nil, []Candidate{machine("a", "", false), machine("b", "", true)}, "control:[b]"},
		"keeps its own":    {Selection{Match: yes, Count: 1}, Selection{}, map[string][]string{"control": {"c"}}, []Candidate{machine("a", "", true), machine("c", "demo", false)}, "control:[c]"},
		"shrinks the dead": {Selection{Match: yes, Count: 2}, Selection{}, map[string][]string{"control": {"a", "b", "c"}}, []Candidate{machine("a", "demo", false), machine("b", "demo", true), machine("c", "demo", true)}, "control:[b c]"},
		"grows without stealing": {Selection{Match: yes, Count: 2}, Selection{Match: yes, Count: 1}, map[string][]string{"control": {"b"}, "worker": {"a"}},
			[]Candidate{machine("a", "demo", true), machine("b", "demo", true), machine("c", "", false)}, "control:[b c] worker:[a]"},
		"strays before free":  {Selection{Match: yes, Count: 1}, Selection{}, nil, []Candidate{machine("a", "", true), machine("b", "demo", false)}, "control:[b]"},
		"names are not taken": {Selection{Match: yes, Count: 1}, Selection{Names: []string{"a"}}, nil, free("a", "b"), "control:[b] worker:[a]"},
		"not enough": {Selection{Match: func(name string, _ json.RawMessage) (bool, error) {
			if name == "c" {
				return false, errors.New("no memory known")
			}
			return name == "a", nil
		}, Count: 2}, Selection{}, nil, append(free("a", "b", "c"), machine("d", "other", true)),
			"cannot find 2 machines for role control of cluster demo: only 1 will do (d belongs to cluster other; b does not match; c: no memory known)"},
		"none at all": {Selection{Match: yes, Count: 1}, Selection{}, nil, nil, "cannot find 1 machine for role control of cluster demo: only 0 will do (there are no other machines)"},
		"too few":     {Selection{}, Selection{}, nil, free("a"), "role control of cluster demo has 0 nodes; its workflow wants at least 1 and at most 3"},
		"too many":    {Selection{Names: []string{"a", "b", "c", "d"}}, Selection{}, nil, free("a", "b", "c", "d"), "role control of cluster demo has 4 nodes; its workflow wants at least 1 and at most 3"},
	} {
		m := &model.Model{Cluster: "demo", Roles: []model.Role{{Name: "control", Min: 1, Max: 3}, {Name: "worker"}}}
		chosen := map[string]Selection{}
		for role, sel := range map[string]Selection{"control": test.control, "worker": test.worker} {
			if sel.Match != nil || sel.Names != nil {
				chosen[role] = sel
			}
		}
		var before *history.Goal
		if test.before != nil {
			before = &history.Goal{Roles: test.before}
		}
		roles, err := choose(&Compiled{Model: m, Choose: chosen}, before, test.machines)
		got := fmt.Sprint(err)
		if err == nil {
			var parts []string
			for _, role := range slices.Sorted(maps.Keys(roles)) {
				parts = append(parts, fmt.Sprint(role, ":", roles[role]))
			}
			got = strings.Join(parts, " ")
		}
		if got != test.want {
			t.Errorf("%s: %s\n\twant %s", name, got, test.want)
		}
	}
	many := make([]Candidate, 100)
	for i := range many {
		many[i] = machine(fmt.Sprint("m", i), "other", true)
	}
	_, err := choose(&Compiled{Model: &model.Model{Cluster: "demo", Roles: []model.Role{{Name: "r"}}}, Choose: map[string]Selection{"r": {Match: yes, Count: 1}}}, nil, many)
	if err == nil || len(err.Error()) > 600 || !strings.HasSuffix(err.Error(), "; and 90 more)") {
		t.Errorf("too long: %v", err)
	}
}

// constant is an expression without references.
type constant string

func (constant) Refs() []model.Ref                       { return nil }
func (c constant) Eval(model.Scope) (value.Value, error) { return value.Text(string(c)), nil }

// world is a store, a site and a compiler around Clusters. A cluster file is "name: machine machine", with "broken" for
// one that does not compile; its workflow is one service step for each node, or with "script" one script; with
// "verify" it can be looked at.
type world struct {
	t     *testing.T
	store *journal.Memory
	*Clusters

	mu     sync.Mutex
	owner  map[string]string // cluster by machine
	claims map[string]Claim  // as what a machine was claimed last
	calls  []string
	orders []drive.Order
	fail   error // of service calls
	forgot []string
	facts  json.RawMessage      // of every machine
	asked  func() (silent bool) // when somebody asks what a machine is like; nil for one that is always up
}

func (w *world) Compile(_ context.Context, s Source) (*Compiled, error) {
	name, tail, ok := strings.Cut(string(s.File), ":")
	if !ok || strings.Contains(tail, "broken") {
		return nil, errors.New("1 problem in " + s.FileName)
	}
	st := &model.Step{Name: "p.s", Scope: model.Service, Inputs: []model.Field{{Name: "in"}}, Apply: model.Action{Call: "x.put", Timeout: time.Minute, Attempts: 1}}
	names := strings.Fields(tail)
	if i := slices.Index(names, "script"); i >= 0 {
		names = slices.Delete(names, i, i+1)
		st.Scope, st.Apply = model.Node, model.Action{Script: &model.Script{}, Timeout: time.Hour, Attempts: 1}
		st.Remove = &st.Apply
	}
	if i := slices.Index(names, "verify"); i >= 0 {
		names = slices.Delete(names, i, i+1)
		st.Verify = &model.Action{Script: st.Apply.Script, Call: st.Apply.Call, Timeout: time.Minute, Attempts: 1}
	}
	var policies []model.Policy
	names = slices.DeleteFunc(names, func(word string) bool {
		p, ok := policyOf(word)
		policies = append(policies, p...)
		return ok
	})
	var artifacts []model.Artifact
	names = slices.DeleteFunc(names, func(word string) bool {
		version, ok := strings.CutPrefix(word, "version=")
		if ok {
			artifacts = []model.Artifact{{Name: "tool", Pack: "p", Version: version, Lag: model.Lag{Steps: 1}}}
		}
		return ok
	})
	if st.Artifacts = artifacts; artifacts != nil {
		st.Digest = value.Sum([]byte(artifacts[0].Version))
	}
	storage, trust := model.InMemory, slices.Contains(names, "trust")
	if slices.Contains(names, "disk") {
		storage = model.OnDisk
	}
	names = slices.DeleteFunc(names, func(word string) bool { return word == "trust" || word == "disk" })
	m := &model.Model{Storage: storage, TrustBoot: trust, Artifacts: artifacts, Digest: value.Sum(s.File), Cluster: name, Trust: model.Approved, Roles: []model.Role{{Name: "m", Memory: 2 << 30}}, Policies: policies,
		Tasks: []model.Task{{Name: "s", Step: st, Each: []string{"m"}, With: []model.Argument{{Name: "in", Expr: constant("x"), Shared: true}}}}}
	if names = slices.DeleteFunc(names, func(word string) bool { return word == "frozen" }); strings.Contains(tail, "frozen") {
		s.Frozen = value.Sum([]byte("winter"))
	}
	return &Compiled{Model: m, Source: &s, Choose: map[string]Selection{"m": {Names: names}}, Warnings: "careful"}, nil
}

func (w *world) Claim(_ context.Context, c Claim, choose func([]Candidate) ([]string, error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Candidate
	for _, name := range slices.Sorted(maps.Keys(w.owner)) {
		all = append(all, machine(name, w.owner[name], true))
	}
	names, err := choose(all)
	for _, name := range names {
		w.owner[name] = c.Cluster
		if w.claims == nil {
			w.claims = map[string]Claim{}
		}
		w.claims[name] = c
	}
	return err
}

func (w *world) Seen(name string) (history.NodeSeen, bool) {
	if w.asked != nil && w.asked() {
		return history.NodeSeen{Node: name, Address: "10.0.0.1", Level: model.Vouched}, true
	}
	return history.NodeSeen{Node: name, Incarnation: name + "a", Boot: "b", Address: "10.0.0.1", Level: model.Vouched, Online: true, Facts: w.facts}, true
}

func (w *world) Claims() map[string][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	claims := map[string][]string{}
	for name, cluster := range w.owner {
		if cluster != "" {
			claims[cluster] = append(claims[cluster], name)
		}
	}
	return claims
}

func (w *world) Free(_ context.Context, cluster, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owner[name] == cluster {
		w.owner[name] = ""
	}
	return nil
}

func (w *world) Call(_ context.Context, call step.Call) (step.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, string(call.Action)+" "+call.Owner)
	return step.Result{}, w.fail
}

func (w *world) Perform(_ context.Context, o drive.Order) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, o)
	return nil
}

func (w *world) Abort(context.Context, drive.Order) error { return nil }

// site is what loops ask of machines.
type site struct{ w *world }

func (site) HandOver(context.Context, string, string, string) error { return nil }
func (site) Raise(context.Context, string, string) error            { return nil }
func (site) Fence(context.Context, string, string, string) (string, error) {
	return "fenced", nil
}
func (site) Wipe(context.Context, string, string, string) (string, error) { return "wiped", nil }
func (s site) Release(ctx context.Context, cluster, node string) error {
	return s.w.Free(ctx, cluster, node)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: &journal.Memory{}, owner: map[string]string{"n1": "", "n2": "", "n3": ""}}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	forget := func(cluster string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.forgot = append(w.forgot, cluster)
		return nil
	}
	w.Clusters, err = Open(w.t.Context(), Config{Compiler: w, Site: w, Forget: forget, Drive: drive.Config{
		Holder: "test", Store: w.store, Blobs: w.store, Services: map[string]step.Handler{"x.put": w}, Nodes: w, Site: site{w}, Log: slog.New(slog.DiscardHandler),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) apply(file string) *Accepted {
	w.t.Helper()
	a, err := w.Apply(w.t.Context(), Source{FileName: "c.hcl", File: []byte(file)}, "ada")
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return a
}

func (w *world) refuse(file, want string) {
	w.t.Helper()
	if _, err := w.Apply(w.t.Context(), Source{FileName: "c.hcl", File: []byte(file)}, "ada"); err == nil || !strings.Contains(err.Error(), want) {
		w.t.Errorf("%s: %v\n\twant %s", file, err, want)
	}
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.calls)
	if !slices.Equal(w.calls, want) {
		w.t.Errorf("calls %q, want %q", w.calls, want)
	}
	w.calls = nil
}

func (w *world) owners() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.owner)
}

func (w *world) length() (n uint64) {
	w.t.Helper()
	list, err := w.store.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, info := range list {
		n += info.Last
	}
	return n
}

func (w *world) outcome(name string) (outcome string) {
	w.t.Helper()
	loop, err := w.Get(name)
	if err == nil {
		err = loop.Look(w.t.Context(), func(s *history.State, _ *plan.Planner) { outcome = s.Outcome })
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return outcome
}

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.refuse("demo: n1 broken", "1 problem in c.hcl")
		w.refuse("De mo: n1", `cannot use "De mo" as a cluster's name`)
		w.refuse("demo: n9", "there is no machine of that name")
		if w.length() != 0 || len(w.Names()) != 0 || w.owners() != "map[n1: n2: n3:]" {
			t.Errorf("a refused declaration left %d events, clusters %v, %s", w.length(), w.Names(), w.owners())
		}
		a := w.apply("demo: n1 n2")
		w.expect("apply demo/s[n1]", "apply demo/s[n2]")
		if a.Cluster != "demo" || a.Warnings != "careful" || fmt.Sprint(a.Roles) != "map[m:[n1 n2]]" || w.outcome("demo") != "converged" {
			t.Errorf("%+v, outcome %s", a, w.outcome("demo"))
		}
		w.refuse("other: n2", "cluster demo has it")

		before := w.length()
		p, err := w.Preview(t.Context(), Source{File: []byte("demo: n1 n3")})
		if err != nil || len(p.Items) == 0 || w.length() != before || w.owners() != "map[n1:demo n2:demo n3:]" {
			t.Errorf("preview %+v, %v; %d events more; %s", p, err, w.length()-before, w.owners())
		}
		other, err := w.Preview(t.Context(), Source{File: []byte("other: n1")})
		if err != nil || len(other.Missing) != 1 || !strings.Contains(other.lacks().Error(), "cluster demo has it") || len(other.Items) == 0 {
			t.Errorf("a preview promised another's machine: %+v, %v", other, err)
		}
		w.expect()

		w.apply("demo: n1 n3")
		w.expect("apply demo/s[n3]", "remove demo/s[n2]")
		if got := w.owners(); got != "map[n1:demo n2: n3:demo]" {
			t.Errorf("owners %s", got)
		}
		if err := w.Destroy(t.Context(), "nothing", "ada"); err == nil || err.Error() != `there is no cluster "nothing"` {
			t.Error(err)
		}
		if err := w.Destroy(t.Context(), "demo", "ada"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.expect("remove demo/s[n1]", "remove demo/s[n3]")
		if w.outcome("demo") != "destroyed" || w.owners() != "map[n1: n2: n3:]" {
			t.Errorf("outcome %s, %s", w.outcome("demo"), w.owners())
		}
		w.apply("demo: n2") // and up again
		w.expect("apply demo/s[n2]")
		w.Close()
	})
}

func TestApplyAgainRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fail = errors.New("no room")
		first := w.apply("demo: n1")
		if w.outcome("demo") != "stopped" {
			t.Errorf("outcome %s", w.outcome("demo"))
		}
		w.fail = nil
		second := w.apply("demo: n1")
		if second.Seq <= first.Seq || second.Goal != first.Goal || w.outcome("demo") != "converged" {
			t.Errorf("%+v after %+v, outcome %s", second, first, w.outcome("demo"))
		}
		w.expect("apply demo/s[n1]", "apply demo/s[n1]")
		w.Close()
	})
}

// TestRestart: every cluster is taken up, what a crash left claimed is given back, and one cluster that cannot be taken
// up does not keep the others.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("a: n1")
		w.apply("b: n2")
		w.Close()
		w.owner["n3"], w.owner["n4"] = "a", "c" // claimed, and then the engine died; c never got a journal
		epoch, err := w.store.Acquire(t.Context(), drive.JournalOf("d"), "test")
		if err != nil {
			t.Fatal(err)
		}
		bad := journal.Record{Seq: 1, Time: time.Unix(1, 0), Kind: "from the future", Data: []byte(`{}`)}
		if err := w.store.Append(t.Context(), journal.Batch{Journal: drive.JournalOf("d"), Epoch: epoch, Records: []journal.Record{bad}}); err != nil {
			t.Fatal(err)
		}
		w.calls = nil
		w.start()
		if got := w.Names(); !slices.Equal(got, []string{"a", "b", "d"}) {
			t.Errorf("clusters %v", got)
		}
		if _, err := w.Get("d"); err == nil || !strings.Contains(err.Error(), "cannot take up cluster d") {
			t.Errorf("d: %v", err)
		}
		w.refuse("d: n3", "cannot take up cluster d")
		w.expect()
		if got := w.owners(); got != "map[n1:a n2:b n3: n4:]" || w.outcome("a") != "converged" || w.outcome("b") != "converged" {
			t.Errorf("%s, outcomes %s, %s", got, w.outcome("a"), w.outcome("b"))
		}
		w.Close()
	})
}

// TestNeverBegun: what the engine died over before its first goal was written is no cluster afterwards: nobody sees it, its
// machines are free, and one of that name can be declared.
func TestNeverBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.owner["n1"] = "ghost"
		loop, err := w.open(t.Context(), "ghost")
		if err == nil {
			seen, _ := w.Seen("n1")
			err = loop.Seen(t.Context(), seen)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		w.start()
		if w.owners() != "map[n1: n2: n3:]" || len(w.Names()) != 0 {
			t.Errorf("%s, clusters %v", w.owners(), w.Names())
		}
		if err := w.Destroy(t.Context(), "ghost", "ada"); err == nil || err.Error() != `there is no cluster "ghost"` {
			t.Error(err)
		}
		w.apply("ghost: n1")
		w.expect("apply ghost/s[n1]")
		if err := w.Destroy(t.Context(), "ghost", "ada"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.outcome("ghost") != "destroyed" || w.owners() != "map[n1: n2: n3:]" {
			t.Errorf("outcome %s, %s", w.outcome("ghost"), w.owners())
		}
		w.Close()
	})
}

func TestRepeated(t *testing.T) {
	const kept = `{"name": "n1.demo.lab", "size": 3, "key": {"secret": "a handle"}}`
	for said, want := range map[string]bool{
		``: true, `{}`: true, kept: true, `{"name": "N1.demo.lab", "size": 3.0, "key": "in clear"}`: true,
		`{"name": "n2.demo.lab"}`: false, `{"name": "n1.demo.lab", "more": 1}`: false,
	} {
		if got := repeated(json.RawMessage(said), json.RawMessage(kept)); got != want {
			t.Errorf("%s repeats %s: %t", said, kept, got)
		}
	}
}

// TestLeavingStaysClaimed: a machine that the goal has no more is the cluster's until its effects are gone, also over a
// restart of the engine.
func TestLeavingStaysClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("a: script n1 n2")
		w.apply("a: script n1") // n2's agent never answers
		if got := w.owners(); got != "map[n1:a n2:a n3:]" {
			t.Errorf("while n2 is left: %s", got)
		}
		w.Close()
		w.start()
		if got := w.owners(); got != "map[n1:a n2:a n3:]" {
			t.Errorf("after a restart: %s", got)
		}
		w.Close()
	})
}

// TestPinned: a cluster that is being destroyed is still made of its frozen set, also over a restart of the engine: its disks are
// wiped by a scout of it.
func TestPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, set := newWorld(t), value.Sum([]byte("winter"))
		pinned := func(when string, want value.Digest) {
			t.Helper()
			if got, err := w.Pinned(t.Context(), "a"); err != nil || got != want {
				t.Errorf("%s: %s, %v", when, got, err)
			}
		}
		w.apply("a: n1 frozen")
		pinned("founded", set)
		w.mu.Lock()
		w.fail = errors.New("not now")
		w.mu.Unlock()
		if err := w.Destroy(t.Context(), "a", "me"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		pinned("while its entries are left", set)
		w.Close()
		w.start()
		pinned("after a restart", set)
		w.Close()

		w = newWorld(t)
		w.apply("a: n1")
		pinned("never pinned", value.Digest{})
		w.apply("a: n1 frozen")
		pinned("pinned", set)
		if err := w.Destroy(t.Context(), "a", "me"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		pinned("destroyed", value.Digest{})
		w.Close()
	})
}

// TestJournalFails: a goal that could not be written leaves no machine claimed, and apply takes the cluster up again.
// TestClaimedForNothing: what a goal says of its machines holds for them only with the goal. One that never came to be, since the engine died
// after it had claimed them or could not write it, leaves them as they were: nobody may trust the boot network because of it, nor think
// that they hold no data.
func TestClaimedForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("demo: n1 disk")
		had := w.claims["n1"]
		if want := (Claim{Cluster: "demo", Disk: true}); had != want {
			t.Fatalf("claimed as %+v", had)
		}
		w.Close()
		w.claims["n1"] = Claim{Cluster: "demo", Trust: true} // of another goal, and then the engine died
		w.start()
		if got := w.claims["n1"]; got != had {
			t.Errorf("after a restart claimed as %+v, want %+v", got, had)
		}
		w.Close()
	})
}

func TestJournalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("demo: n1")
		w.store.BeforeCommit = func(journal.Batch) error { return errors.New("the disk is full") }
		w.refuse("demo: n1 n2", "the disk is full")
		w.store.BeforeCommit = nil
		w.apply("demo: n1 n3")
		if got := w.owners(); got != "map[n1:demo n2: n3:demo]" || w.outcome("demo") != "converged" {
			t.Errorf("%s, outcome %s", got, w.outcome("demo"))
		}
		w.Close()
	})
}

func TestResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("demo: n1 n2 script")
		if len(w.orders) != 2 {
			t.Fatalf("orders %v", w.orders)
		}
		o := w.orders[slices.IndexFunc(w.orders, func(o drive.Order) bool { return o.Node == "n1" })]
		i := addr.Instance{Cluster: "demo", Task: "s", Node: "n1"}
		result := func(i addr.Instance, node string, id uint64) Reception {
			is, err := w.Result(t.Context(), i, node, run.Report{ID: id, Outputs: json.RawMessage(`{}`)})
			if err != nil {
				t.Error(err)
			}
			return is
		}
		for _, lie := range []struct {
			i    addr.Instance
			node string
			id   uint64
		}{
			{i, "n2", o.ID}, {i, "n1", o.ID - 1}, {i, "n1", o.ID + 100}, {i, "n1", 0}, {addr.Instance{Cluster: "demo", Task: "s", Node: "n2"}, "n1", o.ID},
			{addr.Instance{Cluster: "demo", Task: "t", Node: "n1"}, "n1", o.ID}, {addr.Instance{Cluster: "none", Task: "s", Node: "n1"}, "n1", o.ID},
		} {
			if result(lie.i, lie.node, lie.id) != Stranger {
				t.Errorf("took %+v", lie)
			}
		}
		first, again, other := result(i, "n1", o.ID), result(i, "n1", o.ID), result(i, "n2", o.ID)
		if first != Taken || again != Late || other != Stranger {
			t.Errorf("the node's own result %d, the same once more %d, another's afterwards %d", first, again, other)
		}
		altered, err := w.Result(t.Context(), i, "n1", run.Report{ID: o.ID, Outputs: json.RawMessage(`{"path": "/etc/shadow"}`)})
		if err != nil || altered != Stranger {
			t.Errorf("the node's own result with other outputs: %d, %v", altered, err)
		}
		w.Close()
	})
}

// TestVerifyResults has instances verified on their nodes: only who was asked says what was found, and it counts.
func TestVerifyResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("demo: n1 n2 script verify")
		defer w.Close()
		result := func(node string, o drive.Order, failure string) bool {
			i := addr.Instance{Cluster: "demo", Task: o.Task, Node: o.Node}
			is, err := w.Result(t.Context(), i, node, run.Report{ID: o.ID, Error: failure})
			if err != nil {
				t.Error(err)
			}
			synctest.Wait()
			return is == Taken
		}
		for _, o := range slices.Clone(w.orders) {
			result(o.Agent, o, "")
		}
		loop, err := w.Get("demo")
		if err != nil {
			t.Fatal(err)
		}
		w.orders = nil
		id, err := loop.Verify(t.Context(), "ada", nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(w.orders) != 2 || w.orders[0].Action != step.Verify {
			t.Fatalf("orders %v", w.orders)
		}
		good, bad := w.orders[0], w.orders[1]
		if result(bad.Agent, good, "gone") {
			t.Error("a node said what another was asked for")
		}
		if !result(good.Agent, good, "") || !result(bad.Agent, bad, "gone") {
			t.Error("what was asked for was not taken")
		}
		time.Sleep(10 * time.Second) // it is looked at again before it counts
		synctest.Wait()
		if len(w.orders) != 3 || w.orders[2].Target != bad.Target || w.orders[2].ID == bad.ID {
			t.Fatalf("orders %v", w.orders)
		}
		if !result(bad.Agent, w.orders[2], "gone") || result(good.Agent, good, "") {
			t.Error("a second look was not taken, or what was said once more was")
		}
		var q upkeep.Inquiry
		if err := loop.Inspect(t.Context(), func(m *run.Machine) { q, err = m.Inquiry(id, 0, 10) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || len(q.Ended) != 2 || q.Ended[0].State != upkeep.LookInPlace || q.Ended[1].State != upkeep.LookDrifted || q.Ended[1].Observed != "gone" {
			t.Errorf("the inquiry: %+v, %v", q, err)
		}
		if o := w.orders[len(w.orders)-1]; o.Action != step.Apply || o.Target != bad.Target {
			t.Errorf("what has drifted is not applied again: %v", w.orders)
		}
	})
}

// TestVerifyOfServices: what a service has is verified by asking the service.
func TestVerifyOfServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply("demo: n1 verify")
		defer w.Close()
		loop, err := w.Get("demo")
		if err != nil {
			t.Fatal(err)
		}
		look := func(failure error) []string {
			w.mu.Lock()
			w.calls, w.fail = nil, failure
			w.mu.Unlock()
			if _, err := loop.Verify(t.Context(), "ada", nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
			synctest.Wait()
			return w.calls
		}
		if got := look(nil); !slices.Equal(got, []string{"verify demo/s[n1]"}) {
			t.Errorf("calls %v", got)
		}
		if got := look(errors.New("no entry")); !slices.Equal(got, []string{"verify demo/s[n1]", "verify demo/s[n1]", "apply demo/s[n1]"}) {
			t.Errorf("calls %v of an entry that is gone", got)
		}
	})
}
