package supply

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A set keeps places and contents: whatever else a folder has would be lost, so nothing of it is taken.
func TestPlainFiles(t *testing.T) {
	folder := func() string {
		dir := t.TempDir()
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "pool/empty"), 0o755), os.WriteFile(filepath.Join(dir, "pool/a.deb"), []byte("a"), 0o644),
			os.WriteFile(filepath.Join(dir, "b.deb"), []byte("b"), 0o755)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if got, err := plainFiles(folder()); err != nil || !slices.Equal(got, []string{"b.deb", "pool/a.deb"}) {
		t.Errorf("%q, %v", got, err)
	}
	for want, add := range map[string]func(dir string) error{
		"and pool/c.deb is a symbolic link; name": func(dir string) error { return os.Symlink("a.deb", filepath.Join(dir, "pool/c.deb")) },
		"and folder is a symbolic link; name":     func(dir string) error { return os.Symlink("pool", filepath.Join(dir, "folder")) },
		"and pipe is no regular file; name":       func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644) },
		"and .lock is empty; name":                func(dir string) error { return os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o644) },
		`and the name "a\xff" is not UTF-8; name`: func(dir string) error { return os.WriteFile(filepath.Join(dir, "a\xff"), []byte("c"), 0o644) },
		"and 1 is empty, and 1 more; name": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "1"), nil, 0o644), os.WriteFile(filepath.Join(dir, "2"), nil, 0o644))
		},
		"there are no files in it": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "b.deb")), os.Remove(filepath.Join(dir, "pool/a.deb")))
		},
	} {
		dir := folder()
		if err := add(dir); err != nil {
			t.Fatal(err)
		}
		if got, err := plainFiles(dir); got != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, %v, want %s", got, err, want)
		}
	}
}
