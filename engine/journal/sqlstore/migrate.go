package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-gormigrate/gormigrate/v2"
	"gorm.io/gorm"
)

// migrationTable says which migrations a database has had.
const migrationTable = "schema_migrations"

// Migration is one step of the schema. What was released never changes: a later migration corrects it.
type Migration struct {
	ID         string   // unique and for ever, such as "0001-journals"
	Statements []string // in SQLite's SQL; on PostgreSQL the type BLOB becomes BYTEA
}

// NewerSchemaError reports a database that a newer program has changed.
type NewerSchemaError struct{ Name string }

// Error says what to do.
func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("cannot open %s: its schema is newer than this program; start the newer program again, or restore a copy from before the upgrade", e.Name)
}

func ownMigrations() []Migration {
	return []Migration{
		{ID: "0001-journals", Statements: []string{
			// Times are nanoseconds since 1970.
			`CREATE TABLE journals (
				journal TEXT NOT NULL PRIMARY KEY,
				epoch BIGINT NOT NULL,
				last_seq BIGINT NOT NULL,
				holder TEXT NOT NULL,
				acquired BIGINT NOT NULL,
				created BIGINT NOT NULL)`,
			`CREATE TABLE journal_chunks (
				journal TEXT NOT NULL REFERENCES journals (journal),
				last_seq BIGINT NOT NULL,
				first_seq BIGINT NOT NULL,
				data BLOB NOT NULL,
				PRIMARY KEY (journal, last_seq))`,
			`CREATE TABLE journal_snapshots (
				journal TEXT NOT NULL PRIMARY KEY REFERENCES journals (journal),
				seq BIGINT NOT NULL,
				version BIGINT NOT NULL,
				checksum BIGINT NOT NULL,
				data BLOB NOT NULL)`,
		}},
		{ID: "0002-blobs", Statements: []string{
			`CREATE TABLE blobs (
				digest TEXT NOT NULL PRIMARY KEY,
				data BLOB NOT NULL)`,
		}},
		{ID: "0003-entries", Statements: []string{
			`CREATE TABLE service_entries (
				service TEXT NOT NULL,
				cluster TEXT NOT NULL,
				entry_key TEXT NOT NULL,
				owner TEXT NOT NULL,
				value BLOB NOT NULL,
				PRIMARY KEY (service, cluster, entry_key))`,
			`CREATE INDEX service_entries_owner ON service_entries (service, cluster, owner)`,
			`CREATE TABLE service_epochs (
				cluster TEXT NOT NULL PRIMARY KEY,
				epoch BIGINT NOT NULL)`,
			// One row: the version of all entries.
			`CREATE TABLE service_version (
				id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
				version BIGINT NOT NULL)`,
			`INSERT INTO service_version (id, version) VALUES (1, 0)`,
		}},
		{ID: "0004-secret-keys", Statements: []string{
			`CREATE TABLE secret_keys (cluster TEXT NOT NULL PRIMARY KEY)`,
		}},
	}
}

// migrate brings the schema up to date, in one transaction.
func (d *DB) migrate(ctx context.Context, further []Migration) error {
	if err := d.checkForeign(ctx); err != nil {
		return err
	}
	var steps []*gormigrate.Migration
	for _, m := range append(ownMigrations(), further...) {
		steps = append(steps, &gormigrate.Migration{ID: m.ID, Migrate: func(tx *gorm.DB) error {
			for _, statement := range m.Statements {
				if tx.Name() == "postgres" {
					statement = strings.ReplaceAll(statement, " BLOB", " BYTEA")
				}
				if err := tx.Exec(statement).Error; err != nil {
					return fmt.Errorf("migration %s: %w", m.ID, err)
				}
			}
			return nil
		}})
	}
	options := &gormigrate.Options{
		TableName: migrationTable, IDColumnName: "id", IDColumnSize: 255,
		UseTransaction: true, ValidateUnknownMigrations: true,
	}
	err := gormigrate.New(d.gorm.WithContext(ctx), options, steps).Migrate()
	if errors.Is(err, gormigrate.ErrUnknownPastMigration) {
		return &NewerSchemaError{Name: d.name}
	}
	if err != nil {
		return d.explain("prepare", err)
	}
	return nil
}

// checkForeign refuses a SQLite file that another program made: its tables would be mixed with ours.
func (d *DB) checkForeign(ctx context.Context) error {
	if d.gorm.Name() != "sqlite" {
		return nil
	}
	var tables, ours int64
	row := d.gorm.WithContext(ctx).Raw(`SELECT count(*), count(CASE WHEN name = ? THEN 1 END) FROM sqlite_master WHERE type = 'table'`, migrationTable).Row()
	if err := row.Scan(&tables, &ours); err != nil {
		return d.explain("open", err)
	}
	if tables > 0 && ours == 0 {
		return fmt.Errorf("cannot open %s: it is the database of another program; use another data folder", d.name)
	}
	return nil
}
