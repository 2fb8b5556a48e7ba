package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"joist/engine/journal"
)

// commitLimit bounds one transaction on PostgreSQL, whose server may be out of reach.
const commitLimit = 60 * time.Second

// job is one caller's part of a transaction.
type job struct {
	run  func(tx *gorm.DB) error
	done bool // guarded by DB.turn, like err
	err  error
}

// refusal is an error of a job that wrote nothing before it: the others' parts may be committed.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Refuse marks an error with which the function of a Write ends before it wrote anything, because what is stored forbids
// it. Write returns the error as it is, and others in the same commit are not held up.
func Refuse(err error) error { return refusal{err} }

// Write runs f in a transaction and returns once it is durable; f's error undoes what f wrote and is returned, wrapped
// unless it comes from Refuse. Calls made while a commit is under way share the next one, so that many callers need few writes to disk. It may run f
// again, after undoing it, so f must set what it returns afresh. Once begun, a write is not given up when ctx ends.
// Services write their own tables here, and not beside it: on SQLite two writers would wait for each other's lock.
func (d *DB) Write(ctx context.Context, f func(tx *gorm.DB) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cannot write %s: %w", d.name, err)
	}
	j := &job{run: f}
	d.waiting.Lock()
	d.jobs = append(d.jobs, j)
	d.waiting.Unlock()

	d.turn.Lock()
	defer d.turn.Unlock()
	if !j.done { // else another caller's commit had it
		d.waiting.Lock()
		group := d.jobs
		d.jobs = nil
		d.waiting.Unlock()
		for _, j := range group { // stands if a job panics: nobody takes its silence for success
			j.done, j.err = true, fmt.Errorf("internal error: a write to %s did not end", d.name)
		}
		d.commit(context.WithoutCancel(ctx), group)
	}
	var refused refusal
	if errors.As(j.err, &refused) {
		return refused.error
	}
	return j.err
}

// commit makes a group durable and gives each job its result. If one fails, each is tried by itself, so that it fails
// alone.
func (d *DB) commit(ctx context.Context, group []*job) {
	if d.gorm.Name() == "postgres" {
		limited, cancel := context.WithTimeout(ctx, commitLimit)
		defer cancel()
		ctx = limited
	}
	var err error
	var committing bool
	for range 4 { // the database may ask to run a transaction again, and has then undone it
		if committing, err = d.attempt(ctx, group); !wantsRetry(err) {
			break
		}
	}
	switch {
	case err == nil:
	case len(group) > 1 && !committing:
		for _, j := range group {
			d.commit(ctx, []*job{j})
		}
	default:
		for _, j := range group {
			j.err = d.explain("write", err)
			d.failed(j.err)
		}
	}
}

// attempt runs a group in one transaction on one connection. committing says that an error came from the commit itself.
func (d *DB) attempt(ctx context.Context, group []*job) (committing bool, err error) {
	err = d.gorm.WithContext(ctx).Connection(func(conn *gorm.DB) error {
		tx := conn.Begin()
		if tx.Error != nil {
			return tx.Error
		}
		ended := false
		defer func() {
			if !ended { // an error or a panic
				tx.Rollback() // nothing to add to what went wrong
			}
		}()
		wrote := false
		refusals := make([]error, len(group))
		for i, j := range group {
			err := j.run(tx)
			var refused refusal
			if errors.As(err, &refused) {
				refusals[i] = err
				continue
			}
			if err != nil {
				return err
			}
			wrote = true
		}
		if wrote {
			ended, committing = true, true
			if err := tx.Commit().Error; err != nil {
				// SQLite leaves the transaction open when a commit fails, and the pool does not look.
				conn.Exec("ROLLBACK")
				return err
			}
		}
		for i, j := range group { // only now: no job is a success before it is durable
			j.err = refusals[i]
		}
		return nil
	})
	return committing, err
}

// explain gives the typed error of a cause that callers know, or says what could not be done.
func (d *DB) explain(verb string, err error) error {
	const (
		corrupt, full, notADB, shmSize = 11, 13, 26, 4874 // SQLite's result codes; PostgreSQL's are in its appendix A
	)
	var lite interface{ Code() int }
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &lite):
		switch code := lite.Code(); {
		case code&0xff == full, code == shmSize:
			return &journal.DiskFullError{Path: d.name, Err: err}
		case code&0xff == corrupt, code&0xff == notADB:
			return &journal.DamagedError{What: d.name, Reason: err.Error() + "; restore a copy"}
		}
	case errors.As(err, &pg):
		if pg.Code == "53100" {
			return &journal.DiskFullError{Path: d.name, Err: err}
		}
	case errors.Is(err, syscall.ENOSPC):
		return &journal.DiskFullError{Path: d.name, Err: err}
	}
	return fmt.Errorf("cannot %s %s: %w", verb, d.name, err)
}

// wantsRetry tells the errors by which PostgreSQL, and engines that speak like it, ask for another try: serialization
// failure and deadlock.
func wantsRetry(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}
