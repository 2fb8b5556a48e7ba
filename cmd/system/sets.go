package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"joist/engine/value"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
	"joist/services/clusters"
)

// sets keeps the manifests of the boot sets that machines may be given, the newest first. It implements BootSets.
type sets struct {
	dir string

	mu   sync.Mutex
	list []bootset.Manifest
}

// openSets reads the known sets and takes in the newest one of a folder of builds, if a folder is named.
func openSets(ctx context.Context, dir, builds string, store *artifacts.Store) (*sets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep boot sets: %w", err)
	}
	s := &sets{dir: dir}
	files, err := newestFirst(dir, func(name string) string { return name })
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("cannot read a boot set: %w", err)
		}
		m, err := bootset.ParseManifest(data)
		if err != nil {
			return nil, fmt.Errorf("cannot read the boot set %s: %w", f, err)
		}
		s.list = append(s.list, m)
	}
	if builds == "" {
		return s, nil
	}
	return s, s.takeIn(ctx, builds, store)
}

// newestFirst lists what a folder holds, hidden names apart, by the time of each entry's file.
func newestFirst(dir string, file func(name string) string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot look for boot sets: %w", err)
	}
	type aged struct {
		path string
		at   int64
	}
	var found []aged
	for _, e := range list {
		path := filepath.Join(dir, file(e.Name()))
		if info, err := os.Stat(path); err == nil && !strings.HasPrefix(e.Name(), ".") {
			found = append(found, aged{path, info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(found, func(a, b aged) int { return int(max(-1, min(1, b.at-a.at))) })
	paths := make([]string, len(found))
	for i, f := range found {
		paths[i] = f.path
	}
	return paths, nil
}

// takeIn copies the newest set of a folder of builds into the artifact store, from which machines fetch it.
func (s *sets) takeIn(ctx context.Context, builds string, store *artifacts.Store) error {
	found, err := newestFirst(builds, func(name string) string { return filepath.Join(name, "manifest.json") })
	if err != nil || len(found) == 0 {
		return err
	}
	set, err := bootset.Open(filepath.Dir(found[0]))
	if err != nil {
		return err
	}
	for _, f := range []bootset.File{set.Kernel, set.Initrd, set.Image} {
		want, err := artifacts.ParseDigest("sha256-" + f.SHA256)
		if err != nil {
			return err
		}
		if file, _, err := store.Open(want); err == nil {
			file.Close()
			continue
		}
		got, err := store.Add(ctx, set.Path(f))
		if err != nil {
			return err
		}
		if got.Digest != want {
			return fmt.Errorf("cannot use the boot set in %s: %s is not what its manifest says; build it again", set.Folder, f.File)
		}
	}
	return s.Add(ctx, set.Manifest)
}

// Add implements BootSets.
func (s *sets) Add(_ context.Context, m bootset.Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) > 0 && s.list[0].Digest == m.Digest {
		return nil
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("cannot keep a boot set: %w", err)
	}
	path := filepath.Join(s.dir, m.Digest+".json")
	if err := writeDurably(path, data); err != nil {
		return fmt.Errorf("cannot keep a boot set: %w", err)
	}
	s.list = slices.DeleteFunc(s.list, func(o bootset.Manifest) bool { return o.Digest == m.Digest })
	s.list = append([]bootset.Manifest{m}, s.list...)
	return nil
}

func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// List implements BootSets.
func (s *sets) List(context.Context) ([]bootset.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list), nil
}

// current is the set that machines boot, nil if there is none.
func (s *sets) current() *bootset.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return nil
	}
	m := s.list[0]
	return &m
}

// bootSetOf gives the boot set that the machines of a cluster run: that of the frozen set it is pinned to, else the
// newest. It is nil if there is none.
func (s *System) bootSetOf(ctx context.Context, cluster string) (*bootset.Manifest, error) {
	if cluster == "" || s.Clusters == nil || len(s.Mirror.Sets()) == 0 { // a set that is used keeps its name
		return s.sets.current(), nil
	}
	pinned, err := s.Clusters.Pinned(ctx, cluster)
	var unknown *clusters.UnknownError
	if errors.As(err, &unknown) { // claimed, and the goal is not set yet
		return s.sets.current(), nil
	}
	if err != nil {
		return nil, err
	}
	if pinned == (value.Digest{}) {
		return s.sets.current(), nil
	}
	frozen, err := s.Mirror.SetOf(pinned)
	if err != nil {
		return nil, err
	}
	if frozen.BootSet == nil {
		return s.sets.current(), nil
	}
	m, err := bootset.ParseManifest(frozen.BootSet.Manifest)
	if err != nil {
		return nil, fmt.Errorf("cannot read the boot set of a frozen set: %w", err)
	}
	return &m, nil
}

// noted is what is known of machines for as long as the process lives.
type noted struct {
	mu sync.Mutex
	of map[string]string
}

func (n *noted) set(machine, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil {
		n.of = map[string]string{}
	}
	n.of[machine] = what
}

func (n *noted) get(machine string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.of[machine]
}
