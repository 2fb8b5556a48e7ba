package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"joist/engine/journal"
)

// Bounds of what Read loads at once. Chunks of large records are few: whoever reads slowly keeps no more than that.
const (
	pageChunks = 32
	pageBytes  = 2 << 20
)

// Journals keeps journals: a row for each, and its records in chunks of one row each. It implements journal.Store and
// journal.Snapshots.
type Journals struct{ db *DB }

// chunkRow is a row of journal_chunks.
type chunkRow struct {
	Journal  string
	LastSeq  uint64
	FirstSeq uint64
	Data     []byte
}

// TableName is gorm's question.
func (chunkRow) TableName() string { return "journal_chunks" }

// Acquire implements journal.Store. On SQLite whoever has opened the data folder has its journals; on PostgreSQL the
// journal is held until the DB is closed or its connection ends.
func (s *Journals) Acquire(ctx context.Context, name, holder string) (epoch uint64, err error) {
	if name == "" {
		return 0, errors.New("cannot acquire a journal without a name")
	}
	taken, err := s.db.held.acquire(ctx, name)
	if err != nil {
		return 0, s.db.explain("use", err)
	}
	if !taken {
		return 0, s.heldError(ctx, name)
	}
	now := s.db.now().UnixNano()
	err = s.db.Write(ctx, func(tx *gorm.DB) error {
		return tx.Raw(`INSERT INTO journals (journal, epoch, last_seq, holder, acquired, created) VALUES (?, 1, 0, ?, ?, ?)
			ON CONFLICT (journal) DO UPDATE SET epoch = journals.epoch + 1, holder = excluded.holder, acquired = excluded.acquired
			RETURNING epoch`, name, holder, now, now).Row().Scan(&epoch)
	})
	if err != nil {
		return 0, err
	}
	return epoch, nil
}

func (s *Journals) heldError(ctx context.Context, name string) error {
	held := &journal.HeldError{What: "journal " + name, Holder: "another controller"}
	var acquired int64
	err := s.db.gorm.WithContext(ctx).Raw(`SELECT holder, acquired FROM journals WHERE journal = ?`, name).Row().Scan(&held.Holder, &acquired)
	switch {
	case errors.Is(err, sql.ErrNoRows): // it is being created
	case err != nil:
		return s.db.explain("read", err)
	default:
		held.Since = time.Unix(0, acquired).UTC()
	}
	return held
}

// Append implements journal.Store. Appends to different journals that come at the same time share a commit.
func (s *Journals) Append(ctx context.Context, batch journal.Batch) error {
	if err := batch.Check(); err != nil {
		return err
	}
	var rows []chunkRow
	for _, c := range journal.Chunks(batch.Records) {
		rows = append(rows, chunkRow{Journal: batch.Journal, LastSeq: c.Last, FirstSeq: c.First, Data: c.Data})
	}
	last := batch.After + uint64(len(batch.Records))
	return s.db.Write(ctx, func(tx *gorm.DB) error {
		// One statement checks the fence and the sequence and takes the row's lock, before anything is written.
		moved := tx.Exec(`UPDATE journals SET last_seq = ? WHERE journal = ? AND epoch = ? AND last_seq = ?`, last, batch.Journal, batch.Epoch, batch.After)
		if moved.Error != nil {
			return moved.Error
		}
		if moved.RowsAffected == 0 {
			return refuseAppend(tx, batch)
		}
		return tx.CreateInBatches(rows, 256).Error
	})
}

// refuseAppend says why a batch does not fit its journal.
func refuseAppend(tx *gorm.DB, batch journal.Batch) error {
	at, err := position(tx, batch.Journal)
	if err != nil {
		return err
	}
	if err := fence(batch.Journal, batch.Epoch, at.Epoch); err != nil {
		return err
	}
	return refusal{&journal.ConflictError{Journal: batch.Journal, After: batch.After, Last: at.Last}}
}

func fence(name string, epoch, newest uint64) error {
	if epoch != newest || newest == 0 {
		return refusal{&journal.FencedError{Journal: name, Epoch: epoch, Newest: newest}}
	}
	return nil
}

// position reads a journal's epoch and last sequence, both 0 if there is no such journal.
func position(tx *gorm.DB, name string) (journal.Info, error) {
	var at journal.Info
	err := tx.Raw(`SELECT epoch, last_seq FROM journals WHERE journal = ?`, name).Row().Scan(&at.Epoch, &at.Last)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return at, err
}

// Read implements journal.Store.
func (s *Journals) Read(ctx context.Context, name string, after uint64, f func(journal.Record) error) error {
	at, err := position(s.db.gorm.WithContext(ctx), name)
	if err != nil {
		return s.db.explain("read", err)
	}
	for after < at.Last {
		page, err := s.page(ctx, name, after)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return &journal.DamagedError{What: "journal " + name, Seq: after + 1, Reason: fmt.Sprintf("records up to %d are missing", at.Last)}
		}
		for i, chunk := range page {
			if chunk.First > after+1 || i > 0 && chunk.First != after+1 {
				return &journal.DamagedError{What: "journal " + name, Seq: after + 1, Reason: fmt.Sprintf("the next record found is %d", chunk.First)}
			}
			records, err := chunk.Records()
			if err != nil {
				return &journal.DamagedError{What: "journal " + name, Seq: chunk.First, Reason: err.Error()}
			}
			for _, r := range records[after+1-chunk.First:] {
				if err := f(r); err != nil {
					return err
				}
			}
			after = chunk.Last
		}
	}
	return nil
}

// page loads the chunks that hold the records following a sequence.
func (s *Journals) page(ctx context.Context, name string, after uint64) (page []journal.Chunk, err error) {
	rows, err := s.db.gorm.WithContext(ctx).Raw(`SELECT first_seq, last_seq, data FROM journal_chunks
		WHERE journal = ? AND last_seq > ? ORDER BY last_seq LIMIT ?`, name, after, pageChunks).Rows()
	if err != nil {
		return nil, s.db.explain("read", err)
	}
	defer func() {
		if err = errors.Join(err, rows.Close()); err != nil {
			err = s.db.explain("read", err)
		}
	}()
	for size := 0; size < pageBytes && rows.Next(); {
		var c journal.Chunk
		if err := rows.Scan(&c.First, &c.Last, &c.Data); err != nil {
			return nil, err
		}
		page = append(page, c)
		size += len(c.Data)
	}
	return page, rows.Err()
}

// List implements journal.Store.
func (s *Journals) List(ctx context.Context) (list []journal.Info, err error) {
	var rows []struct {
		Journal, Holder         string
		Epoch, LastSeq, Created int64
	}
	err = s.db.gorm.WithContext(ctx).Raw(`SELECT journal, holder, epoch, last_seq, created FROM journals`).Scan(&rows).Error
	if err != nil {
		return nil, s.db.explain("read", err)
	}
	list = make([]journal.Info, 0, len(rows))
	for _, r := range rows {
		list = append(list, journal.Info{Journal: r.Journal, Last: uint64(r.LastSeq), Epoch: uint64(r.Epoch), Holder: r.Holder, Created: time.Unix(0, r.Created).UTC()})
	}
	slices.SortFunc(list, func(a, b journal.Info) int { return cmp.Compare(a.Journal, b.Journal) }) // databases differ in how they order text
	return list, nil
}

// Save implements journal.Snapshots.
func (s *Journals) Save(ctx context.Context, epoch uint64, snapshot journal.Snapshot) error {
	return s.db.Write(ctx, func(tx *gorm.DB) error {
		at, err := position(tx, snapshot.Journal)
		if err != nil {
			return err
		}
		if err := fence(snapshot.Journal, epoch, at.Epoch); err != nil {
			return err
		}
		if err := snapshot.Check(at.Last); err != nil {
			return refusal{err}
		}
		// One that covers records the journal does not have is damaged, and gives way.
		return tx.Exec(`INSERT INTO journal_snapshots (journal, seq, version, checksum, data) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (journal) DO UPDATE SET seq = excluded.seq, version = excluded.version, checksum = excluded.checksum, data = excluded.data
			WHERE journal_snapshots.seq <= excluded.seq OR journal_snapshots.seq > ?`,
			snapshot.Journal, snapshot.Seq, snapshot.Version, snapshot.Checksum(), nonNil(snapshot.Data), at.Last).Error
	})
}

// Load implements journal.Snapshots.
func (s *Journals) Load(ctx context.Context, name string) (journal.Snapshot, error) {
	none, found := journal.Snapshot{Journal: name}, journal.Snapshot{Journal: name}
	var checksum uint32
	var last uint64
	err := s.db.gorm.WithContext(ctx).Raw(`SELECT s.seq, s.version, s.checksum, s.data, j.last_seq
		FROM journal_snapshots s JOIN journals j ON j.journal = s.journal WHERE s.journal = ?`, name).Row().
		Scan(&found.Seq, &found.Version, &checksum, &found.Data, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return none, nil
	}
	if err != nil {
		return none, s.db.explain("read", err)
	}
	if err := found.Verify(checksum, last); err != nil {
		return none, err
	}
	return found, nil
}

// nonNil gives an empty value that is not NULL.
func nonNil(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}
