package sqlstore

import (
	"context"
	"testing"

	"joist/engine/entries"
	"joist/engine/entries/entriestest"
	"joist/engine/journal/journaltest"
)

func TestSQLite(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) journaltest.Data { return testData(Config{Dir: t.TempDir(), Holder: "test"}, true) })
}

// testData describes a database to the suite; damage is done through the connection opened last.
func testData(cfg Config, exclusive bool) journaltest.Data {
	var last *DB
	exec := func(t *testing.T, statement string, args ...any) {
		t.Helper()
		must(t, last.gorm.Exec(statement, args...).Error)
	}
	return journaltest.Data{
		Exclusive: exclusive,
		Open: func() (journaltest.Handle, error) {
			db, err := Open(context.Background(), cfg)
			if err != nil {
				return journaltest.Handle{}, err
			}
			last = db
			return journaltest.Handle{Store: db.Journals(), Snapshots: db.Journals(), Blobs: db.Blobs(), Close: db.Close}, nil
		},
		DamageSnapshot: func(t *testing.T, name string) {
			exec(t, `UPDATE journal_snapshots SET version = version + 1 WHERE journal = ?`, name)
		},
		DamageRecord: func(t *testing.T, name string, seq uint64) {
			var data []byte
			must(t, last.gorm.Raw(`SELECT data FROM journal_chunks WHERE journal = ? AND last_seq = ?`, name, seq).Row().Scan(&data))
			data[len(data)/2] ^= 4
			exec(t, `UPDATE journal_chunks SET data = ? WHERE journal = ? AND last_seq = ?`, data, name, seq)
		},
		MissRecord: func(t *testing.T, name string, seq uint64) {
			exec(t, `DELETE FROM journal_chunks WHERE journal = ? AND last_seq = ?`, name, seq)
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSQLiteEntries(t *testing.T) {
	t.Parallel()
	entriestest.Run(t, func(t *testing.T) entries.Store { return openTest(t, Config{Dir: t.TempDir()}).Entries() })
}

func openTest(t *testing.T, cfg Config) *DB {
	t.Helper()
	db, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}
