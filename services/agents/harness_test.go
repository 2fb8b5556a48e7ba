package agents_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"joist/engine/agent"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
	"joist/services/agents"
)

// TestMain runs an agent instead of the tests when it is asked to: the tests kill it as nobody can kill themselves.
func TestMain(m *testing.M) {
	if list := os.Getenv("JOIST_TEST_FLEET"); list != "" {
		if err := fleetProcess(list); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv("JOIST_TEST_AGENT"); dir != "" {
		if err := agentProcess(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func agentProcess(dir string) error {
	id, err := agent.LoadIdentity(dir)
	if err != nil {
		return err
	}
	cfg := agentConfig(id)
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getenv("JOIST_TEST_CGROUP") != "" {
		cfg.Cgroup = sandbox.FindCgroup()
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	return a.Run(context.Background())
}

func agentConfig(id *agent.Identity) agent.Config {
	return agent.Config{
		Identity: id, Version: "test", Retry: 10 * time.Millisecond, RetryLimit: 200 * time.Millisecond,
		Builtins: agent.Builtins("", func(context.Context) (json.RawMessage, error) { return json.RawMessage(`{"cpus":2}`), nil }),
		Facts:    func(context.Context) (json.RawMessage, error) { return json.RawMessage(`{"cpus":2}`), nil },
	}
}

// site is a site whose journal is a slice.
type site struct {
	mu       sync.Mutex
	machines map[string]enrol.Machine
	events   []enrol.Event
	secrets  map[string][]byte
	targets  map[string]wire.Target
	facts    map[string]json.RawMessage
	changed  func(machine string)
}

func (s *site) Boot(_ context.Context, id enrol.BootID) (string, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, m := range s.machines {
		if _, ok := m.Boots[id]; ok {
			return name, s.secrets[name], nil
		}
	}
	return "", nil, nil
}

func (s *site) Update(_ context.Context, machine string, decide func(enrol.Machine) []enrol.Event) (enrol.Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range decide(s.machine(machine)) {
		s.events = append(s.events, e)
		s.machines[machine] = enrol.Fold(s.machine(machine), e)
	}
	return s.machine(machine), nil
}

func (s *site) machine(name string) enrol.Machine {
	m := s.machines[name]
	m.Name = name
	return m
}

func (s *site) Machine(_ context.Context, name string) (enrol.Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine(name), nil
}

func (s *site) Facts(_ context.Context, machine string, facts json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts[machine] = slices.Clone(facts)
	return nil
}

func (s *site) Target(_ context.Context, machine string) (wire.Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.targets[machine]; ok {
		return t, nil
	}
	return wire.Target{Kind: wire.Idle}, nil
}

// apply does what a person or the boot service does.
func (s *site) apply(t testing.TB, machine string, word func(enrol.Machine) ([]enrol.Event, error)) {
	t.Helper()
	var werr error
	_, err := s.Update(t.Context(), machine, func(m enrol.Machine) []enrol.Event {
		events, err := word(m)
		werr = err
		return events
	})
	if err != nil || werr != nil {
		t.Fatal(err, werr)
	}
	if s.changed != nil {
		s.changed(machine)
	}
}

func (s *site) boot(t testing.TB, machine, mac string, issued time.Time) enrol.BootID {
	t.Helper()
	id, err := enrol.NewBootID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(t, machine, func(enrol.Machine) ([]enrol.Event, error) {
		return []enrol.Event{{Kind: enrol.BootIssued, Machine: machine, Boot: id, MAC: mac, At: issued}}, nil
	})
	return id
}

func (s *site) count(kind enrol.Kind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// ca is a small PKI: a root, the engine's certificate, and agents' certificates.
type ca struct {
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	server *tls.Certificate
	life   time.Duration
	mu     sync.Mutex
	given  map[string]string
	issued atomic.Int64
}

func newCA(t testing.TB) *ca {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{root: root, key: key, life: 24 * time.Hour, given: map[string]string{}}
	skey := newKey(t)
	leaf := c.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, skey.Public())
	c.server = &tls.Certificate{Certificate: [][]byte{leaf, root.Raw}, PrivateKey: skey}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *ca) sign(t testing.TB, template *x509.Certificate, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, c.root, public, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (c *ca) pin() agent.Pin { return sha256.Sum256(c.root.RawSubjectPublicKeyInfo) }

func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.root)
	return p
}

func (c *ca) Sign(_ context.Context, r agents.Certify) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := r.Boot.String() + string(r.Key)
	if chain := c.given[name]; chain != "" && !r.Renew {
		return chain, nil
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(100 + c.issued.Add(1)), URIs: []*url.URL{r.Identity.URI()},
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(c.life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.root, csr.PublicKey, c.key)
	if err != nil {
		return "", err
	}
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	c.given[name] = chain
	return chain, nil
}

// engine records what agents say.
type engine struct {
	mu      sync.Mutex
	results []wire.Result
	logs    strings.Builder
	notices []agents.Notice
	ups     int
	downs   int
	online  bool          // whether the last of both was a Connected
	slow    time.Duration // how long Disconnected takes
	// judge, if set, decides about a result before it is recorded.
	judge func(node string, res wire.Result) error
	tick  chan struct{} // something happened
}

func (e *engine) note(f func()) {
	e.mu.Lock()
	f()
	e.mu.Unlock()
	select {
	case e.tick <- struct{}{}:
	default:
	}
}

func (e *engine) Result(_ context.Context, node string, res wire.Result) error {
	if e.judge != nil {
		if err := e.judge(node, res); err != nil {
			return err
		}
	}
	e.note(func() { e.results = append(e.results, res) })
	return nil
}
func (e *engine) Log(_ string, c wire.LogChunk) { e.note(func() { e.logs.WriteString(c.Text) }) }
func (e *engine) Connected(string, wire.Hello)  { e.note(func() { e.ups++; e.online = true }) }
func (e *engine) Disconnected(string, wire.Hello) {
	time.Sleep(e.slow)
	e.note(func() { e.downs++; e.online = false })
}

func (e *engine) Noticed(n agents.Notice)         { e.note(func() { e.notices = append(e.notices, n) }) }
func (e *engine) get(f func(e *engine) bool) bool { e.mu.Lock(); defer e.mu.Unlock(); return f(e) }
func (e *engine) until(t testing.TB, what string, f func(e *engine) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !e.get(f) {
		select {
		case <-e.tick:
		case <-time.After(50 * time.Millisecond): // several may wait for one tick
		case <-deadline:
			text := fmt.Sprintf("results %+v, notices %+v", e.results, e.notices)
			t.Fatalf("%s did not happen; %.2000s", what, text)
		}
	}
}

// result waits for the result of a request.
func (e *engine) result(t testing.TB, id string) wire.Result {
	t.Helper()
	var got wire.Result
	e.until(t, "the result of "+id, func(e *engine) bool {
		for _, r := range e.results {
			if r.ID == id {
				got = r
				return true
			}
		}
		return false
	})
	return got
}

// world is one engine with its site, at an address that stays over restarts.
type world struct {
	t       testing.TB
	ca      *ca
	site    *site
	engine  *engine
	address string
	gateway *agents.Gateway
	stop    func()
	conns   *atomic.Int64
	keep    time.Duration
	dirs    map[string]string // identity directories
}

const anyAddress = "127.0.0.1:0"

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		t: t, ca: newCA(t), address: anyAddress, conns: new(atomic.Int64), keep: 2 * time.Second, dirs: map[string]string{},
		site:   &site{machines: map[string]enrol.Machine{}, secrets: map[string][]byte{}, targets: map[string]wire.Target{}, facts: map[string]json.RawMessage{}},
		engine: &engine{tick: make(chan struct{}, 1)},
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func (w *world) start() {
	w.t.Helper()
	g, err := agents.New(agents.Config{
		Site: w.site, Signer: w.ca, Engine: w.engine, KeepAlive: w.keep, ProbeWait: time.Second,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.ca.server, nil },
		Clients:     w.ca.pool, Root: "root",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", w.address)
	if w.address != anyAddress && err != nil {
		w.t.Fatal(err)
	}
	// Below the range that the kernel gives to clients: an agent that dials while nobody listens could get the very port.
	for port := 20000 + os.Getpid()%10000; w.address == anyAddress; port++ {
		if ln != nil {
			ln.Close()
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if ln, err = net.Listen("tcp", address); err == nil {
			w.address = address
		}
	}
	w.address = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, countingListener{ln, w.conns}) }()
	w.gateway, w.site.changed = g, g.Refresh
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) restart() {
	w.stop()
	w.start()
}

func (w *world) url() string { return "https://" + w.address }

// machine is what a machine knows before it enrols.
func (w *world) machine(boot enrol.BootID, dir string) agent.EnrolConfig {
	return agent.EnrolConfig{
		Dir: dir, URLs: []string{w.url()}, Pin: w.ca.pin(), Boot: boot, Incarnation: "i1", MAC: "52:54:00:00:00:01",
		Wait: func(ctx context.Context, d time.Duration) error {
			select {
			case <-time.After(min(d, 20*time.Millisecond)):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

// enrolled makes a vouched machine.
func (w *world) enrolled(name string) *agent.Identity {
	w.t.Helper()
	w.site.mu.Lock()
	w.site.secrets[name] = []byte("a secret of the provider " + name)
	w.site.mu.Unlock()
	cfg := w.machine(w.site.boot(w.t, name, "52:54:00:00:00:01", time.Now()), w.t.TempDir())
	w.dirs[name] = cfg.Dir
	cfg.Secret = w.site.secrets[name]
	id, err := agent.Enrol(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// run runs an agent until the returned function is called or the test ends.
func (w *world) run(cfg agent.Config) (stop func() error) {
	w.t.Helper()
	a, err := agent.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	w.t.Cleanup(func() { _ = stop() })
	return stop
}

func (w *world) connected() {
	w.t.Helper()
	w.engine.until(w.t, "a connection", func(*engine) bool { return len(w.gateway.Connected()) > 0 })
}

// process runs an agent in a process of its own.
func (w *world) process(dir string, env ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "JOIST_TEST_AGENT="+dir)...)
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_, _ = cmd.Process.Wait()
}

// request makes a request that runs a shell script.
func request(name string, script string) wire.Request {
	r := wire.Request{
		Cluster: "c", Instance: "c/" + name, Attempt: 1, Epoch: 1, Action: wire.Apply, Step: "sha256:abc",
		Script: []byte("#!/bin/sh\nset -eu\n" + script), Timeout: 30 * time.Second, Grace: time.Second,
	}
	r.ID = wire.RequestID(r.Instance, r.Step, r.Action, r.Attempt)
	return r
}

func (w *world) dispatch(node string, r wire.Request) {
	w.t.Helper()
	if err := w.gateway.Dispatch(w.t.Context(), agents.Order{Node: node, Request: r}); err != nil {
		w.t.Fatal(err)
	}
}

// counted makes a script append to a file that lies outside of everything the agent manages, and says how often it did.
func counted(t testing.TB) (line string, count func() int) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "runs")
	return "echo run >>" + name + "\n", func() int {
		raw, _ := os.ReadFile(name)
		return strings.Count(string(raw), "run")
	}
}

func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func pinOf(cert *x509.Certificate) agent.Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }
