package restapi

import (
	"context"
	"fmt"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/outlook"
	"joist/engine/step"
)

// try is the first of several attempts, of which at most the last came to a success.
type try struct {
	outlook.First
	at       time.Time
	attempts int
	over     bool // the last one succeeded
}

// tries reads from a cluster's journal how the last attempts of each instance began.
func (a *apiClusters) tries(ctx context.Context, cluster string) (map[history.Target]try, error) {
	tries := map[history.Target]try{}
	started := func(e history.Started, r journal.Record) {
		if e.Action != step.Apply {
			delete(tries, e.Target)
			return
		}
		t, ok := tries[e.Target]
		if !ok || t.over || e.Cause.Kind != history.Interrupted {
			t = try{First: outlook.First{Cause: e.Cause, Seq: r.Seq}, at: r.Time}
		}
		t.attempts++
		tries[e.Target] = t
	}
	err := a.Store.Read(ctx, drive.JournalOf(cluster), 0, func(r journal.Record) error {
		e, err := history.Decode(r)
		if err != nil {
			return err
		}
		switch e := e.(type) {
		case history.Started:
			started(e, r)
		case history.Succeeded:
			if e.Silent != nil {
				started(*e.Silent, r)
			}
			if t, ok := tries[e.Target]; ok {
				t.over = true
				tries[e.Target] = t
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read how attempts of cluster %s began: %w", cluster, err)
	}
	return tries, nil
}

// firstsOf gives the first attempts.
func firstsOf(tries map[history.Target]try) map[history.Target]outlook.First {
	firsts := map[history.Target]outlook.First{}
	for t, one := range tries {
		firsts[t] = one.First
	}
	return firsts
}
