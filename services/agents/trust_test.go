package agents_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joist/engine/agent"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
	"joist/services/agents"
)

// dial opens a connection as an enrolling machine does, but checks nothing.
func (w *world) dial() (*tls.Conn, enrol.Binding) {
	w.t.Helper()
	conn, err := tls.Dial("tcp", w.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	binding, err := enrol.BindingOf(conn.ConnectionState())
	if err != nil {
		w.t.Fatal(err)
	}
	return conn, binding
}

// post sends an enrolment over a connection.
func (w *world) post(conn *tls.Conn, body []byte) enrol.Reply {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.url()+wire.PathEnrol, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := req.Write(conn); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	reply, err := enrol.ParseReply(raw)
	if err != nil {
		w.t.Fatalf("%s: %s: %v", resp.Status, raw, err)
	}
	return reply
}

// ask enrols once with a key, over a connection of its own.
func (w *world) ask(key *ecdsa.PrivateKey, d enrol.Draft) (enrol.Reply, []byte) {
	w.t.Helper()
	conn, binding := w.dial()
	if d.Incarnation == "" {
		d.Incarnation = "i1"
	}
	if d.Now.IsZero() {
		d.Now = time.Now()
	}
	req, err := enrol.NewRequest(key, binding, d)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := json.Marshal(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.post(conn, raw), raw
}

func TestReplayedEnrolment(t *testing.T) {
	w := newWorld(t)
	boot := w.site.boot(t, "n1", "", time.Now())
	w.site.secrets["n1"] = []byte("sixteen octets or more")
	good, recorded := w.ask(newKey(t), enrol.Draft{Boot: boot, Secret: w.site.secrets["n1"]})
	if good.Outcome != enrol.Accept {
		t.Fatalf("reply %+v", good)
	}
	events := len(w.site.events)
	conn, _ := w.dial()
	reply := w.post(conn, recorded)
	if reply.Outcome != enrol.Refuse || reply.Reason != enrol.BadSignature || reply.Certificate != "" {
		t.Errorf("reply %+v", reply)
	}
	if len(w.site.events) != events {
		t.Error("a replayed enrolment changed the site")
	}
	w.engine.until(t, "the notice", func(e *engine) bool { return len(e.notices) == 1 && e.notices[0].Kind == agents.NoticeRefused })
}

func TestOtherKeyWithTheSameBootID(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	w.run(agentConfig(id))
	w.connected()
	boot, err := enrol.ParseBootID(id.Boot)
	if err != nil {
		t.Fatal(err)
	}
	reply, _ := w.ask(newKey(t), enrol.Draft{Boot: boot, Secret: w.site.secrets["n1"]})
	if reply.Outcome != enrol.Quarantine || reply.Reason != enrol.OtherKey || reply.Certificate != "" {
		t.Errorf("reply %+v", reply)
	}
	w.quarantined("n1")
}

// quarantined checks that a machine claimed twice is served no more, under either key.
func (w *world) quarantined(node string) {
	w.t.Helper()
	w.engine.until(w.t, "the end of the connection", func(*engine) bool { return len(w.gateway.Connected()) == 0 })
	var trust *agents.TrustError
	if err := w.gateway.Dispatch(w.t.Context(), agents.Order{Node: node, Request: request("q", "true")}); !errors.As(err, &trust) || trust.Have != 0 {
		w.t.Errorf("a quarantined machine was given a request: %v", err)
	}
	if n := w.site.count(enrol.Quarantined); n != 1 {
		w.t.Errorf("%d events of quarantine", n)
	}
}

func TestStolenMACWhileTheOwnerIsUp(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	w.run(agentConfig(id))
	w.connected()
	owner := w.site.machines["n1"].Keys[w.site.machines["n1"].Current].Fingerprint
	stolen := w.site.boot(t, "n1", "52:54:00:00:00:01", time.Now()) // DHCP believes a MAC
	reply, _ := w.ask(newKey(t), enrol.Draft{Boot: stolen, MAC: "52:54:00:00:00:01"})
	if reply.Outcome != enrol.Quarantine || reply.Reason != enrol.OwnerAnswers {
		t.Errorf("reply %+v", reply)
	}
	w.quarantined("n1")

	// A person looks at the console of the right machine, whose agent then comes back by itself.
	w.site.apply(t, "n1", func(m enrol.Machine) ([]enrol.Event, error) {
		return enrol.Release(m, enrol.Word{Fingerprint: owner, By: "a person", At: time.Now()})
	})
	r := request("a", "true")
	w.dispatch("n1", r)
	if res := w.engine.result(t, r.ID); !res.OK {
		t.Errorf("result %+v", res)
	}
}

func TestConnectionLeftBehindIsNoOwner(t *testing.T) {
	w := newWorld(t)
	w.enrolled("n1")
	p := w.process(w.dirs["n1"])
	w.connected()
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil { // as a machine that lost its power
		t.Fatal(err)
	}
	boot := w.site.boot(t, "n1", "52:54:00:00:00:01", time.Now())
	reply, _ := w.ask(newKey(t), enrol.Draft{Boot: boot, Secret: w.site.secrets["n1"], Incarnation: "i2"})
	if reply.Outcome != enrol.Accept || reply.Level != enrol.Vouched {
		t.Errorf("reply %+v", reply)
	}
	w.engine.until(t, "the end of the old connection", func(e *engine) bool { return e.downs == 1 })
}

func TestExpiredBootID(t *testing.T) {
	w := newWorld(t)
	boot := w.site.boot(t, "n1", "", time.Now().Add(-enrol.BootValidity))
	_, err := agent.Enrol(t.Context(), w.machine(boot, t.TempDir()))
	var refused *agent.RefusedError
	if !errors.As(err, &refused) || refused.Reason != enrol.ExpiredBoot {
		t.Errorf("error %v", err)
	}
	var never enrol.BootID
	never[0] = 1
	if _, err = agent.Enrol(t.Context(), w.machine(never, t.TempDir())); !errors.As(err, &refused) || refused.Reason != enrol.UnknownBoot {
		t.Errorf("error %v", err)
	}
}

func TestClockIn2001(t *testing.T) {
	w := newWorld(t)
	w.site.secrets["n1"] = []byte("sixteen octets or more")
	var off time.Duration
	var mu sync.Mutex
	said := ""
	setup := func() agent.EnrolConfig {
		off = time.Until(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
		cfg := w.machine(w.site.boot(t, "n1", "", time.Now()), t.TempDir())
		cfg.Secret = w.site.secrets["n1"]
		cfg.Now = func() time.Time { return time.Now().Add(off) }
		cfg.SetClock = func(now time.Time) error { off = time.Until(now); return nil }
		cfg.Console = func(line string) { mu.Lock(); said += line + "\n"; mu.Unlock() }
		return cfg
	}
	cfg := setup()
	cfg.Time = time.Now() // joist.time
	if _, err := agent.Enrol(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if !strings.Contains(said, "the clock is off by") {
		t.Errorf("the console shows %q", said)
	}

	// joist.time was right to the minute; the engine's answer does the rest.
	cfg = setup()
	off = -5 * time.Minute
	if _, err := agent.Enrol(t.Context(), cfg); err != nil || off < -time.Minute {
		t.Error(err, off)
	}

	// Without joist.time no certificate is valid, and the console says so.
	cfg = setup()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := agent.Enrol(ctx, cfg); err == nil || !strings.Contains(said, "not yet valid") {
		t.Errorf("error %v, the console shows %q", err, said)
	}
}

func TestPin(t *testing.T) {
	w := newWorld(t)
	boot := w.site.boot(t, "n1", "", time.Now())
	for name, spoil := range map[string]func(*agent.EnrolConfig){
		"another root": func(cfg *agent.EnrolConfig) { cfg.Pin[0]++ },
		"another host": func(cfg *agent.EnrolConfig) {
			cfg.URLs = []string{strings.Replace(w.url(), "127.0.0.1", "localhost", 1)}
		},
		// The leaf's own key as the pin must not make it a root.
		"the leaf": func(cfg *agent.EnrolConfig) {
			leaf, err := x509.ParseCertificate(w.ca.server.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			cfg.Pin = pinOf(leaf)
		},
	} {
		cfg := w.machine(boot, t.TempDir())
		spoil(&cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := agent.Enrol(ctx, cfg); err == nil {
			t.Errorf("%s: the machine enrolled", name)
		}
		cancel()
	}
	if len(w.site.events) != 1 {
		t.Errorf("events %+v", w.site.events)
	}
}

func TestSameCertificateForTheSameKey(t *testing.T) {
	w := newWorld(t)
	w.site.secrets["n1"] = []byte("sixteen octets or more")
	boot, key := w.site.boot(t, "n1", "", time.Now()), newKey(t)
	first, _ := w.ask(key, enrol.Draft{Boot: boot, Secret: w.site.secrets["n1"]})
	second, _ := w.ask(key, enrol.Draft{Boot: boot, Secret: w.site.secrets["n1"]})
	if first.Certificate == "" || first.Certificate != second.Certificate || second.Outcome != enrol.Same {
		t.Errorf("replies %+v, %+v", first, second)
	}
	if n := w.site.count(enrol.Accepted); n != 1 {
		t.Errorf("accepted %d times", n)
	}
	wrong, _ := w.ask(newKey(t), enrol.Draft{Boot: w.site.boot(t, "n2", "", time.Now()), Secret: []byte("not the secret that was given")})
	if wrong.Outcome != enrol.Pending { // n2 has no secret: a voucher is not looked at
		t.Errorf("reply %+v", wrong)
	}
	bad, _ := w.ask(newKey(t), enrol.Draft{Boot: w.site.boot(t, "n1", "", time.Now()), Secret: []byte("not the secret that was given")})
	if bad.Reason != enrol.BadVoucher {
		t.Errorf("reply %+v", bad)
	}
}

func TestReplacedKeyEndsTheConnection(t *testing.T) {
	w := newWorld(t)
	w.run(agentConfig(w.enrolled("n1")))
	w.connected()
	w.site.apply(t, "n1", func(m enrol.Machine) ([]enrol.Event, error) { return enrol.End(m, "a person", time.Now()), nil })
	w.engine.until(t, "the end of the connection", func(*engine) bool { return len(w.gateway.Connected()) == 0 })
	line, runs := counted(t)
	if err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "n1", Request: request("a", line)}); err == nil || runs() != 0 {
		t.Error("a machine without a current key was given a request")
	}
}

func TestTrustThatFallsHoldsRequestsBack(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	line, runs := counted(t)
	r := request("a", line)
	if err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "n1", Level: enrol.Vouched, Request: r}); err != nil {
		t.Fatal(err)
	}
	lower := func(level enrol.Level) {
		w.site.mu.Lock()
		defer w.site.mu.Unlock()
		m := w.site.machines["n1"]
		k := m.Keys[m.Current]
		k.Level = level
		m.Keys[m.Current] = k
	}
	lower(enrol.Approved)
	w.run(agentConfig(id))
	w.connected()
	b := request("b", "true")
	w.dispatch("n1", b)
	w.engine.result(t, b.ID)
	if runs() != 0 {
		t.Error("a request for a vouched machine reached one that is only approved")
	}
	lower(enrol.Vouched)
	w.gateway.Refresh("n1")
	w.engine.result(t, r.ID)
}

func TestWorkerThatLies(t *testing.T) {
	w := newWorld(t)
	w.enrolled("n1")
	liar := w.liar("n2")
	r := request("a", "true")
	w.dispatch("n1", r)
	known := wire.Result{ID: r.ID, Instance: r.Instance, Attempt: r.Attempt, OK: true}
	if code := liar.post(wire.PathResult, known); code != http.StatusConflict {
		t.Errorf("a result for another node was answered %d", code)
	}
	w.engine.judge = func(node string, res wire.Result) error {
		if res.ID == "never" {
			return agents.ErrNotDispatched
		}
		if res.ID == "old" || res.Instance == "c/slow" {
			return agents.ErrEnded
		}
		return nil
	}
	if code := liar.post(wire.PathResult, wire.Result{ID: "never", OK: true}); code != http.StatusConflict {
		t.Errorf("an invented result was answered %d", code)
	}
	if code := liar.post(wire.PathResult, wire.Result{ID: "old", Instance: "c/t[n2]", OK: true}); code != http.StatusConflict {
		t.Errorf("an old result was answered %d", code)
	}
	slow := request("slow", "true")
	w.dispatch("n2", slow)
	if code := liar.post(wire.PathResult, wire.Result{ID: slow.ID, Instance: slow.Instance, Attempt: slow.Attempt, OK: true}); code != http.StatusNoContent {
		t.Errorf("an answer that came too late was answered %d", code)
	}
	if code := liar.post(wire.PathResult, wire.Result{ID: slow.ID, Instance: slow.Instance, Attempt: slow.Attempt, OK: true}); code != http.StatusNoContent {
		t.Errorf("the echo of an answer was answered %d", code)
	}
	own := request("own", "true")
	w.dispatch("n2", own)
	if code := liar.post(wire.PathResult, wire.Result{ID: own.ID, Instance: "c/other", Attempt: 1, OK: true}); code != http.StatusConflict {
		t.Errorf("a result for another instance was answered %d", code)
	}
	if code := liar.post(wire.PathLog, wire.LogChunk{ID: r.ID, Text: "lie\n"}); code != http.StatusNoContent {
		t.Errorf("a log was answered %d", code)
	}
	if code := liar.post(wire.PathStream, wire.Hello{Version: 1, Node: "n1", Incarnation: "i1", Stage: wire.Node}); code != http.StatusForbidden {
		t.Errorf("a greeting in another's name was answered %d", code)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if code := liar.post(wire.PathRenew, wire.Renewal{CSR: csr}); code != http.StatusForbidden {
		t.Errorf("a renewal for another key was answered %d", code)
	}
	w.engine.mu.Lock()
	defer w.engine.mu.Unlock()
	if len(w.engine.results) != 0 || w.engine.logs.Len() != 0 || len(w.engine.notices) != 4 {
		t.Errorf("results %+v, log %q, notices %+v", w.engine.results, w.engine.logs.String(), w.engine.notices)
	}
	for i, n := range w.engine.notices {
		if want := []agents.NoticeKind{agents.NoticeLie, agents.NoticeLie, agents.NoticeLate, agents.NoticeLie}[i]; n.Kind != want || n.Node != "n2" {
			t.Errorf("notice %+v", n)
		}
	}
}

// liar is a root on a node who uses its identity with a client of their own.
type liar struct {
	w      *world
	client *http.Client
}

func (w *world) liar(node string) liar {
	w.t.Helper()
	w.enrolled(node)
	cert, err := tls.LoadX509KeyPair(w.dirs[node]+"/"+agent.CertFile, w.dirs[node]+"/"+agent.KeyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}, ForceAttemptHTTP2: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return liar{w, &http.Client{Transport: tr}}
}

func (l liar) post(path string, body any) int {
	l.w.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		l.w.t.Fatal(err)
	}
	resp, err := l.client.Post(l.w.url()+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		l.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestWithoutCertificateNothing(t *testing.T) {
	w := newWorld(t)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	nobody := liar{w, &http.Client{Transport: tr}}
	for _, path := range []string{wire.PathStream, wire.PathResult, wire.PathLog, wire.PathFacts, wire.PathAlive, wire.PathRenew, wire.PathReport} {
		if code := nobody.post(path, map[string]int{}); code != http.StatusUnauthorized {
			t.Errorf("%s answered %d", path, code)
		}
	}
	if code := nobody.post(wire.PathEnrol, map[string]int{"nonsense": 1}); code != http.StatusBadRequest {
		t.Errorf("nonsense was answered %d", code)
	}
}

// Whoever holds an older key or certificate of a machine is refused: what counts is the current-key row.
func TestOnlyTheCurrentKeyIsServed(t *testing.T) {
	w := newWorld(t)
	old := w.liar("n1") // a copy of the identity that the machine had, as somebody may have made
	facts := map[string]int{"cpus": 1}
	if code := old.post(wire.PathFacts, facts); code != http.StatusNoContent {
		t.Fatalf("the current key was answered %d", code)
	}
	boot := w.site.boot(t, "n1", "52:54:00:00:00:01", time.Now())
	reply, _ := w.ask(newKey(t), enrol.Draft{Boot: boot, Secret: w.site.secrets["n1"]}) // the same incarnation, another key
	if reply.Outcome != enrol.Accept {
		t.Fatalf("reply %+v", reply)
	}
	for _, path := range []string{wire.PathFacts, wire.PathResult, wire.PathStream, wire.PathRenew} {
		if code := old.post(path, facts); code != http.StatusForbidden {
			t.Errorf("%s answered a replaced key with %d", path, code)
		}
	}
}

func TestOnlyTheCurrentIncarnationIsServed(t *testing.T) {
	w := newWorld(t)
	old := w.liar("n1")
	cfg := w.machine(w.site.boot(t, "n1", "52:54:00:00:00:01", time.Now()), w.dirs["n1"]) // the key stayed, the root did not
	cfg.Incarnation, cfg.Secret = "i2", w.site.secrets["n1"]
	id, err := agent.Enrol(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code := old.post(wire.PathFacts, map[string]int{}); code != http.StatusForbidden {
		t.Errorf("the certificate of an ended incarnation was answered %d", code)
	}
	w.run(agentConfig(id))
	w.connected()
}
