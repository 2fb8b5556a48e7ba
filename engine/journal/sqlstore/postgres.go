package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
)

const (
	postgresConns = 16               // connections of one controller
	migrationLock = "joist: migrate" // what controllers that start at the same time take turns by
)

func openPostgres(ctx context.Context, cfg Config) (*DB, error) {
	conn, err := pgx.ParseConfig(cfg.PostgreSQL)
	if err != nil {
		return nil, fmt.Errorf("cannot understand the PostgreSQL connection: %w", err) // pgx leaves the password out
	}
	// A controller whose machine vanished holds its journals until the server notices: let that be seconds, not hours.
	for name, value := range map[string]string{"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3", "application_name": cfg.Holder} {
		if _, set := conn.RuntimeParams[name]; !set {
			conn.RuntimeParams[name] = value
		}
	}
	name := fmt.Sprintf("the PostgreSQL database %s at %s", conn.Database, conn.Host)
	db := &DB{name: name, now: cfg.Now, failed: cfg.Failed}
	db.pool = stdlib.OpenDB(*conn)
	db.pool.SetMaxOpenConns(postgresConns)
	db.pool.SetMaxIdleConns(postgresConns)
	db.held = &sessions{pool: db.pool}
	if err := setUpPostgres(ctx, db, cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func setUpPostgres(ctx context.Context, db *DB, cfg Config) (err error) {
	if err := connect(ctx, postgres.New(postgres.Config{Conn: db.pool}), db); err != nil {
		return db.explain("open", err)
	}
	for _, setting := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		var value string
		if err := db.pool.QueryRowContext(ctx, "SELECT current_setting($1)", setting).Scan(&value); err != nil {
			return db.explain("open", err)
		}
		if value == "off" {
			return fmt.Errorf("cannot use %s: its setting %s is off, so that a crash could lose what was acknowledged; turn it on", db.name, setting)
		}
	}
	turn, err := db.pool.Conn(ctx)
	if err != nil {
		return db.explain("open", err)
	}
	defer func() { err = errors.Join(err, turn.Close()) }()
	if _, err := turn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", lockKey(migrationLock)); err != nil {
		return db.explain("open", err)
	}
	err = db.migrate(ctx, cfg.Migrations)
	_, unlock := turn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", lockKey(migrationLock))
	// Connections that prepared statements on the old schema would fail with "cached plan must not change result type".
	db.pool.SetMaxIdleConns(0)
	db.pool.SetMaxIdleConns(postgresConns)
	return errors.Join(err, unlock)
}

// sessions holds journals by advisory locks of one PostgreSQL session, which the server ends with the connection. Should
// that connection break while the controller lives, another controller may take its journals; the epoch then fences
// this one.
type sessions struct {
	pool *sql.DB
	mu   sync.Mutex
	conn *sql.Conn // nil until first used
}

func (s *sessions) acquire(ctx context.Context, name string) (taken bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 2 { // a connection that broke since it was last used is replaced once
		if s.conn == nil {
			if s.conn, err = s.pool.Conn(ctx); err != nil {
				return false, err
			}
		}
		err = s.conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", lockKey("joist: journal "+name)).Scan(&taken)
		if err == nil || ctx.Err() != nil {
			return taken, err
		}
		err = errors.Join(err, s.drop())
	}
	return false, err
}

func (s *sessions) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drop()
}

func (s *sessions) drop() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	if errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// lockKey is the number PostgreSQL knows a lock by. Two names with the same one would only exclude each other.
func lockKey(name string) int64 {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return int64(h.Sum64())
}

var _ holding = (*sessions)(nil)
