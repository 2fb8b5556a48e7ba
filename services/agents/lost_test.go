package agents_test

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/engine/agent"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
	"joist/services/agents"
)

// wan is a network between agent and engine that can be cut.
type wan struct {
	ln      net.Listener
	to      string
	mu      sync.Mutex
	conns   []net.Conn
	stalled bool
	done    sync.WaitGroup
}

func newWAN(t *testing.T, to string) *wan {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &wan{ln: ln, to: to}
	n.done.Go(n.serve)
	t.Cleanup(func() {
		ln.Close()
		n.cut()
		n.done.Wait()
	})
	return n
}

func (n *wan) url() string { return "https://" + n.ln.Addr().String() }

func (n *wan) serve() {
	for {
		in, err := n.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", n.to)
		if err != nil {
			in.Close()
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, in, out)
		n.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			n.done.Go(func() { n.copy(pair[0], pair[1]) })
		}
	}
}

func (n *wan) copy(to, from net.Conn) {
	buf := make([]byte, 4096)
	for {
		k, err := from.Read(buf)
		n.mu.Lock()
		stalled := n.stalled
		n.mu.Unlock()
		if err == nil && !stalled { // a stalled network swallows
			_, err = to.Write(buf[:k])
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// cut ends every connection.
func (n *wan) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	n.conns = nil
}

func (n *wan) stall(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalled = yes
}

func TestLostConnections(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	net := newWAN(t, w.address)
	id.URLs = []string{net.url()}
	cfg := agentConfig(id)
	w.run(cfg)
	w.connected()
	var lines []func() int
	var ids []string
	for i := range 30 {
		line, runs := counted(t)
		r := request(fmt.Sprint("s", i), line+"echo some text; sleep 0.01\n")
		lines, ids = append(lines, runs), append(ids, r.ID)
		w.dispatch("n1", r)
		if i%3 == 0 {
			net.cut()
		}
	}
	for i, id := range ids {
		if res := w.engine.result(t, id); !res.OK || lines[i]() != 1 {
			t.Errorf("%s ran %d times, result %+v", id, lines[i](), res)
		}
	}
}

// A network that swallows everything without closing anything is noticed by both sides.
func TestSilentNetwork(t *testing.T) {
	w := newWorld(t)
	w.keep = 200 * time.Millisecond
	w.restart()
	id := w.enrolled("n1")
	net := newWAN(t, w.address)
	id.URLs = []string{net.url()}
	cfg := agentConfig(id)
	cfg.Silence = 600 * time.Millisecond
	w.run(cfg)
	w.connected()
	net.stall(true)
	w.engine.until(t, "the loss on the engine's side", func(e *engine) bool { return e.downs == 1 })
	net.stall(false)
	r := request("a", "true")
	w.dispatch("n1", r)
	w.engine.result(t, r.ID)
}

func TestURLsAreTriedInTurn(t *testing.T) {
	w := newWorld(t)
	cfg := w.machine(w.site.boot(t, "n1", "", time.Now()), t.TempDir())
	w.site.secrets["n1"] = []byte("sixteen octets or more")
	cfg.Secret = w.site.secrets["n1"]
	other := newWorld(t) // somebody else's engine: the pin tells
	cfg.URLs = []string{"https://127.0.0.1:1", other.url(), w.url()}
	id, err := agent.Enrol(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.run(agentConfig(id))
	w.connected()
}

func TestExpiredCertificateIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	w.ca.life = time.Second
	id := w.enrolled("n1")
	w.stop()
	a, err := agent.New(agentConfig(id))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, agent.ErrExpired) {
		t.Fatal(err)
	}
	w.ca.life = time.Hour
	w.ca.given = map[string]string{} // a signer does not give an expired certificate again
	w.start()
	boot, err := enrol.ParseBootID(id.Boot)
	if err != nil {
		t.Fatal(err)
	}
	if id, err = agent.Enrol(t.Context(), w.machine(boot, w.dirs["n1"])); err != nil {
		t.Fatal(err)
	}
	w.run(agentConfig(id))
	w.connected()
	if w.site.count(enrol.Accepted) != 1 {
		t.Error("the same key was accepted anew")
	}
}

// A second agent under the same name replaces the first one's connection and takes over what it owes.
func TestReconnectReplaces(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	net := newWAN(t, w.address)
	direct := id.URLs
	id.URLs = []string{net.url()}
	stop := w.run(agentConfig(id))
	w.connected()
	net.stall(true)
	r := request("a", "true")
	w.dispatch("n1", r) // into the void
	waitFor(t, "the end", func() bool { _ = stop(); return true })
	id.URLs = direct
	w.run(agentConfig(id))
	w.engine.result(t, r.ID)
	if got := w.gateway.Connected(); len(got) != 1 || got[0] != "n1" {
		t.Errorf("connected %v", got)
	}
}

func TestManyAgents(t *testing.T) {
	w := newWorld(t)
	const n = 16
	var ids []*agent.Identity
	for i := range n {
		ids = append(ids, w.enrolled(fmt.Sprint("n", i)))
	}
	before := runtime.NumGoroutine()
	var stops []func() error
	for _, id := range ids {
		stops = append(stops, w.run(agentConfig(id)))
	}
	w.engine.until(t, "all connections", func(*engine) bool { return len(w.gateway.Connected()) == n })
	// The engine's own: one goroutine that reads, one that serves the connection, one for the stream. The rest are agents'.
	if now := runtime.NumGoroutine(); now > before+n*16 {
		t.Errorf("%d goroutines for %d agents", now-before, n)
	}
	for i := range n {
		w.dispatch(fmt.Sprint("n", i), request(fmt.Sprint("x", i), "true"))
	}
	w.engine.until(t, "all results", func(e *engine) bool { return len(e.results) >= n })
	for _, stop := range stops {
		_ = stop()
	}
	w.engine.until(t, "all ends", func(*engine) bool { return len(w.gateway.Connected()) == 0 })
}

func TestDispatchRefusals(t *testing.T) {
	w := newWorld(t)
	w.enrolled("n1")
	w.enrolled("n2")
	r := request("a", "true")
	w.dispatch("n1", r)
	if err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "n2", Request: r}); err == nil || !strings.Contains(err.Error(), "n1 has it") {
		t.Errorf("one request was given to two nodes: %v", err)
	}
	bad := request("b", "true")
	bad.Files = []wire.File{{Name: "../x"}}
	if err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "n1", Request: bad}); err == nil {
		t.Error("a malformed request was dispatched")
	}
	if err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "nobody", Request: request("c", "true")}); err == nil {
		t.Error("a request was dispatched to nobody")
	}
	w.gateway.Forget("n1", "")
	if err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "n2", Request: r}); err != nil {
		t.Error(err)
	}
}

// The end of an old connection must not be told after the beginning of the new one.
func TestNewsOfANodeComeInOrder(t *testing.T) {
	w := newWorld(t)
	w.engine.slow = 50 * time.Millisecond // longer than the agent needs to come back
	id := w.enrolled("n1")
	net := newWAN(t, w.address)
	id.URLs = []string{net.url()}
	cfg := agentConfig(id)
	cfg.Retry = time.Millisecond
	w.run(cfg)
	for i := range 5 {
		w.engine.until(t, "a connection", func(e *engine) bool { return e.ups > i && len(w.gateway.Connected()) == 1 })
		if i < 4 {
			net.cut()
		}
	}
	time.Sleep(3 * w.engine.slow)
	w.engine.until(t, "the last word", func(e *engine) bool { return e.online })
	if len(w.gateway.Connected()) != 1 {
		t.Error("the node is not connected")
	}
	w.engine.mu.Lock()
	defer w.engine.mu.Unlock()
	if !w.engine.online {
		t.Error("the engine was told last that a connected node is gone")
	}
}

// TestRequestOfAnotherBoot gives a node a request for a boot of it that has ended: it does not run, and what comes after
// it does.
func TestRequestOfAnotherBoot(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	w.run(agentConfig(id))
	w.connected()
	line, count := counted(t)
	past := request("past", line)
	past.Kernel = "00000000-0000-0000-0000-000000000000"
	w.dispatch("n1", past)
	now := request("now", "true")
	w.dispatch("n1", now)
	if r := w.engine.result(t, now.ID); r.Error != "" {
		t.Fatalf("the request after it failed: %s", r.Error)
	}
	if n := count(); n != 0 {
		t.Errorf("a request for a boot that has ended ran %d times", n)
	}
}
