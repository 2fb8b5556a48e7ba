package sqlstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gorm.io/gorm"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
)

// TestPagesOfLargeRecords: whoever reads slowly keeps a few records of many megabytes in memory, not 32.
func TestPagesOfLargeRecords(t *testing.T) {
	t.Parallel()
	db, err := Open(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := db.Journals()
	epoch, err := s.Acquire(t.Context(), "demo", "test")
	if err != nil {
		t.Fatal(err)
	}
	records := journaltest.Records(0, 10)
	for i := range records {
		records[i].Data = []byte(`"` + strings.Repeat("x", pageBytes/2) + `"`)
	}
	if err := s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, Records: records}); err != nil {
		t.Fatal(err)
	}
	page, err := s.page(t.Context(), "demo", 0)
	if err != nil || len(page) != 2 {
		t.Errorf("%d chunks of %d bytes in a page, %v", len(page), pageBytes/2, err)
	}
	if got := journaltest.ReadAll(t, s, "demo", 0); len(got) != len(records) {
		t.Errorf("%d of %d records read", len(got), len(records))
	}
}

func TestSQLiteCrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	journaltest.Crash(t, testData(Config{Dir: dir}, true), func(t *testing.T) *exec.Cmd { return childCommand(t, dir) })
}

// A second process is refused with the first one's number, until that one is gone, however it went.
func TestHeldFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := childCommand(t, dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Config{Dir: dir})
	var held *journal.HeldError
	if !errors.As(err, &held) || !strings.Contains(err.Error(), fmt.Sprintf("cannot use %s: process %d (the child) holds it since 2", dir, cmd.Process.Pid)) {
		t.Errorf("error %v", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	openTest(t, Config{Dir: dir})
}

// The SQLite that is linked is one without the corruption of WAL resets, which all before 3.51.3 have.
func TestSQLiteVersion(t *testing.T) {
	t.Parallel()
	var version string
	must(t, openTest(t, Config{Dir: t.TempDir()}).gorm.Raw("SELECT sqlite_version()").Row().Scan(&version))
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		t.Fatal(err)
	}
	if major*1_000_000+minor*1000+patch < 3_051_003 {
		t.Errorf("SQLite %s is linked: go.mod must force a newer modernc.org/sqlite", version)
	}
}

// A program that brings further tables adds them to what is there; the one before it then refuses the data.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openTest(t, Config{Dir: dir})
	w, err := journal.Open(t.Context(), journal.Config{Store: db.Journals(), Journal: "demo"})
	must(t, err)
	must(t, w.Append(t.Context(), journaltest.Records(0, 3)))
	must(t, db.Close())
	later := Config{Dir: dir, Migrations: []Migration{{ID: "0100-notes", Statements: []string{"CREATE TABLE notes (note BLOB NOT NULL)"}}}}
	for range 2 {
		db = openTest(t, later)
		must(t, db.Write(t.Context(), func(tx *gorm.DB) error { return tx.Exec("INSERT INTO notes (note) VALUES ('a')").Error }))
		if got := journaltest.ReadAll(t, db.Journals(), "demo", 0); len(got) != 3 {
			t.Errorf("%d records", len(got))
		}
		must(t, db.Close())
	}
	var newer *NewerSchemaError
	if _, err := Open(t.Context(), Config{Dir: dir}); !errors.As(err, &newer) {
		t.Errorf("error %v", err)
	}
}

// Every connection of the pool has the settings that durability and concurrency rest on.
func TestSQLiteSettings(t *testing.T) {
	t.Parallel()
	db := openTest(t, Config{Dir: filepath.Join(t.TempDir(), "not", "there yet? 100%#")})
	for range sqliteReaders + 1 {
		conn, err := db.pool.Conn(t.Context())
		must(t, err)
		t.Cleanup(func() { must(t, conn.Close()) })
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000", "foreign_keys": "1"} {
			var got string
			must(t, conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
			if got != want {
				t.Errorf("%s is %s, not %s", pragma, got, want)
			}
		}
	}
	for name, mode := range map[string]os.FileMode{filepath.Dir(db.name): 0o700, db.name: 0o600, db.name + "-wal": 0o600} {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, not %v", name, info.Mode().Perm(), mode)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, name, content string) {
		t.Helper()
		must(t, os.WriteFile(name, []byte(content), 0o600))
	}
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    string // DIR stands for the data folder
	}{
		{"a file in its place", func(t *testing.T, dir string) { write(t, dir, "") }, "cannot create the data folder: mkdir DIR: not a directory"},
		{"not a database", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			write(t, filepath.Join(dir, FileName), "these are my notes")
		}, "cannot open DIR/joist.db: it is not a SQLite database; move it away, or use another data folder"},
		{"short file", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			write(t, filepath.Join(dir, FileName), "SQL")
		}, "cannot open DIR/joist.db: it is not a SQLite database; move it away, or use another data folder"},
		{"damaged database", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			write(t, filepath.Join(dir, FileName), sqliteHeader+strings.Repeat("damage", 1000))
		}, "cannot use DIR/joist.db: it is damaged: "},
		{"another program's", func(t *testing.T, dir string) {
			db := openTest(t, Config{Dir: dir})
			must(t, db.gorm.Exec("DROP TABLE schema_migrations").Error)
			must(t, db.Close())
		}, "cannot open DIR/joist.db: it is the database of another program; use another data folder"},
		{"newer schema", func(t *testing.T, dir string) {
			db := openTest(t, Config{Dir: dir})
			must(t, db.gorm.Exec("INSERT INTO schema_migrations (id) VALUES ('9999-later')").Error)
			must(t, db.Close())
		}, "cannot open DIR/joist.db: its schema is newer than this program; start the newer program again, or restore a copy from before the upgrade"},
		{"held", func(t *testing.T, dir string) {
			openTest(t, Config{Dir: dir, Holder: "joist serve", Now: func() time.Time { return time.Unix(1_790_000_000, 0) }})
		}, fmt.Sprintf("cannot use DIR: process %d (joist serve) holds it since 2026-09-21T14:13:20Z; stop that controller first, or use other data", os.Getpid())},
		{"bad migration", func(t *testing.T, dir string) {}, "cannot prepare DIR/joist.db: migration 0100-bad: SQL logic error: near \"CREAT\""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			test.prepare(t, dir)
			cfg := Config{Dir: dir}
			if test.name == "bad migration" {
				cfg.Migrations = []Migration{{ID: "0100-bad", Statements: []string{"CREATE TABLE leftover (id BIGINT)", "CREAT"}}}
			}
			_, err := Open(t.Context(), cfg)
			if err == nil || !strings.HasPrefix(err.Error(), strings.ReplaceAll(test.want, "DIR", dir)) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q instead of %q", err, test.want)
			}
			if test.name == "bad migration" { // leaves nothing behind, neither tables nor the lock
				db := openTest(t, Config{Dir: dir})
				if db.gorm.Migrator().HasTable("leftover") {
					t.Error("half a migration stands")
				}
			}
		})
	}
}

func TestOpenWithoutPermission(t *testing.T) {
	dir, err := os.MkdirTemp("", "sqlstore") // a folder that everybody may enter
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o555))
	if os.Geteuid() == 0 { // who is root has every permission: this thread becomes somebody else for files
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		must(t, syscall.Setfsuid(65534))
		defer func() { must(t, syscall.Setfsuid(0)) }()
	}
	_, err = Open(t.Context(), Config{Dir: dir})
	want := fmt.Sprintf("cannot open %s/lock: no permission; run as the owner of the data folder, or use another one", dir)
	if err == nil || err.Error() != want {
		t.Errorf("error %q instead of %q", err, want)
	}
}

// A full database refuses an append whole, says so, and takes it once there is space.
func TestFull(t *testing.T) {
	t.Parallel()
	db := openTest(t, Config{Dir: t.TempDir()})
	db.pool.SetMaxOpenConns(1) // the limit below is the connection's
	var pages int
	must(t, db.gorm.Raw("PRAGMA page_count").Row().Scan(&pages))
	must(t, db.gorm.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+2)).Error)
	s := db.Journals()
	epoch, err := s.Acquire(t.Context(), "demo", "test")
	must(t, err)
	batch := journal.Batch{Journal: "demo", Epoch: epoch, Records: journaltest.Records(0, 500)}
	err = s.Append(t.Context(), batch)
	var full *journal.DiskFullError
	if !errors.As(err, &full) || err.Error() != "cannot write "+db.name+": the disk is full; free space and start again" {
		t.Fatalf("error %v", err)
	}
	if got := journaltest.ReadAll(t, s, "demo", 0); len(got) != 0 {
		t.Errorf("%d records of a refused batch", len(got))
	}
	must(t, db.gorm.Exec("PRAGMA max_page_count = 100000").Error)
	must(t, s.Append(t.Context(), batch))
}

// One write that fails, or panics, in a shared commit takes no other with it, and none for a success.
func TestSharedCommit(t *testing.T) {
	t.Parallel()
	db := openTest(t, Config{Dir: t.TempDir(), Migrations: []Migration{{ID: "0100-notes", Statements: []string{"CREATE TABLE notes (note TEXT NOT NULL UNIQUE)"}}}})
	put := func(note string) func(*gorm.DB) error {
		return func(tx *gorm.DB) error { return tx.Exec("INSERT INTO notes (note) VALUES (?)", note).Error }
	}
	strange := errors.New("strange")
	group := []*job{
		{run: put("a")},
		{run: put("a")}, // not unique
		{run: func(tx *gorm.DB) error { return errors.Join(put("half")(tx), strange) }},
		{run: func(*gorm.DB) error { return refusal{strange} }},
		{run: put("b")},
	}
	db.commit(context.Background(), group)
	if group[0].err != nil || group[1].err == nil || !errors.Is(group[2].err, strange) || !errors.Is(group[3].err, strange) || group[4].err != nil {
		t.Errorf("errors %v, %v, %v, %v, %v", group[0].err, group[1].err, group[2].err, group[3].err, group[4].err)
	}
	var notes []string
	must(t, db.gorm.Raw("SELECT note FROM notes ORDER BY note").Scan(&notes).Error)
	if fmt.Sprint(notes) != "[a b]" {
		t.Errorf("notes %v", notes)
	}

	waiting := &job{run: put("c")}
	db.jobs = append(db.jobs, waiting) // a caller that waits for its turn
	func() {
		defer func() { _ = recover() }()
		_ = db.Write(t.Context(), func(*gorm.DB) error { panic("a bug") })
	}()
	if !waiting.done || waiting.err == nil {
		t.Error("a write whose commit panicked passes for a success")
	}
	must(t, db.Write(t.Context(), put("d"))) // neither the turn nor the connection is lost
}

// A commit that fails leaves no transaction open on its connection: the next write would find itself within it.
func TestCommitFails(t *testing.T) {
	t.Parallel()
	db := openTest(t, Config{Dir: t.TempDir(), Migrations: []Migration{{ID: "0100-pairs", Statements: []string{
		"CREATE TABLE firsts (id BIGINT NOT NULL PRIMARY KEY)",
		"CREATE TABLE seconds (id BIGINT NOT NULL REFERENCES firsts (id) DEFERRABLE INITIALLY DEFERRED)", // checked by the commit
	}}}})
	db.pool.SetMaxOpenConns(1)
	insert := func(table string) error {
		return db.Write(t.Context(), func(tx *gorm.DB) error { return tx.Exec("INSERT INTO " + table + " (id) VALUES (1)").Error })
	}
	if err := insert("seconds"); err == nil || !strings.Contains(err.Error(), "FOREIGN KEY") {
		t.Fatalf("error %v", err)
	}
	must(t, insert("firsts"))
	must(t, insert("seconds"))
}
