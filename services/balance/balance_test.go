package balance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"joist/engine/entries"
	"joist/engine/step"
	"joist/services/balance"
	"joist/services/balance/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// names records what is published, and when.
type names struct {
	calls []string
	fail  error
}

func (n *names) Call(_ context.Context, c step.Call) (step.Result, error) {
	n.calls = append(n.calls, fmt.Sprintf("%s %s %s %s %s", c.Name, c.Action, c.Cluster, c.Owner, c.Inputs))
	return step.Result{}, n.fail
}

type fixture struct {
	*balance.Service
	store  *entries.Memory
	driver *tcp.Balancer
	names  *names
}

func newFixture(t *testing.T, store *entries.Memory) *fixture {
	t.Helper()
	driver, err := tcp.New(tcp.Config{Interval: 10 * time.Millisecond, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := driver.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{store: store, driver: driver, names: &names{}}
	f.Service, err = balance.New(balance.Config{
		Store: store, Driver: driver, Frontends: balance.Prefix(netip.MustParsePrefix("127.9.0.0/29")), Names: f.names, Log: discard,
		Wait: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) call(t *testing.T, name string, action step.Action, owner string, inputs any) (string, error) {
	t.Helper()
	raw, err := json.Marshal(inputs)
	if err != nil {
		t.Fatal(err)
	}
	cluster, _, _ := strings.Cut(owner, "/")
	r, err := f.Handlers()[name].Call(t.Context(), step.Call{Name: name, Action: action, Cluster: cluster, Owner: owner, Epoch: 1, Inputs: raw})
	return string(r.Outputs), err
}

func (f *fixture) must(t *testing.T, name string, action step.Action, owner string, inputs any) string {
	t.Helper()
	out, err := f.call(t, name, action, owner, inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type object map[string]any

// hello is a backend that greets.
func hello(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func greeting(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	return string(text), err
}

func TestTwoClustersWantOnePort(t *testing.T) {
	store := &entries.Memory{}
	f := newFixture(t, store)
	digest := func() string {
		list, _, err := store.List(t.Context(), entries.Scope{Service: "balance"})
		if err != nil {
			t.Fatal(err)
		}
		return entries.Digest(list)
	}
	empty := digest()
	front := func(cluster string) object { return object{"name": "etcd." + cluster + ".lab", "port": 23790} }
	for _, cluster := range []string{"demo", "other"} {
		if out := f.must(t, "balance.front", step.Apply, cluster+"/front", front(cluster)); out != `{"url":"https://etcd.`+cluster+`.lab:23790"}` {
			t.Errorf("outputs %s", out)
		}
	}
	one := digest()
	if want := `names.put apply demo demo/front {"addresses":["127.9.0.1"],"name":"etcd.demo.lab"}`; f.names.calls[0] != want {
		t.Errorf("published %s, want %s", f.names.calls[0], want)
	}
	back := hello(t)
	backend := object{"front": "https://etcd.demo.lab:23790", "address": back.Addr(), "port": back.Port()}
	f.must(t, "balance.backend", step.Apply, "demo/backend[n1]", backend)
	f.must(t, "balance.backend", step.Apply, "demo/backend[n1]", backend) // at least once
	if text, err := greeting("127.9.0.1:23790"); text != "hello" {
		t.Errorf("through demo's front: %q, %v", text, err)
	}
	if text, err := greeting("127.9.0.2:23790"); err == nil {
		t.Errorf("through other's front: %q", text)
	}
	f.must(t, "balance.backend", step.Verify, "demo/backend[n1]", backend)

	// A restarted engine serves the same, on the same addresses.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.driver.Close(ctx); err != nil {
		t.Fatal(err)
	}
	f = newFixture(t, store)
	if err := f.driver.Healthy(t.Context(), "https://etcd.demo.lab:23790", back); err != nil {
		t.Fatal(err)
	}
	if text, err := greeting("127.9.0.1:23790"); text != "hello" {
		t.Errorf("after a restart: %q, %v", text, err)
	}
	f.must(t, "balance.front", step.Apply, "demo/front", front("demo"))
	if st := f.Status(); len(st) != 2 || st[0].Listen != netip.MustParseAddrPort("127.9.0.1:23790") || len(st[0].Backends) != 1 {
		t.Errorf("status %+v", st)
	}

	// Removal gives everything back.
	f.must(t, "balance.backend", step.Remove, "demo/backend[n1]", nil)
	if digest() != one {
		t.Error("the digest is not what it was before the backend")
	}
	for _, cluster := range []string{"demo", "other", "demo"} {
		f.must(t, "balance.front", step.Remove, cluster+"/front", nil)
	}
	if digest() != empty || len(f.Status()) != 0 {
		t.Errorf("something is left: %+v", f.Status())
	}
	if !slices.Contains(f.names.calls, `names.put remove demo demo/front null`) {
		t.Errorf("the name was not taken back: %v", f.names.calls)
	}
	if text, err := greeting("127.9.0.1:23790"); err == nil {
		t.Errorf("a removed front answers %q", text)
	}
}

func TestFrontRemovedBeforeItsBackends(t *testing.T) {
	f := newFixture(t, &entries.Memory{})
	f.must(t, "balance.front", step.Apply, "demo/front", object{"name": "a.lab", "port": 23791})
	back := hello(t)
	backend := object{"front": "https://a.lab:23791", "address": back.Addr(), "port": back.Port()}
	f.must(t, "balance.backend", step.Apply, "demo/b[1]", backend)
	f.must(t, "balance.front", step.Remove, "demo/front", nil)
	if _, err := f.call(t, "balance.backend", step.Verify, "demo/b[1]", backend); err == nil {
		t.Error("a backend without its front verifies")
	}
	f.must(t, "balance.front", step.Apply, "demo/front", object{"name": "a.lab", "port": 23791})
	f.must(t, "balance.front", step.Verify, "demo/front", object{"name": "a.lab", "port": 23791})
	f.must(t, "balance.backend", step.Verify, "demo/b[1]", backend)
	other := object{"front": "https://a.lab:23791", "address": back.Addr(), "port": back.Port() + 1}
	if _, err := f.call(t, "balance.backend", step.Verify, "demo/b[1]", other); err == nil || !strings.Contains(err.Error(), "is served without the backend") {
		t.Errorf("a backend that no front has verifies: %v", err)
	}
	f.must(t, "balance.backend", step.Remove, "demo/b[1]", nil)
}

func TestRefusals(t *testing.T) {
	f := newFixture(t, &entries.Memory{})
	f.must(t, "balance.front", step.Apply, "demo/front", object{"name": "a.lab", "port": 23792})
	back := hello(t)
	f.must(t, "balance.backend", step.Apply, "demo/b[1]", object{"front": "https://a.lab:23792", "address": back.Addr(), "port": back.Port()})
	dead := object{"front": "https://a.lab:23792", "address": "127.0.0.1", "port": 1}
	for name, tc := range map[string]struct {
		call, owner string
		inputs      any
		want        string
	}{
		"another's front":         {"balance.front", "demo/f2", object{"name": "a.lab", "port": 23792}, "belongs to demo/front in cluster demo"},
		"another cluster's front": {"balance.front", "other/front", object{"name": "a.lab", "port": 23792}, "belongs to demo/front in cluster demo"},
		"capitals":                {"balance.front", "demo/f2", object{"name": "A.lab", "port": 1}, "lower case"},
		"no domain":               {"balance.front", "demo/f2", object{"name": "a", "port": 1}, "lower case"},
		"port 0":                  {"balance.front", "demo/f2", object{"name": "b.lab", "port": 0}, "port from 1"},
		"no path":                 {"balance.front", "demo/f2", object{"name": "b.lab", "port": 1, "ready": "readyz"}, "a path such as /readyz"},
		"another host":            {"balance.front", "demo/f2", object{"name": "b.lab", "port": 1, "ready": "//elsewhere/"}, "a path such as /readyz"},
		"a query":                 {"balance.front", "demo/f2", object{"name": "b.lab", "port": 1, "ready": "/readyz?x"}, "a path such as /readyz"},
		"port 65536":              {"balance.front", "demo/f2", object{"name": "b.lab", "port": 65536}, "do not fit"},
		"unknown input":           {"balance.front", "demo/f2", object{"name": "b.lab", "port": 1, "x": 1}, "do not fit"},
		"no such front":           {"balance.backend", "demo/b[2]", object{"front": "https://b.lab:1", "address": "10.0.0.1", "port": 1}, "no such front"},
		"front elsewhere":         {"balance.backend", "other/b[2]", object{"front": "https://a.lab:23792", "address": "10.0.0.1", "port": 1}, "cluster other has no such front"},
		"no url":                  {"balance.backend", "demo/b[2]", object{"front": "a.lab:23792", "address": "10.0.0.1", "port": 1}, "want the url"},
		"path":                    {"balance.backend", "demo/b[2]", object{"front": "https://a.lab:23792/x", "address": "10.0.0.1", "port": 1}, "want the url"},
		"bad address":             {"balance.backend", "demo/b[2]", object{"front": "https://a.lab:23792", "address": "10.0.0", "port": 1}, "do not fit"},
		"another's backend":       {"balance.backend", "demo/b[2]", object{"front": "https://a.lab:23792", "address": back.Addr(), "port": back.Port()}, "belongs to demo/b[1]"},
		"dead":                    {"balance.backend", "demo/b[3]", dead, "takes no connections"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := f.call(t, tc.call, step.Apply, tc.owner, tc.inputs); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("outputs %s, error %v; want one with %q", out, err, tc.want)
			}
		})
	}
}

// A backend that takes connections and does not say that it is ready is not one yet.
func TestBackendHasToBeReady(t *testing.T) {
	f := newFixture(t, &entries.Memory{})
	f.must(t, "balance.front", step.Apply, "demo/front", object{"name": "a.lab", "port": 23794, "ready": "/readyz"})
	var status atomic.Int64
	status.Store(http.StatusForbidden)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			status.Store(http.StatusNotFound)
		}
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	at := server.Listener.Addr().(*net.TCPAddr).AddrPort()
	backend := object{"front": "https://a.lab:23794", "address": at.Addr(), "port": at.Port()}
	for said := ""; !strings.Contains(said, "403 Forbidden"); { // as soon as it has answered
		_, err := f.call(t, "balance.backend", step.Apply, "demo/b[1]", backend)
		if err == nil {
			t.Fatal("a backend that forbids everything is taken for a good one")
		}
		said = err.Error()
	}
	status.Store(http.StatusOK)
	if err := f.driver.Healthy(t.Context(), "https://a.lab:23794", at); err != nil {
		t.Error(err)
	}
	f.must(t, "balance.backend", step.Verify, "demo/b[1]", backend)
}

func TestAddressesRunOut(t *testing.T) {
	f := newFixture(t, &entries.Memory{})
	for n := range 6 { // of a /29
		f.must(t, "balance.front", step.Apply, fmt.Sprint("demo/f", n), object{"name": fmt.Sprint("n", n, ".lab"), "port": 23793})
	}
	if _, err := f.call(t, "balance.front", step.Apply, "demo/f6", object{"name": "n6.lab", "port": 23793}); err == nil || !strings.Contains(err.Error(), "127.9.0.0/29") {
		t.Errorf("a seventh front: %v", err)
	}
	f.must(t, "balance.front", step.Remove, "demo/f3", nil)
	f.must(t, "balance.front", step.Apply, "demo/f6", object{"name": "n6.lab", "port": 23793})
}

func TestPortInUseFailsThatFrontOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	f := newFixture(t, &entries.Memory{})
	if _, err := f.call(t, "balance.front", step.Apply, "demo/f1", object{"name": "n1.lab", "port": port}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a taken port: %v", err)
	}
	f.must(t, "balance.front", step.Apply, "demo/f2", object{"name": "n2.lab", "port": port})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f.must(t, "balance.front", step.Apply, "demo/f1", object{"name": "n1.lab", "port": port}) // the next attempt
	f.names.fail = errors.New("the zone is another's")
	if _, err := f.call(t, "balance.front", step.Apply, "demo/f1", object{"name": "n1.lab", "port": port}); !errors.Is(err, f.names.fail) {
		t.Errorf("a name that cannot be published: %v", err)
	}
}
