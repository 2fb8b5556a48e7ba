package system

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/engine/addr"
	"joist/engine/agent/wire"
	"joist/engine/drive"
	"joist/engine/entries"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/journal/sqlstore"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/pki/authority"
	"joist/pki/enrol"
	"joist/services/agents"
	"joist/services/clusters"
	"joist/services/site"
)

func name(name, owner string) entries.Entry {
	return entries.Entry{Key: "name/" + name, Owner: owner, Value: json.RawMessage(fmt.Sprintf(`{"name":%q}`, name))}
}

func TestInventory(t *testing.T) {
	list := []entries.Entry{
		name("n1.demo.lab", "demo/name[n1]"), name("n2.demo.lab", "demo/name[n2]"), name("etcd.demo.lab", "demo/front"),
	}
	n1 := identity{cluster: "demo", node: "n1", address: "10.0.0.1"}
	whole := identity{cluster: "demo"}
	const hint = "; put the name first (base.dns_record, base.balancer, base.names)"
	owners, err := ownersOf(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		who    identity
		wanted []string
		err    string
	}{
		{n1, nil, ""},
		{n1, []string{"10.0.0.1"}, ""},
		{n1, []string{"n1.demo.lab", "etcd.demo.lab", "10.0.0.1"}, ""},
		{n1, []string{"n1.demo.lab", "n2.demo.lab"}, "n2.demo.lab is the name of node n2, and not of node n1"},
		{n1, []string{"10.0.0.2"}, "nothing in cluster demo gives node n1 the name 10.0.0.2" + hint},
		{n1, []string{"n1.other.lab"}, "nothing in cluster demo gives node n1 the name n1.other.lab" + hint},
		{n1, []string{"unknown.demo.lab"}, "nothing in cluster demo gives node n1 the name unknown.demo.lab" + hint},
		{n1, []string{""}, "nothing in cluster demo gives node n1 the name " + hint},
		{identity{cluster: "demo", node: "n3"}, []string{""}, "nothing in cluster demo gives node n3 the name " + hint},
		{identity{cluster: "demo", node: "n3"}, []string{"etcd.demo.lab"}, ""},
		{whole, nil, ""},
		{whole, []string{"etcd.demo.lab"}, ""},
		{whole, []string{"n1.demo.lab"}, "n1.demo.lab is the name of node n1, and not of the cluster"},
		{whole, []string{"demo-admin"}, "nothing in cluster demo gives the cluster the name demo-admin" + hint},
		{whole, []string{"demo.evil.example"}, "nothing in cluster demo gives the cluster the name demo.evil.example" + hint},
		{whole, []string{""}, "nothing in cluster demo gives the cluster the name " + hint},
	} {
		err := test.who.may(test.wanted, owners)
		if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s %q: %v\n\twant %s", test.who, test.wanted, err, test.err)
		}
	}
	for _, broken := range []entries.Entry{{Key: "k", Owner: "demo/x", Value: json.RawMessage(`[`)}, name("a.b", "no address")} {
		if _, err := ownersOf(append(list, broken)); err == nil {
			t.Errorf("read %+v", broken)
		}
	}
}

// counting issues certificates that say how many there were.
type counting struct {
	mu   sync.Mutex
	n    int
	now  func() time.Time
	fail error
}

func (c *counting) Issue(context.Context, authority.Request) (authority.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return authority.Certificate{Leaf: fmt.Sprint("leaf", c.n, " "), Chain: "chain", NotBefore: c.now(), NotAfter: c.now().Add(24 * time.Hour)}, c.fail
}

func TestSigner(t *testing.T) {
	now := time.Unix(1e9, 0)
	i := &counting{now: func() time.Time { return now }}
	s := newSigner(i, i.now)
	ask := func(boot byte, key string, incarnation string, renew bool) string {
		t.Helper()
		chain, err := s.Sign(t.Context(), agents.Certify{
			Identity: enrol.Identity{Node: "n1", Incarnation: incarnation}, Boot: enrol.BootID{boot}, Key: enrol.KeyID(key), Renew: renew,
		})
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	first := ask(1, "a", "i", false)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := ask(1, "a", "i", false); got != first {
				t.Errorf("%s after %s", got, first)
			}
		})
	}
	wg.Wait()
	for what, other := range map[string]string{"boot": ask(2, "a", "i", false), "key": ask(1, "b", "i", false), "incarnation": ask(1, "a", "j", false), "renewal": ask(1, "a", "i", true)} {
		if other == first {
			t.Errorf("the same certificate for another %s", what)
		}
	}
	if got := ask(1, "a", "i", false); got != first {
		t.Error("a renewal took the place of what enrolment gives")
	}
	now = now.Add(8*time.Hour + time.Second)
	if got := ask(1, "a", "i", false); got == first {
		t.Error("a certificate with a third of its life gone was given again")
	}
	now = now.Add(48 * time.Hour)
	ask(9, "z", "i", false)
	if n := len(s.issued); n != 1 {
		t.Errorf("%d certificates are remembered", n)
	}
	i.fail = errors.New("no serial")
	if _, err := s.Sign(t.Context(), agents.Certify{Boot: enrol.BootID{7}}); !errors.Is(err, i.fail) || len(s.issued) != 1 {
		t.Errorf("%v, %d remembered", err, len(s.issued))
	}
}

func TestRequest(t *testing.T) {
	text := value.Type{Kind: value.String}
	secret := value.Of(value.Secret, text)
	s := &model.Step{Name: "p.s", Digest: value.Sum([]byte("s")), Outputs: []model.Field{{Name: "token", Type: secret}, {Name: "url", Type: text}},
		Apply:  model.Action{Script: &model.Script{Body: []byte("#!/bin/sh"), Files: map[string][]byte{"files/b": nil, "files/a": []byte("x")}}, Timeout: time.Minute},
		Verify: &model.Action{Builtin: "check", Timeout: time.Second}, Remove: &model.Action{Builtin: "undo", Timeout: time.Hour}}
	o := drive.Order{Cluster: "demo", Epoch: 7, Secret: []string{"pass"}, Clear: map[string]json.RawMessage{"pass": json.RawMessage(`"p"`), "url": json.RawMessage(`"mine"`)},
		Dispatch: run.Dispatch{Target: history.Target{Task: "etcd.s", Node: "n1"}, ID: 42, Agent: "n1", Incarnation: "i", Action: step.Apply, Step: s}}
	r, err := request(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	if r.ID != "demo/etcd.s[n1]#42" || r.Instance != "demo/etcd.s[n1]" || string(r.Inputs) != `{"pass":"p","url":"mine"}` || !slices.Equal(r.Secret, []string{"pass"}) ||
		r.Outputs["token"] != "secret(string)" || r.Verify == nil || r.Verify.Builtin != "check" || r.Timeout != time.Minute ||
		len(r.Files) != 2 || r.Files[0].Name != "a" || r.Epoch != 7 || r.Incarnation != "i" {
		t.Errorf("%+v", r)
	}
	o.Action = step.Verify // which is not what apply runs
	if r, err = request(o, 0); err != nil || r.Builtin != "check" || len(r.Script) != 0 || len(r.Files) != 0 || r.Timeout != time.Second || r.Verify != nil || len(r.Outputs) != 0 || r.Action != wire.Verify {
		t.Errorf("%+v, %v", r, err)
	}
	o.Action, o.Outputs = step.Remove, json.RawMessage(`{"token":"t","url":"theirs"}`)
	if r, err = request(o, 0); err != nil || string(r.Inputs) != `{"pass":"p","token":"t","url":"mine"}` || !slices.Equal(r.Secret, []string{"pass", "token"}) ||
		r.Builtin != "undo" || r.Verify != nil || len(r.Outputs) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(o.Secret) != 1 {
		t.Error("the order was changed")
	}
	o.Outputs = json.RawMessage(`[`)
	if _, err := request(o, 0); err == nil {
		t.Error("damaged outputs were left out")
	}
	o.Outputs, s.Remove = nil, nil
	if _, err := request(o, 0); err == nil || !strings.Contains(err.Error(), "has no remove") {
		t.Error(err)
	}
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"demo/t[n1]#42", "demo/t#0", "demo/t#", "#1", "demo/t#1#2", "demo/t#+1", "demo/t#01", "demo/t#18446744073709551616", "demo/t[n1]#42.1", "demo/t#1.0", "demo/t#1.01"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		i, seq, life, err := parseID(id)
		if err != nil {
			return
		}
		if got := requestID(drive.Order{Cluster: i.Cluster, Dispatch: run.Dispatch{Target: history.Target{Task: i.Task, Node: i.Node}, ID: seq}}, life); got != id {
			t.Fatalf("%q was read as %q", id, got)
		}
	})
}

// TestForgottenCluster: the number of an event says which attempt is meant as long as a cluster lives. One that is made again after it was forgotten
// neither gets for an answer what an agent did for the one before, nor takes such an answer in.
func TestForgottenCluster(t *testing.T) {
	book, err := site.Open(t.Context(), site.Config{Store: &journal.Memory{}, Holder: "test", Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	s := &System{Site: book}
	o := drive.Order{Cluster: "demo", Dispatch: run.Dispatch{Target: history.Target{Task: "t", Node: "n1"}, ID: 12}}
	before := requestID(o, book.Life("demo"))
	if err := book.Note(t.Context(), site.Dropped{Cluster: "demo", By: "ada", Events: 40}); err != nil {
		t.Fatal(err)
	}
	after := requestID(o, book.Life("demo"))
	if before == after || requestID(o, book.Life("other")) != before {
		t.Errorf("attempts of two clusters that were both called demo: %s and %s", before, after)
	}
	if err := (engineOfAgents{s}).Result(t.Context(), "n1", wire.Result{ID: before, OK: true}); !errors.Is(err, agents.ErrEnded) {
		t.Errorf("a late result for a forgotten cluster: %v", err)
	}
	if err := (engineOfAgents{s}).Result(t.Context(), "n1", wire.Result{ID: after + "0", OK: true}); !errors.Is(err, agents.ErrNotDispatched) {
		t.Errorf("a result for a cluster that there never was: %v", err)
	}
}

func TestLogs(t *testing.T) {
	l := newLogs(func(string) int { return 0 })
	id := addr.Instance{Cluster: "demo", Task: "t"}.String()
	for range 3 {
		l.add("n1", wire.LogChunk{ID: id + "#1", Text: strings.Repeat("x", logKept/2)})
	}
	l.add("n1", wire.LogChunk{ID: "nonsense", Text: "y"})
	if len(l.text) != 1 || len(l.text[id]) != logKept {
		t.Errorf("%d logs, %d bytes", len(l.text), len(l.text[id]))
	}
}

// TestLogsOfAForgottenCluster: what its steps wrote is none of what a cluster of the same name shows, also if it comes late.
func TestLogsOfAForgottenCluster(t *testing.T) {
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	book, err := site.Open(t.Context(), site.Config{Store: db.Journals(), Holder: "test", Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := db.Journals().Acquire(t.Context(), drive.JournalOf("demo"), "test")
	if err != nil {
		t.Fatal(err)
	}
	s := &System{Site: book, db: db, logs: newLogs(book.Life)}
	says := func(id, text string) {
		engineOfAgents{s}.Log("n1", wire.LogChunk{ID: id, Text: text})
	}
	says("demo/t[n1]#3", "of the first")
	says("demo-2/t[n1]#3", "of another")
	if err := s.drop(t.Context(), clusters.Dropped{Cluster: "demo", By: "ada", Events: 3, Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	says("demo/t[n1]#3", "of the first, late")
	if got := s.Log("demo/t[n1]"); got != "" {
		t.Errorf("after it was forgotten: %q", got)
	}
	says("demo/t[n1]#2.1", "of the second")
	if got, other := s.Log("demo/t[n1]"), s.Log("demo-2/t[n1]"); got != "of the second" || other != "of another" {
		t.Errorf("%q and %q", got, other)
	}
}

func TestArtifactsOfAStep(t *testing.T) {
	n := nodes{&System{cfg: Config{Address: netip.MustParseAddr("10.77.0.1")}}}
	s := &model.Step{Name: "p.s", Artifacts: []model.Artifact{{Name: "tool", Pack: "p", Kind: model.Bundle, Digest: value.Sum([]byte("x")), Size: 7}}}
	got, err := n.artifacts(s)
	digest := s.Artifacts[0].Digest.String()
	if err != nil || len(got) != 1 || got[0].Name != "tool" || got[0].Digest != "sha256:"+digest || got[0].Size != 7 || !got[0].Bundle ||
		len(got[0].URLs) != 1 || got[0].URLs[0] != "http://10.77.0.1:8080/artifact/sha256-"+digest {
		t.Errorf("%+v, %v", got, err)
	}
	r := wire.Request{ID: "i", Instance: "i", Action: wire.Apply, Script: []byte("#!/bin/sh"), Artifacts: got}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	s.Artifacts[0].Digest = value.Digest{}
	if _, err := n.artifacts(s); err == nil || !strings.Contains(err.Error(), "nobody decided which file artifact p.tool of step p.s is") {
		t.Errorf("error %v", err)
	}
}
