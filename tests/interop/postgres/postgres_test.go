package postgres_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"joist/engine/entries"
	"joist/engine/entries/entriestest"
	"joist/engine/journal"
	"joist/engine/journal/journaltest"
	"joist/engine/journal/sqlstore"
)

func TestPostgreSQL(t *testing.T) {
	server := startServer(t)
	t.Run("journal", func(t *testing.T) {
		journaltest.Run(t, func(t *testing.T) journaltest.Data { return data(server.database(t)) })
	})
	t.Run("entries", func(t *testing.T) {
		entriestest.Run(t, func(t *testing.T) entries.Store { return open(t, server.database(t)).Entries() })
	})
	t.Run("crash", func(t *testing.T) { testCrash(t, server) })
	t.Run("start together", func(t *testing.T) { testStartTogether(t, server) })
	t.Run("take over", func(t *testing.T) { testTakeOver(t, server) })
	t.Run("two controllers", func(t *testing.T) { testTwoControllers(t, server) })
	t.Run("unsafe settings", func(t *testing.T) { testUnsafe(t, server) })
	t.Run("newer schema", func(t *testing.T) { testNewer(t, server) })
	t.Run("server crash", func(t *testing.T) { testServerCrash(t, server) })
	t.Run("no server", func(t *testing.T) {
		_, err := sqlstore.Open(t.Context(), sqlstore.Config{PostgreSQL: "host=" + t.TempDir() + " user=joist dbname=none"})
		if err == nil || !strings.HasPrefix(err.Error(), "cannot open the PostgreSQL database none at /") || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v", err)
		}
	})
}

// data describes a database to the suite; damage is done through the connection opened last.
func data(dsn string) journaltest.Data {
	var last *sqlstore.DB
	exec := func(t *testing.T, statement string, args ...any) {
		t.Helper()
		must(t, last.Gorm().Exec(statement, args...).Error)
	}
	return journaltest.Data{
		Exclusive: true,
		Open: func() (journaltest.Handle, error) {
			db, err := sqlstore.Open(context.Background(), sqlstore.Config{PostgreSQL: dsn, Holder: "test"})
			if err != nil {
				return journaltest.Handle{}, err
			}
			last = db
			return journaltest.Handle{Store: db.Journals(), Snapshots: db.Journals(), Blobs: db.Blobs(), Close: db.Close}, nil
		},
		DamageSnapshot: func(t *testing.T, name string) {
			exec(t, `UPDATE journal_snapshots SET data = set_byte(data, 0, 0) WHERE journal = ?`, name)
		},
		DamageRecord: func(t *testing.T, name string, seq uint64) {
			exec(t, `UPDATE journal_chunks SET data = set_byte(data, length(data) - 6, 1) WHERE journal = ? AND last_seq = ?`, name, seq)
		},
		MissRecord: func(t *testing.T, name string, seq uint64) {
			exec(t, `DELETE FROM journal_chunks WHERE journal = ? AND last_seq = ?`, name, seq)
		},
	}
}

func open(t *testing.T, dsn string) *sqlstore.DB {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{PostgreSQL: dsn, Holder: "controller of " + t.Name()})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func testCrash(t *testing.T, server *server) {
	dsn := server.database(t)
	self, err := os.Executable()
	must(t, err)
	journaltest.Crash(t, data(dsn), func(*testing.T) *exec.Cmd {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childDSN+"="+dsn)
		return cmd
	})
}

// Controllers that start at the same moment on an empty database take turns with the schema.
func testStartTogether(t *testing.T, server *server) {
	dsn := server.database(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			db, err := sqlstore.Open(t.Context(), sqlstore.Config{PostgreSQL: dsn})
			if err != nil {
				t.Error(err)
				return
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A controller that lost its session while it lives is fenced by the one that took over.
func testTakeOver(t *testing.T, server *server) {
	dsn := server.database(t)
	first, second := open(t, dsn), open(t, dsn)
	old, err := journal.Open(t.Context(), journal.Config{Store: first.Journals(), Journal: "demo", Holder: "first"})
	must(t, err)
	must(t, old.Append(t.Context(), journaltest.Records(0, 2)))
	var held *journal.HeldError
	if _, err := second.Journals().Acquire(t.Context(), "demo", "second"); !errors.As(err, &held) || held.Holder != "first" {
		t.Fatalf("error %v", err)
	}
	must(t, second.Gorm().Exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'`).Error)

	var successor *journal.Writer
	for successor == nil { // the server ends the session when it gets to it
		successor, err = journal.Open(t.Context(), journal.Config{Store: second.Journals(), Journal: "demo", Holder: "second"})
		if err != nil && !errors.As(err, &held) {
			t.Fatal(err)
		}
	}
	var fenced *journal.FencedError
	if err := old.Append(t.Context(), journaltest.Records(2, 1)); !errors.As(err, &fenced) {
		t.Errorf("error %v of the first controller", err)
	}
	must(t, successor.Append(t.Context(), journaltest.Records(2, 1)))
	if _, err := first.Journals().Acquire(t.Context(), "demo", "first"); !errors.As(err, &held) || held.Holder != "second" {
		t.Errorf("error %v when the first controller, with a new session, asks again", err)
	}
	if _, err := first.Journals().Acquire(t.Context(), "other", "first"); err != nil {
		t.Errorf("a journal that nobody holds: %v", err)
	}
}

// Two controllers with journals of their own write journals and entries at the same time.
func testTwoControllers(t *testing.T, server *server) {
	dsn := server.database(t)
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		db := open(t, dsn)
		for _, part := range []string{"1", "2", "3"} {
			journalName := name + part
			wg.Go(func() {
				w, err := journal.Open(t.Context(), journal.Config{Store: db.Journals(), Journal: journalName})
				for n := uint64(0); n < 40 && err == nil; n++ {
					if err = w.Append(t.Context(), journaltest.Records(n, 1)); err == nil {
						scope := entries.Scope{Service: "names", Cluster: journalName}
						_, err = db.Entries().Replace(t.Context(), scope, entries.Writer{Owner: "x", Epoch: w.Epoch()},
							[]entries.Entry{{Key: "k", Value: journaltest.Records(n, 1)[0].Data}})
					}
				}
				if err != nil {
					t.Errorf("%s: %v", journalName, err)
				}
			})
		}
	}
	wg.Wait()
	list, version, err := open(t, dsn).Entries().List(t.Context(), entries.Scope{Service: "names"})
	must(t, err)
	if len(list) != 6 || version != 240 {
		t.Errorf("%d entries at version %d", len(list), version)
	}
}

func testUnsafe(t *testing.T, server *server) {
	dsn := server.database(t)
	_, err := sqlstore.Open(t.Context(), sqlstore.Config{PostgreSQL: dsn + " options='-c synchronous_commit=off'"})
	if err == nil || !strings.Contains(err.Error(), "its setting synchronous_commit is off, so that a crash could lose what was acknowledged; turn it on") {
		t.Errorf("error %v", err)
	}
}

func testNewer(t *testing.T, server *server) {
	dsn := server.database(t)
	must(t, open(t, dsn).Gorm().Exec(`INSERT INTO schema_migrations (id) VALUES ('9999-later')`).Error)
	_, err := sqlstore.Open(t.Context(), sqlstore.Config{PostgreSQL: dsn})
	var newer *sqlstore.NewerSchemaError
	if !errors.As(err, &newer) {
		t.Errorf("error %v", err)
	}
}

// testServerCrash ends the server without any goodbye: what was acknowledged is there after its recovery, and a writer
// that does not know what became of its last append writes nothing more.
func testServerCrash(t *testing.T, server *server) {
	dsn := server.database(t)
	db := open(t, dsn)
	w, err := journal.Open(t.Context(), journal.Config{Store: db.Journals(), Journal: "demo"})
	must(t, err)
	stopped := make(chan error)
	enough := make(chan struct{})
	go func() {
		for {
			if err := w.Append(t.Context(), journaltest.Records(w.Last(), 7)); err != nil {
				stopped <- err
				return
			}
			if w.Last() == 7*50 {
				close(enough)
			}
		}
	}()
	<-enough
	server.stop(t, syscall.SIGQUIT)
	first := <-stopped
	server.start(t)
	if err := w.Append(t.Context(), journaltest.Records(w.Last(), 1)); err == nil || err.Error() != first.Error() {
		t.Errorf("error %v after %v", err, first)
	}
	again, err := journal.Open(t.Context(), journal.Config{Store: db.Journals(), Journal: "demo"})
	must(t, err)
	if acknowledged := w.Last(); again.Last() != acknowledged && again.Last() != acknowledged+7 {
		t.Errorf("%d records, and %d were acknowledged", again.Last(), acknowledged)
	}
	must(t, again.Append(t.Context(), journaltest.Records(again.Last(), 1)))
}
