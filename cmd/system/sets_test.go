package system

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/content/mirror"
	"joist/engine/agent/wire"
	"joist/engine/journal"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
	"joist/services/power"
	"joist/services/site"
)

// TestHandOverEnds: leave to go out of scout ends when the machine is given back, though the same boot goes on and the next cluster has the same name.
func TestHandOverEnds(t *testing.T) {
	dir := t.TempDir()
	book, err := site.Open(t.Context(), site.Config{Store: &journal.Memory{}, Holder: "test", Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	control, err := power.NewController(power.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &System{cfg: Config{Data: dir}, Site: book, Power: control, now: time.Now, live: newLive()}
	s.sets = &sets{dir: dir, list: []bootset.Manifest{{Digest: "newest", Image: bootset.File{SHA256: strings.Repeat("0", 64)}}}}
	if s.Artifacts, err = artifacts.Open(filepath.Join(dir, "artifacts")); err == nil {
		err = errors.Join(s.openMirror(), book.Define(t.Context(), site.Defined{Name: "n1"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	claim := func() {
		t.Helper()
		if err := book.Claim(t.Context(), site.Claim{Cluster: "demo"}, func([]site.Machine) ([]string, error) { return []string{"n1"}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	target := func(want wire.TargetKind) {
		t.Helper()
		if got, err := (siteOfAgents{book, s}).Target(t.Context(), "n1"); err != nil || got.Kind != want {
			t.Errorf("target %+v, %v, want %s", got, err, want)
		}
	}
	scout := func(boot string) {
		s.live.set("n1", connection{hello: wire.Hello{Stage: wire.Scout, Kernel: boot}})
	}
	scout("k1")
	for name, back := range map[string]func() error{
		"released": func() error { return machines{s}.Release(t.Context(), "demo", "n1") },
		"freed":    func() error { return siteOfClusters{s}.Free(t.Context(), "demo", "n1") },
	} {
		t.Log(name)
		claim()
		target(wire.Idle)
		s.handed.set("n1", "demo k1")
		target(wire.NodeImage)
		s.live.forget("n1") // fenced: its connection may be looked at once more before it is cut
		target(wire.Idle)
		scout("k2") // another boot
		target(wire.Idle)
		scout("k1")
		target(wire.NodeImage)
		s.handed.set("n1", "") // as after a start of the engine
		target(wire.Idle)
		s.handed.set("n1", "demo k1")
		if err := back(); err != nil {
			t.Fatal(err)
		}
		scout("k1")
		claim()
		target(wire.Idle)
	}
}

// A machine of a cluster that nobody pinned boots the newest set; the store's own checks stand behind a frozen one.
func TestBootSetOf(t *testing.T) {
	dir := t.TempDir()
	store, err := artifacts.Open(filepath.Join(dir, "artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	s := &System{cfg: Config{Data: dir}, Artifacts: store, now: time.Now, sets: &sets{dir: dir, list: []bootset.Manifest{{Digest: "newest"}, {Digest: "older"}}}}
	if err := s.openMirror(); err != nil {
		t.Fatal(err)
	}
	for _, cluster := range []string{"", "demo"} {
		if m, err := s.bootSetOf(t.Context(), cluster); err != nil || m.Digest != "newest" {
			t.Errorf("%q: %v, %v", cluster, m, err)
		}
	}
	d, size, err := s.files.Write(t.Context(), bytes.NewReader([]byte("kernel")))
	if err != nil {
		t.Fatal(err)
	}
	set := mirror.Set{Cluster: "demo", BootSet: &mirror.SetBoot{Digest: "older", Manifest: json.RawMessage(`{}`), Files: []mirror.FolderFile{{Path: "kernel", Digest: d, Size: size}}}}
	if _, err := s.Mirror.Freeze(t.Context(), "winter", set); err != nil {
		t.Fatal(err)
	}
	if err := store.Remove(digestOf(d)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Mirror.Ready(t.Context(), "winter"); err == nil {
		t.Error("a frozen set without its kernel is whole")
	}
}
