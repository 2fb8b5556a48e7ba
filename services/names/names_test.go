package names_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"joist/dhcp-dns/zone"
	"joist/engine/entries"
	"joist/engine/step"
	"joist/services/names"
)

// served keeps what was swapped in last, and checks that serials never go back.
type served struct {
	mu  sync.Mutex
	set *zone.Set
}

func (s *served) Swap(set *zone.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = set
}

func (s *served) lookup(name string, t zone.Type) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.set.Lookup(name, t).Records {
		if r.Target != "" {
			out = append(out, r.Target)
		} else {
			out = append(out, r.Addr.String())
		}
	}
	return out
}

// dump is every record of every zone, without the serials.
func (s *served) dump() map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]string{}
	for _, apex := range s.set.Zones() {
		for _, r := range s.set.Transfer(apex) {
			out[apex] = append(out[apex], fmt.Sprint(r.Name, r.Type, r.TTL, r.Addr, r.Target))
		}
	}
	return out
}

func start(t interface {
	Helper()
	Fatal(...any)
}, store entries.Store) (*names.Service, *served) {
	t.Helper()
	server := &served{}
	s, err := names.New(names.Config{Store: store, Server: server})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s, server
}

// call performs an action of names.put as cluster/owner.
func call(s *names.Service, action step.Action, owner, in string) (string, error) {
	cluster, _, _ := strings.Cut(owner, "/")
	result, err := s.Handlers()["names.put"].Call(context.Background(), step.Call{
		Name: "names.put", Action: action, Cluster: cluster, Owner: owner, Epoch: 1, Inputs: json.RawMessage(in),
	})
	return string(result.Outputs), err
}

func TestPutServesAndRemoveTakesBack(t *testing.T) {
	t.Parallel()
	s, server := start(t, &entries.Memory{})
	out, err := call(s, step.Apply, "c1/name[n1]", `{"name":"N1.Demo.lab.","addresses":["10.0.0.2","10.0.0.1","::ffff:10.0.0.1","fd00::1"]}`)
	if err != nil || !strings.HasPrefix(out, `{"fqdn":"n1.demo.lab","addresses":["`) {
		t.Fatalf("%s, %v", out, err)
	}
	for _, c := range []struct {
		name string
		t    zone.Type
		want []string
	}{
		{"n1.demo.lab", zone.A, []string{"10.0.0.1", "10.0.0.2"}},
		{"n1.demo.lab", zone.AAAA, []string{"fd00::1"}},
		{"1.0.0.10.in-addr.arpa", zone.PTR, []string{"n1.demo.lab"}},
	} {
		if diff := cmp.Diff(c.want, server.lookup(c.name, c.t)); diff != "" {
			t.Error(diff)
		}
	}
	if s.Version() != 1 {
		t.Errorf("version %d", s.Version())
	}
	// Twice the same changes nothing, other addresses replace.
	for _, in := range []string{
		`{"name":"n1.demo.lab","addresses":["fd00::1","10.0.0.1","10.0.0.2"],"zone":"demo.lab"}`,
		`{"name":"n1.demo.lab","addresses":["10.0.0.3"]}`,
	} {
		if _, err := call(s, step.Apply, "c1/name[n1]", in); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.lookup("n1.demo.lab", zone.A); !cmp.Equal(got, []string{"10.0.0.3"}) || s.Version() != 2 {
		t.Errorf("%v at version %d", got, s.Version())
	}
	for range 2 {
		if out, err := call(s, step.Remove, "c1/name[n1]", `{"name":"n1.demo.lab","addresses":["10.0.0.3"]}`); err != nil || out != "" {
			t.Fatal(out, err)
		}
	}
	if got := server.dump(); len(got) != 0 || s.Version() != 3 {
		t.Errorf("%v at version %d", got, s.Version())
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	store := &entries.Memory{}
	s, server := start(t, store)
	if _, err := call(s, step.Apply, "c1/name[n1]", `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`); err != nil {
		t.Fatal(err)
	}
	before := server.dump()
	for _, c := range []struct{ owner, in, err string }{
		{"c1/name[n2]", `{"name":"n1.demo.lab","addresses":["10.0.0.2"]}`, "cannot write a/n1.demo.lab for c1/name[n2]: it belongs to c1/name[n1]"},
		{"c2/name[n2]", `{"name":"n2.demo.lab","addresses":["10.0.0.2"]}`, "zone demo.lab of cluster c2 overlaps zone demo.lab of cluster c1; give the clusters domains"},
		{"c2/name[n2]", `{"name":"n2.x.demo.lab","addresses":["10.0.0.2"]}`, "zone x.demo.lab of cluster c2 overlaps zone demo.lab of cluster c1"},
		{"c2/name[n2]", `{"name":"n2.lab","addresses":["10.0.0.2"]}`, "zone lab of cluster c2 overlaps"},
		{"c2/name[n2]", `{"name":"n2","addresses":["10.0.0.2"]}`, `name "n2" has no domain; give it one, as in "n2.demo.lab"`},
		{"c1/x", `{"name":"n_2.demo.lab","addresses":["10.0.0.2"]}`, "contains '_'"},
		{"c1/x", `{"name":"n2.demo.lab","addresses":[]}`, "name n2.demo.lab has no address"},
		{"c1/x", `{"name":"n2.demo.lab","addresses":["10.0.0"]}`, `"10.0.0" is no IP address`},
		{"c1/x", `{"name":"n2.demo.lab","addresses":["0.0.0.0"]}`, "not the address of a machine"},
		{"c1/x", `{"name":"n2.demo.lab","addresses":["fe80::1%eth0"]}`, "zone index"},
		{"c1/x", `{"name":"ns.demo.lab","addresses":["10.0.0.2"]}`, "is that of the name server itself"},
		{"c1/x", `{"name":"n2.demo.lab","addresses":["10.0.0.2"],"zone":"other.lab"}`, "lies outside its zone other.lab"},
		{"c1/x", `{"name":"1.0.10.in-addr.arpa","addresses":["10.0.0.2"]}`, "lies under arpa"},
		{"c1/x", `{"name":"n2.demo.lab","addresses":["10.0.0.2"],"ttl":3}`, `unknown field "ttl"`},
		{"c1/x", `{"name":3}`, "do not fit"},
		{"c1/x", ``, "do not fit"},
		{"c1/x", `{"name":"n2.demo.lab","addresses":["10.0.0.2"]} {}`, "something follows"},
	} {
		if _, err := call(s, step.Apply, c.owner, c.in); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got error %v, want one with %q", c.in, err, c.err)
		}
	}
	if diff := cmp.Diff(before, server.dump()); diff != "" {
		t.Error(diff)
	}
	var owned *entries.OwnedError
	if _, err := call(s, step.Apply, "c1/x", `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`); !errors.As(err, &owned) {
		t.Errorf("the type of the error is lost: %v", err)
	}
	// What was refused once is free when its holder is gone.
	if _, err := call(s, step.Remove, "c1/name[n1]", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := call(s, step.Apply, "c2/name[n2]", `{"name":"n2.demo.lab","addresses":["10.0.0.2"]}`); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	s, _ := start(t, &entries.Memory{})
	in := `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`
	if _, err := call(s, step.Verify, "c1/n", in); err == nil || !strings.Contains(err.Error(), "resolves to nothing instead of 10.0.0.1") {
		t.Errorf("before: %v", err)
	}
	if _, err := call(s, step.Apply, "c1/n", in); err != nil {
		t.Fatal(err)
	}
	if out, err := call(s, step.Verify, "c1/n", in); err != nil || !strings.HasPrefix(out, `{"fqdn":"n1.demo.lab","addresses":["`) {
		t.Errorf("after: %s, %v", out, err)
	}
	if s.Version() != 1 {
		t.Error("verify changed something")
	}
	if _, err := call(s, "explode", "c1/n", in); err == nil {
		t.Error("unknown action accepted")
	}
}

// meddling is a store in which something else happens while a change is being written.
type meddling struct {
	entries.Memory
	meanwhile func()
}

func (m *meddling) Replace(ctx context.Context, scope entries.Scope, owner entries.Writer, want []entries.Entry) (uint64, error) {
	if f := m.meanwhile; f != nil {
		m.meanwhile = nil
		f()
	}
	return m.Memory.Replace(ctx, scope, owner, want)
}

// TestOverlapInFlight: a zone belongs to a cluster from the moment its first name is being written.
func TestOverlapInFlight(t *testing.T) {
	t.Parallel()
	store := &meddling{}
	s, _ := start(t, store)
	refused := false
	store.meanwhile = func() {
		_, err := call(s, step.Apply, "c2/n", `{"name":"n2.demo.lab","addresses":["10.0.0.2"]}`)
		refused = err != nil && strings.Contains(err.Error(), "overlaps zone demo.lab of cluster c1")
	}
	if _, err := call(s, step.Apply, "c1/n", `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`); err != nil {
		t.Fatal(err)
	}
	if !refused {
		t.Error("two clusters took one zone at the same time")
	}
}

// failing is a store whose listing fails on demand.
type failing struct {
	entries.Memory
	broken bool
}

func (f *failing) List(ctx context.Context, scope entries.Scope) ([]entries.Entry, uint64, error) {
	if f.broken {
		return nil, 0, errors.New("disk on fire")
	}
	return f.Memory.List(ctx, scope)
}

// TestUnservedIsNoSuccess: an entry that was written and could not be served is reported as a failure, and is seen by the
// next call that decides about overlaps.
func TestUnservedIsNoSuccess(t *testing.T) {
	t.Parallel()
	store := &failing{}
	s, server := start(t, store)
	store.broken = true
	in := `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`
	if _, err := call(s, step.Apply, "c1/n", in); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Fatalf("got %v", err)
	}
	store.broken = false
	if _, err := call(s, step.Apply, "c2/n", in); err == nil || !strings.Contains(err.Error(), "overlaps") {
		t.Errorf("got %v", err)
	}
	if _, err := call(s, step.Apply, "c1/n", in); err != nil || len(server.lookup("n1.demo.lab", zone.A)) != 1 {
		t.Errorf("repeated: %v", err)
	}
}

// rewound is a store that an old copy was put in place of.
type rewound struct {
	entries.Memory
	by uint64
}

func (r *rewound) List(ctx context.Context, scope entries.Scope) ([]entries.Entry, uint64, error) {
	list, version, err := r.Memory.List(ctx, scope)
	return list, version - r.by, err
}

// TestTableThatWentBack: a serial would go back with it, and secondaries would keep the wrong records.
func TestTableThatWentBack(t *testing.T) {
	t.Parallel()
	store := &rewound{}
	s, server := start(t, store)
	if _, err := call(s, step.Apply, "c1/n", `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`); err != nil {
		t.Fatal(err)
	}
	store.by = 2
	_, err := call(s, step.Apply, "c1/m", `{"name":"n2.demo.lab","addresses":["10.0.0.2"]}`)
	if err == nil || !strings.Contains(err.Error(), "the table of names went back from version 2 to 0") {
		t.Errorf("got %v", err)
	}
	if len(server.lookup("n1.demo.lab", zone.A)) != 1 {
		t.Error("what was served is gone")
	}
}

func TestStaleEpoch(t *testing.T) {
	t.Parallel()
	store := &entries.Memory{}
	if _, err := store.Replace(context.Background(), entries.Scope{Service: "names", Cluster: "c1"}, entries.Writer{Owner: "c1/x", Epoch: 2}, nil); err != nil {
		t.Fatal(err)
	}
	s, _ := start(t, store)
	var stale *entries.StaleEpochError
	if _, err := call(s, step.Apply, "c1/n", `{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`); !errors.As(err, &stale) {
		t.Errorf("got %v", err)
	}
}

// TestConcurrentPuts puts many names of two clusters at once: each is served when its call returns. A third cluster that
// wants the same domain gets all of it or nothing.
func TestConcurrentPuts(t *testing.T) {
	t.Parallel()
	s, server := start(t, &entries.Memory{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for i := range 40 {
		for _, cluster := range []string{"c1", "c2"} {
			wg.Go(func() {
				name, addr := fmt.Sprintf("n%d.%s.lab", i, cluster), fmt.Sprintf("10.0.0.%d", i+1)
				if _, err := call(s, step.Apply, fmt.Sprintf("%s/name[n%d]", cluster, i), fmt.Sprintf(`{"name":%q,"addresses":[%q]}`, name, addr)); err != nil {
					t.Error(err)
				}
				if got := server.lookup(name, zone.A); !cmp.Equal(got, []string{addr}) {
					t.Errorf("%s resolves to %v when its call returns", name, got)
				}
			})
		}
		for _, cluster := range []string{"c3", "c4"} {
			wg.Go(func() {
				_, err := call(s, step.Apply, fmt.Sprintf("%s/name[n%d]", cluster, i), fmt.Sprintf(`{"name":"n%d.shared.lab","addresses":["10.0.1.1"]}`, i))
				if err == nil {
					mu.Lock()
					won[cluster]++
					mu.Unlock()
				} else if !strings.Contains(err.Error(), "overlaps") {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("clusters with names in shared.lab: %v", won)
	}
}

// TestSymmetry is law 7 for names: whatever is put and removed again leaves the digest and every answer as they were,
// while the serial has only grown. A service that is started on the same table serves the same.
func TestSymmetry(t *testing.T) {
	t.Parallel()
	type put struct{ owner, in string }
	draw := rapid.Custom(func(t *rapid.T) put {
		cluster := rapid.SampledFrom([]string{"c1", "c2"}).Draw(t, "cluster")
		label := rapid.SampledFrom([]string{"a", "b", "a.b", "c.b"}).Draw(t, "label")
		addr := netip.AddrFrom4([4]byte{10, 0, rapid.ByteRange(0, 1).Draw(t, "net"), rapid.ByteRange(1, 2).Draw(t, "low")})
		return put{cluster + "/" + label, fmt.Sprintf(`{"name":"%s.%s.lab","addresses":[%q]}`, label, cluster, addr)}
	})
	rapid.Check(t, func(t *rapid.T) {
		store := &entries.Memory{}
		s, server := start(t, store)
		kept := map[string]bool{}
		for _, p := range rapid.SliceOf(draw).Draw(t, "kept") {
			if _, err := call(s, step.Apply, p.owner, p.in); err != nil {
				t.Fatal(err)
			}
			kept[p.owner] = true
		}
		digest, dump, version := digestOf(t, s), server.dump(), s.Version()
		var added []put
		for _, p := range rapid.SliceOf(draw).Draw(t, "added") {
			if !kept[p.owner] {
				added = append(added, p)
			}
		}
		for _, p := range added {
			if _, err := call(s, step.Apply, p.owner, p.in); err != nil {
				t.Fatal(err)
			}
			if zone.SerialOf(s.Version()).Before(zone.SerialOf(version)) {
				t.Fatal("the serial went back")
			}
			version = s.Version()
		}
		fresh, freshServer := start(t, store)
		if diff := cmp.Diff(server.dump(), freshServer.dump()); diff != "" || fresh.Version() != s.Version() {
			t.Fatalf("a restart serves something else: %s", diff)
		}
		for _, p := range added {
			if _, err := call(s, step.Remove, p.owner, p.in); err != nil {
				t.Fatal(err)
			}
		}
		if digestOf(t, s) != digest {
			t.Fatal("the digest has changed")
		}
		if diff := cmp.Diff(dump, server.dump()); diff != "" {
			t.Fatal(diff)
		}
		if s.Version() < version || len(added) > 0 && s.Version() == version {
			t.Fatalf("version %d after %d", s.Version(), version)
		}
	})
}

func digestOf(t *rapid.T, s *names.Service) string {
	d, err := s.Digest(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSignatures: the signatures describe the handlers, and their inputs are those that the handler takes.
func TestSignatures(t *testing.T) {
	t.Parallel()
	s, _ := start(t, &entries.Memory{})
	if len(names.Signatures()) != len(s.Handlers()) {
		t.Fatal("signatures and handlers differ in number")
	}
	for _, sig := range names.Signatures() {
		if s.Handlers()[sig.Call] == nil {
			t.Errorf("%s has no handler", sig.Call)
		}
		in := map[string]any{"name": "n.lab.x", "addresses": []string{"10.0.0.1"}, "zone": "x"}
		for name := range sig.Inputs {
			if _, ok := in[name]; !ok {
				t.Errorf("input %s is not taken", name)
			}
		}
		for _, name := range sig.Optional {
			if sig.Inputs[name] == "" {
				t.Errorf("optional input %s is none", name)
			}
		}
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := call(s, step.Apply, "c/x", string(raw)); err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, cfg := range []names.Config{
		{}, {Store: &entries.Memory{}},
		{Store: &entries.Memory{}, Server: &served{}, Zone: zone.Config{Server: "_"}},
	} {
		if _, err := names.New(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
}

func FuzzInputs(f *testing.F) {
	for _, seed := range []string{
		`{"name":"n1.demo.lab","addresses":["10.0.0.1"]}`, `{"name":"N.A","addresses":["::1","::ffff:1.2.3.4"],"zone":"a"}`,
		`{}`, `[]`, `null`, ``, `{"name":"a.b","addresses":null}`, `{"name":"a.b","addresses":["1.2.3.4%x"]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, server := start(t, &entries.Memory{})
		out, err := call(s, step.Apply, "c/x", in)
		if err != nil {
			return
		}
		var got struct{ FQDN string }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		if len(server.lookup(got.FQDN, zone.A))+len(server.lookup(got.FQDN, zone.AAAA)) == 0 {
			t.Errorf("%q was put and %q does not resolve", in, got.FQDN)
		}
	})
}

// BenchmarkPut puts 64 names at a time into a table that starts with 10,000.
func BenchmarkPut(b *testing.B) {
	const table, workers = 10000, 64
	s, _ := start(b, &entries.Memory{})
	var last atomic.Int64
	inParallel := func(each int) {
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range each {
					i := last.Add(1)
					in := fmt.Sprintf(`{"name":"n%d.demo.lab","addresses":["10.%d.%d.%d"]}`, i, i>>16, i>>8&0xff, i&0xff)
					if _, err := call(s, step.Apply, fmt.Sprintf("c/name[n%d]", i), in); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	inParallel(table / workers)
	for b.Loop() {
		inParallel(1)
	}
	b.ReportMetric(float64(workers*b.N)/b.Elapsed().Seconds(), "names/s")
}
