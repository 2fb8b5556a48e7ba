package agents

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// Order is a request for a node.
type Order struct {
	Node    string
	Level   enrol.Level  // the trust that the node must have; at least Approved in any case
	Request wire.Request // its Incarnation and Kernel, if set, are the only ones that it is given to
}

// order is what one node owes: a result.
type order struct {
	instance    string
	attempt     int
	incarnation string     // empty for any
	kernel      string     // boot; empty for any
	stage       wire.Stage // in which it is sent; empty for any
	level       enrol.Level
	line        []byte   // the message to the agent, one line of JSON
	cancel      bool     // the message is a Cancel
	sent        *session // where it was sent
}

// TrustError reports that a node is not trusted enough for a request.
type TrustError struct {
	Node       string
	Have, Need enrol.Level
}

// Error implements error.
func (e *TrustError) Error() string {
	have := "not enrolled"
	if e.Have > 0 {
		have = "only " + e.Have.String()
	}
	return fmt.Sprintf("cannot give %s a request that needs a machine that is %s: it is %s", e.Node, e.Need, have)
}

// Dispatch hands a request to the node's agent: now if it is connected, else when it is, and again after each lost
// connection, until its result is durable or Forget is called. The node's trust is checked now and whenever the request
// is sent; a request that finds it too low waits. Dispatching a request again replaces it.
func (g *Gateway) Dispatch(ctx context.Context, o Order) error {
	if err := o.Request.Validate(); err != nil {
		return fmt.Errorf("cannot dispatch %s: %w", o.Request.ID, err)
	}
	o.Level = max(o.Level, enrol.Approved)
	m, err := g.cfg.Site.Machine(ctx, o.Node)
	if err != nil {
		return fmt.Errorf("cannot look up %s: %w", o.Node, err)
	}
	if have := m.Level(); have < o.Level {
		return &TrustError{Node: o.Node, Have: have, Need: o.Level}
	}
	line, err := encode(wire.Down{Request: &o.Request})
	if err != nil {
		return fmt.Errorf("cannot dispatch %s: %w", o.Request.ID, err)
	}
	stage := o.Request.Stage
	if stage == "" {
		stage = wire.Node
	}
	return g.enqueue(o.Node, o.Request.ID, &order{
		instance: o.Request.Instance, attempt: o.Request.Attempt, incarnation: o.Request.Incarnation, kernel: o.Request.Kernel,
		stage: stage, level: o.Level, line: line,
	})
}

// Cancel tells the node's agent to end a request, as long as it takes. A result follows, whether the request runs, has
// ended, or never started. A cancelled request is not sent any more.
func (g *Gateway) Cancel(_ context.Context, node string, c wire.Cancel) error {
	line, err := encode(wire.Down{Cancel: &c})
	if err != nil {
		return fmt.Errorf("cannot cancel %s: %w", c.ID, err)
	}
	o := &order{instance: c.Instance, attempt: c.Attempt, line: line, cancel: true}
	g.mu.Lock()
	if was := g.orders[node][c.ID]; was != nil {
		o.incarnation = was.incarnation
	}
	g.mu.Unlock()
	return g.enqueue(node, c.ID, o)
}

func encode(d wire.Down) ([]byte, error) {
	line, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if len(line) >= wire.MaxMessage {
		return nil, fmt.Errorf("it is larger than %d bytes", wire.MaxMessage)
	}
	return append(line, '\n'), nil
}

func (g *Gateway) enqueue(node, id string, o *order) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if owner, taken := g.owners[id]; taken && owner != node {
		return fmt.Errorf("cannot give %s to %s: %s has it", id, node, owner)
	}
	if g.orders[node] == nil {
		g.orders[node] = map[string]*order{}
	}
	g.orders[node][id] = o
	g.owners[id] = node
	if s := g.sessions[node]; s != nil {
		s.poke()
	}
	return nil
}

// Forget drops everything that an incarnation of a node owes, because it has ended; an empty incarnation means all.
func (g *Gateway) Forget(node, incarnation string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, o := range g.orders[node] {
		if incarnation == "" || o.incarnation == incarnation {
			g.drop(node, id)
		}
	}
}

// drop forgets an order. The caller holds the lock.
func (g *Gateway) drop(node, id string) {
	delete(g.orders[node], id)
	delete(g.owners, id)
	if len(g.orders[node]) == 0 {
		delete(g.orders, node)
	}
}

// Connected lists the nodes whose agents are connected, sorted.
func (g *Gateway) Connected() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.sessions))
}

// Refresh looks anew at a machine after its keys, trust or target changed: its connection is closed if its key is no
// longer current, and it is told a new target, and what it is now trusted with.
func (g *Gateway) Refresh(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[node]; s != nil {
		s.refresh = true
		s.poke()
	}
}
