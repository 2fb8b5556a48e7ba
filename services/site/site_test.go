package site_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"joist/engine/journal"
	"joist/engine/journal/sqlstore"
	"joist/pki/enrol"
	"joist/services/site"
)

var t0 = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// world is a book and its clock, and who was told of changes.
type world struct {
	*site.Book
	t     fataler
	now   time.Time
	store journal.Store

	mu   sync.Mutex
	told []string
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func open(t fataler, store journal.Store) *world {
	w := &world{t: t, now: t0, store: store}
	w.reopen()
	return w
}

func (w *world) reopen() {
	w.t.Helper()
	var err error
	w.Book, err = site.Open(context.Background(), site.Config{
		Store: w.store, Holder: "test", Random: rand.Reader, Now: func() time.Time { return w.now },
		Secret: func(machine string) []byte { return []byte("voucher of " + machine) },
		Changed: func(name string, m site.Machine) {
			if now, ok := w.Lookup(name); ok && now.Name != m.Name { // asking does not deadlock
				w.t.Fatal("told of another machine")
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, name)
		},
	})
	w.must(err)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) define(name, mac, uuid string) {
	w.t.Helper()
	w.must(w.Define(context.Background(), site.Defined{Name: name, MACs: []string{mac}, UUID: uuid, Provider: "sim", Facts: json.RawMessage(`{"memory":1}`)}))
}

// ask lets a key ask for the machine, as the gateway would.
func (w *world) ask(id enrol.BootID, key string, vouched bool) enrol.Decision {
	w.t.Helper()
	name, _, err := w.Boot(context.Background(), id)
	w.must(err)
	var d enrol.Decision
	p := enrol.Proven{Boot: id, Key: enrol.KeyID(key), Fingerprint: fp(key), Incarnation: "i" + key, Time: w.now, Vouched: vouched}
	if name == "" {
		return enrol.Decide(enrol.View{}, p, w.now)
	}
	_, err = w.Update(context.Background(), name, func(m enrol.Machine) []enrol.Event {
		d = enrol.Decide(enrol.View{Machine: m}, p, w.now)
		return d.Events
	})
	w.must(err)
	return d
}

func fp(key string) string { return strings.ToUpper(strings.Repeat(key, 8))[:8] }

func (w *world) issue(mac, uuid string) enrol.BootID {
	w.t.Helper()
	id, err := w.Issue(context.Background(), site.Boot{MAC: mac, UUID: uuid, Address: "10.0.0.9"})
	w.must(err)
	return id
}

func (w *world) claim(cluster string, names ...string) error {
	return w.Claim(context.Background(), site.Claim{Cluster: cluster}, func([]site.Machine) ([]string, error) { return names, nil })
}

func (w *world) expectTold(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.told, want) {
		w.t.Fatal(fmt.Sprintf("told of %q, want %q", w.told, want))
	}
	w.told = nil
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if fmt.Sprint(err) != want {
		t.Errorf("%v\n\twant %s", err, want)
	}
}

const mac1, mac2, mac3 = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	connect := func() *sqlstore.DB {
		db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: dir, Holder: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := connect()
	w := open(t, db.Journals())
	w.define("n1", "52-54-00-00-00-01", "ABC")
	w.define("n2", mac2, "")
	first := w.issue(strings.ToUpper(mac1), "")
	w.ask(first, "a", true)
	discovered := w.issue(mac3, "dead")
	w.must(w.Facts(t.Context(), "n1", json.RawMessage(`{ "memory": 2 }`)))
	w.must(w.claim("demo", "n1", "n2", "n1"))
	w.must(w.Free(t.Context(), "demo", "n2"))
	w.must(w.Note(t.Context(), site.Noticed{Kind: "lie", Text: "x"}))
	before := w.Machines()
	w.must(db.Close())

	db = connect()
	defer db.Close()
	w.store = db.Journals()
	w.reopen()
	if diff := cmp.Diff(before, w.Machines()); diff != "" {
		t.Errorf("folded again (-before +after):\n%s", diff)
	}
	if name, secret, err := w.Boot(t.Context(), discovered); name != "m-525400000003" || string(secret) != "voucher of m-525400000003" || err != nil {
		t.Errorf("boot id of %q, %q, %v", name, secret, err)
	}
	m, ok := w.Find("", "abc")
	if !ok || m.Name != "n1" || m.MACs[0] != mac1 || m.Cluster != "demo" || m.Enrol.Level() != enrol.Vouched || string(m.Facts()) != `{"memory":2}` {
		t.Errorf("found %+v", m)
	}
	if claims := w.Claims(); len(claims) != 1 || !slices.Equal(claims["demo"], []string{"n1"}) {
		t.Errorf("claims %v", claims)
	}
	if d := w.ask(first, "a", true); d.Outcome != enrol.Same {
		t.Errorf("the known key is %s", d.Outcome)
	}
}

func TestDefine(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "u1")
	w.expectTold("n1")
	last := w.Journal().Last()
	w.define("n1", mac1, "U1")
	w.expectTold()
	if w.Journal().Last() != last {
		t.Error("the same definition again made an event")
	}
	define := func(name string, uuid string, macs ...string) error {
		return w.Define(t.Context(), site.Defined{Name: name, UUID: uuid, MACs: macs})
	}
	refused(t, define("n2", "", strings.ToUpper(mac1)), "cannot define machine n2: its MAC address "+mac1+" is that of n1; two machines with one MAC address cannot be told apart")
	refused(t, define("n2", "U1", mac2), "cannot define machine n2: its UUID u1 is that of n1")
	refused(t, define("N2", "", mac2), `cannot define machine "N2": a name has lower-case letters, digits and hyphens`)
	refused(t, define("n2", "", "x"), `cannot define machine n2: "x" is not a MAC address; expected a form such as 52:54:00:00:00:01`)
	w.must(define("n1", "u9", mac3)) // another NIC: the old one is free again
	w.must(define("n2", "u1", mac1, mac1, mac2))
	if m, _ := w.Find(mac1, ""); m.Name != "n2" || len(m.MACs) != 2 {
		t.Errorf("found %+v", m)
	}
	if m, _ := w.Find(mac3, "u1"); m.Name != "n1" {
		t.Error("a UUID weighs more than a MAC address")
	}
	if _, ok := w.Find("", ""); ok {
		t.Error("found a machine by nothing")
	}
}

func TestIssue(t *testing.T) {
	w := open(t, &journal.Memory{})
	id := w.issue(mac1, "")
	if m, ok := w.Lookup("m-525400000001"); !ok || m.Provider != "" || !slices.Equal(m.MACs, []string{mac1}) {
		t.Errorf("discovered %+v", m)
	}
	if again := w.issue(mac1, ""); again == id {
		t.Error("a boot id was given out twice")
	}
	w.define("m-525400000002", mac3, "")
	if _, err := w.Issue(t.Context(), site.Boot{MAC: mac2}); err == nil || !strings.Contains(err.Error(), "define it under a name of its own") {
		t.Errorf("a machine took another one's name: %v", err)
	}
	for _, bad := range []string{"", "x", "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"} {
		if _, err := w.Issue(t.Context(), site.Boot{MAC: bad}); err == nil {
			t.Errorf("a boot id for %q", bad)
		}
	}
	if name, _, err := w.Boot(t.Context(), enrol.BootID{1}); name != "" || err != nil {
		t.Errorf("an unknown boot id is that of %q, %v", name, err)
	}
}

// TestBootsArePruned: boot ids of a machine that boots for ever are not kept for ever, in the book or its index.
func TestBootsArePruned(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "")
	var ids []enrol.BootID
	for i := range 100 {
		ids = append(ids, w.issue(mac1, ""))
		if i%10 == 0 {
			w.ask(ids[i], fmt.Sprint("k", i), true)
		}
		w.now = w.now.Add(enrol.BootValidity)
	}
	check := func() {
		t.Helper()
		m, _ := w.Lookup("n1")
		known := 0
		for _, id := range ids {
			if name, _, _ := w.Boot(t.Context(), id); name != "" {
				known++
			}
		}
		if known != len(m.Enrol.Boots) || known > 15 {
			t.Errorf("%d boot ids are found, %d kept", known, len(m.Enrol.Boots))
		}
	}
	check()
	w.reopen()
	check()
	w.must(w.Forget(t.Context(), "n1"))
	if name, _, _ := w.Boot(t.Context(), ids[99]); name != "" {
		t.Error("a forgotten machine's boot id is known")
	}
}

func TestFacts(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "")
	w.must(w.Facts(t.Context(), "n1", json.RawMessage(`{"cpus":2}`)))
	w.expectTold("n1", "n1")
	last := w.Journal().Last()
	w.must(w.Facts(t.Context(), "n1", json.RawMessage(` { "cpus" : 2 } `)))
	w.expectTold()
	if w.Journal().Last() != last {
		t.Error("the same facts made an event")
	}
	if m, _ := w.Lookup("n1"); string(m.Facts()) != `{"cpus":2,"memory":1}` {
		t.Errorf("facts %s", m.Facts())
	}
	refused(t, w.Facts(t.Context(), "n9", json.RawMessage(`{}`)), `there is no machine "n9"; joist node list names them all`)
	if err := w.Facts(t.Context(), "n1", nil); err == nil {
		t.Error("took no facts for facts")
	}
}

func TestForget(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "u1")
	id := w.issue(mac1, "")
	w.ask(id, "a", true)
	w.must(w.claim("demo", "n1"))
	refused(t, w.Forget(t.Context(), "n1"), "cannot forget n1: cluster demo has claimed it; take it out of the cluster first")
	w.must(w.Free(t.Context(), "other", "n1")) // not its own: nothing
	refused(t, w.Forget(t.Context(), "n1"), "cannot forget n1: cluster demo has claimed it; take it out of the cluster first")
	w.must(w.Free(t.Context(), "demo", "n1"))
	w.told = nil
	w.must(w.Forget(t.Context(), "n1"))
	w.expectTold("n1") // so that its connection is closed
	refused(t, w.Forget(t.Context(), "n1"), `there is no machine "n1"; joist node list names them all`)
	if d := w.ask(id, "a", true); d.Outcome != enrol.Refuse {
		t.Errorf("a forgotten machine's key: %s", d.Outcome)
	}
	_, err := w.Update(t.Context(), "n1", func(enrol.Machine) []enrol.Event {
		return []enrol.Event{{Kind: enrol.Ended, Machine: "n1", At: w.now}}
	})
	var unknown *site.UnknownError
	if !errors.As(err, &unknown) || len(w.Machines()) != 0 {
		t.Errorf("a forgotten machine came back: %v, %v", err, w.Machines())
	}
	w.define("n1", mac1, "u1")
	if m, _ := w.Lookup("n1"); len(m.Enrol.Keys) != 0 || m.Cluster != "" {
		t.Errorf("defined again: %+v", m)
	}
}

func TestApproval(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "")
	id := w.issue(mac1, "")
	if d := w.ask(id, "a", false); d.Outcome != enrol.Pending {
		t.Fatalf("%+v", d)
	}
	word := func(key string) enrol.Word { return enrol.Word{Fingerprint: fp(key), By: "ada", At: w.now} }
	w.told = nil
	if err := w.Approve(t.Context(), "n1", word("b")); err == nil {
		t.Error("approved a key that does not wait")
	}
	w.expectTold()
	w.must(w.Approve(t.Context(), "n1", word("a")))
	w.expectTold("n1")
	if d := w.ask(id, "a", false); d.Outcome != enrol.Accept || d.Level != enrol.Approved {
		t.Fatalf("%+v", d)
	}
	if d := w.ask(id, "b", false); d.Outcome != enrol.Quarantine {
		t.Fatalf("%+v", d)
	}
	if m, _ := w.Lookup("n1"); m.Enrol.Level() != 0 || m.Enrol.Quarantine == "" {
		t.Errorf("in quarantine: %+v", m.Enrol)
	}
	w.must(w.Approve(t.Context(), "n1", word("a"))) // a person's word ends it
	if m, _ := w.Lookup("n1"); m.Enrol.Level() != enrol.Approved || m.Enrol.Quarantine != "" {
		t.Errorf("released: %+v", m.Enrol)
	}
	refused(t, w.Approve(t.Context(), "n9", word("a")), `there is no machine "n9"; joist node list names them all`)
	_, err := w.Update(t.Context(), "n1", func(enrol.Machine) []enrol.Event { return []enrol.Event{{Kind: enrol.Ended, Machine: "n2"}} })
	refused(t, err, `internal error: a decision about n1 names "n2"`)
	if err := w.Note(t.Context(), site.Freed{}); err == nil {
		t.Error("a change of a machine passed for a note")
	}
}

func TestClaim(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "")
	w.define("n2", mac2, "")
	w.must(w.claim("demo", "n1"))
	last := w.Journal().Last()
	w.must(w.claim("demo", "n1"))
	refused(t, w.claim("other", "n2", "n1"), "cannot claim n1 for cluster other: cluster demo has it; choose another machine, or take it out of that cluster first")
	refused(t, w.claim("other", "n2", "n9"), `there is no machine "n9"; joist node list names them all`)
	if m, _ := w.Lookup("n2"); m.Cluster != "" || w.Journal().Last() != last {
		t.Error("a claim that was refused claimed something")
	}
}

// A machine whose disks may hold a cluster's data is given to no other cluster before they are wiped.
// TestOrder: a boot is noted as ordered only where the cluster trusts the boot network, and then keeps an approval; that ends with the claim.
func TestOrder(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "")
	trust := func(yes bool) {
		t.Helper()
		w.must(w.Claim(t.Context(), site.Claim{Cluster: "demo", Trust: yes}, func([]site.Machine) ([]string, error) { return []string{"n1"}, nil }))
	}
	ask := func(key string) enrol.Decision {
		t.Helper()
		id := w.issue(mac1, "")
		w.now = w.now.Add(time.Second)
		var d enrol.Decision
		_, err := w.Update(t.Context(), "n1", func(m enrol.Machine) []enrol.Event {
			d = enrol.Decide(enrol.View{Machine: m}, enrol.Proven{Boot: id, Key: enrol.KeyID(key), Fingerprint: fp(key), MAC: mac1, Incarnation: "i" + key, Time: w.now}, w.now)
			return d.Events
		})
		w.must(err)
		return d
	}
	approve := func(key string) {
		t.Helper()
		w.must(w.Approve(t.Context(), "n1", enrol.Word{Fingerprint: fp(key), By: "ada", At: w.now}))
		ask(key)
		w.now = w.now.Add(time.Minute)
	}
	order := func() {
		t.Helper()
		w.must(w.Order(t.Context(), "n1", enrol.Wanted{Why: "power cycle"}))
		w.now = w.now.Add(time.Second)
	}
	trust(false)
	ask("a")
	approve("a")
	order()
	if d := ask("b"); d.Outcome != enrol.Pending {
		t.Errorf("where nobody trusts the boot network: %+v", d)
	}
	approve("b")
	trust(true) // the same machine, claimed otherwise
	order()
	if d := ask("c"); d.Reason != enrol.OrderedBoot || d.Level != enrol.Approved {
		t.Errorf("where the boot network is trusted: %+v", d)
	}
	order()
	w.must(w.Free(t.Context(), "demo", "n1"))
	if d := ask("d"); d.Outcome != enrol.Pending {
		t.Errorf("once it is nobody's: %+v", d)
	}
	for key, between := range map[string]func(){
		"e": func() { // another cluster has it, which trusts the boot network, too
			w.must(w.Free(t.Context(), "demo", "n1"))
			w.must(w.Claim(t.Context(), site.Claim{Cluster: "other", Trust: true}, func([]site.Machine) ([]string, error) { return []string{"n1"}, nil }))
			w.must(w.Free(t.Context(), "other", "n1"))
			w.must(w.Claim(t.Context(), site.Claim{Cluster: "other", Trust: true}, func([]site.Machine) ([]string, error) { return []string{"n1"}, nil }))
		},
		"f": func() { trust(false); trust(true) }, // nobody trusted it meanwhile
	} {
		if m, _ := w.Lookup("n1"); m.Cluster != "" {
			w.must(w.Free(t.Context(), m.Cluster, "n1"))
		}
		trust(true)
		ask(key)
		approve(key)
		order()
		between()
		w.now = w.now.Add(time.Second)
		if d := ask(key + "2"); d.Outcome != enrol.Pending {
			t.Errorf("%s: %+v", key, d)
		}
	}
}

func TestWipe(t *testing.T) {
	w := open(t, &journal.Memory{})
	w.define("n1", mac1, "")
	w.define("n2", mac2, "")
	disk := func(cluster string, names ...string) error {
		return w.Claim(t.Context(), site.Claim{Cluster: cluster, Disk: true}, func([]site.Machine) ([]string, error) { return names, nil })
	}
	look := func(name string) site.Machine {
		m, _ := w.Lookup(name)
		return m
	}
	w.must(w.claim("demo", "n1"))
	w.must(disk("demo", "n1")) // the same, with disks from now on
	if m := look("n1"); !m.Disk || m.Data != "" {
		t.Errorf("claimed with disks: %+v", m)
	}
	w.must(w.Store(t.Context(), "n1"))
	last := w.Journal().Last()
	w.must(w.Store(t.Context(), "n1"))
	if w.Journal().Last() != last || look("n1").Data != "demo" {
		t.Errorf("stored: %+v", look("n1"))
	}
	w.must(w.claim("demo", "n1")) // in memory again: what is on the disks stays there
	if m := look("n1"); m.Disk || m.Data != "demo" {
		t.Errorf("claimed without disks: %+v", m)
	}
	w.must(w.Free(t.Context(), "demo", "n1"))
	refused(t, w.claim("other", "n1"), "cannot claim n1 for cluster other: its disks may hold data of cluster demo; wipe it first with joist node wipe n1")

	if ordered, err := w.Wiped(t.Context(), site.Wiped{Machine: "n1", Proof: "a lie"}); err != nil || ordered || look("n1").Data == "" {
		t.Errorf("proof of a wipe that nobody ordered: %v, %v", ordered, err)
	}
	for _, want := range []bool{true, false} {
		if fresh, err := w.OrderWipe(t.Context(), "n1", "p"); err != nil || fresh != want {
			t.Errorf("ordered: %v, %v", fresh, err)
		}
	}
	refused(t, w.claim("demo", "n1"), "cannot claim n1 for cluster demo: it is being wiped")
	w.reopen()
	if m := look("n1"); m.Wipe == nil || m.Wipe.By != "p" {
		t.Errorf("after a restart the order is %+v", m.Wipe)
	}
	if ordered, err := w.Wiped(t.Context(), site.Wiped{Machine: "n1", Incarnation: "i", Proof: "read back"}); err != nil || !ordered {
		t.Errorf("wiped: %v, %v", ordered, err)
	}
	if m := look("n1"); m.Data != "" || m.Wipe != nil || m.Spent != "i" {
		t.Errorf("after the wipe: %+v", m)
	}
	w.must(w.claim("other", "n1"))

	facts := func(name, incarnation string) {
		w.must(w.Facts(t.Context(), name, json.RawMessage(`{"disks":[{"name":"vda","incarnation":"`+incarnation+`"}]}`)))
	}
	facts("n2", "x") // a disk that nobody here made
	refused(t, w.claim("other", "n2"), "cannot claim n2 for cluster other: it has a data disk of an earlier node, which nobody here knows; wipe it first with joist node wipe n2")
	facts("n1", "x")
	if m := look("n1"); m.Data != "other" {
		t.Errorf("a claimed machine's data disk is of %q", m.Data)
	}
	if _, err := w.OrderWipe(t.Context(), "n9", "p"); err == nil {
		t.Error("a wipe of a machine that is not there was ordered")
	}
}

// TestNoMachineTwice: whatever clusters claim and free at the same time, no machine is given to two of them.
func TestNoMachineTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := open(t, &journal.Memory{})
		for i := range 6 {
			w.define(fmt.Sprint("n", i), fmt.Sprintf("52:54:00:00:00:%02x", i), "")
		}
		plans := map[string][]int{}
		for _, cluster := range []string{"a", "b", "c"} {
			plans[cluster] = rapid.SliceOfN(rapid.IntRange(0, 4), 1, 6).Draw(t, cluster)
		}
		var wg sync.WaitGroup
		for cluster, counts := range plans {
			wg.Go(func() {
				for _, n := range counts {
					var mine []string
					err := w.Claim(context.Background(), site.Claim{Cluster: cluster}, func(all []site.Machine) ([]string, error) {
						mine = nil
						for _, m := range all {
							if len(mine) < n && (m.Cluster == "" || m.Cluster == cluster) {
								mine = append(mine, m.Name)
							}
						}
						return mine, nil
					})
					if err != nil {
						panic(err)
					}
					for _, name := range mine {
						if m, _ := w.Lookup(name); m.Cluster != cluster {
							panic(fmt.Sprintf("%s of %s is with %q", name, cluster, m.Cluster))
						}
						if n%2 == 0 {
							w.must(w.Free(context.Background(), cluster, name))
						}
					}
				}
			})
		}
		wg.Wait()
		holder := map[string]string{} // by the journal alone
		w.must(w.store.Read(context.Background(), site.JournalName, 0, func(r journal.Record) error {
			var e struct {
				Cluster, Machine string
				Machines         []string
			}
			if r.Kind != "claimed" && r.Kind != "freed" {
				return nil
			}
			if err := json.Unmarshal(r.Data, &e); err != nil {
				return err
			}
			for _, name := range e.Machines {
				if holder[name] != "" {
					t.Fatalf("%s was given to %s while %s had it", name, e.Cluster, holder[name])
				}
				holder[name] = e.Cluster
			}
			if r.Kind == "freed" {
				delete(holder, e.Machine)
			}
			return nil
		}))
	})
}

// TestWriteFails: what is not durable did not happen.
func TestWriteFails(t *testing.T) {
	store := &journal.Memory{}
	w := open(t, store)
	w.define("n1", mac1, "")
	full := errors.New("the disk is full")
	store.BeforeCommit = func(journal.Batch) error { return full }
	w.told = nil
	if err := w.claim("demo", "n1"); !errors.Is(err, full) {
		t.Errorf("claimed: %v", err)
	}
	if _, err := w.Issue(t.Context(), site.Boot{MAC: mac2}); !errors.Is(err, full) {
		t.Errorf("issued: %v", err)
	}
	if m, _ := w.Lookup("n1"); m.Cluster != "" || len(w.Machines()) != 1 {
		t.Errorf("machines %+v", w.Machines())
	}
	w.expectTold()
}
