// Package drive is the engine's shell: one loop for each cluster that owns its journal, takes in what happened, lets the
// pure core decide, makes that durable, and only then performs the effects. No other part of the engine owns
// goroutines.
package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// Library finds checked models again, by what a goal says of them.
type Library interface {
	Model(ctx context.Context, g history.Goal) (*model.Model, error)
}

// Nodes performs actions on nodes. Perform and Abort return once the request is queued; reports come through
// Cluster.Report, at least once each. A request that was sent before (same Cluster and ID) is answered, not repeated.
type Nodes interface {
	Perform(ctx context.Context, o Order) error
	Abort(ctx context.Context, o Order) error
}

// Order is an action for an agent.
type Order struct {
	Cluster string
	Epoch   uint64
	Trust   string // level the agent's node must have
	run.Dispatch

	Clear  map[string]json.RawMessage // the inputs as the agent gets them, secrets in clear; Outputs are in clear, too
	Secret []string                   // names of the inputs that hold secrets, which no log may show
}

// Site is what a cluster asks of the machines' owner. Every method may be called again for the same thing.
type Site interface {
	Raise(ctx context.Context, cluster, node string) error                                  // power on if off, and anew if nothing came of it
	HandOver(ctx context.Context, cluster, node, boot string) error                         // from the discovery image of that boot to the node image
	Fence(ctx context.Context, cluster, node, incarnation string) (proof string, err error) // power off, read back
	Wipe(ctx context.Context, cluster, node, incarnation string) (proof string, err error)  // destroy durable state
	Release(ctx context.Context, cluster, node string) error                                // give back
}

// Secrets keeps what steps yield as secret(T). Everywhere else a secret is its handle: in the journal, in plans, in
// answers. It is in clear in a report until it is sealed, and in an order to a node that is trusted enough.
type Secrets interface {
	// Seal keeps a secret durably, encrypted, before it returns. Equal secrets of one cluster have one handle.
	Seal(ctx context.Context, cluster string, plain []byte) (value.Handle, error)
	// Open gives a secret of that cluster back.
	Open(ctx context.Context, cluster string, h value.Handle) ([]byte, error)
}

// Config says what a cluster's loop works with.
type Config struct {
	Cluster   string
	Holder    string // who runs it, for people
	Store     journal.Store
	Snapshots journal.Snapshots // nil for none
	Blobs     journal.Blobs
	Library   Library
	Services  map[string]step.Handler // by operation, such as "names.put"
	Nodes     Nodes
	Site      Site
	Secrets   Secrets          // nil: an attempt that yields or needs a secret fails
	Now       func() time.Time // nil for time.Now
	Log       *slog.Logger     // nil for nowhere
	Parallel  int              // service calls at once; 0 for 32
	Every     uint64           // least number of events between snapshots of a cluster under way; 0 for 20,000
}

// String shows which attempt the order is of, and nothing of its values.
func (o Order) String() string {
	return fmt.Sprintf("%s %s/%s #%d on %s", o.Action, o.Cluster, o.Target, o.ID, o.Agent)
}

// LogValue implements slog.LogValuer.
func (o Order) LogValue() slog.Value { return slog.StringValue(o.String()) }

// Cluster is the loop of one cluster. Its methods are safe for concurrent use.
type Cluster struct {
	cfg     Config
	writer  *journal.Writer
	machine *run.Machine
	shelf   *shelf
	inbox   chan message
	calls   chan struct{} // tokens of service calls
	ctx     context.Context
	stop    context.CancelCauseFunc
	work    sync.WaitGroup
	snapped uint64 // last event that a snapshot covers

	mu      sync.Mutex
	flights map[history.Target]*flight // attempts under way in this process, by instance
	asking  map[asked]bool             // what machines' owner is being asked
}

// message is something for the loop. happen runs inside it and gives what happened; it may only read the machine.
type message struct {
	happen func(m *run.Machine, now time.Time) ([]history.Event, error)
	done   chan error
}

// ErrClosed is returned once the loop has ended.
var ErrClosed = errors.New("the cluster's loop has ended")

// Open takes up a cluster's journal, repeats what was in flight, and goes on from there. The loop ends with Close, or by
// itself when the journal cannot be written any more.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 32
	}
	if cfg.Every == 0 {
		cfg.Every = 20_000
	}
	c := &Cluster{
		cfg: cfg, inbox: make(chan message, 1024), calls: make(chan struct{}, cfg.Parallel),
		flights: map[history.Target]*flight{}, asking: map[asked]bool{},
	}
	state := history.New()
	var err error
	c.writer, err = journal.Open(ctx, journal.Config{
		Store: cfg.Store, Snapshots: cfg.Snapshots, Journal: JournalOf(cfg.Cluster), Holder: cfg.Holder, Log: cfg.Log,
		Restore: func(s journal.Snapshot) error {
			restored, err := history.Restore(s.Version, s.Data)
			if err == nil {
				state, c.snapped = restored, s.Seq
			}
			return err
		},
		Fold: func(r journal.Record) error {
			e, err := history.Decode(r)
			if err == nil {
				state.Fold(r.Seq, r.Time, e)
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	c.shelf = &shelf{cfg: cfg, models: map[value.Digest]*model.Model{}, recent: map[value.Digest][]byte{}}
	if err := c.shelf.stock(ctx, state); err != nil {
		return nil, fmt.Errorf("cannot resume cluster %s: %w", cfg.Cluster, err)
	}
	c.machine = run.New(state, c.shelf)
	c.ctx, c.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	c.work.Add(1)
	go c.loop()
	return c, nil
}

// JournalOf names the journal of a cluster.
func JournalOf(cluster string) string { return "cluster/" + cluster }

// Close ends the loop and waits for everything it started. What is in flight is taken up again by the next Open.
func (c *Cluster) Close() {
	c.stop(ErrClosed)
	c.work.Wait()
}

// Done is closed when the loop has ended; Err then says why.
func (c *Cluster) Done() <-chan struct{} { return c.ctx.Done() }

// Err says why the loop ended.
func (c *Cluster) Err() error { return context.Cause(c.ctx) }

// Journal gives access to the events as they become durable.
func (c *Cluster) Journal() *journal.Writer { return c.writer }

// Happen makes events part of the journal, in order, and returns once they are durable.
func (c *Cluster) Happen(ctx context.Context, events ...history.Event) error {
	return c.send(ctx, func(*run.Machine, time.Time) ([]history.Event, error) { return events, nil })
}

// Pursue sets a goal, after what is to happen first. Its model is loaded before, so that a goal that cannot be pursued is refused.
func (c *Cluster) Pursue(ctx context.Context, g history.Goal, first ...history.Event) error {
	if _, err := c.shelf.load(ctx, g); err != nil && !g.Destroy {
		return err
	}
	return c.Happen(ctx, append(first[:len(first):len(first)], g)...)
}

// PursueAt is Pursue if nothing has happened since the event with the given number; else it reports false.
func (c *Cluster) PursueAt(ctx context.Context, g history.Goal, seq uint64) (bool, error) {
	if _, err := c.shelf.load(ctx, g); err != nil && !g.Destroy {
		return false, err
	}
	same := false
	err := c.send(ctx, func(m *run.Machine, _ time.Time) ([]history.Event, error) {
		if same = m.State().Seq == seq; !same {
			return nil, nil
		}
		return []history.Event{g}, nil
	})
	return same && err == nil, err
}

// Seen takes in what a node is like now. What the cluster knows already makes no event.
func (c *Cluster) Seen(ctx context.Context, seen history.NodeSeen) error {
	return c.send(ctx, func(m *run.Machine, _ time.Time) ([]history.Event, error) {
		n := m.State().Node(seen.Node)
		if n != nil && (seen.Incarnation == "" || n.Incarnation == seen.Incarnation && !n.Ended) && (seen.Boot == "" || n.Boot == seen.Boot) &&
			(seen.Address == "" || n.Address == seen.Address) && (seen.Facts == nil || string(n.Facts) == string(seen.Facts)) &&
			(seen.Level == "" || n.Level == seen.Level) && (seen.Machine == "" || n.Machine == seen.Machine) && n.Online == seen.Online && n.Scout == seen.Scout {
			return nil, nil
		}
		return []history.Event{seen}, nil
	})
}

// Report takes in what became of an attempt, and returns once that is durable; until then whoever reports keeps it. A
// report of an attempt that is not in flight any more is dropped. Secrets in its outputs are sealed first.
func (c *Cluster) Report(ctx context.Context, t history.Target, r run.Report) error {
	r, err := c.sealed(ctx, t, r)
	if err != nil {
		return err
	}
	return c.send(ctx, func(m *run.Machine, now time.Time) ([]history.Event, error) {
		e, ok := m.Conclude(now, t, r)
		if !ok {
			return nil, nil
		}
		return []history.Event{e}, nil
	})
}

// Verify has instances verified as soon as the budget for that lets them; without any, all that can be. What comes of it says
// run.Machine.Inquiry, by the number that Verify gives.
func (c *Cluster) Verify(ctx context.Context, by string, targets []history.Target) (uint64, error) {
	var id uint64
	err := c.send(ctx, func(m *run.Machine, now time.Time) ([]history.Event, error) {
		var err error
		id, err = m.Inquire(now, by, targets)
		return nil, err
	})
	return id, err
}

// Look calls f inside the loop, where state and plan stand still. f must be quick and keep nothing of what it is given.
func (c *Cluster) Look(ctx context.Context, f func(*history.State, *plan.Planner)) error {
	return c.send(ctx, func(m *run.Machine, _ time.Time) ([]history.Event, error) {
		f(m.State(), m.Plan())
		return nil, nil
	})
}

// Inspect is Look at the whole machine, for what needs to know of budgets and attempts too.
func (c *Cluster) Inspect(ctx context.Context, f func(*run.Machine)) error {
	return c.send(ctx, func(m *run.Machine, _ time.Time) ([]history.Event, error) {
		f(m)
		return nil, nil
	})
}

// send has the loop take something in and waits until that is durable. Whoever stops waiting knows that it does not happen
// any more from then on, so that what happen writes for its caller is the caller's alone again.
func (c *Cluster) send(ctx context.Context, happen func(*run.Machine, time.Time) ([]history.Event, error)) error {
	var happening sync.Mutex
	over := false
	defer func() {
		happening.Lock()
		defer happening.Unlock()
		over = true
	}()
	msg := message{func(m *run.Machine, now time.Time) ([]history.Event, error) {
		happening.Lock()
		defer happening.Unlock()
		if over {
			return nil, context.Canceled
		}
		return happen(m, now)
	}, make(chan error, 1)}
	select {
	case c.inbox <- msg:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return c.Err()
	}
	select {
	case err := <-msg.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
	}
	select {
	case err := <-msg.done: // it was durable before the loop ended
		return err
	default:
		return c.Err()
	}
}
