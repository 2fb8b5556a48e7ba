package clusters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/replay"
	"joist/engine/run"
	"joist/engine/value"
)

// ReplayRequest says what of a cluster's journal is replayed.
type ReplayRequest struct {
	Run uint64 // event of the goal that began the run; 0 for every run
	At  uint64 // look at the state after this event, and compare what was decided until then, or with it; 0 for the end
}

// Replayed is what came of a replay.
type Replayed struct {
	Report replay.Report
	Runs   []ReplayedRun
	Last   uint64    // the last event replayed
	Time   time.Time // of it
}

// ReplayedRun is the pursuit of one goal.
type ReplayedRun struct {
	Goal      history.Goal
	Time      time.Time
	Last      uint64 // its last event
	Decisions int
	Diverged  int
	Outcome   string // how it came to rest last; empty if it did not
}

// Replay runs the core again over a cluster's journal as it is now, from its beginning; look, if not nil, is shown the
// state that the replay ends with. It needs no loop and changes nothing, so that it works beside an engine too.
func (c *Clusters) Replay(ctx context.Context, name string, q ReplayRequest, look func(*run.Machine)) (*Replayed, error) {
	library := &replayLibrary{c: c, ctx: ctx, models: map[value.Digest]*model.Model{}}
	from := uint64(0)
	if q.Run > 0 {
		from = q.Run
	}
	r, out := replay.New(library, from), &Replayed{}
	var then *history.State // after the event that was asked for
	err := c.cfg.Drive.Store.Read(ctx, drive.JournalOf(name), 0, func(rec journal.Record) error {
		if q.At > 0 && rec.Seq > q.At && !r.Within() {
			return errEnough
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := history.Decode(rec)
		if err != nil {
			return err
		}
		g, begins := e.(history.Goal)
		if begins {
			if q.Run > 0 && rec.Seq > q.Run {
				return errEnough
			}
			if err := library.load(g); err != nil {
				return err
			}
		}
		before := r.Report()
		if err := r.Take(rec); err != nil {
			return err
		}
		if q.At > 0 && rec.Seq > q.At {
			return nil
		}
		if out.Last, out.Time = rec.Seq, rec.Time; rec.Seq == q.At {
			then = r.State().Clone()
		}
		out.count(rec, e, before, r.Report())
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return nil, fmt.Errorf("cannot replay cluster %s: %w", name, err)
	case out.Last == 0:
		return nil, &UnknownError{name}
	case q.At > out.Last:
		return nil, fmt.Errorf("cannot replay cluster %s up to event %d: its journal ends with event %d", name, q.At, out.Last)
	case q.Run > 0 && (len(out.Runs) == 0 || out.Runs[len(out.Runs)-1].Goal.Seq != q.Run):
		return nil, fmt.Errorf("cannot replay run %s:%d: event %d sets no goal", name, q.Run, q.Run)
	}
	if err := library.missing; err != nil {
		return nil, fmt.Errorf("cannot replay cluster %s: %w", name, err)
	}
	if q.Run > 0 {
		out.Runs = out.Runs[len(out.Runs)-1:]
	}
	out.Report = r.End()
	if look != nil {
		if then == nil {
			then = r.State()
		}
		look(run.New(then, library))
	}
	return out, nil
}

// errEnough ends the reading of a journal.
var errEnough = errors.New("enough")

// count notes an event in the run that it is part of.
func (o *Replayed) count(rec journal.Record, e history.Event, before, after replay.Report) {
	if g, ok := e.(history.Goal); ok {
		g.Seq = rec.Seq
		o.Runs = append(o.Runs, ReplayedRun{Goal: g, Time: rec.Time})
	}
	if len(o.Runs) == 0 {
		return
	}
	run := &o.Runs[len(o.Runs)-1]
	run.Last = rec.Seq
	run.Decisions += after.Decisions - before.Decisions
	run.Diverged += after.Diverged - before.Diverged
	switch e := e.(type) {
	case history.Rested:
		run.Outcome = e.Outcome
	case history.Cancelled:
		run.Outcome = history.OutcomeCancelled
	case history.Stirred:
		run.Outcome = ""
	}
}

// replayLibrary finds the models of goals in the archive, by their digests.
type replayLibrary struct {
	c       *Clusters
	ctx     context.Context //nolint:containedctx // of one replay: what the core asks for cannot carry one
	models  map[value.Digest]*model.Model
	missing error // the first large value that cannot be read
}

func (l *replayLibrary) load(g history.Goal) error {
	if g.Destroy || l.models[g.Model] != nil {
		return nil
	}
	m, err := l.c.Model(l.ctx, g)
	if err != nil {
		return fmt.Errorf("cannot load the model of goal %s: %w", g.Model.Short(), err)
	}
	l.models[g.Model] = m
	return nil
}

// Model implements run.Library.
func (l *replayLibrary) Model(g history.Goal) *model.Model { return l.models[g.Model] }

// Blob implements run.Library.
func (l *replayLibrary) Blob(d value.Digest) []byte {
	data, err := l.c.cfg.Drive.Blobs.Get(l.ctx, d.String())
	if err != nil && l.missing == nil {
		l.missing = fmt.Errorf("cannot read a large input: %w", err)
	}
	return data
}
