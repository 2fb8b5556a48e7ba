package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"joist/engine/addr"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// flight is an attempt whose effect is under way in this process.
type flight struct {
	id     uint64
	done   chan struct{} // closed once the service has answered, or the order is queued
	cancel context.CancelCauseFunc
}

// asked is one thing that is asked of a machine.
type asked struct{ what, node string }

// errAborted ends a service call whose attempt was given up.
var errAborted = errors.New("the attempt was given up")

// perform starts an effect and returns at once. Effects of one instance come one after another, in order.
func (c *Cluster) perform(e run.Effect) {
	switch e := e.(type) {
	case run.Dispatch:
		trust := c.trust(e.Target)
		c.fly(e.Target, e.ID, func(ctx context.Context) { c.dispatch(ctx, e, trust) })
	case run.Call:
		c.fly(e.Target, e.ID, func(ctx context.Context) { c.call(ctx, e) })
	case run.Abort:
		c.abort(e)
	case run.Raise:
		c.ask(asked{"raise", e.Node}, func(ctx context.Context) (history.Event, error) {
			return nil, c.cfg.Site.Raise(ctx, c.cfg.Cluster, e.Node)
		})
	case run.HandOver:
		c.ask(asked{"hand-over", e.Node}, func(ctx context.Context) (history.Event, error) {
			return nil, c.cfg.Site.HandOver(ctx, c.cfg.Cluster, e.Node, e.Boot)
		})
	case run.Fence:
		c.ask(asked{"fence", e.Node}, func(ctx context.Context) (history.Event, error) {
			proof, err := c.cfg.Site.Fence(ctx, c.cfg.Cluster, e.Node, e.Incarnation)
			return history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: proof}, err
		})
	case run.Wipe:
		c.ask(asked{"wipe", e.Node}, func(ctx context.Context) (history.Event, error) {
			proof, err := c.cfg.Site.Wipe(ctx, c.cfg.Cluster, e.Node, e.Incarnation)
			return history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: proof, Wiped: true}, err
		})
	case run.WipeAll:
		c.askAll(asked{what: "wipe all"}, func(ctx context.Context) ([]history.Event, error) { return c.wipeAll(ctx, e) })
	case run.Release:
		c.ask(asked{"release", e.Node}, func(ctx context.Context) (history.Event, error) {
			return history.NodeReleased{Node: e.Node}, c.cfg.Site.Release(ctx, c.cfg.Cluster, e.Node)
		})
	}
}

func (c *Cluster) spawn(f func(context.Context)) {
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		f(c.ctx)
	}()
}

// fly performs an attempt once the instance's earlier one, if its effect is still under way, has come to its end: a
// service never gets two calls of one owner at a time, nor the older one last.
func (c *Cluster) fly(t history.Target, id uint64, f func(context.Context)) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	mine := &flight{id: id, done: make(chan struct{}), cancel: cancel}
	c.mu.Lock()
	before := c.flights[t]
	c.flights[t] = mine
	c.mu.Unlock()
	c.spawn(func(context.Context) {
		defer func() {
			cancel(nil)
			close(mine.done)
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.flights[t] == mine {
				delete(c.flights, t)
			}
		}()
		if before != nil {
			select {
			case <-before.done:
			case <-ctx.Done():
				<-before.done // it has been told to end as well, or has a deadline
			}
		}
		f(ctx)
	})
}

// abort gives an attempt up: a service's at once, a node's after its order was queued.
func (c *Cluster) abort(e run.Abort) {
	c.mu.Lock()
	f := c.flights[e.Target]
	c.mu.Unlock()
	if f != nil && f.id == e.ID {
		f.cancel(errAborted)
	}
	if e.Agent == "" {
		return
	}
	c.spawn(func(ctx context.Context) {
		if f != nil {
			<-f.done
		}
		o := Order{Cluster: c.cfg.Cluster, Epoch: c.writer.Epoch(), Dispatch: run.Dispatch{Target: e.Target, ID: e.ID, Agent: e.Agent}}
		if err := c.cfg.Nodes.Abort(ctx, o); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("cannot abort an attempt", "cluster", c.cfg.Cluster, "instance", c.address(e.Target), "error", err)
		}
	})
}

// ask asks something of a machine's owner, unless just that is being asked already: the machine asks again until it has
// an answer.
func (c *Cluster) ask(a asked, f func(context.Context) (history.Event, error)) {
	c.askAll(a, func(ctx context.Context) ([]history.Event, error) {
		event, err := f(ctx)
		if event == nil {
			return nil, err
		}
		return []history.Event{event}, err
	})
}

func (c *Cluster) askAll(a asked, f func(context.Context) ([]history.Event, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking[a] {
		return
	}
	c.asking[a] = true
	c.spawn(func(ctx context.Context) {
		events, err := f(ctx)
		if err == nil && len(events) > 0 {
			err = c.Happen(ctx, events...)
		}
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("cannot do what the cluster asks of a machine; it is tried again", "cluster", c.cfg.Cluster, "asked", a.what, "node", a.node, "error", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.asking, a)
	})
}

// wipeAll wipes several nodes at once. Their ends are told together, or not at all: what was wiped is found so when it is
// asked again.
func (c *Cluster) wipeAll(ctx context.Context, e run.WipeAll) ([]history.Event, error) {
	events, errs := make([]history.Event, len(e.Nodes)), make([]error, len(e.Nodes))
	var all sync.WaitGroup
	for i, n := range e.Nodes {
		all.Go(func() {
			proof, err := c.cfg.Site.Wipe(ctx, c.cfg.Cluster, n.Node, n.Incarnation)
			events[i], errs[i] = history.NodeEnded{Node: n.Node, Incarnation: n.Incarnation, Why: proof, Wiped: true}, err
		})
	}
	all.Wait()
	return events, errors.Join(errs...)
}

func (c *Cluster) dispatch(ctx context.Context, e run.Dispatch, trust string) {
	err := c.order(ctx, e, trust)
	if err != nil && ctx.Err() == nil {
		c.report(ctx, e.Target, run.Report{ID: e.ID, Error: err.Error(), Refused: true})
	}
}

func (c *Cluster) order(ctx context.Context, e run.Dispatch, trust string) error {
	if e.Broken != "" {
		return errors.New(e.Broken)
	}
	o := Order{Cluster: c.cfg.Cluster, Epoch: c.writer.Epoch(), Trust: trust, Dispatch: e}
	var err error
	if o.Clear, o.Secret, err = c.clear(ctx, e.Step.Inputs, e.Inputs); err != nil {
		return err
	}
	if e.Action == step.Remove && len(e.Outputs) > 0 {
		if o.Outputs, err = c.clearOutputs(ctx, e.Step, e.Outputs); err != nil {
			return err
		}
	}
	return c.cfg.Nodes.Perform(ctx, o)
}

// trust is the level that a node needs for an attempt: what the packs say whose step it is.
func (c *Cluster) trust(t history.Target) string {
	state := c.machine.State()
	if row := state.Row(t); row != nil && row.Goal < len(state.Goals) {
		if m := c.shelf.Model(state.Goals[row.Goal]); m != nil && m.Trust != "" {
			return m.Trust
		}
	}
	return model.Approved
}

// call performs a service call; a few at once, each within its time.
func (c *Cluster) call(ctx context.Context, e run.Call) {
	timed, cancel := context.WithTimeout(ctx, e.Deadline.Sub(c.cfg.Now())) // by the clock that set it
	defer cancel()
	select {
	case c.calls <- struct{}{}:
		defer func() { <-c.calls }()
	case <-timed.Done(): // the machine has given it up
		return
	}
	if timed.Err() != nil {
		return // nothing starts that nobody waits for
	}
	r := run.Report{ID: e.ID}
	result, err := c.serve(timed, e)
	if err != nil {
		r.Error = err.Error()
		r.Excused = errors.Is(context.Cause(ctx), errAborted)
		errors.As(err, &r.Later)
		r.Refused = e.Action == step.Verify && timed.Err() != nil // a verify that came to no end has seen nothing
	} else if e.Action == step.Apply {
		r.Outputs, r.ValidUntil = result.Outputs, result.ValidUntil
	}
	c.report(c.ctx, e.Target, r)
}

// serve calls the handler. A panic in it is that handler's error, and no more.
func (c *Cluster) serve(ctx context.Context, e run.Call) (result step.Result, err error) {
	if e.Broken != "" {
		return result, errors.New(e.Broken)
	}
	handler, ok := c.cfg.Services[e.Name]
	if !ok {
		return result, fmt.Errorf("this engine has no service operation %q", e.Name)
	}
	inputs, err := value.Dict(e.Inputs).MarshalJSON()
	if err != nil {
		return result, err
	}
	defer func() {
		if p := recover(); p != nil {
			c.cfg.Log.Error("a service operation panicked", "cluster", c.cfg.Cluster, "call", e.Name, "panic", p, "stack", string(debug.Stack()))
			result, err = step.Result{}, fmt.Errorf("internal error: %s panicked: %v", e.Name, p)
		}
	}()
	return handler.Call(ctx, step.Call{
		Name: e.Name, Action: e.Action, Cluster: c.cfg.Cluster, Owner: c.address(e.Target), Node: e.Node,
		Epoch: c.writer.Epoch(), Inputs: json.RawMessage(inputs),
	})
}

func (c *Cluster) report(ctx context.Context, t history.Target, r run.Report) {
	if err := c.Report(ctx, t, r); err != nil && ctx.Err() == nil {
		c.cfg.Log.Error("cannot take in a report", "cluster", c.cfg.Cluster, "instance", c.address(t), "error", err)
	}
}

func (c *Cluster) address(t history.Target) string {
	return addr.Instance{Cluster: c.cfg.Cluster, Task: t.Task, Node: t.Node}.String()
}
