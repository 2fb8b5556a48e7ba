// Package artifacts is a folder of files by their digest: kernels, initramfs, node images, bundles. A file in it never
// changes, so it may be served with range requests and cached for ever.
package artifacts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Digest names an artifact: "sha256-" and 64 lower-case hexadecimal digits, as it stands in addresses and file names.
type Digest string

const prefix = "sha256-"

// ParseDigest reads a digest; it accepts the "sha256:" that other tools write, and nothing else.
func ParseDigest(s string) (Digest, error) {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok {
		digits, ok = strings.CutPrefix(s, "sha256:")
	}
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != sha256.Size || strings.ToLower(digits) != digits {
		if len(s) > 80 {
			s = s[:80] + "…"
		}
		return "", fmt.Errorf("cannot read digest %q: want sha256- and 64 lower-case hexadecimal digits", s)
	}
	return Digest(prefix + digits), nil
}

// Hex returns the digits alone.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), prefix) }

// Artifact describes one stored file.
type Artifact struct {
	Digest Digest
	Size   int64     // bytes
	At     time.Time // when it was stored; set by List
}

// MismatchError reports content whose digest is not the one that was promised: the copy is broken or someone changed it.
type MismatchError struct{ Want, Got Digest }

// Error implements error.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("the content's digest is %s, not %s: it is damaged or was replaced; build or copy it again", e.Got, e.Want)
}

// Store is a folder of artifacts. Several goroutines and several processes may use one folder at a time.
type Store struct{ dir string }

// incoming begins the names of files that are still being written.
const incoming = ".incoming-"

// Open makes the folder if need be and returns its store.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot open artifact store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Sweep removes what writers that were killed left behind. Call it when no other process writes, as at start.
func (s *Store) Sweep() error {
	left, err := filepath.Glob(filepath.Join(s.dir, incoming+"*"))
	if err != nil {
		return fmt.Errorf("cannot sweep artifact store: %w", err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("cannot sweep artifact store: %w", err)
		}
	}
	return nil
}

// Add copies a file into the store and returns its digest and size. Files are copied, never linked: somebody who later
// writes to the original must not change what the digest promises.
func (s *Store) Add(ctx context.Context, path string) (Artifact, error) {
	f, err := os.Open(path)
	if err != nil {
		return Artifact{}, fmt.Errorf("cannot add artifact: %w", err)
	}
	defer f.Close()
	return s.Write(ctx, f, "")
}

// Write stores what r yields, durably before it returns. If want is not empty and differs from the digest of what came,
// nothing is stored and the error is a *MismatchError. What was stored under the same digest,
// perhaps damaged meanwhile, gives way to it.
func (s *Store) Write(ctx context.Context, r io.Reader, want Digest) (a Artifact, err error) {
	tmp, err := os.CreateTemp(s.dir, incoming)
	if err != nil {
		return Artifact{}, fmt.Errorf("cannot add artifact: %w", err)
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(tmp, hash), &reader{ctx, r})
	if err != nil {
		return Artifact{}, fmt.Errorf("cannot add artifact: %w", err)
	}
	a = Artifact{Digest: Digest(prefix + hex.EncodeToString(hash.Sum(nil))), Size: size}
	if want != "" && a.Digest != want {
		return Artifact{}, fmt.Errorf("cannot add artifact: %w", &MismatchError{want, a.Digest})
	}
	if err := errors.Join(tmp.Chmod(0o444), tmp.Sync()); err != nil {
		return Artifact{}, fmt.Errorf("cannot add artifact: %w", err)
	}
	if err := os.Rename(tmp.Name(), s.path(a.Digest)); err != nil {
		return Artifact{}, fmt.Errorf("cannot add artifact: %w", err)
	}
	return a, s.sync()
}

// sync makes the last rename durable.
func (s *Store) sync() error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("cannot add artifact: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot add artifact: %w", err)
	}
	return nil
}

// Open returns an artifact for reading, and its size. The error is fs.ErrNotExist if it is not there.
func (s *Store) Open(d Digest) (*os.File, int64, error) {
	if parsed, err := ParseDigest(string(d)); err != nil || parsed != d {
		return nil, 0, fmt.Errorf("cannot open artifact %q: %w", d, fs.ErrNotExist)
	}
	f, err := os.Open(s.path(d))
	if err != nil {
		return nil, 0, fmt.Errorf("cannot open artifact: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("cannot open artifact: %w", err)
	}
	return f, info.Size(), nil
}

// Verify reads an artifact again and reports a *MismatchError if the disk no longer holds what the digest promises.
func (s *Store) Verify(ctx context.Context, d Digest) error {
	f, _, err := s.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, &reader{ctx, f}); err != nil {
		return fmt.Errorf("cannot verify artifact %s: %w", d, err)
	}
	if got := Digest(prefix + hex.EncodeToString(hash.Sum(nil))); got != d {
		return fmt.Errorf("cannot verify artifact: %w", &MismatchError{d, got})
	}
	return nil
}

// Remove deletes an artifact; one that is not there is no error. Transfers in flight go on to their end.
func (s *Store) Remove(d Digest) error {
	if _, err := ParseDigest(string(d)); err != nil {
		return err
	}
	if err := os.Remove(s.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove artifact: %w", err)
	}
	return nil
}

// List returns all artifacts by digest.
func (s *Store) List() ([]Artifact, error) {
	entries, err := os.ReadDir(s.dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("cannot list artifacts: %w", err)
	}
	var out []Artifact
	for _, e := range entries {
		d, err := ParseDigest(e.Name())
		if err != nil {
			continue // still being written, or not ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list artifacts: %w", err)
		}
		out = append(out, Artifact{Digest: d, Size: info.Size(), At: info.ModTime()})
	}
	return out, nil
}

func (s *Store) path(d Digest) string { return filepath.Join(s.dir, string(d)) }

// reader stops a long copy when its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
