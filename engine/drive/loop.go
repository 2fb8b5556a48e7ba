package drive

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

const (
	largestBatch  = 512   // messages taken into one group commit
	snapshotEvery = 20000 // events between snapshots
)

// loop is the only writer of the journal and the only user of the machine.
func (c *Cluster) loop() {
	defer c.work.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	out := c.machine.Resume(c.cfg.Now())
	for {
		next, err := c.commit(out, nil)
		if err != nil {
			c.stop(err)
			return
		}
		c.snapshot()
		if !next.IsZero() {
			timer.Reset(max(next.Sub(c.cfg.Now()), 0))
		}
		var batch []message
		select {
		case <-c.ctx.Done():
			return
		case <-timer.C:
		case msg := <-c.inbox:
			batch = append(batch, msg)
		}
		for len(batch) > 0 && len(batch) < largestBatch && len(c.inbox) > 0 {
			batch = append(batch, <-c.inbox)
		}
		if out, err = c.turn(batch); err != nil {
			c.stop(err)
			return
		}
	}
}

// turn lets the machine take in a batch of messages and acknowledges them once the result is durable.
func (c *Cluster) turn(batch []message) (run.Outcome, error) {
	now := c.cfg.Now()
	var all run.Outcome
	join := func(out run.Outcome) {
		all.Events = append(all.Events, out.Events...)
		all.Effects = append(all.Effects, out.Effects...)
		all.Wake, all.Now = out.Wake, now
	}
	answers := make([]error, len(batch))
	for i, msg := range batch {
		var events []history.Event
		if events, answers[i] = msg.happen(c.machine, now); len(events) > 0 {
			join(c.machine.Advance(now, events...))
		}
	}
	join(c.machine.Advance(now))
	acknowledge := func() {
		for i, msg := range batch {
			msg.done <- answers[i]
		}
	}
	wake, err := c.commit(all, acknowledge)
	return run.Outcome{Wake: wake}, err
}

// commit makes events durable, then acknowledges, then performs the effects (law 4).
func (c *Cluster) commit(out run.Outcome, acknowledge func()) (time.Time, error) {
	for _, e := range out.Effects {
		if keep, ok := e.(run.Keep); ok {
			if _, err := c.cfg.Blobs.Put(c.ctx, keep.Data); err != nil {
				return time.Time{}, fmt.Errorf("cannot keep a large input: %w", err)
			}
			c.shelf.keep(keep)
		}
	}
	if len(out.Events) > 0 {
		records := make([]journal.Record, len(out.Events))
		for i, e := range out.Events {
			r, err := history.Encode(e, out.Now)
			if err != nil {
				return time.Time{}, err
			}
			records[i] = r
		}
		if err := c.writer.Append(c.ctx, records); err != nil {
			return time.Time{}, err
		}
	}
	if acknowledge != nil {
		acknowledge()
	}
	for _, e := range out.Effects {
		c.perform(e)
	}
	return out.Wake, nil
}

func (c *Cluster) snapshot() {
	if c.cfg.Snapshots == nil || c.machine.State().Seq < c.snapped+snapshotEvery {
		return
	}
	state := c.machine.State()
	version, data, err := state.Snapshot()
	if err == nil {
		err = c.writer.Snapshot(c.ctx, state.Seq, version, data)
	}
	if err != nil {
		c.cfg.Log.Warn("cannot keep a snapshot; the next start folds the whole journal", "cluster", c.cfg.Cluster, "error", err)
	}
	c.snapped = state.Seq
}

func (c *Cluster) perform(e run.Effect) {
	switch e := e.(type) {
	case run.Dispatch:
		c.spawn(func(ctx context.Context) { c.dispatch(ctx, e) })
	case run.Call:
		c.spawn(func(ctx context.Context) { c.call(ctx, e) })
	case run.Abort:
		c.spawn(func(ctx context.Context) {
			o := Order{Cluster: c.cfg.Cluster, Epoch: c.writer.Epoch(), Dispatch: run.Dispatch{Target: e.Target, ID: e.ID, Agent: e.Agent}}
			if err := c.cfg.Nodes.Abort(ctx, o); e.Agent != "" && err != nil {
				c.cfg.Log.Warn("cannot abort an attempt", "instance", e.Target, "error", err)
			}
		})
	case run.Raise:
		c.spawn(func(ctx context.Context) {
			c.tell(e, c.cfg.Site.Raise(ctx, c.cfg.Cluster, e.Node))
		})
	case run.Fence:
		c.spawn(func(ctx context.Context) {
			proof, err := c.cfg.Site.Fence(ctx, c.cfg.Cluster, e.Node, e.Incarnation)
			c.ended(ctx, err, history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: proof})
		})
	case run.Wipe:
		c.spawn(func(ctx context.Context) {
			proof, err := c.cfg.Site.Wipe(ctx, c.cfg.Cluster, e.Node, e.Incarnation)
			c.ended(ctx, err, history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: proof})
		})
	case run.Release:
		c.spawn(func(ctx context.Context) {
			c.ended(ctx, c.cfg.Site.Release(ctx, c.cfg.Cluster, e.Node), history.NodeReleased{Node: e.Node})
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

// tell logs why an effect could not be performed; the machine asks again later.
func (c *Cluster) tell(e run.Effect, err error) {
	if err != nil && c.ctx.Err() == nil {
		c.cfg.Log.Warn("cannot do what the cluster asks of a machine; it is tried again", "cluster", c.cfg.Cluster, "asked", fmt.Sprintf("%T%+v", e, e), "error", err)
	}
}

func (c *Cluster) ended(ctx context.Context, err error, e history.Event) {
	if err != nil {
		c.tell(nil, err)
		return
	}
	if err := c.Happen(ctx, e); err != nil {
		c.tell(nil, err)
	}
}

func (c *Cluster) dispatch(ctx context.Context, e run.Dispatch) {
	o := Order{Cluster: c.cfg.Cluster, Epoch: c.writer.Epoch(), Trust: c.trust(), Dispatch: e}
	if err := c.cfg.Nodes.Perform(ctx, o); err != nil && ctx.Err() == nil {
		c.report(ctx, e.Target, run.Report{ID: e.ID, Error: err.Error()})
	}
}

func (c *Cluster) trust() string {
	if m := c.shelf.newest(); m != nil {
		return m.Trust
	}
	return model.Approved
}

// call performs a service call; a few at once, each within its time.
func (c *Cluster) call(ctx context.Context, e run.Call) {
	select {
	case c.calls <- struct{}{}:
		defer func() { <-c.calls }()
	case <-ctx.Done():
		return
	}
	c.report(ctx, e.Target, c.serve(ctx, e))
}

func (c *Cluster) serve(ctx context.Context, e run.Call) run.Report {
	failed := func(err error) run.Report { return run.Report{ID: e.ID, Error: err.Error()} }
	handler, ok := c.cfg.Services[e.Name]
	if !ok {
		return failed(fmt.Errorf("this engine has no service operation %q", e.Name))
	}
	inputs, err := value.Dict(e.Inputs).MarshalJSON()
	if err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithDeadline(ctx, e.Deadline)
	defer cancel()
	result, err := handler.Call(ctx, step.Call{
		Name: e.Name, Action: e.Action, Cluster: c.cfg.Cluster, Owner: c.address(e.Target), Node: e.Node,
		Epoch: c.writer.Epoch(), Inputs: json.RawMessage(inputs),
	})
	if err != nil {
		return failed(err)
	}
	return run.Report{ID: e.ID, Outputs: result.Outputs, ValidUntil: result.ValidUntil}
}

func (c *Cluster) report(ctx context.Context, t history.Target, r run.Report) {
	if err := c.Report(ctx, t, r); err != nil && ctx.Err() == nil {
		c.cfg.Log.Error("cannot take in a report", "cluster", c.cfg.Cluster, "instance", c.address(t), "error", err)
	}
}
