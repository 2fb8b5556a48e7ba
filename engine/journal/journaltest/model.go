package journaltest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"joist/engine/journal"
)

// testModel runs random operations on the store and on a few lines that say what they mean, side by side.
func testModel(t *testing.T, data Data) {
	h := open(t, data)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++ // a journal of its own for each run, in one database
		m := &model{name: fmt.Sprintf("model%d", round)}
		for range rapid.IntRange(1, 12).Draw(rt, "operations") {
			switch rapid.SampledFrom([]string{"acquire", "append", "append", "append", "read", "snapshot"}).Draw(rt, "operation") {
			case "acquire":
				epoch, err := h.Store.Acquire(t.Context(), m.name, "model")
				if err != nil || epoch <= m.epoch {
					rt.Fatalf("epoch %d after %d: %v", epoch, m.epoch, err)
				}
				m.epoch = epoch
			case "append":
				epoch := m.epoch - min(m.epoch, rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(rt, "stale"))
				after := m.last - min(m.last, rapid.SampledFrom([]uint64{0, 0, 0, 1, 3}).Draw(rt, "behind"))
				n := rapid.IntRange(1, 400).Draw(rt, "records")
				want := m.append(epoch, after, n)
				got := h.Store.Append(t.Context(), journal.Batch{Journal: m.name, Epoch: epoch, After: after, Records: Records(after, n)})
				if diff := cmp.Diff(want, got); diff != "" {
					rt.Fatalf("append (-want +got):\n%s", diff)
				}
			case "read":
				after := rapid.Uint64Range(0, m.last+1).Draw(rt, "after")
				if got, want := ReadAll(t, h.Store, m.name, after), m.read(after); !equal(got, want) {
					rt.Fatalf("after %d: %d records that are not the %d wanted", after, len(got), len(want))
				}
			case "snapshot":
				m.saveAndLoad(rt, t, h.Snapshots)
			}
		}
	})
}

// model is what a journal means: because records follow from their sequence, the last one is all there is to know.
type model struct {
	name                  string
	epoch, last, snapshot uint64
}

func (m *model) append(epoch, after uint64, n int) error {
	switch {
	case epoch != m.epoch || m.epoch == 0:
		return &journal.FencedError{Journal: m.name, Epoch: epoch, Newest: m.epoch}
	case after != m.last:
		return &journal.ConflictError{Journal: m.name, After: after, Last: m.last}
	}
	m.last += uint64(n)
	return nil
}

func (m *model) read(after uint64) []journal.Record {
	if after >= m.last {
		return nil
	}
	return Records(after, int(m.last-after))
}

func (m *model) saveAndLoad(rt *rapid.T, t *testing.T, s journal.Snapshots) {
	seq := rapid.Uint64Range(0, m.last+2).Draw(rt, "covers")
	err := s.Save(t.Context(), m.epoch, journal.Snapshot{Journal: m.name, Seq: seq, Data: fmt.Append(nil, seq)})
	var fenced *journal.FencedError
	switch valid := seq > 0 && seq <= m.last; {
	case m.epoch == 0:
		if !errors.As(err, &fenced) {
			rt.Fatalf("error %v of a journal never acquired", err)
		}
	case (err == nil) != valid:
		rt.Fatalf("snapshot up to %d of %d records: %v", seq, m.last, err)
	case valid:
		m.snapshot = max(m.snapshot, seq)
	}
	got, err := s.Load(t.Context(), m.name)
	if err != nil || got.Seq != m.snapshot || got.Seq > 0 && string(got.Data) != fmt.Sprint(got.Seq) {
		rt.Fatalf("snapshot up to %d with %q instead of %d: %v", got.Seq, got.Data, m.snapshot, err)
	}
}
