package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"joist/engine/journal"
)

// Blobs keeps values by their digest. It implements journal.Blobs.
type Blobs struct{ db *DB }

// Put implements journal.Blobs.
func (b *Blobs) Put(ctx context.Context, data []byte) (string, error) {
	if len(data) > journal.MaxBlob {
		return "", fmt.Errorf("cannot keep a value of %d bytes: the most is %d", len(data), journal.MaxBlob)
	}
	digest := journal.Digest(data)
	var there int
	err := b.db.gorm.WithContext(ctx).Raw(`SELECT count(*) FROM blobs WHERE digest = ?`, digest).Row().Scan(&there)
	if err != nil {
		return "", b.db.explain("read", err)
	}
	if there > 0 {
		return digest, nil
	}
	err = b.db.Write(ctx, func(tx *gorm.DB) error {
		return tx.Exec(`INSERT INTO blobs (digest, data) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING`, digest, nonNil(data)).Error
	})
	if err != nil {
		return "", err
	}
	return digest, nil
}

// Get implements journal.Blobs.
func (b *Blobs) Get(ctx context.Context, digest string) ([]byte, error) {
	var data []byte
	err := b.db.gorm.WithContext(ctx).Raw(`SELECT data FROM blobs WHERE digest = ?`, digest).Row().Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, &journal.NotFoundError{Digest: digest}
	}
	if err != nil {
		return nil, b.db.explain("read", err)
	}
	if got := journal.Digest(data); got != digest {
		return nil, &journal.DamagedError{What: "the value with digest " + digest, Reason: "its digest is now " + got}
	}
	return data, nil
}
