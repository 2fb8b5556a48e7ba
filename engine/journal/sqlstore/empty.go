package sqlstore

import (
	"context"

	"gorm.io/gorm"

	"joist/engine/journal"
)

// Empty removes every record of a journal, and its snapshot, on the word of the writer that has the epoch, and fences it: the journal
// begins anew with record 1, and its epochs go on, so that whoever heard of one takes no older one for it. A
// *journal.FencedError says that the writer is another one now; then nothing was removed.
func (s *Journals) Empty(ctx context.Context, name string, epoch uint64) error {
	return s.db.Write(ctx, func(tx *gorm.DB) error {
		emptied := tx.Exec(`UPDATE journals SET last_seq = 0, epoch = epoch + 1 WHERE journal = ? AND epoch = ?`, name, epoch)
		if emptied.Error != nil {
			return emptied.Error
		}
		if emptied.RowsAffected == 0 {
			at, err := position(tx, name)
			if err != nil {
				return err
			}
			return refusal{&journal.FencedError{Journal: name, Epoch: epoch, Newest: at.Epoch}}
		}
		if err := tx.Exec(`DELETE FROM journal_snapshots WHERE journal = ?`, name).Error; err != nil {
			return err
		}
		return tx.Exec(`DELETE FROM journal_chunks WHERE journal = ?`, name).Error
	})
}
