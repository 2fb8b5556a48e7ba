package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
)

// sum is a state folded from records: how many, and the last.
type sum struct{ count, last uint64 }

func (s *sum) config(m *journal.Memory, log *bytes.Buffer) journal.Config {
	return journal.Config{
		Store: m, Snapshots: m, Journal: "demo", Holder: "test",
		Log: slog.New(slog.NewTextHandler(log, nil)),
		Restore: func(snapshot journal.Snapshot) error {
			if snapshot.Version != 1 {
				return fmt.Errorf("version %d is not known", snapshot.Version)
			}
			_, err := fmt.Sscan(string(snapshot.Data), &s.count, &s.last)
			return err
		},
		Fold: func(r journal.Record) error {
			if r.Seq != s.last+1 {
				return fmt.Errorf("record %d after %d", r.Seq, s.last)
			}
			s.count, s.last = s.count+1, r.Seq
			return nil
		},
	}
}

func TestWriterReplays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*testing.T, *journal.Memory, *journal.Writer)
		log    string // what the log says, "" for nothing
	}{
		{"without a snapshot", func(*testing.T, *journal.Memory, *journal.Writer) {}, ""},
		{"from a snapshot", func(t *testing.T, m *journal.Memory, w *journal.Writer) {
			must(t, w.Snapshot(t.Context(), 3, 1, []byte("3 3")))
		}, ""},
		{"from a snapshot of everything", func(t *testing.T, m *journal.Memory, w *journal.Writer) {
			must(t, w.Snapshot(t.Context(), 5, 1, []byte("5 5")))
		}, ""},
		{"damaged snapshot", func(t *testing.T, m *journal.Memory, w *journal.Writer) {
			must(t, w.Snapshot(t.Context(), 3, 1, []byte("3 3")))
			m.DamageSnapshot("demo")
		}, "damaged at record 3"},
		{"snapshot of another version", func(t *testing.T, m *journal.Memory, w *journal.Writer) {
			must(t, w.Snapshot(t.Context(), 3, 2, []byte("three")))
		}, "version 2 is not known"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m journal.Memory
			var log bytes.Buffer
			w, err := journal.Open(t.Context(), (&sum{}).config(&m, &log))
			must(t, err)
			must(t, w.Append(t.Context(), journaltest.Records(0, 5)))
			test.change(t, &m, w)

			var state sum
			again, err := journal.Open(t.Context(), state.config(&m, &log))
			must(t, err)
			if state != (sum{5, 5}) || again.Last() != 5 || again.Epoch() <= w.Epoch() {
				t.Errorf("state %v, last %d, epoch %d after %d", state, again.Last(), again.Epoch(), w.Epoch())
			}
			if (log.Len() > 0) != (test.log != "") || !strings.Contains(log.String(), test.log) {
				t.Errorf("log %q", log.String())
			}
			var fenced *journal.FencedError
			if err := w.Append(t.Context(), journaltest.Records(5, 1)); !errors.As(err, &fenced) {
				t.Errorf("the succeeded writer: %v", err)
			}
			must(t, again.Append(t.Context(), journaltest.Records(5, 1)))
		})
	}
}

func TestWriterFoldFails(t *testing.T) {
	t.Parallel()
	var m journal.Memory
	w, err := journal.Open(t.Context(), journal.Config{Store: &m, Journal: "demo"})
	must(t, err)
	must(t, w.Append(t.Context(), journaltest.Records(0, 2)))
	strange := errors.New("strange")
	_, err = journal.Open(t.Context(), journal.Config{Store: &m, Journal: "demo", Fold: func(journal.Record) error { return strange }})
	if !errors.Is(err, strange) || !strings.Contains(err.Error(), "cannot replay record 1 (test.kind1, version 1)") {
		t.Errorf("error %v", err)
	}
}

// What cannot be written because it is wrong, or in time, leaves the writer usable; what the store refused does not,
// whatever the store would say next.
func TestWriterStops(t *testing.T) {
	t.Parallel()
	var m journal.Memory
	w, err := journal.Open(t.Context(), journal.Config{Store: &m, Journal: "demo"})
	must(t, err)
	if err := w.Append(t.Context(), []journal.Record{{Kind: "test"}}); err == nil {
		t.Error("a record without data was accepted")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Append(ended, journaltest.Records(0, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	records := journaltest.Records(7, 2)
	must(t, w.Append(t.Context(), records))
	if records[0].Seq != 1 || records[1].Seq != 2 || w.Last() != 2 {
		t.Errorf("sequences %d and %d, last %d", records[0].Seq, records[1].Seq, w.Last())
	}
	broken := errors.New("broken")
	m.BeforeCommit = func(journal.Batch) error { return broken }
	if err := w.Append(t.Context(), journaltest.Records(2, 1)); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	m.BeforeCommit = nil
	if err := w.Append(t.Context(), journaltest.Records(2, 1)); !errors.Is(err, broken) {
		t.Errorf("error %v of a writer that had stopped", err)
	}
}

func TestWriterFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m journal.Memory
		w, err := journal.Open(t.Context(), journal.Config{Store: &m, Journal: "demo"})
		must(t, err)
		must(t, w.Append(t.Context(), journaltest.Records(0, 3)))
		ctx, cancel := context.WithCancel(t.Context())
		var seen []uint64
		ended := make(chan error)
		go func() {
			ended <- w.Follow(ctx, 1, func(r journal.Record) error { seen = append(seen, r.Seq); return nil })
		}()
		synctest.Wait()
		must(t, w.Append(t.Context(), journaltest.Records(3, 2)))
		synctest.Wait()
		must(t, w.Append(t.Context(), journaltest.Records(5, 1)))
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if fmt.Sprint(seen) != "[2 3 4 5 6]" {
			t.Errorf("records %v", seen)
		}
		enough := errors.New("enough")
		if err := w.Follow(t.Context(), 0, func(journal.Record) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("error %v", err)
		}
	})
}
