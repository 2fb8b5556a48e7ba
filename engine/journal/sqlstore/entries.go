package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"

	"gorm.io/gorm"

	"joist/engine/entries"
)

// Entries is the table behind the services. It implements entries.Store.
type Entries struct{ db *DB }

var _ entries.Store = (*Entries)(nil)

// entryRow is a row of service_entries.
type entryRow struct {
	Service, Cluster string
	EntryKey, Owner  string
	Value            []byte
}

// TableName is gorm's question.
func (entryRow) TableName() string { return "service_entries" }

// Replace implements entries.Store.
func (s *Entries) Replace(ctx context.Context, scope entries.Scope, owner entries.Writer, want []entries.Entry) (version uint64, err error) {
	wanted := make(map[string]entryRow, len(want))
	for _, e := range want {
		wanted[e.Key] = entryRow{Service: scope.Service, Cluster: scope.Cluster, EntryKey: e.Key, Owner: owner.Owner, Value: nonNil(e.Value)}
	}
	err = s.db.Write(ctx, func(tx *gorm.DB) error {
		// The version's row is the lock of the table: changes come one after the other, as in SQLite anyway.
		lock := ""
		if tx.Name() == "postgres" {
			lock = " FOR UPDATE"
		}
		if err := tx.Raw(`SELECT version FROM service_version WHERE id = 1` + lock).Row().Scan(&version); err != nil {
			return err
		}
		newer, err := checkEpoch(tx, scope.Cluster, owner.Epoch)
		if err != nil {
			return err
		}
		change, err := compare(tx, scope, owner.Owner, want, wanted)
		if err != nil {
			return err
		}
		if newer {
			err := tx.Exec(`INSERT INTO service_epochs (cluster, epoch) VALUES (?, ?)
				ON CONFLICT (cluster) DO UPDATE SET epoch = excluded.epoch`, scope.Cluster, owner.Epoch).Error
			if err != nil {
				return err
			}
		}
		if change.empty() {
			return nil
		}
		version++
		return change.write(tx, scope, version)
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// checkEpoch refuses an epoch older than the newest seen in a cluster, and says whether it is a new one.
func checkEpoch(tx *gorm.DB, cluster string, epoch uint64) (newer bool, err error) {
	var newest uint64
	err = tx.Raw(`SELECT epoch FROM service_epochs WHERE cluster = ?`, cluster).Row().Scan(&newest)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	if epoch < newest {
		return false, refusal{&entries.StaleEpochError{Asked: epoch, Newest: newest}}
	}
	return epoch > newest, nil
}

// entryChange is what makes an owner's entries those it wants.
type entryChange struct {
	remove []string // keys
	put    []entryRow
}

func (c entryChange) empty() bool { return len(c.remove)+len(c.put) == 0 }

// compare finds the change from what is held to what is wanted, or the first wanted key that another owner holds. It
// looks at the owner's rows and the wanted keys only: a table may have many thousand entries.
func compare(tx *gorm.DB, scope entries.Scope, owner string, want []entries.Entry, wanted map[string]entryRow) (entryChange, error) {
	held := map[string]entryRow{}
	inScope := func() *gorm.DB { return tx.Where("service = ? AND cluster = ?", scope.Service, scope.Cluster) }
	var rows []entryRow
	if err := inScope().Where("owner = ?", owner).Find(&rows).Error; err != nil {
		return entryChange{}, err
	}
	keys := make([]string, 0, len(want))
	for _, e := range want {
		keys = append(keys, e.Key)
	}
	for part := range slices.Chunk(keys, 500) {
		var some []entryRow
		if err := inScope().Where("entry_key IN ?", part).Find(&some).Error; err != nil {
			return entryChange{}, err
		}
		rows = append(rows, some...)
	}
	for _, row := range rows {
		held[row.EntryKey] = row
	}
	for _, key := range keys {
		if row, ok := held[key]; ok && row.Owner != owner {
			return entryChange{}, refusal{&entries.OwnedError{Key: key, Owner: row.Owner, Asked: owner}}
		}
	}
	var change entryChange
	for key := range held {
		if _, keep := wanted[key]; !keep {
			change.remove = append(change.remove, key)
		}
	}
	for key, row := range wanted {
		if old, ok := held[key]; !ok || !bytes.Equal(old.Value, row.Value) {
			change.put = append(change.put, row)
		}
	}
	slices.Sort(change.remove)
	slices.SortFunc(change.put, func(a, b entryRow) int { return cmp.Compare(a.EntryKey, b.EntryKey) })
	return change, nil
}

func (c entryChange) write(tx *gorm.DB, scope entries.Scope, version uint64) error {
	replaced := slices.Clone(c.remove)
	for _, row := range c.put {
		replaced = append(replaced, row.EntryKey)
	}
	for part := range slices.Chunk(replaced, 500) {
		err := tx.Where("service = ? AND cluster = ? AND entry_key IN ?", scope.Service, scope.Cluster, part).Delete(&entryRow{}).Error
		if err != nil {
			return err
		}
	}
	if len(c.put) > 0 {
		if err := tx.CreateInBatches(c.put, 500).Error; err != nil {
			return err
		}
	}
	return tx.Exec(`UPDATE service_version SET version = ? WHERE id = 1`, version).Error
}

// List implements entries.Store.
func (s *Entries) List(ctx context.Context, scope entries.Scope) (list []entries.Entry, version uint64, err error) {
	// One statement, so that entries and version belong together; the version comes also with no entry.
	query := `SELECT v.version, e.cluster, e.entry_key, e.owner, e.value FROM service_version v
		LEFT JOIN service_entries e ON e.service = ? AND (? = '' OR e.cluster = ?) WHERE v.id = 1`
	rows, err := s.db.gorm.WithContext(ctx).Raw(query, scope.Service, scope.Cluster, scope.Cluster).Rows()
	if err != nil {
		return nil, 0, s.db.explain("read", err)
	}
	defer func() {
		if err = errors.Join(err, rows.Close()); err != nil {
			err = s.db.explain("read", err)
		}
	}()
	for rows.Next() {
		var cluster, key, owner sql.NullString
		var value []byte
		if err := rows.Scan(&version, &cluster, &key, &owner, &value); err != nil {
			return nil, 0, err
		}
		if key.Valid {
			at := entries.Scope{Service: scope.Service, Cluster: cluster.String}
			list = append(list, entries.Entry{Scope: at, Key: key.String, Owner: owner.String, Value: value})
		}
	}
	slices.SortFunc(list, func(a, b entries.Entry) int { // databases differ in how they order text
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Key, b.Key))
	})
	return list, version, rows.Err()
}
