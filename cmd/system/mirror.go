package system

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"joist/content/mirror"
	"joist/engine/value"
	"joist/services/boot/artifacts"
	"joist/workflows/lang"
)

// files implements mirror.Files with the store of artifacts.
type files struct {
	store *artifacts.Store
	dir   string

	mu    sync.Mutex
	whole map[artifacts.Digest]seen // files that were read and found to be what their digests say
}

// seen is what a file looked like.
type seen struct {
	size int64
	at   time.Time
}

func digestOf(d value.Digest) artifacts.Digest { return artifacts.Digest("sha256-" + d.String()) }

func valueOf(d artifacts.Digest) value.Digest {
	var v value.Digest
	_ = v.UnmarshalText([]byte(d.Hex())) // a Digest has the right form
	return v
}

// Size implements mirror.Files.
func (f *files) Size(d value.Digest) (int64, error) {
	file, size, err := f.store.Open(digestOf(d))
	if err != nil {
		return 0, err
	}
	return size, file.Close()
}

// Verify implements mirror.Files.
func (f *files) Verify(ctx context.Context, d value.Digest, again bool) error {
	info, err := os.Stat(filepath.Join(f.dir, string(digestOf(d))))
	if err != nil {
		return fmt.Errorf("cannot verify an artifact: %w", err)
	}
	now := seen{info.Size(), info.ModTime()}
	f.mu.Lock()
	known := f.whole[digestOf(d)] == now
	f.mu.Unlock()
	if known && !again {
		return nil
	}
	err = f.store.Verify(ctx, digestOf(d))
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		delete(f.whole, digestOf(d))
		return err
	}
	f.whole[digestOf(d)] = now
	return nil
}

// Write implements mirror.Files.
func (f *files) Write(ctx context.Context, r io.Reader) (value.Digest, int64, error) {
	a, err := f.store.Write(ctx, r, "")
	return valueOf(a.Digest), a.Size, err
}

// maxRead bounds the files that are read as a whole, in bytes: packs and frozen sets.
const maxRead = 128 << 20

// Read implements mirror.Files.
func (f *files) Read(d value.Digest) ([]byte, error) {
	file, size, err := f.store.Open(digestOf(d))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if size > maxRead {
		return nil, fmt.Errorf("cannot read artifact sha256-%s as a whole: it has %d bytes", d, size)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, file); err != nil {
		return nil, fmt.Errorf("cannot read an artifact: %w", err)
	}
	return b.Bytes(), nil
}

// List implements mirror.Remover.
func (f *files) List() ([]mirror.Stored, error) {
	list, err := f.store.List()
	if err != nil {
		return nil, err
	}
	out := make([]mirror.Stored, len(list))
	for i, a := range list {
		out[i] = mirror.Stored{Digest: valueOf(a.Digest), Size: a.Size, At: a.At}
	}
	return out, nil
}

// Remove implements mirror.Remover.
func (f *files) Remove(d value.Digest) error { return f.store.Remove(digestOf(d)) }

// openMirror opens the catalogue of what clusters can use.
func (s *System) openMirror() error {
	s.files = &files{store: s.Artifacts, dir: filepath.Join(s.cfg.Data, "artifacts"), whole: map[artifacts.Digest]seen{}}
	var err error
	s.Mirror, err = mirror.Open(mirror.Config{Dir: filepath.Join(s.cfg.Data, "mirror"), Files: s.files, Now: s.now})
	return err
}

// packVersion reads the version of an archived pack.
func packVersion(archive []byte) (string, error) {
	files, err := lang.FromArchive(archive)
	if err != nil {
		return "", err
	}
	pack, diags := lang.Load(files, Catalogue())
	if pack == nil {
		return "", diags.Err()
	}
	return pack.Version, nil
}
