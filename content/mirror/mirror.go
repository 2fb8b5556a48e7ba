// Package mirror is the catalogue of what an engine has for its clusters: programs, images and bundles by name, version
// and architecture, and frozen sets of them. The files themselves lie in a store by digest.
package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"joist/engine/model"
	"joist/engine/value"
)

// Entry says which file is meant by a kind, a name, a version and an architecture.
type Entry struct {
	Kind    string       `json:"kind"` // file, program, image or bundle
	Name    string       `json:"name"`
	Version string       `json:"version"`
	Arch    string       `json:"arch"` // by Go's names, such as amd64
	Digest  value.Digest `json:"sha256"`
	Size    int64        `json:"size"` // bytes
	Licence string       `json:"licence"`
	URL     string       `json:"url,omitempty"` // where it came from; empty if it was built or brought
	Added   time.Time    `json:"added,omitzero"`
}

// Title names the entry for people.
func (e Entry) Title() string { return fmt.Sprintf("%s %s %s (%s)", e.Kind, e.Name, e.Version, e.Arch) }

func (e Entry) same(o Entry) bool {
	return e.Kind == o.Kind && e.Name == o.Name && e.Version == o.Version && e.Arch == o.Arch
}

var (
	nameForm    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,62}$`)
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}$`)
)

func (e Entry) check() error {
	switch {
	case !nameForm.MatchString(e.Name):
		return fmt.Errorf("%q is not the name of an artifact: use lower-case letters, digits, _ and -, beginning with a letter", e.Name)
	case !slices.Contains(model.ArtifactKinds(), e.Kind):
		return fmt.Errorf("artifact %s: there is no kind %q; it is one of %s", e.Name, e.Kind, strings.Join(model.ArtifactKinds(), ", "))
	case !versionForm.MatchString(e.Version):
		return fmt.Errorf("artifact %s: %q is not a version", e.Name, e.Version)
	case e.Arch == "" || !nameForm.MatchString(e.Arch):
		return fmt.Errorf("artifact %s %s: %q is not an architecture; write amd64 or arm64", e.Name, e.Version, e.Arch)
	case e.Licence == "":
		return fmt.Errorf("artifact %s %s does not say its licence: write an SPDX expression such as Apache-2.0", e.Name, e.Version)
	case e.Digest == value.Digest{} || e.Size <= 0:
		return fmt.Errorf("artifact %s %s has no digest or no size", e.Name, e.Version)
	}
	return nil
}

// Files is the store of the files, by the SHA-256 of their content. What is in it never changes.
type Files interface {
	// Size gives a file's length in bytes; the error is fs.ErrNotExist if it is not there.
	Size(d value.Digest) (int64, error)
	// Verify reads a file again and fails if it is not what its digest says. It may answer from memory as long as nobody
	// touched the file, unless again is set.
	Verify(ctx context.Context, d value.Digest, again bool) error
	// Write stores what r yields, durably.
	Write(ctx context.Context, r io.Reader) (value.Digest, int64, error)
	// Read gives a whole small file.
	Read(d value.Digest) ([]byte, error)
	Remover
}

// Remover lists and removes files.
type Remover interface {
	List() ([]Stored, error)
	Remove(d value.Digest) error
}

// Stored is a file of the store.
type Stored struct {
	Digest value.Digest
	Size   int64     // bytes
	At     time.Time // when it was stored
}

// Config is what a mirror works with. Dir and Files are required.
type Config struct {
	Dir   string // folder of the catalogue
	Files Files
	Now   func() time.Time // nil for time.Now
}

// Mirror is the catalogue. It is safe for concurrent use by one process.
type Mirror struct {
	cfg Config

	mu     sync.Mutex
	book   book
	recent map[value.Digest]time.Time // when something was last decided on: its goal may not be in a journal yet
}

// book is what the catalogue's file holds.
type book struct {
	Entries []Entry `json:"entries"`
	Sets    []Ref   `json:"sets"`
}

// Open reads the catalogue.
func Open(cfg Config) (*Mirror, error) {
	if cfg.Dir == "" || cfg.Files == nil {
		return nil, errors.New("internal error: a mirror needs a folder and files")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the mirror: %w", err)
	}
	m := &Mirror{cfg: cfg, recent: map[value.Digest]time.Time{}}
	data, err := os.ReadFile(m.file())
	if err == nil {
		err = json.Unmarshal(data, &m.book)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the mirror's catalogue: %w", err)
	}
	return m, nil
}

func (m *Mirror) file() string { return filepath.Join(m.cfg.Dir, "catalogue.json") }

// write replaces the catalogue, durably, before the one in memory. The caller holds the lock.
func (m *Mirror) write(b book) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err == nil {
		err = replace(m.file(), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("cannot write the mirror's catalogue: %w", err)
	}
	m.book = b
	return nil
}

func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error counts
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Entries lists the catalogue by name, kind, version and architecture.
func (m *Mirror) Entries() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.book.Entries)
}

// ConflictError reports an entry that is there with another file.
type ConflictError struct{ Have, Want Entry }

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("the mirror has %s already, as sha256-%s and not sha256-%s", e.Have.Title(), e.Have.Digest, e.Want.Digest)
}

// Add enters files that are in the store: all, or none and an error. An entry that is there with another file is
// a *ConflictError unless it is to be replaced; clusters go on with the file that they were given.
func (m *Mirror) Add(ctx context.Context, entries []Entry, replace bool) error {
	for _, e := range entries {
		if err := e.check(); err != nil {
			return fmt.Errorf("cannot add to the mirror: %w", err)
		}
		if err := m.present(ctx, e.Digest, e.Size); err != nil {
			return fmt.Errorf("cannot add %s to the mirror: its file, sha256-%s, %w", e.Title(), e.Digest, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := book{slices.Clone(m.book.Entries), m.book.Sets}
	for _, e := range entries {
		e.Added = m.cfg.Now().UTC().Truncate(time.Second)
		i := slices.IndexFunc(b.Entries, e.same)
		switch {
		case i < 0:
			b.Entries = append(b.Entries, e)
		case b.Entries[i].Digest == e.Digest:
		case !replace:
			return &ConflictError{b.Entries[i], e}
		default:
			b.Entries[i] = e
		}
	}
	slices.SortFunc(b.Entries, func(x, y Entry) int {
		return slices.Compare([]string{x.Name, x.Kind, x.Version, x.Arch}, []string{y.Name, y.Kind, y.Version, y.Arch})
	})
	return m.write(b)
}

// present says what is wrong with a file of the store: that it is missing, truncated or damaged. size 0 is any.
func (m *Mirror) present(ctx context.Context, d value.Digest, size int64) error {
	have, err := m.cfg.Files.Size(d)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errAbsent
	case err != nil:
		return err
	case size > 0 && have != size:
		return fmt.Errorf("has %d bytes and should have %d", have, size)
	}
	if err := m.cfg.Files.Verify(ctx, d, false); err != nil {
		return fmt.Errorf("is damaged: %w", err)
	}
	return nil
}

var errAbsent = errors.New("is not there")

// MissingError reports artifacts that a cluster needs and the mirror cannot give.
type MissingError struct{ Lines []string }

// Error implements error: one line for each artifact, with what to do.
func (e *MissingError) Error() string {
	if len(e.Lines) == 1 {
		return e.Lines[0]
	}
	return fmt.Sprintf("%d artifacts are missing:\n  %s", len(e.Lines), strings.Join(e.Lines, "\n  "))
}

// Resolve decides which file each artifact is, by its PinName: that of the checksum which its pack ships, else that of the
// mirror's entry of the same name, version and architecture. What is not there, or not whole, is a *MissingError.
func (m *Mirror) Resolve(ctx context.Context, list []model.Artifact) (map[string]model.Pin, error) {
	pins := make(map[string]model.Pin, len(list))
	var missing []string
	for _, a := range list {
		pin, err := m.resolve(ctx, a)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		pins[a.PinName()] = pin
	}
	if len(missing) > 0 {
		return nil, &MissingError{missing}
	}
	return pins, nil
}

func (m *Mirror) resolve(ctx context.Context, a model.Artifact) (model.Pin, error) {
	want := Entry{Kind: string(a.Kind), Name: a.Name, Version: a.Version, Arch: a.Arch, Digest: a.Digest, Size: a.Size}
	m.mu.Lock()
	if i := slices.IndexFunc(m.book.Entries, want.same); i >= 0 && want.Digest == (value.Digest{}) {
		want.Digest, want.Size = m.book.Entries[i].Digest, m.book.Entries[i].Size
	}
	if want.Digest != (value.Digest{}) {
		m.recent[want.Digest] = m.cfg.Now() // before its file is looked at, so that it stays
	}
	m.mu.Unlock()
	if want.Digest == (value.Digest{}) {
		return model.Pin{}, fmt.Errorf("%s of pack %s is not in the mirror; add it with: %s", want.Title(), a.Pack, addCommand(a))
	}
	if err := m.present(ctx, want.Digest, want.Size); err != nil {
		return model.Pin{}, fmt.Errorf("%s of pack %s, sha256-%s, %w; add it with: %s", want.Title(), a.Pack, want.Digest, err, addCommand(a))
	}
	size, err := m.cfg.Files.Size(want.Digest)
	return model.Pin{Digest: want.Digest, Size: size}, err
}

// addCommand is what brings an artifact into the mirror.
func addCommand(a model.Artifact) string {
	if a.URL != "" && a.Digest != (value.Digest{}) {
		return "joist mirror pull FILE, with the cluster file"
	}
	return fmt.Sprintf("joist mirror add --kind %s --name %s --version %s --arch %s --licence %q FILE", a.Kind, a.Name, a.Version, a.Arch, a.Licence)
}
