// Package fresh takes back what a start that was refused has put into a data folder.
package fresh

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Folder is a data folder as it was before a start.
type Folder struct {
	path   string
	had    map[string]bool // names that it had
	absent bool            // there was no folder
	closed bool            // nobody can tell what is in it: nothing is taken from there
}

// Look takes down what is in a folder. Only what is there then is anybody's. What is wrong with one that cannot be read, the start
// says better.
func Look(path string) Folder {
	f := Folder{path: path, had: map[string]bool{}}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.absent = true
	case err != nil:
		f.closed = true
	}
	for _, e := range entries {
		f.had[e.Name()] = true
	}
	return f
}

// Had reports whether something lay in the folder.
func (f Folder) Had(name string) bool { return f.had[name] }

// Clear removes what has come into the folder since, and the folder itself if there was none. Whoever calls it is sure that
// nobody else has put anything there.
func (f Folder) Clear() error {
	entries, err := os.ReadDir(f.path)
	if f.closed || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if !f.had[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(f.path, e.Name())))
		}
	}
	errs = append(errs, f.Leave())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot take back what a refused start left: %w", err)
	}
	return nil
}

// Leave removes the folder if there was none before and nothing is in it.
func (f Folder) Leave() error {
	if !f.absent {
		return nil
	}
	if entries, err := os.ReadDir(f.path); err != nil || len(entries) > 0 {
		return nil //nolint:nilerr // it is gone, or somebody else's
	}
	return os.Remove(f.path)
}
