package journaltest

import (
	"context"

	"joist/engine/journal"
)

// Hooked is a store with faults: what journal.Memory has built in, for any other one. A hook may also end the process,
// which is how a crash at a chosen append is tested on a real database.
type Hooked struct {
	journal.Store
	Before func(journal.Batch) error // before the append; its error is Append's, and nothing is written. Nil: none
	After  func(journal.Batch) error // after the append succeeded; its error is Append's, though all is written. Nil: none
}

// Append implements journal.Store.
func (h *Hooked) Append(ctx context.Context, batch journal.Batch) error {
	if h.Before != nil {
		if err := h.Before(batch); err != nil {
			return err
		}
	}
	if err := h.Store.Append(ctx, batch); err != nil {
		return err
	}
	if h.After != nil {
		return h.After(batch)
	}
	return nil
}
