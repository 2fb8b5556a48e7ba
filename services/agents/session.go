package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// session is the stream to one connected agent. Its handler's goroutine is the only one that writes to it; others leave
// word under the gateway's lock and poke it.
type session struct {
	peer
	hello wire.Hello
	end   context.CancelCauseFunc
	wake  chan struct{} // holds one

	// guarded by Gateway.mu
	refresh bool
	ping    bool
	probes  []string
	slot    int

	target []byte // last sent; the handler's own
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writeTimeout is how long an agent may take to accept what is written to it.
const writeTimeout = 30 * time.Second

// stream serves one agent until its connection is lost, it is replaced, or its key ends.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, p peer, body []byte) error {
	var hello wire.Hello
	if err := json.Unmarshal(body, &hello); err != nil {
		return &statusError{http.StatusBadRequest, "cannot read the greeting: " + err.Error()}
	}
	switch {
	case hello.Version != wire.Version:
		return &statusError{http.StatusBadRequest, fmt.Sprintf("the agent speaks version %d of the protocol and the engine %d", hello.Version, wire.Version)}
	case hello.Node != p.Node || hello.Incarnation != p.Incarnation:
		return &statusError{http.StatusForbidden, "the greeting names another node than the certificate"}
	case hello.Stage != wire.Scout && hello.Stage != wire.Node:
		return &statusError{http.StatusBadRequest, fmt.Sprintf("the greeting names the unknown stage %q", hello.Stage)}
	}
	if len(hello.Facts) > 0 {
		if err := g.cfg.Site.Facts(r.Context(), p.Node, hello.Facts); err != nil {
			return fmt.Errorf("cannot keep the facts of %s: %w", p.Node, err)
		}
	}
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	s := &session{peer: p, hello: hello, end: end, wake: make(chan struct{}, 1), refresh: true}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return nil
	}
	if !g.join(s) {
		return nil
	}
	defer g.streams.Done()
	err := g.pump(ctx, s, w, rc)
	g.leave(s)
	g.cfg.Log.Info("agent disconnected", "node", p.Node, "error", err)
	return nil // the answer has begun; its end is the message
}

// pump writes what there is to say, and waits for more.
func (g *Gateway) pump(ctx context.Context, s *session, w http.ResponseWriter, rc *http.ResponseController) error {
	for {
		lines, err := g.due(ctx, s)
		if err != nil {
			return err
		}
		if len(lines) > 0 {
			if err := rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
			for _, line := range lines {
				if _, err := w.Write(line); err != nil {
					return err
				}
			}
			if err := rc.Flush(); err != nil {
				return err
			}
			if err := rc.SetWriteDeadline(time.Time{}); err != nil { // it would end an idle stream too
				return err
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// due collects what is to be sent to an agent now, after looking whether it may still be served.
func (g *Gateway) due(ctx context.Context, s *session) ([][]byte, error) {
	m, err := g.cfg.Site.Machine(ctx, s.Node)
	if err != nil {
		return nil, fmt.Errorf("cannot look up %s: %w", s.Node, err)
	}
	if err := current(m, s.Identity, s.key); err != nil {
		return nil, err
	}
	lines, refresh := g.collect(s, m.Level())
	if !refresh {
		return lines, nil
	}
	target, err := g.cfg.Site.Target(ctx, s.Node)
	if err != nil {
		return nil, fmt.Errorf("cannot tell the target of %s: %w", s.Node, err)
	}
	line, err := encode(wire.Down{Target: &target})
	if err != nil {
		return nil, fmt.Errorf("cannot tell the target of %s: %w", s.Node, err)
	}
	if string(line) != string(s.target) {
		s.target = line
		lines = append([][]byte{line}, lines...)
	}
	return lines, nil
}

// collect takes what waits for an agent with this trust.
func (g *Gateway) collect(s *session, level enrol.Level) (lines [][]byte, refresh bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	refresh, s.refresh = s.refresh, false
	for _, nonce := range s.probes {
		if line, err := encode(wire.Down{Probe: nonce}); err == nil {
			lines = append(lines, line)
		}
	}
	s.probes = nil
	for id, o := range g.orders[s.Node] {
		other := o.incarnation != "" && o.incarnation != s.Incarnation
		if other && o.cancel {
			g.drop(s.Node, id) // what was to be ended has ended with its incarnation
			continue
		}
		if o.kernel != "" && o.kernel != s.hello.Kernel {
			g.drop(s.Node, id) // that boot has ended, and with it whatever could answer
			continue
		}
		if o.sent == s || other || o.stage != "" && o.stage != s.hello.Stage || !o.cancel && level < o.level {
			continue
		}
		o.sent = s
		lines = append(lines, o.line)
	}
	if s.ping && len(lines) == 0 {
		lines = append(lines, []byte("\n"))
	}
	s.ping = false
	return lines, refresh
}

var errReplaced = errors.New("the agent opened another connection")

// tell keeps what the engine is told of one node in order: otherwise the end of an old connection could reach it after
// the beginning of the new one. Nodes share a few locks.
func (g *Gateway) tell(node string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(node)) // never fails
	return &g.tells[h.Sum32()%uint32(len(g.tells))]
}

// join makes a session the node's only one, and tells the engine; not while the gateway stops.
func (g *Gateway) join(s *session) bool {
	order := g.tell(s.Node)
	order.Lock()
	defer order.Unlock()
	if !g.enter(s) {
		return false
	}
	g.cfg.Engine.Connected(s.Node, s.hello)
	return true
}

// leave ends a session, and tells the engine if the node has none now. A gateway that stops tells nothing: it is the
// engine that goes, not its nodes.
func (g *Gateway) leave(s *session) {
	order := g.tell(s.Node)
	order.Lock()
	defer order.Unlock()
	if g.exit(s) {
		g.cfg.Engine.Disconnected(s.Node, s.hello)
	}
}

func (g *Gateway) enter(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return false
	}
	g.streams.Add(1)
	if old := g.sessions[s.Node]; old != nil {
		old.end(errReplaced)
	}
	g.sessions[s.Node] = s
	s.slot = g.next
	g.next = (g.next + 1) % wheelSlots
	g.wheel[s.slot][s] = true
	return true
}

// exit reports whether the node is lost to the engine now.
func (g *Gateway) exit(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.wheel[s.slot], s)
	if g.sessions[s.Node] != s {
		return false
	}
	delete(g.sessions, s.Node)
	return !g.closing
}

func (g *Gateway) closeAll(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing = true
	for _, s := range g.sessions {
		s.end(why)
	}
}

// wheelSlots is into how many parts the signs of life are spread, so that ten thousand agents are not written to at
// once and none needs a timer of its own.
const wheelSlots = 20

// turn gives signs of life and ends connections whose certificate has expired, one slot after another.
func (g *Gateway) turn(ctx context.Context) {
	tick := time.NewTicker(max(g.cfg.KeepAlive/wheelSlots, time.Millisecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % wheelSlots {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		now := g.cfg.Now()
		for s := range g.wheel[i] {
			if until := time.Unix(0, s.conn.until.Load()); !now.Before(s.expires) && !now.Before(until) {
				s.end(errors.New("its certificate has expired"))
			}
			s.ping = true
			s.poke()
		}
		g.mu.Unlock()
	}
}
