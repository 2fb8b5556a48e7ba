// Package archive has the form in which packs are kept and sent: one file, equal for equal packs.
package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits of a pack.
const (
	MaxFiles = 2000
	maxFile  = 8 << 20  // bytes of one file
	MaxSize  = 64 << 20 // bytes of all
)

// ReadFS reads the files of a pack's folder that Load takes: *.hcl at its top and everything below files/.
func ReadFS(dir fs.FS) (map[string][]byte, error) {
	out, total := map[string][]byte{}, int64(0)
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && name != "files" && !strings.HasPrefix(name, "files/") {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !Belongs(name) {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		if info.Size() > maxFile || total > MaxSize || len(out) == MaxFiles {
			return fmt.Errorf("%s: a pack has at most %d files of %d MiB each, %d MiB in all", name, MaxFiles, maxFile>>20, MaxSize>>20)
		}
		out[name], err = fs.ReadFile(dir, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the pack: %w", err)
	}
	return out, nil
}

// Belongs reports whether a file is part of a pack.
func Belongs(name string) bool {
	return fs.ValidPath(name) && (strings.HasPrefix(name, "files/") || path.Dir(name) == "." && strings.HasSuffix(name, ".hcl"))
}

// Pack is the deterministic archive of a pack's files: a tar file of regular files in the order of their names.
func Pack(files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX}
		if w.WriteHeader(h) != nil { // names are valid and a Buffer takes everything
			continue
		}
		_, _ = w.Write(data) // as above
	}
	_ = w.Close() // as above
	return b.Bytes()
}

// Files gives the files of an archive back, for Load.
func Files(data []byte) (map[string][]byte, error) {
	if len(data) > 2*MaxSize {
		return nil, fmt.Errorf("cannot read the pack's archive: it has %d bytes", len(data))
	}
	out := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if !bytes.Equal(Pack(out), data) {
				return nil, errors.New("cannot read the pack's archive: it is not in the form that archives have")
			}
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the pack's archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg || !Belongs(h.Name) || out[h.Name] != nil || len(out) == MaxFiles {
			return nil, fmt.Errorf("cannot read the pack's archive: %q does not belong into a pack", h.Name)
		}
		body, err := io.ReadAll(io.LimitReader(r, maxFile+1))
		if err == nil && len(body) > maxFile {
			err = fmt.Errorf("%s is too large", h.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the pack's archive: %w", err)
		}
		out[h.Name] = body
	}
}
