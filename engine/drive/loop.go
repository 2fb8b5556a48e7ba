package drive

import (
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/run"
)

const largestBatch = 512 // messages taken into one group commit

// loop is the only writer of the journal and the only user of the machine.
func (c *Cluster) loop() {
	defer c.work.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	out := c.machine.Resume(c.cfg.Now())
	err := c.commit(out, nil)
	for err == nil {
		c.snapshot()
		timer.Stop()
		if !out.Wake.IsZero() {
			timer.Reset(max(out.Wake.Sub(c.cfg.Now()), 0))
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
		out, err = c.turn(batch)
	}
	c.stop(fmt.Errorf("the loop of cluster %s has ended: %w", c.cfg.Cluster, err))
}

// turn lets the machine take in a batch of messages and acknowledges them once the result is durable.
func (c *Cluster) turn(batch []message) (run.Outcome, error) {
	now := c.cfg.Now()
	var all run.Outcome
	join := func(out run.Outcome) {
		all.Events = append(all.Events, out.Events...)
		all.Effects = append(all.Effects, out.Effects...)
		all.Now, all.Wake = out.Now, out.Wake
	}
	answers := make([]error, len(batch))
	for i, msg := range batch {
		var events []history.Event
		if events, answers[i] = msg.happen(c.machine, now); len(events) > 0 {
			join(c.machine.Advance(now, events...))
		}
	}
	join(c.machine.Advance(now))
	return all, c.commit(all, func() {
		for i, msg := range batch {
			msg.done <- answers[i]
		}
	})
}

// commit makes events durable, then acknowledges, then performs the effects (law 4).
func (c *Cluster) commit(out run.Outcome, acknowledge func()) error {
	for _, e := range out.Effects {
		if keep, ok := e.(run.Keep); ok {
			if _, err := c.cfg.Blobs.Put(c.ctx, keep.Data); err != nil {
				return fmt.Errorf("cannot keep a large input: %w", err)
			}
			c.shelf.keep(keep)
		}
	}
	if len(out.Events) > 0 {
		records := make([]journal.Record, len(out.Events))
		for i, e := range out.Events {
			r, err := history.Encode(e, out.Now)
			if err != nil {
				return err
			}
			records[i] = r
		}
		if err := c.writer.Append(c.ctx, records); err != nil {
			return err
		}
	}
	if acknowledge != nil {
		acknowledge()
	}
	for _, e := range out.Effects {
		c.perform(e)
	}
	return nil
}

// snapshot keeps a snapshot when enough has happened since the last one. It costs as much as there are rows: waiting for as
// many events keeps its share of the work constant however large the cluster, and the fold of what came after it no dearer
// than reading it. A cluster at rest, which nobody waits for, gets one sooner, so that what opens it next folds little.
func (c *Cluster) snapshot() {
	if c.cfg.Snapshots == nil {
		return
	}
	state := c.machine.State()
	due := max(c.cfg.Every, uint64(rows(state)))
	if state.Outcome != "" {
		due = max(due/4, 1)
	}
	if state.Seq < c.snapped+due {
		return
	}
	version, data, err := state.Snapshot()
	if err == nil {
		err = c.writer.Snapshot(c.ctx, state.Seq, version, data)
	}
	if err != nil {
		c.cfg.Log.Warn("cannot keep a snapshot; the next start folds the whole journal", "cluster", c.cfg.Cluster, "error", err)
	}
	c.snapped = state.Seq
}

func rows(state *history.State) int {
	n := 0
	for _, column := range state.Columns {
		n += len(column.Rows)
	}
	return n
}
