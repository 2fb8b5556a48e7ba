package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"joist/engine/value"
)

// Collect says what Collect removes. Zero fields mean the defaults named.
type Collect struct {
	// Used gives what clusters and boot sets use. It is asked while nothing new can be decided on, and its error ends the
	// collection: what is not known may be in use.
	Used func(ctx context.Context) (*Used, error)
	// Unused takes out entries of the catalogue that no cluster and no frozen set uses, too.
	Unused bool
	// DryRun removes nothing.
	DryRun bool
	// Young is how long a file stays that nobody has entered yet, such as an upload under way; default an hour.
	Young time.Duration
}

// Used is what must stay.
type Used struct {
	Files []value.Digest
	Sets  []value.Digest // frozen sets that clusters are pinned to, whether or not they still have a name
}

// Collected is what was removed.
type Collected struct {
	Entries []Entry  `json:"entries"` // of the catalogue
	Files   []Stored `json:"files"`
	Bytes   int64    `json:"bytes"`
}

// Collect removes files that neither a cluster, a boot set, a frozen set nor the catalogue names. What was decided on in the
// last hour stays: its goal may be on its way into a journal.
func (m *Mirror) Collect(ctx context.Context, c Collect) (*Collected, error) {
	if c.Young == 0 {
		c.Young = time.Hour
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	kept, err := m.kept(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &Collected{Entries: []Entry{}, Files: []Stored{}}
	entries := slices.Clone(m.book.Entries)
	if c.Unused {
		entries = slices.DeleteFunc(entries, func(e Entry) bool {
			if !kept[e.Digest] {
				out.Entries = append(out.Entries, e)
			}
			return !kept[e.Digest]
		})
	}
	for _, e := range entries {
		kept[e.Digest] = true
	}
	list, err := m.cfg.Files.List()
	if err != nil {
		return nil, err
	}
	gone := map[value.Digest]bool{}
	for _, e := range out.Entries {
		gone[e.Digest] = true
	}
	young := m.cfg.Now().Add(-c.Young)
	for _, f := range list {
		if !kept[f.Digest] && (gone[f.Digest] || f.At.Before(young)) {
			out.Files = append(out.Files, f)
			out.Bytes += f.Size
		}
	}
	if c.DryRun {
		return out, nil
	}
	if len(out.Entries) > 0 { // first: an entry without its file would be worse than a file without an entry
		if err := m.write(book{entries, m.book.Sets}); err != nil {
			return nil, err
		}
	}
	for _, f := range out.Files {
		if err := m.cfg.Files.Remove(f.Digest); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// kept gives what must stay whatever the catalogue says. The caller holds the lock.
func (m *Mirror) kept(ctx context.Context, c Collect) (map[value.Digest]bool, error) {
	kept := map[value.Digest]bool{}
	used, err := c.Used(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot tell what is in use, so nothing is removed: %w", err)
	}
	for _, d := range used.Files {
		kept[d] = true
	}
	for d, at := range m.recent {
		if m.cfg.Now().Sub(at) < time.Hour {
			kept[d] = true
		} else {
			delete(m.recent, d)
		}
	}
	sets := make([]value.Digest, 0, len(m.book.Sets))
	for _, r := range m.book.Sets {
		sets = append(sets, r.Digest)
	}
	for _, d := range append(sets, used.Sets...) {
		s, err := m.SetOf(d)
		if err != nil {
			return nil, fmt.Errorf("cannot tell what is in use, so nothing is removed: %w", err)
		}
		kept[d] = true
		for _, f := range s.Parts() {
			kept[f.Digest] = true
		}
	}
	return kept, nil
}

// Finding is what Verify says of one file.
type Finding struct {
	Digest value.Digest `json:"sha256"`
	Size   int64        `json:"size"`            // as it should be, in bytes
	What   []string     `json:"what"`            // entries and sets that name it
	Error  string       `json:"error,omitempty"` // what is wrong with it; empty if nothing is
}

// Verify reads again every file that the catalogue and the frozen sets name.
func (m *Mirror) Verify(ctx context.Context) ([]Finding, error) {
	m.mu.Lock()
	b := m.book
	m.mu.Unlock()
	var list []Finding
	at := map[value.Digest]int{}
	add := func(d value.Digest, size int64, what string) {
		i, ok := at[d]
		if !ok {
			i = len(list)
			at[d] = i
			list = append(list, Finding{Digest: d, Size: size})
		}
		list[i].What = append(list[i].What, what)
	}
	for _, e := range b.Entries {
		add(e.Digest, e.Size, e.Title())
	}
	for _, r := range b.Sets {
		add(r.Digest, 0, "frozen set "+r.Name)
		s, err := m.SetOf(r.Digest)
		if err != nil {
			continue // the set's own file is found to be wrong
		}
		for _, f := range s.Parts() {
			add(f.Digest, f.Size, r.Name+": "+f.Path)
		}
	}
	for i := range list {
		f := &list[i]
		have, err := m.cfg.Files.Size(f.Digest)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = errAbsent
		case err == nil && f.Size > 0 && have != f.Size:
			err = fmt.Errorf("has %d bytes and should have %d", have, f.Size)
		case err == nil:
			f.Size = have
			err = m.cfg.Files.Verify(ctx, f.Digest, true)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			f.Error = err.Error()
		}
	}
	return list, nil
}
