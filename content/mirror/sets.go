package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"joist/engine/model"
	"joist/engine/value"
)

// Set is everything a cluster was made of, frozen. It is kept as a file of the store by its own digest, and names
// everything in it by digest: nothing in it can change.
type Set struct {
	Cluster   string       `json:"cluster"`  // that used it
	Workflow  string       `json:"workflow"` // "pack.workflow"
	Artifacts []SetFile    `json:"artifacts"`
	Packs     []SetPack    `json:"packs"`
	BootSet   *SetBoot     `json:"boot_set,omitempty"`
	Files     []FolderFile `json:"files,omitempty"` // of a folder, such as a snapshot of packages
}

// SetFile is an artifact of a set.
type SetFile struct {
	Pack string `json:"pack"` // that declares it
	Entry
}

// SetPack is a pack of a set: the archive of its files.
type SetPack struct {
	Name    string       `json:"name"`
	Version string       `json:"version"`
	Digest  value.Digest `json:"sha256"` // of the archive as a file
	Size    int64        `json:"size"`   // bytes
}

// SetBoot is the boot set that the cluster's machines run.
type SetBoot struct {
	Digest   string          `json:"digest"`
	Manifest json.RawMessage `json:"manifest"`
	Files    []FolderFile    `json:"files"`
}

// FolderFile is a file that has a place of its own.
type FolderFile struct {
	Path   string       `json:"path"` // slash-separated, relative
	Digest value.Digest `json:"sha256"`
	Size   int64        `json:"size"` // bytes
}

// Ref is the name under which a set is known.
type Ref struct {
	Name    string       `json:"name"`
	Digest  value.Digest `json:"sha256"` // of the set
	Cluster string       `json:"cluster"`
	Made    time.Time    `json:"made"`
}

// Parts lists every file of the set with its place. Files in several places may have one digest.
func (s *Set) Parts() []FolderFile {
	var all []FolderFile
	for _, a := range s.Artifacts {
		all = append(all, FolderFile{path.Join("artifacts", a.Kind+"-"+a.Name+"-"+a.Version+"-"+a.Arch), a.Digest, a.Size})
	}
	for _, p := range s.Packs {
		all = append(all, FolderFile{path.Join("packs", p.Name+"-"+p.Version+".tar"), p.Digest, p.Size})
	}
	if s.BootSet != nil {
		for _, f := range s.BootSet.Files {
			all = append(all, FolderFile{path.Join("boot", f.Path), f.Digest, f.Size})
		}
	}
	for _, f := range s.Files {
		all = append(all, FolderFile{path.Join("files", f.Path), f.Digest, f.Size})
	}
	seen := map[FolderFile]bool{} // packs may share an artifact
	return slices.DeleteFunc(all, func(f FolderFile) bool {
		was := seen[f]
		seen[f] = true
		return was
	})
}

// Pins are the files of the set's artifacts by PinName.
func (s *Set) Pins() map[string]model.Pin {
	pins := make(map[string]model.Pin, len(s.Artifacts))
	for _, a := range s.Artifacts {
		pins[a.Pack+"."+a.Name] = model.Pin{Digest: a.Digest, Size: a.Size}
	}
	return pins
}

func (s *Set) sorted() {
	byName := func(x, y []string) int { return slices.Compare(x, y) }
	slices.SortFunc(s.Artifacts, func(x, y SetFile) int { return byName([]string{x.Pack, x.Name}, []string{y.Pack, y.Name}) })
	slices.SortFunc(s.Packs, func(x, y SetPack) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(s.Files, func(x, y FolderFile) int { return strings.Compare(x.Path, y.Path) })
}

var setForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ErrFrozen is what Freeze says of a name that stands for another set.
var ErrFrozen = errors.New("a set of that name is frozen already")

// Freeze keeps a set under a name, for good: the same set again is no error, another one is. Every file of it must be in the
// store, and whole.
func (m *Mirror) Freeze(ctx context.Context, name string, s Set) (Ref, error) {
	if !setForm.MatchString(name) {
		return Ref{}, fmt.Errorf("cannot freeze %q: use lower-case letters, digits and hyphens for the name", name)
	}
	s.sorted()
	for _, f := range s.Files {
		if !fs.ValidPath(f.Path) {
			return Ref{}, fmt.Errorf("cannot freeze %s: %q is not a path within a folder", name, f.Path)
		}
	}
	now := m.cfg.Now()
	m.mu.Lock()
	for _, f := range s.Parts() {
		m.recent[f.Digest] = now
	}
	m.mu.Unlock()
	if err := m.whole(ctx, &s); err != nil {
		return Ref{}, fmt.Errorf("cannot freeze %s: %w", name, err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return Ref{}, fmt.Errorf("cannot freeze %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	digest, _, err := m.cfg.Files.Write(ctx, bytes.NewReader(data))
	if err != nil {
		return Ref{}, fmt.Errorf("cannot freeze %s: %w", name, err)
	}
	ref := Ref{Name: name, Digest: digest, Cluster: s.Cluster, Made: now.UTC().Truncate(time.Second)}
	if i := slices.IndexFunc(m.book.Sets, func(r Ref) bool { return r.Name == name }); i >= 0 {
		if m.book.Sets[i].Digest == digest {
			return m.book.Sets[i], nil
		}
		return Ref{}, fmt.Errorf("cannot freeze %s: %w, as sha256-%s; choose another name", name, ErrFrozen, m.book.Sets[i].Digest)
	}
	sets := append(slices.Clone(m.book.Sets), ref)
	slices.SortFunc(sets, func(x, y Ref) int { return strings.Compare(x.Name, y.Name) })
	return ref, m.write(book{m.book.Entries, sets})
}

// whole says which files of a set are missing or damaged.
func (m *Mirror) whole(ctx context.Context, s *Set) error {
	var missing []string
	for _, f := range s.Parts() {
		if err := m.present(ctx, f.Digest, f.Size); err != nil {
			missing = append(missing, fmt.Sprintf("%s, sha256-%s, %v", f.Path, f.Digest, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

// Sets lists the frozen sets by name.
func (m *Mirror) Sets() []Ref {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.book.Sets)
}

// ErrUnknown is a set that the mirror does not have.
var ErrUnknown = errors.New("there is no frozen set of that name")

// Set gives a frozen set by its name.
func (m *Mirror) Set(name string) (*Set, Ref, error) {
	m.mu.Lock()
	i := slices.IndexFunc(m.book.Sets, func(r Ref) bool { return r.Name == name })
	if i < 0 {
		m.mu.Unlock()
		return nil, Ref{}, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	ref := m.book.Sets[i]
	m.mu.Unlock()
	s, err := m.SetOf(ref.Digest)
	return s, ref, err
}

// SetOf gives a set by its digest.
func (m *Mirror) SetOf(d value.Digest) (*Set, error) {
	data, err := m.cfg.Files.Read(d)
	if err != nil {
		return nil, fmt.Errorf("cannot read the frozen set sha256-%s: %w", d, err)
	}
	var s Set
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("cannot read the frozen set sha256-%s: %w", d, err)
	}
	return &s, nil
}

// Ready gives a frozen set that is whole, for a cluster that is pinned to it. What is not whole is a *MissingError.
func (m *Mirror) Ready(ctx context.Context, name string) (*Set, Ref, error) {
	s, ref, err := m.Set(name)
	if err != nil {
		return nil, ref, err
	}
	m.mu.Lock()
	m.recent[ref.Digest] = m.cfg.Now()
	for _, f := range s.Parts() {
		m.recent[f.Digest] = m.cfg.Now()
	}
	m.mu.Unlock()
	if err := m.whole(ctx, s); err != nil {
		return nil, ref, fmt.Errorf("the frozen set %s is not whole: %w", name, err)
	}
	return s, ref, nil
}

// Pack gives the archive of a set's pack.
func (m *Mirror) Pack(p SetPack) ([]byte, error) {
	data, err := m.cfg.Files.Read(p.Digest)
	if err != nil {
		return nil, fmt.Errorf("cannot read pack %s of a frozen set: %w", p.Name, err)
	}
	return data, nil
}

// Thaw forgets a set's name. Its files stay until they are collected.
func (m *Mirror) Thaw(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.book.Sets, func(r Ref) bool { return r.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return m.write(book{m.book.Entries, slices.Delete(slices.Clone(m.book.Sets), i, i+1)})
}
