// Package content finds packs: those that ship with joist, and those in folders. It holds the shipped ones.
package content

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"joist/workflows/lang"
)

//go:embed base etcd kubernetes
var shipped embed.FS

// Limits of a pack's files.
const (
	maxFile  = 4 << 20 // bytes of one file
	maxFiles = 2000
)

// Builtin is the source that names a shipped pack.
const Builtin = "builtin"

// Shipped lists the packs that ship with joist.
func Shipped() []string {
	list, err := shipped.ReadDir(".")
	if err != nil {
		return nil // the embedded folder cannot fail to be there
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// Find reads a pack's files by path within the pack. source is "builtin", or a folder, which relative paths start from.
func Find(name, source, folder string) (map[string][]byte, error) {
	switch {
	case source == Builtin:
		sub, err := fs.Sub(shipped, name)
		if err == nil {
			_, err = fs.Stat(sub, "pack.hcl")
		}
		if err != nil {
			return nil, fmt.Errorf("no pack %q ships with joist; those that do: %s", name, strings.Join(Shipped(), ", "))
		}
		return read(sub)
	case strings.Contains(source, "://"):
		return nil, fmt.Errorf("cannot fetch pack %q from %s: not yet; name a folder, or \"builtin\"", name, source)
	case !filepath.IsAbs(source):
		source = filepath.Join(folder, source)
	}
	return Folder(source)
}

// Folder reads the files of the pack in a folder.
func Folder(dir string) (map[string][]byte, error) {
	if _, err := os.Stat(filepath.Join(dir, "pack.hcl")); err != nil {
		if inside, _ := filepath.Glob(filepath.Join(dir, "*", "pack.hcl")); len(inside) > 0 { // the pattern is sound
			return nil, fmt.Errorf("cannot read the pack in %s: it has no pack.hcl; name one of the folders in it, such as %s", dir, filepath.Dir(inside[0]))
		}
		return nil, fmt.Errorf("cannot read the pack in %s: it has no pack.hcl", dir)
	}
	return read(os.DirFS(dir))
}

func read(from fs.FS) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(from, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name := d.Name(); p != "." && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		case strings.HasPrefix(path.Base(p), "."):
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s: a pack has plain files and folders only, no links or devices", p)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() > maxFile || len(files) >= maxFiles {
			return fmt.Errorf("%s: a pack has at most %d files of at most %d MiB", p, maxFiles, maxFile>>20)
		}
		files[p], err = fs.ReadFile(from, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read a pack: %w", err)
	}
	return files, nil
}

// Gather finds every pack that a cluster file needs, those that its packs require included, and archives them.
func Gather(w Wish) (map[string][]byte, lang.Diagnostics, error) {
	chosen, diags, err := Resolve(w)
	if err != nil {
		return nil, diags, err
	}
	archives := map[string][]byte{}
	for name, c := range chosen {
		archives[name] = c.Pack.Archive()
	}
	return archives, diags, nil
}

// Unpack loads packs from their archives.
func Unpack(archives map[string][]byte, catalogue lang.Catalogue) (map[string]*lang.Pack, lang.Diagnostics, error) {
	packs := map[string]*lang.Pack{}
	var diags lang.Diagnostics
	for _, name := range slices.Sorted(maps.Keys(archives)) { // so that diagnostics come in one order
		data := archives[name]
		files, err := lang.FromArchive(data)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the archive of pack %s: %w", name, err)
		}
		pack, more := lang.Load(files, catalogue)
		diags = append(diags, more...)
		if pack != nil {
			packs[name] = pack
		}
	}
	return packs, diags, nil
}

// Required adds the packs that packs require to them: from the folder in which theirs lie, where each has a folder of its own
// name (empty for none), else those that ship. One that is in neither is left out: lang.Check says that it is missing, and where it is
// required.
func Required(packs map[string]*lang.Pack, beside string, catalogue lang.Catalogue) (lang.Diagnostics, error) {
	var diags lang.Diagnostics
	for grown := true; grown; {
		grown = false
		for _, p := range packs {
			for name := range p.Requires {
				source := filepath.Join(beside, name)
				if _, err := os.Stat(filepath.Join(source, "pack.hcl")); beside == "" || err != nil {
					source = Builtin
				}
				if packs[name] != nil || source == Builtin && !slices.Contains(Shipped(), name) {
					continue
				}
				files, err := Find(name, source, ".")
				if err != nil {
					return diags, err
				}
				pack, more := lang.Load(files, catalogue)
				diags = append(diags, more...)
				if pack == nil {
					return diags, nil
				}
				packs[name], grown = pack, true
			}
		}
	}
	return diags, nil
}
