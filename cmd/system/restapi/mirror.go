package restapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"joist/content/mirror"
	"joist/engine/model"
	"joist/engine/value"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
	"joist/services/clusters"
)

// Mirror is what the API's mirror is made of.
type Mirror struct {
	*mirror.Mirror
	Clusters *clusters.Clusters
	Files    mirror.Files
	Boots    BootSets
	// BootSet gives the boot set that a cluster's machines run, nil for none.
	BootSet func(ctx context.Context, cluster string) (*bootset.Manifest, error)
	// PackVersion reads the version of a pack from its archive.
	PackVersion func(archive []byte) (string, error)
}

// apiMirror implements api.Mirror, apiFrozen api.Frozen.
type (
	apiMirror struct{ *Mirror }
	apiFrozen struct{ *Mirror }
)

func digestText(d value.Digest) string { return "sha256-" + d.String() }

func digestValue(text string) (value.Digest, error) {
	var v value.Digest
	d, err := artifacts.ParseDigest(text)
	if err == nil {
		err = v.UnmarshalText([]byte(d.Hex()))
	}
	return v, err
}

// use is which clusters use a file, and which are pinned to a frozen set.
type use struct{ files, sets map[value.Digest][]string }

func (m *Mirror) uses(ctx context.Context) (use, error) {
	u := use{map[value.Digest][]string{}, map[value.Digest][]string{}}
	all, err := m.Clusters.Uses(ctx)
	if err != nil {
		return u, err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		note := func(to map[value.Digest][]string, d value.Digest) {
			if d != (value.Digest{}) && !slices.Contains(to[d], name) {
				to[d] = append(to[d], name)
			}
		}
		pinned, err := m.Clusters.Pinned(ctx, name)
		var unknown *clusters.UnknownError
		if err != nil && !errors.As(err, &unknown) {
			return u, err
		}
		note(u.sets, pinned)
		for _, model := range all[name] {
			note(u.sets, model.Frozen)
			for _, a := range model.Artifacts {
				note(u.files, a.Digest)
			}
		}
	}
	return u, nil
}

// List implements api.Mirror.
func (m apiMirror) List(ctx context.Context) ([]v1.MirrorEntry, error) {
	used, err := m.uses(ctx)
	if err != nil {
		used = use{} // a cluster that cannot be taken up does not hide the mirror
	}
	list := []v1.MirrorEntry{}
	for _, e := range m.Entries() {
		form := entryForm(e)
		form.Used = used.files[e.Digest]
		list = append(list, form)
	}
	return list, nil
}

func entryForm(e mirror.Entry) v1.MirrorEntry {
	return v1.MirrorEntry{Kind: e.Kind, Name: e.Name, Version: e.Version, Arch: e.Arch, Digest: digestText(e.Digest), Size: e.Size, Licence: e.Licence, URL: e.URL, Added: e.Added}
}

// Add implements api.Mirror.
func (m apiMirror) Add(ctx context.Context, a v1.MirrorAdd) error {
	var entries []mirror.Entry
	for _, e := range a.Entries {
		d, err := digestValue(e.Digest)
		if err != nil {
			return api.Fail(v1.Malformed, err, "")
		}
		entries = append(entries, mirror.Entry{Kind: e.Kind, Name: e.Name, Version: e.Version, Arch: e.Arch, Digest: d, Size: e.Size, Licence: e.Licence, URL: e.URL})
	}
	err := roomless(m.Mirror.Add(ctx, entries, a.Replace))
	var conflict *mirror.ConflictError
	if errors.As(err, &conflict) {
		return api.Fail(v1.Conflict, err, "add --replace if the new file is to take its place; clusters keep the old one until they are applied again")
	}
	return Refused(err)
}

// Verify implements api.Mirror.
func (m apiMirror) Verify(ctx context.Context) ([]v1.MirrorFinding, error) {
	found, err := m.Mirror.Verify(ctx)
	if err != nil {
		return nil, err
	}
	list := []v1.MirrorFinding{}
	for _, f := range found {
		list = append(list, v1.MirrorFinding{Digest: digestText(f.Digest), Size: f.Size, What: f.What, Error: f.Error})
	}
	return list, nil
}

// Collect implements api.Mirror.
func (m apiMirror) Collect(ctx context.Context, c v1.MirrorCollect) (*v1.MirrorCollected, error) {
	done, err := m.Mirror.Collect(ctx, mirror.Collect{Used: m.used, Unused: c.Unused, DryRun: c.DryRun})
	if err != nil {
		return nil, err
	}
	out := &v1.MirrorCollected{Entries: []v1.MirrorEntry{}, Files: []v1.Artifact{}, Bytes: done.Bytes}
	for _, e := range done.Entries {
		out.Entries = append(out.Entries, entryForm(e))
	}
	for _, f := range done.Files {
		out.Files = append(out.Files, v1.Artifact{Digest: digestText(f.Digest), Size: f.Size})
	}
	return out, nil
}

// used is what a collection has to leave: what clusters use, and every boot set.
func (m *Mirror) used(ctx context.Context) (*mirror.Used, error) {
	u, err := m.uses(ctx)
	if err != nil {
		return nil, err
	}
	used := &mirror.Used{Files: slices.Collect(maps.Keys(u.files)), Sets: slices.Collect(maps.Keys(u.sets))}
	sets, err := m.Boots.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		for _, f := range []bootset.File{s.Kernel, s.Initrd, s.Image} {
			d, err := digestValue("sha256-" + f.SHA256)
			if err != nil {
				return nil, err
			}
			used.Files = append(used.Files, d)
		}
	}
	return used, nil
}

// List implements api.Frozen.
func (m apiFrozen) List(ctx context.Context) ([]v1.FrozenSet, error) {
	used, err := m.uses(ctx)
	if err != nil {
		used = use{} // as of the mirror's list
	}
	list := []v1.FrozenSet{}
	for _, r := range m.Mirror.Sets() {
		list = append(list, v1.FrozenSet{Name: r.Name, Digest: digestText(r.Digest), Cluster: r.Cluster, Made: r.Made, Used: used.sets[r.Digest]})
	}
	return list, nil
}

// Get implements api.Frozen.
func (m apiFrozen) Get(ctx context.Context, name string) (*v1.FrozenSet, error) {
	s, ref, err := m.Set(name)
	if errors.Is(err, mirror.ErrUnknown) {
		return nil, api.Fail(v1.NotFound, err, "joist mirror sets lists them all")
	}
	if err != nil {
		return nil, err
	}
	out := &v1.FrozenSet{Name: ref.Name, Digest: digestText(ref.Digest), Cluster: ref.Cluster, Made: ref.Made}
	if used, err := m.uses(ctx); err == nil { // as above
		out.Used = used.sets[ref.Digest]
	}
	for _, f := range s.Parts() {
		out.Parts = append(out.Parts, v1.FrozenFile{Path: f.Path, Digest: digestText(f.Digest), Size: f.Size})
	}
	return out, nil
}

// Freeze implements api.Frozen.
func (m apiFrozen) Freeze(ctx context.Context, f v1.Freeze) (*v1.FrozenSet, error) {
	set, err := m.setOf(ctx, f)
	if err != nil {
		return nil, Refused(err)
	}
	_, err = m.Mirror.Freeze(ctx, f.Name, *set)
	if errors.Is(err, mirror.ErrFrozen) {
		return nil, api.Fail(v1.Conflict, err, "")
	}
	if err != nil {
		return nil, Refused(err)
	}
	return m.Get(ctx, f.Name)
}

// setOf gathers what a cluster is made of.
func (m *Mirror) setOf(ctx context.Context, f v1.Freeze) (*mirror.Set, error) {
	declared, source, err := m.Clusters.Declared(ctx, f.Cluster)
	if err != nil {
		return nil, err
	}
	s := &mirror.Set{Cluster: f.Cluster, Workflow: declared.Workflow}
	for _, a := range declared.Artifacts {
		s.Artifacts = append(s.Artifacts, mirror.SetFile{Pack: a.Pack, Entry: frozenEntry(a)})
	}
	for name, archive := range source.Packs {
		p := mirror.SetPack{Name: name}
		if p.Version, err = m.PackVersion(archive); err != nil {
			return nil, err
		}
		if p.Digest, p.Size, err = m.Files.Write(ctx, bytes.NewReader(archive)); err != nil {
			return nil, err
		}
		s.Packs = append(s.Packs, p)
	}
	boot, err := m.BootSet(ctx, f.Cluster)
	if err != nil {
		return nil, err
	}
	if boot != nil {
		if s.BootSet, err = frozenBoot(boot); err != nil {
			return nil, err
		}
	}
	for _, file := range f.Files {
		d, err := digestValue(file.Digest)
		if err != nil {
			return nil, err
		}
		s.Files = append(s.Files, mirror.FolderFile{Path: file.Path, Digest: d, Size: file.Size})
	}
	return s, nil
}

func frozenEntry(a model.Artifact) mirror.Entry {
	return mirror.Entry{Kind: string(a.Kind), Name: a.Name, Version: a.Version, Arch: a.Arch, Digest: a.Digest, Size: a.Size, Licence: a.Licence, URL: a.URL}
}

func frozenBoot(m *bootset.Manifest) (*mirror.SetBoot, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("cannot freeze a boot set: %w", err)
	}
	b := &mirror.SetBoot{Digest: m.Digest, Manifest: data}
	for _, f := range []bootset.File{m.Kernel, m.Initrd, m.Image} {
		d, err := digestValue("sha256-" + f.SHA256)
		if err != nil {
			return nil, err
		}
		b.Files = append(b.Files, mirror.FolderFile{Path: f.File, Digest: d, Size: f.Size})
	}
	return b, nil
}

// Thaw implements api.Frozen.
func (m apiFrozen) Thaw(ctx context.Context, name string) error {
	used, err := m.uses(ctx)
	if err != nil {
		return err
	}
	for _, r := range m.Mirror.Sets() {
		if r.Name == name && len(used.sets[r.Digest]) > 0 {
			return api.Fail(v1.Conflict, fmt.Errorf("cannot forget the frozen set %s: cluster %s is pinned to it", name, used.sets[r.Digest][0]), "take frozen out of its cluster file and apply that first")
		}
	}
	err = m.Mirror.Thaw(name)
	if errors.Is(err, mirror.ErrUnknown) {
		return api.Fail(v1.NotFound, err, "joist mirror sets lists them all")
	}
	return err
}
