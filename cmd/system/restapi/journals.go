package restapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"joist/engine/drive"
	"joist/engine/journal"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/site"
)

// apiJournals implements api.Journals.
type apiJournals struct{ Parts }

func (a *apiJournals) Names(context.Context) ([]string, error) {
	var names []string
	for _, name := range a.Clusters.Names() {
		names = append(names, drive.JournalOf(name))
	}
	return append(names, site.JournalName), nil
}

func (a *apiJournals) writer(name string) (*journal.Writer, error) {
	if name == site.JournalName {
		return a.Site.Journal(), nil
	}
	cluster, ok := strings.CutPrefix(name, drive.JournalOf(""))
	if !ok {
		return nil, api.Fail(v1.NotFound, fmt.Errorf("there is no journal %q", name), "")
	}
	loop, err := a.Clusters.Get(cluster)
	if err != nil {
		return nil, a.told(err)
	}
	return loop.Journal(), nil
}

func (a *apiJournals) Last(_ context.Context, name string) (uint64, error) {
	w, err := a.writer(name)
	if err != nil {
		return 0, err
	}
	return w.Last(), nil
}

func eventOf(name string, f func(v1.Event) error) func(journal.Record) error {
	return func(r journal.Record) error {
		return f(v1.Event{Journal: name, Seq: r.Seq, Time: r.Time.UTC(), Kind: r.Kind, Version: r.Version, Data: r.Data})
	}
}

func (a *apiJournals) Read(ctx context.Context, name string, after uint64, f func(v1.Event) error) error {
	return a.Store.Read(ctx, name, after, eventOf(name, f))
}

func (a *apiJournals) Follow(ctx context.Context, name string, after uint64, f func(v1.Event) error) error {
	w, err := a.writer(name)
	if err != nil {
		return err
	}
	if err := w.Follow(ctx, after, eventOf(name, f)); !errors.Is(err, ctx.Err()) {
		return err
	}
	return ctx.Err()
}
