package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "joist/services/api/v1"
)

// DefaultPatience is how long Follow keeps trying to reach an engine that went away.
const DefaultPatience = time.Minute

// Following says how to follow events through restarts of the engine.
type Following struct {
	Filter   Filter
	Patience time.Duration   // how long to try after the engine was lost; 0 for DefaultPatience
	Pause    time.Duration   // between two tries; 0 for 500 ms
	Lost     func(err error) // told once each time the engine is lost; nil for nobody
	Found    func()          // told once it answers again; nil for nobody
}

// Follow calls f for each event, each once and in order for each journal, through restarts of the engine: it goes on after
// the last event it had. It ends with f's error, the end of ctx, or an *UnreachableError when patience is over.
func (c *Client) Follow(ctx context.Context, how Following, f func(v1.Event) error) error {
	if how.Patience == 0 {
		how.Patience = DefaultPatience
	}
	if how.Pause == 0 {
		how.Pause = 500 * time.Millisecond
	}
	filter := how.Filter
	var lost time.Time
	for {
		err := c.stream(ctx, filter, 0, func() {
			if !lost.IsZero() && how.Found != nil {
				how.Found()
			}
			lost = time.Time{}
		}, func(e v1.Event) error {
			if err := f(e); err != nil {
				return err
			}
			filter.After = e.Cursor
			return nil
		})
		var unreachable *UnreachableError
		var p *v1.Problem
		away := errors.As(err, &unreachable) || errors.As(err, &p) && p.Of(v1.Unavailable)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !away:
			return err
		case lost.IsZero():
			lost = time.Now()
			if how.Lost != nil {
				how.Lost(err)
			}
		case time.Since(lost) > how.Patience:
			return err
		}
		pause := time.NewTimer(how.Pause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// Find gives the sequence of the first event of a kind in a journal after another one.
func (c *Client) Find(ctx context.Context, journal string, after uint64, kind string) (uint64, error) {
	filter := Filter{Journals: []string{journal}, After: fmt.Sprintf("%s:%d", journal, after)}
	for {
		page, err := c.Page(ctx, filter)
		if err != nil {
			return 0, err
		}
		for _, e := range page.Events {
			if e.Kind == kind {
				return e.Seq, nil
			}
		}
		if !page.More {
			return 0, fmt.Errorf("the journal %s has no event %s after %d", journal, kind, after)
		}
		filter.After = page.Next
	}
}
