// Package sqlstore keeps journals, snapshots, blobs and service entries in SQL through gorm: on SQLite for one machine,
// on PostgreSQL for several controllers, with the same schema.
//
// Every write goes through one group commit (see DB.Write): what several callers want written while a commit is under
// way is committed together by the next one. On SQLite a commit is on disk when it returns (WAL, synchronous=FULL);
// Open refuses a PostgreSQL server whose commits are not.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"joist/engine/journal"
)

// FileName is the name of the SQLite database in the data folder; LockName that of the lock file beside it.
const (
	FileName = "joist.db"
	LockName = "lock"
)

// Config says which database to open. Exactly one of Dir and PostgreSQL is given.
type Config struct {
	// Dir is the data folder that has, or gets, the SQLite database. It is created with mode 0700 if missing. One process
	// at a time may have it open.
	Dir string

	// PostgreSQL is a connection string as libpq understands it (a URL, or "host=… dbname=…"). It must lead to the
	// server, not to a pooler that shares sessions between transactions: journals are held by sessions.
	PostgreSQL string

	Holder string // who opens it, for people, such as "joist serve"; empty: the program's name

	// Migrations make further tables, for services that keep their own. They run after this package's, in order. Every
	// start names all of them: data that had one which is not named has a newer schema than the program.
	Migrations []Migration

	// Failed is told of every write that was refused, but for those of Refuse, before its caller is; it must not block.
	// Nil: nobody is.
	Failed func(err error)

	Now func() time.Time // the clock for creation and holding times; nil: time.Now
}

// DB is an open database. Its methods, and those of the stores it gives, may be called from several goroutines.
type DB struct {
	gorm *gorm.DB
	pool *sql.DB
	name string // for people: the file's path, or "the PostgreSQL database …"
	now  func() time.Time
	held holding

	failed func(error)

	waiting sync.Mutex
	jobs    []*job
	turn    sync.Mutex // held by whoever commits
	closed  bool       // guarded by turn
}

// holding is how a database is kept to its controllers.
type holding interface {
	// acquire takes a journal among live controllers, or says that another one has it.
	acquire(ctx context.Context, name string) (taken bool, err error)
	release() error
}

// Open opens the database, creates what is missing and brings an older schema up to date. Its error is one sentence
// for the person who started the program: *journal.HeldError if another process has the data folder, *NewerSchemaError,
// *journal.DiskFullError, *journal.DamagedError, or one that says what is in the way.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if (cfg.Dir == "") == (cfg.PostgreSQL == "") {
		return nil, errors.New("internal error: a database needs either a data folder or a PostgreSQL connection")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	if cfg.Holder == "" {
		cfg.Holder = os.Args[0]
	}
	if cfg.PostgreSQL != "" {
		return openPostgres(ctx, cfg)
	}
	return openSQLite(ctx, cfg)
}

// connect opens the pool behind a dialector and wraps it, with gorm silent: errors are returned, never logged here.
func connect(ctx context.Context, dialector gorm.Dialector, db *DB) error {
	g, err := gorm.Open(dialector, &gorm.Config{
		Logger:                 logger.Discard,
		SkipDefaultTransaction: true, // writes open their own
		DisableAutomaticPing:   true,
		NowFunc:                db.now,
	})
	if err != nil {
		return err
	}
	pool, err := g.DB()
	if err != nil {
		return err
	}
	db.gorm, db.pool = g, pool
	return pool.PingContext(ctx)
}

// Close ends all connections and lets go of the data. What was acknowledged is durable already. Closing again does nothing.
func (d *DB) Close() error {
	d.turn.Lock() // a commit under way is finished first
	defer d.turn.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	if d.pool != nil {
		errs = append(errs, d.pool.Close())
	}
	if d.held != nil {
		errs = append(errs, d.held.release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot close %s: %w", d.name, err)
	}
	return nil
}

// Gorm gives the database to services with tables of their own (Config.Migrations). They read through it and write in
// Write; the composition root alone hands it out.
func (d *DB) Gorm() *gorm.DB { return d.gorm }

// Journals is the store of journals and their snapshots.
func (d *DB) Journals() *Journals { return &Journals{db: d} }

// Blobs is the store of large values.
func (d *DB) Blobs() *Blobs { return &Blobs{db: d} }

// Entries is the table behind the services.
func (d *DB) Entries() *Entries { return &Entries{db: d} }

// The contracts this package implements.
var (
	_ journal.Store     = (*Journals)(nil)
	_ journal.Snapshots = (*Journals)(nil)
	_ journal.Blobs     = (*Blobs)(nil)
)
