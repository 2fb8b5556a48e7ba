package content

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/Masterminds/semver/v3"

	"joist/engine/value"
)

// LockFormat is the form of lock files. Another form is refused.
const LockFormat = "joist-lock/1"

// Lock says which version of each pack a cluster file is used with, and what is in it.
type Lock struct {
	Format string            `json:"format"`
	Packs  map[string]Locked `json:"packs"` // by the name under which it is used
}

// Locked is one pack of a lock.
type Locked struct {
	Source  string `json:"source"` // "builtin" or a folder; relative ones start from the lock's folder
	Version string `json:"version"`
	Digest  string `json:"digest"` // of the pack's archive: "sha256:" and 64 hexadecimal digits
}

// LockPath is where the lock of a cluster file stands.
func LockPath(file string) string { return file + ".lock" }

// ReadLock reads the lock of a cluster file; nil if it has none.
func ReadLock(file string) (*Lock, error) {
	data, err := os.ReadFile(LockPath(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the lock file: %w", err)
	}
	l, err := ParseLock(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lock file %s: %w; joist pack lock writes it anew", LockPath(file), err)
	}
	return l, nil
}

// ParseLock reads a lock: one JSON object of LockFormat, nothing unknown in it.
func ParseLock(data []byte) (*Lock, error) {
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	var l Lock
	if err := in.Decode(&l); err != nil {
		return nil, err
	}
	if in.More() {
		return nil, errors.New("something stands after it")
	}
	if l.Format != LockFormat {
		return nil, fmt.Errorf("its form is %.40q, this program knows %q", l.Format, LockFormat)
	}
	for name, p := range l.Packs {
		var d value.Digest
		_, err := semver.StrictNewVersion(p.Version)
		digits, sha := bytes.CutPrefix([]byte(p.Digest), []byte("sha256:"))
		if err != nil || name == "" || p.Source == "" || !sha || d.UnmarshalText(digits) != nil {
			return nil, fmt.Errorf("pack %.80q has no source, no version of three numbers, or no SHA-256", name)
		}
	}
	return &l, nil
}

// Unchanged refuses a version whose content is another than an earlier lock has: who published a version does not change it.
func (l *Lock) Unchanged(since *Lock) error {
	for _, name := range slices.Sorted(maps.Keys(l.Packs)) {
		now, was := l.Packs[name], since.Packs[name]
		if now.Version == was.Version && now.Digest != was.Digest {
			return fmt.Errorf("the content of pack %s %s at %s has changed: its digest is %s, the lock has %s; a published version never changes: give it a new version, or accept it with --accept-changed", name, now.Version, now.Source, now.Digest, was.Digest)
		}
	}
	return nil
}

// Write writes the lock of a cluster file, whole or not at all.
func (l *Lock) Write(file string) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the lock: %w", err)
	}
	path := LockPath(file)
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err = os.WriteFile(next, append(data, '\n'), 0o644); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return fmt.Errorf("cannot write the lock file: %w", err)
	}
	return nil
}
