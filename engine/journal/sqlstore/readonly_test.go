package sqlstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"joist/engine/journal"
	"joist/engine/journal/sqlstore"
)

func write(t *testing.T, db *sqlstore.DB, epoch, after uint64) {
	t.Helper()
	batch := journal.Batch{Journal: "j", Epoch: epoch, After: after, Records: []journal.Record{{Seq: after + 1, Time: time.Unix(1, 0), Kind: "k", Data: []byte(`{}`)}}}
	if err := db.Journals().Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func last(t *testing.T, dir string) uint64 {
	t.Helper()
	db, err := sqlstore.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var seq uint64
	if err := db.Journals().Read(t.Context(), "j", 0, func(r journal.Record) error {
		seq = r.Seq
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return seq
}

// TestReadOnly reads beside a running engine, after it was killed, and after it ended; it writes nothing.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := sqlstore.OpenReadOnly(t.Context(), dir); err == nil {
		t.Error("a folder without a database is opened")
	}
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := db.Journals().Acquire(t.Context(), "j", "test")
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, epoch, 0)
	if got := last(t, dir); got != 1 {
		t.Errorf("beside an engine it reads up to %d", got)
	}
	reader, err := sqlstore.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, epoch, 1) // the reader is in nobody's way
	if _, err := reader.Blobs().Put(t.Context(), []byte("x")); err == nil {
		t.Error("a reader writes")
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}

	killed := t.TempDir() // what a kill leaves: the database with its log
	for _, name := range []string{sqlstore.FileName, sqlstore.FileName + "-wal"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(killed, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := last(t, killed); got != 2 {
		t.Errorf("after a kill it reads up to %d", got)
	}

	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := last(t, dir); got != 2 {
		t.Errorf("after the end it reads up to %d", got)
	}
	after, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != len(after) {
		t.Errorf("reading left files: %v, before %v", after, before)
	}
}
