package sqlstore

import (
	"context"

	"gorm.io/gorm"
)

// Keyed keeps the names of clusters that have a key of their own outside of the database.
type Keyed struct{ db *DB }

// Keyed gives that part of the database.
func (d *DB) Keyed() *Keyed { return &Keyed{d} }

// All gives the names, sorted.
func (k *Keyed) All(ctx context.Context) ([]string, error) {
	var names []string
	if err := k.db.gorm.WithContext(ctx).Raw(`SELECT cluster FROM secret_keys ORDER BY cluster`).Scan(&names).Error; err != nil {
		return nil, k.db.explain("read", err)
	}
	return names, nil
}

// Add adds a name, durably; one that is there is no error.
func (k *Keyed) Add(ctx context.Context, cluster string) error {
	return k.db.Write(ctx, func(tx *gorm.DB) error {
		return tx.Exec(`INSERT INTO secret_keys (cluster) VALUES (?) ON CONFLICT (cluster) DO NOTHING`, cluster).Error
	})
}

// Drop takes a name away, durably; one that is not there is no error.
func (k *Keyed) Drop(ctx context.Context, cluster string) error {
	return k.db.Write(ctx, func(tx *gorm.DB) error {
		return tx.Exec(`DELETE FROM secret_keys WHERE cluster = ?`, cluster).Error
	})
}
