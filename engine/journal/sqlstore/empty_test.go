package sqlstore

import (
	"context"
	"errors"
	"testing"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
)

// TestEmpty: an emptied journal begins anew, its epochs go on, its writer is fenced, and no other journal is touched.
func TestEmpty(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openTest(t, Config{Dir: t.TempDir()}).Journals()
	epochs := map[string]uint64{}
	for _, name := range []string{"a", "b"} {
		epoch, err := s.Acquire(ctx, name, "test")
		must(t, err)
		epochs[name] = epoch
		must(t, s.Append(ctx, journal.Batch{Journal: name, Epoch: epoch, Records: journaltest.Records(0, 300)}))
		must(t, s.Save(ctx, epoch, journal.Snapshot{Journal: name, Seq: 200, Data: []byte("state")}))
	}
	var fenced *journal.FencedError
	if err := s.Empty(ctx, "a", epochs["a"]+1); !errors.As(err, &fenced) || len(journaltest.ReadAll(t, s, "a", 0)) != 300 {
		t.Errorf("emptied on another writer's word: %v", err)
	}
	if err := s.Empty(ctx, "none", 1); !errors.As(err, &fenced) {
		t.Errorf("emptied a journal that there is not: %v", err)
	}
	must(t, s.Empty(ctx, "a", epochs["a"]))
	snapshot, err := s.Load(ctx, "a")
	must(t, err)
	if n := len(journaltest.ReadAll(t, s, "a", 0)); n != 0 || snapshot.Seq != 0 {
		t.Errorf("%d records and a snapshot of %d are left", n, snapshot.Seq)
	}
	if err := s.Append(ctx, journal.Batch{Journal: "a", Epoch: epochs["a"], Records: journaltest.Records(0, 1)}); !errors.As(err, &fenced) {
		t.Errorf("the writer of before still writes: %v", err)
	}
	if n := len(journaltest.ReadAll(t, s, "b", 0)); n != 300 {
		t.Errorf("another journal has %d records", n)
	}
	epoch, err := s.Acquire(ctx, "a", "test")
	must(t, err)
	if epoch <= epochs["a"]+1 {
		t.Errorf("epoch %d after %d", epoch, epochs["a"])
	}
	must(t, s.Append(ctx, journal.Batch{Journal: "a", Epoch: epoch, Records: journaltest.Records(0, 2)}))
	if got := journaltest.ReadAll(t, s, "a", 0); len(got) != 2 || got[0].Seq != 1 {
		t.Errorf("%v", got)
	}
}
