package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"joist/cmd/joist/author"
	"joist/cmd/system"
	"joist/content"
	"joist/workflows/lang"
)

// lockPacks writes the lock of a cluster file.
func lockPacks(o author.LockOptions) (*author.Locked, error) {
	data, err := os.ReadFile(o.File)
	if err != nil {
		return nil, fmt.Errorf("cannot read the cluster file: %w", err)
	}
	file, diags := lang.LoadCluster(filepath.Base(o.File), data)
	if file == nil {
		return nil, diags.Err()
	}
	was, err := content.ReadLock(o.File)
	if err != nil && o.Kind == author.LockVendor { // the others write it anew
		return nil, err
	}
	w := content.Wish{File: file, Folder: filepath.Dir(o.File), Newest: o.Kind == author.LockNewest, Catalogue: system.Catalogue()}
	switch o.Kind {
	case author.LockVendor:
		w.Lock = was
	case author.LockAsIs:
		w.Keep = was
	}
	chosen, diags, err := content.Resolve(w)
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	if err != nil {
		return nil, err
	}
	lock := content.LockOf(chosen)
	if was != nil && !o.Accept {
		if err := lock.Unchanged(was); err != nil {
			return nil, err
		}
	}
	if o.Kind == author.LockVendor {
		at, err := filepath.Rel(filepath.Dir(o.File), o.Folder)
		if err != nil || filepath.IsAbs(o.Folder) {
			at = o.Folder
		}
		if !filepath.IsAbs(at) {
			at = "./" + filepath.ToSlash(at)
		}
		if lock, err = content.Vendor(chosen, o.Folder, at); err != nil {
			return nil, err
		}
	}
	if err := lock.Write(o.File); err != nil {
		return nil, err
	}
	done := &author.Locked{File: content.LockPath(o.File), Packs: []author.LockedPack{}}
	for _, name := range slices.Sorted(maps.Keys(lock.Packs)) {
		l := lock.Packs[name]
		p := author.LockedPack{Name: name, Version: l.Version, Source: l.Source, Digest: l.Digest, Asked: []string{}}
		if was != nil {
			before := was.Packs[name]
			p.Was, p.Changed = before.Version, before.Version == l.Version && before.Digest != l.Digest
		}
		for _, a := range chosen[name].Asks {
			p.Asked = append(p.Asked, a.By+" "+a.Constraint)
		}
		done.Packs = append(done.Packs, p)
	}
	return done, nil
}
