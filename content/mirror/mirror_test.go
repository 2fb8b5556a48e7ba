package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"joist/engine/model"
	"joist/engine/value"
)

// store is a store of files in memory. Files can be spoilt.
type store struct {
	files map[value.Digest][]byte
	at    map[value.Digest]time.Time
	now   *time.Time
}

func (s *store) Size(d value.Digest) (int64, error) {
	if data, ok := s.files[d]; ok {
		return int64(len(data)), nil
	}
	return 0, fs.ErrNotExist
}

func (s *store) Verify(_ context.Context, d value.Digest, _ bool) error {
	if value.Digest(sha256.Sum256(s.files[d])) != d {
		return errors.New("wrong digest")
	}
	return nil
}

func (s *store) Write(_ context.Context, r io.Reader) (value.Digest, int64, error) {
	data, err := io.ReadAll(r)
	d := value.Digest(sha256.Sum256(data))
	if _, there := s.files[d]; !there {
		s.files[d], s.at[d] = data, *s.now
	}
	return d, int64(len(data)), err
}

func (s *store) Read(d value.Digest) ([]byte, error) {
	if data, ok := s.files[d]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (s *store) List() ([]Stored, error) {
	var list []Stored
	for d, data := range s.files {
		list = append(list, Stored{d, int64(len(data)), s.at[d]})
	}
	return list, nil
}

func (s *store) Remove(d value.Digest) error { delete(s.files, d); return nil }

// site is a mirror with its store and a clock.
type site struct {
	*Mirror
	*store
	dir string
	now time.Time
}

func newSite(dir string) (*site, error) {
	s := &site{dir: dir, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	s.store = &store{map[value.Digest][]byte{}, map[value.Digest]time.Time{}, &s.now}
	return s, s.open()
}

func (s *site) open() (err error) {
	s.Mirror, err = Open(Config{Dir: s.dir, Files: s.store, Now: func() time.Time { return s.now }})
	return err
}

func site1(t *testing.T) *site {
	t.Helper()
	s, err := newSite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) put(text string) value.Digest {
	d, _, _ := s.Write(context.Background(), strings.NewReader(text)) // in memory
	return d
}

func entry(name, version string, d value.Digest, size int) Entry {
	return Entry{Kind: "bundle", Name: name, Version: version, Arch: "amd64", Digest: d, Size: int64(size), Licence: "MIT"}
}

func wanted(name, version string) model.Artifact {
	return model.Artifact{Kind: model.Bundle, Name: name, Pack: "p", Version: version, Arch: "amd64", Licence: "MIT"}
}

func TestAdd(t *testing.T) {
	s := site1(t)
	ctx := t.Context()
	one, two := s.put("one"), s.put("two two")
	good := entry("etcd", "3.6.5", one, 3)
	for want, spoil := range map[string]func(*Entry){
		"is not the name of an artifact": func(e *Entry) { e.Name = "../etcd" },
		`"3 6" is not a version`:         func(e *Entry) { e.Version = "3 6" },
		"there is no kind":               func(e *Entry) { e.Kind = "disk" },
		"does not say its licence":       func(e *Entry) { e.Licence = "" },
		"is not an architecture":         func(e *Entry) { e.Arch = "" },
		"has no digest or no size":       func(e *Entry) { e.Size = 0 },
		"has 3 bytes and should have 4":  func(e *Entry) { e.Size = 4 },
		"is not there":                   func(e *Entry) { e.Digest = value.Digest{1} },
	} {
		bad := good
		spoil(&bad)
		other := entry("other", "1", two, 7)
		if err := s.Add(ctx, []Entry{other, bad}, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if len(s.Entries()) != 0 {
		t.Fatalf("something was entered beside an error: %v", s.Entries())
	}
	for range 2 { // adding again is no conflict
		if err := s.Add(ctx, []Entry{good}, false); err != nil {
			t.Fatal(err)
		}
	}
	var conflict *ConflictError
	if err := s.Add(ctx, []Entry{entry("etcd", "3.6.5", two, 7)}, false); !errors.As(err, &conflict) || s.Entries()[0].Digest != one {
		t.Errorf("error %v, entries %v", err, s.Entries())
	}
	if err := s.Add(ctx, []Entry{entry("etcd", "3.6.5", two, 7)}, true); err != nil || s.Entries()[0].Digest != two || len(s.Entries()) != 1 {
		t.Errorf("error %v, entries %v", err, s.Entries())
	}
	if err := s.open(); err != nil || len(s.Entries()) != 1 || s.Entries()[0].Digest != two { // after a restart
		t.Errorf("error %v, entries %v", err, s.Entries())
	}
}

// A catalogue that cannot be written is as it was, in memory and on disk.
func TestAddFails(t *testing.T) {
	s := site1(t)
	e := entry("etcd", "1", s.put("one"), 3)
	if err := s.Add(t.Context(), []Entry{e}, false); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(s.file())
	if err != nil {
		t.Fatal(err)
	}
	moved := s.dir + ".away"
	if err := os.Rename(s.dir, moved); err != nil { // the disk takes nothing any more
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), []Entry{entry("etcd", "2", s.put("two"), 3)}, false); err == nil || len(s.Entries()) != 1 {
		t.Fatalf("error %v, entries %v", err, s.Entries())
	}
	if after, err := os.ReadFile(filepath.Join(moved, "catalogue.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the catalogue changed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(moved, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestResolve(t *testing.T) {
	s := site1(t)
	one, two := s.put("one"), s.put("two two")
	if err := s.Add(t.Context(), []Entry{entry("etcd", "3.6.5", one, 3)}, false); err != nil {
		t.Fatal(err)
	}
	shipped := wanted("runc", "1.3")
	shipped.Digest = two // nobody entered it by that name: its checksum is enough
	pins, err := s.Resolve(t.Context(), []model.Artifact{wanted("etcd", "3.6.5"), shipped})
	if err != nil || !maps.Equal(pins, map[string]model.Pin{"p.etcd": {Digest: one, Size: 3}, "p.runc": {Digest: two, Size: 7}}) {
		t.Fatalf("%v, %v", pins, err)
	}
	named := wanted("etcd", "3.6.5")
	named.Digest = value.Digest(sha256.Sum256([]byte("another")))
	gone := wanted("remote", "2")
	gone.Digest, gone.URL = value.Digest{2}, "https://example.net/remote"
	short := shipped
	short.Size = 8
	s.files[one] = []byte("0ne")
	_, err = s.Resolve(t.Context(), []model.Artifact{wanted("kubelet", "1"), named, gone, short, wanted("etcd", "3.6.5")})
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Fatal(err)
	}
	for i, want := range []string{
		`bundle kubelet 1 (amd64) of pack p is not in the mirror; add it with: joist mirror add --kind bundle --name kubelet --version 1 --arch amd64 --licence "MIT" FILE`,
		fmt.Sprintf(`bundle etcd 3.6.5 (amd64) of pack p, sha256-%s, is not there; add it with: joist mirror add --kind bundle --name etcd --version 3.6.5 --arch amd64 --licence "MIT" FILE`, named.Digest),
		"sha256-" + gone.Digest.String() + ", is not there; add it with: joist mirror pull FILE, with the cluster file",
		"has 7 bytes and should have 8; add it with",
		"is damaged: wrong digest; add it with",
	} {
		if !strings.Contains(missing.Lines[i], want) {
			t.Errorf("%s\n\twant %s", missing.Lines[i], want)
		}
	}
	if !strings.HasPrefix(err.Error(), "5 artifacts are missing:\n  bundle kubelet") {
		t.Error(err)
	}
}

func TestFreeze(t *testing.T) {
	s := site1(t)
	ctx := t.Context()
	one, pack, file := s.put("one"), s.put("a pack"), s.put("a package")
	set := Set{Cluster: "demo", Workflow: "p.cluster", Artifacts: []SetFile{{"p", entry("etcd", "3.6.5", one, 3)}},
		Packs: []SetPack{{"p", "1.0.0", pack, 6}}, Files: []FolderFile{{"pool/a.deb", file, 9}, {"pool/pack.tar", pack, 6}},
		BootSet: &SetBoot{Digest: "d", Manifest: json.RawMessage(`{}`), Files: []FolderFile{{"kernel", s.put("kernel"), 6}}}}
	ref, err := s.Mirror.Freeze(ctx, "winter", set)
	if err != nil {
		t.Fatal(err)
	}
	s.now = s.now.AddDate(1, 0, 0)
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Mirror.Freeze(ctx, "winter", set); err != nil || again != ref {
		t.Errorf("%v, %v", again, err) // the same is no change
	}
	ready, got, err := s.Ready(ctx, "winter")
	if err != nil || got != ref || len(ready.Parts()) != 5 || ready.Pins()["p.etcd"] != (model.Pin{Digest: one, Size: 3}) {
		t.Fatalf("%+v, %v, %v", ready, got, err)
	}
	other := set
	other.Files = nil
	if _, err := s.Mirror.Freeze(ctx, "winter", other); !errors.Is(err, ErrFrozen) {
		t.Errorf("error %v", err)
	}
	for name, bad := range map[string]Set{"WINTER": set, "spring": {Files: []FolderFile{{"../a", file, 9}}}, "summer": {Files: []FolderFile{{"a", value.Digest{7}, 9}}}} {
		if _, err := s.Mirror.Freeze(ctx, name, bad); err == nil || len(s.Sets()) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	delete(s.files, file)
	if _, _, err := s.Ready(ctx, "winter"); err == nil || !strings.Contains(err.Error(), "the frozen set winter is not whole: files/pool/a.deb, sha256-"+file.String()+", is not there") {
		t.Errorf("error %v", err)
	}
	found, err := s.Mirror.Verify(ctx)
	bad := slices.DeleteFunc(found, func(f Finding) bool { return f.Error == "" })
	if err != nil || len(bad) != 1 || bad[0].Digest != file || bad[0].What[0] != "winter: files/pool/a.deb" {
		t.Errorf("%+v, %v", bad, err)
	}
	if _, _, err := s.Set("summer"); !errors.Is(err, ErrUnknown) || !errors.Is(s.Thaw("summer"), ErrUnknown) {
		t.Errorf("error %v", err)
	}
	if err := s.Thaw("winter"); err != nil || len(s.Sets()) != 0 {
		t.Error(err)
	}
}

// Whatever is added, frozen, thawed, decided on and collected in whichever order: a collection never takes what a cluster,
// a frozen set, the catalogue or a fresh decision names, and takes everything else that is old.
func TestCollect(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "mirror-")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s, err := newSite(dir)
		if err != nil {
			r.Fatal(err)
		}
		ctx := context.Background()
		used := map[value.Digest]bool{}         // by clusters
		decided := map[value.Digest]time.Time{} // by plans
		texts := []string{"a", "bb", "ccc", "dddd", "eeeee"}
		text := func() string { return rapid.SampledFrom(texts).Draw(r, "file") }
		check := func() {
			named := maps.Clone(used)
			for _, e := range s.Entries() {
				named[e.Digest] = true
			}
			for _, ref := range s.Sets() {
				set, err := s.SetOf(ref.Digest)
				if err != nil {
					r.Fatalf("a frozen set is gone: %v", err)
				}
				named[ref.Digest] = true
				for _, f := range set.Parts() {
					named[f.Digest] = true
				}
			}
			for d, at := range decided {
				if s.now.Sub(at) < time.Hour {
					named[d] = true
				}
			}
			for d := range named {
				if _, err := s.Size(d); err != nil {
					r.Fatalf("file %s is gone although it is named", d.Short())
				}
			}
			for d := range s.files {
				if !named[d] && s.at[d].Before(s.now.Add(-2*time.Hour)) {
					r.Fatalf("file %s stays although nothing names it", d.Short())
				}
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				data := text()
				e := entry(rapid.SampledFrom([]string{"x", "y"}).Draw(r, "name"), "1", s.put(data), len(data))
				if err := s.Add(ctx, []Entry{e}, true); err != nil {
					r.Fatal(err)
				}
			},
			"freeze": func(*rapid.T) {
				data := text()
				_, err := s.Mirror.Freeze(ctx, rapid.SampledFrom([]string{"s1", "s2"}).Draw(r, "set"), Set{Files: []FolderFile{{"f", s.put(data), int64(len(data))}}})
				if err != nil && !errors.Is(err, ErrFrozen) {
					r.Fatal(err)
				}
				decided[s.put(data)] = s.now
			},
			"thaw": func(*rapid.T) { _ = s.Thaw(rapid.SampledFrom([]string{"s1", "s2"}).Draw(r, "set")) },
			"apply": func(*rapid.T) { // the cluster's journal has it some time after it was decided
				pins, err := s.Resolve(ctx, []model.Artifact{wanted("x", "1")})
				if err != nil {
					return
				}
				d := pins["p.x"].Digest
				decided[d] = s.now
				if rapid.Bool().Draw(r, "pursued") {
					used[d] = true
				}
			},
			"destroy": func(*rapid.T) { clear(used) },
			"wait": func(*rapid.T) {
				s.now = s.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(r, "minutes")) * time.Minute)
			},
			"restart": func(*rapid.T) {
				clear(decided) // what was only decided on was never acknowledged
				if err := s.open(); err != nil {
					r.Fatal(err)
				}
			},
			"collect": func(*rapid.T) {
				c := Collect{Unused: rapid.Bool().Draw(r, "unused"), DryRun: rapid.Bool().Draw(r, "dry")}
				c.Used = func(context.Context) (*Used, error) { return &Used{Files: slices.Collect(maps.Keys(used))}, nil }
				n := len(s.files)
				done, err := s.Mirror.Collect(ctx, c)
				if err != nil {
					r.Fatal(err)
				}
				if c.DryRun {
					if len(s.files) != n {
						r.Fatal("a dry run removes")
					}
					return
				}
				if len(s.files) != n-len(done.Files) {
					r.Fatalf("%d files are gone, %d were told", n-len(s.files), len(done.Files))
				}
				check()
			},
		})
	})
}

// What is in use is not known: nothing goes.
func TestCollectBlind(t *testing.T) {
	s := site1(t)
	s.put("old")
	s.now = s.now.AddDate(1, 0, 0)
	_, err := s.Mirror.Collect(t.Context(), Collect{Used: func(context.Context) (*Used, error) { return nil, errors.New("cluster demo cannot be taken up") }})
	if err == nil || err.Error() != "cannot tell what is in use, so nothing is removed: cluster demo cannot be taken up" || len(s.files) != 1 {
		t.Errorf("error %v", err)
	}
	pinned, err := s.Mirror.Freeze(t.Context(), "winter", Set{Files: []FolderFile{{"f", s.put("old"), 3}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Thaw("winter"); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.AddDate(1, 0, 0)
	// A set that a cluster is pinned to keeps its files, with or without a name.
	done, err := s.Mirror.Collect(t.Context(), Collect{Used: func(context.Context) (*Used, error) { return &Used{Sets: []value.Digest{pinned.Digest}}, nil }})
	if err != nil || len(done.Files) != 0 || len(s.files) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
}
