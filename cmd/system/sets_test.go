package system

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"joist/content/mirror"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
)

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
