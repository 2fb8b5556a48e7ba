package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/glebarez/sqlite"
)

// OpenReadOnly opens the SQLite database of a data folder to read it, also while an engine has it, and of what another
// user owns: nothing is locked, and nothing is written but, where an engine did not end by itself, the index of its log of
// writes that SQLite keeps beside it. Every write fails.
func OpenReadOnly(ctx context.Context, dir string) (*DB, error) {
	path, err := filepath.Abs(filepath.Join(dir, FileName))
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot open %s: there is no %s in it; name an engine's data folder", dir, FileName)
		}
		return nil, explainFile("open", path, err)
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)", "query_only(ON)", "cache_size(-16384)"}}
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		query.Set("immutable", "1") // nobody has it open: there is no log to share, and none shall be made
	}
	db := &DB{name: path, now: time.Now, failed: func(error) {}}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
	if err := connect(ctx, sqlite.Open(dsn), db); err != nil {
		return nil, errors.Join(db.explain("open", err), db.Close())
	}
	db.pool.SetMaxOpenConns(sqliteReaders)
	return db, nil
}
