package journal_test

import (
	"errors"
	"testing"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(*testing.T) journaltest.Data {
		m := &journal.Memory{}
		return journaltest.Data{
			Open: func() (journaltest.Handle, error) {
				return journaltest.Handle{Store: m, Snapshots: m, Blobs: m, Close: func() error { return nil }}, nil
			},
			DamageSnapshot: func(_ *testing.T, name string) { m.DamageSnapshot(name) },
		}
	})
}

// A crash before the write leaves nothing, one after it leaves everything; both look the same to the writer.
func TestMemoryCrashes(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for _, test := range []struct {
		name          string
		before, after error
		want          uint64
	}{
		{"no crash", nil, nil, 5},
		{"before the write", crash, nil, 2},
		{"after the write", nil, crash, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := &journal.Memory{}
			w, err := journal.Open(t.Context(), journal.Config{Store: m, Journal: "demo"})
			must(t, err)
			must(t, w.Append(t.Context(), journaltest.Records(0, 2)))
			m.BeforeCommit = func(journal.Batch) error { return test.before }
			m.AfterCommit = func(journal.Batch) error { return test.after }
			err = w.Append(t.Context(), journaltest.Records(2, 3))
			if crashed := test.before != nil || test.after != nil; crashed != errors.Is(err, crash) {
				t.Fatalf("error %v", err)
			}
			m.BeforeCommit, m.AfterCommit = nil, nil
			again, err := journal.Open(t.Context(), journal.Config{Store: m, Journal: "demo"})
			must(t, err)
			if again.Last() != test.want {
				t.Errorf("%d records instead of %d", again.Last(), test.want)
			}
		})
	}
}

// The same faults around any store.
func TestHooked(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	m := &journal.Memory{}
	hooked := &journaltest.Hooked{Store: m}
	epoch, err := hooked.Acquire(t.Context(), "demo", "test")
	must(t, err)
	batch := journal.Batch{Journal: "demo", Epoch: epoch, Records: journaltest.Records(0, 2)}
	hooked.Before = func(journal.Batch) error { return crash }
	if err := hooked.Append(t.Context(), batch); !errors.Is(err, crash) || len(journaltest.ReadAll(t, m, "demo", 0)) != 0 {
		t.Errorf("error %v before the write", err)
	}
	hooked.Before, hooked.After = nil, func(journal.Batch) error { return crash }
	if err := hooked.Append(t.Context(), batch); !errors.Is(err, crash) || len(journaltest.ReadAll(t, m, "demo", 0)) != 2 {
		t.Errorf("error %v after the write", err)
	}
	var conflict *journal.ConflictError
	if err := hooked.Append(t.Context(), batch); !errors.As(err, &conflict) {
		t.Errorf("error %v of the store's own", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
