package drive_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"joist/engine/journal"
	"joist/engine/model"
)

// saves is a store that notes which events its snapshots cover.
type saves struct {
	*journal.Memory
	mu   sync.Mutex
	seqs []uint64
}

func (s *saves) Save(ctx context.Context, epoch uint64, snapshot journal.Snapshot) error {
	s.mu.Lock()
	s.seqs = append(s.seqs, snapshot.Seq)
	s.mu.Unlock()
	return s.Memory.Save(ctx, epoch, snapshot)
}

// TestSnapshotsAreSpaced: the larger the cluster, the further apart are its snapshots, and one that came to rest after much
// has happened has one that leaves little to fold.
func TestSnapshotsAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 60
		w := newWorld(t, task("a", model.Service, text, refer(""), text), task("b", model.Service, text, refer("a"), text))
		s := &saves{Memory: w.store}
		w.cfg.Snapshots, w.cfg.Every, w.cfg.Parallel = s, 10, 1 // one at a time: many commits
		c := w.open()
		var names []string
		for i := range nodes {
			names = append(names, fmt.Sprintf("n%02d", i))
		}
		w.begin(c, names...)
		synctest.Wait()
		if got := w.outcome(c); got != "converged" {
			t.Fatalf("outcome %q", got)
		}
		last := c.Journal().Last()
		c.Close()
		if n := len(s.seqs); n < 5 || n > 20 {
			t.Errorf("%d snapshots of %d events: %v", n, last, s.seqs)
		}
		if behind := last - slices.Max(s.seqs); behind > 2*nodes/4 {
			t.Errorf("at rest, %d of %d events are in no snapshot: %v", behind, last, s.seqs)
		}
		for i := 2; i < len(s.seqs)-1; i++ {
			if gap := s.seqs[i] - s.seqs[i-1]; gap < 10 {
				t.Errorf("only %d events lie between two snapshots: %v", gap, s.seqs)
			}
		}
	})
}
