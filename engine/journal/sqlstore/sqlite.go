package sqlstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/glebarez/sqlite"

	"joist/engine/journal"
)

// sqliteReaders is how many connections read at the same time, beside the one that writes.
const sqliteReaders = 4

// sqliteHeader begins every SQLite database that is not empty.
const sqliteHeader = "SQLite format 3\x00"

func openSQLite(ctx context.Context, cfg Config) (*DB, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, explainFile("create the data folder", cfg.Dir, err)
	}
	held, err := lockFolder(cfg)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.Dir, FileName)
	db := &DB{name: path, now: cfg.Now, held: held, failed: cfg.Failed}
	if err := openFile(ctx, db, cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openFile(ctx context.Context, db *DB, cfg Config) error {
	if err := checkFile(db.name); err != nil {
		return err
	}
	path, err := filepath.Abs(db.name)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", db.name, err)
	}
	// In the DSN, because a PRAGMA statement would reach one connection of the pool only. busy_timeout stands first: to
	// set the journal mode takes a lock. Immediate transactions, because one that reads and then writes may otherwise
	// fail as busy whatever the time-out.
	query := url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "cache_size(-16384)"},
		"_txlock": {"immediate"},
	}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
	if err := connect(ctx, sqlite.Open(dsn), db); err != nil {
		return db.explain("open", err)
	}
	db.pool.SetMaxOpenConns(sqliteReaders + 1)
	db.pool.SetMaxIdleConns(sqliteReaders + 1)
	return db.migrate(ctx, cfg.Migrations)
}

// checkFile creates the database file, private to its owner, or checks that what is there can be one: SQLite's own
// messages name neither the file nor the cause.
func checkFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return explainFile("open", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, len(sqliteHeader))
	n, err := io.ReadFull(f, head)
	if errors.Is(err, io.EOF) {
		return nil // new
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return explainFile("read", path, err)
	}
	if !bytes.Equal(head[:n], []byte(sqliteHeader)) {
		return fmt.Errorf("cannot open %s: it is not a SQLite database; move it away, or use another data folder", path)
	}
	return nil
}

// explainFile turns a file's error into a sentence that says what to do.
func explainFile(verb, path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &journal.DiskFullError{Path: path, Err: err}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot %s %s: no permission; run as the owner of the data folder, or use another one", verb, path)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("cannot %s %s: the file system is read-only", verb, path)
	}
	return fmt.Errorf("cannot %s: %w", verb, err) // an *fs.PathError names the path
}

// folder is the lock of one process on a data folder. The kernel lets go of it when the process ends, however it ends.
type folder struct{ file *os.File }

// lockNote is what the lock file says, for the one who finds it locked.
type lockNote struct {
	PID    int       `json:"pid"`
	Holder string    `json:"holder"`
	Since  time.Time `json:"since"`
}

func lockFolder(cfg Config) (*folder, error) {
	path := filepath.Join(cfg.Dir, LockName)
	// Go opens files close-on-exec, so that machines and scripts started by the holder do not keep the lock.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explainFile("open", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close() // only read
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, heldBy(cfg.Dir, f)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	note, err := json.Marshal(lockNote{PID: os.Getpid(), Holder: cfg.Holder, Since: cfg.Now().UTC()})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(note, '\n'), 0)
	}
	if err != nil {
		return nil, errors.Join(explainFile("write", path, err), f.Close())
	}
	return &folder{file: f}, nil
}

// heldBy reads who holds the folder. A note that cannot be read (its writer is just writing it) leaves the holder unnamed.
func heldBy(dir string, f io.Reader) error {
	var note lockNote
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil || json.Unmarshal(data, &note) != nil {
		return &journal.HeldError{What: dir, Holder: "another process"}
	}
	return &journal.HeldError{What: dir, Holder: fmt.Sprintf("process %d (%s)", note.PID, note.Holder), Since: note.Since}
}

// acquire always succeeds: whoever has the folder has all its journals.
func (*folder) acquire(context.Context, string) (bool, error) { return true, nil }

// release leaves the file: to remove it would let two processes lock two files of one name. It unlocks, because closing
// alone would leave the lock to a child process that is between fork and exec.
func (l *folder) release() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}
