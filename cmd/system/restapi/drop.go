package restapi

import (
	"context"

	"joist/engine/drive"
	"joist/services/clusters"
	"joist/services/site"
)

// Emptier is a store whose journals can be emptied (sqlstore's Journals).
type Emptier interface {
	Empty(ctx context.Context, journal string, epoch uint64) error
}

// Drop drops the journal of a destroyed cluster, once the site's book says so: who looks for it later finds what became of it.
func Drop(ctx context.Context, book *site.Book, store Emptier, d clusters.Dropped) error {
	if err := book.Note(ctx, site.Dropped{Cluster: d.Cluster, By: d.By, Events: d.Events}); err != nil {
		return err
	}
	return store.Empty(ctx, drive.JournalOf(d.Cluster), d.Epoch)
}
