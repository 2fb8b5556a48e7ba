package stages_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/services/boot/bootset"
	"joist/tests/boot/lab"
)

// patience is for uploads of many packages, and for a build of a node image.
const patience = 15 * time.Minute

// bare is a pack whose cluster uses nothing: its frozen set holds a pack and a folder.
const bare = `pack "bare" {
  version = "1.0.0"
  summary = "A cluster of nothing."
}

step "rest" {
  scope        = "node"
  irreversible = "a test"
  apply { script = "files/rest.sh" }
}

workflow "cluster" {
  role "m" {}
  task "rest" {
    step = rest
    each = role.m
  }
}
`

// TestFrozenPackages: the packages of a boot set, frozen and exported, give the same boot set where there is no network.
func TestFrozenPackages(t *testing.T) {
	l := own{lab.New(t, lab.Machines{})}
	dir := t.TempDir()
	for path, text := range map[string]string{
		"bare/pack.hcl": bare, "bare/files/rest.sh": "#!/bin/sh\n",
		"cold.hcl": "cluster \"cold\" {\n  workflow = bare.cluster\n  packs    = { bare = { source = \"./bare\" } }\n  nodes    = { m = [] }\n}\n",
	} {
		l.write(filepath.Join(dir, path), text)
	}
	l.Must("apply", filepath.Join(dir, "cold.hcl"))
	used := filepath.Join(l.Root, "build/bootset-cache")
	if out, err := l.Ask(time.Minute, "mirror", "freeze", "winter", "--cluster", "cold", "--folder", used); err == nil ||
		!strings.Contains(err.Error(), "name a folder of plain files: of a boot set's cache, its packages") {
		t.Errorf("the cache is frozen with what was built in it: %v\n%s", err, out)
	}
	exported, cache := filepath.Join(dir, "export"), filepath.Join(dir, "cache")
	for _, args := range [][]string{
		{"mirror", "freeze", "winter", "--cluster", "cold", "--folder", filepath.Join(used, "packages")},
		{"mirror", "export", "winter", exported},
	} {
		if out, err := l.Ask(patience, args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.CopyFS(filepath.Join(cache, "packages"), os.DirFS(filepath.Join(exported, "files"))); err != nil {
		t.Fatal(err)
	}

	build := func(program []string, out, cache string) (bootset.Set, string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		argv := append(program, l.Joist, "bootset", "build", "-o", "json", "--out", out, "--cache", cache, "--agent", filepath.Join(l.Root, "build/tests/joist-agent"))
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		var said strings.Builder
		cmd.Stderr = &said
		raw, err := cmd.Output()
		var set bootset.Set
		if err == nil {
			err = json.Unmarshal(raw, &set)
		}
		return set, said.String(), err
	}
	first, said, err := build(nil, filepath.Join(l.Root, "build/bootsets"), used) // it is there: the lab has built it
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	alone := []string{"unshare", "--net"}
	kernels, err := filepath.Glob(filepath.Join(cache, "packages", "linux-image-*"))
	if err != nil || len(kernels) == 0 {
		t.Fatalf("the export has no kernel: %v", err)
	}
	for _, k := range kernels { // without them there is something to fetch
		if err := os.Rename(k, filepath.Join(dir, filepath.Base(k))); err != nil {
			t.Fatal(err)
		}
	}
	if set, _, err := build(alone, filepath.Join(dir, "boot"), cache); err == nil {
		t.Errorf("packages came although there is no network: %+v", set)
	}
	for _, k := range kernels {
		if err := os.Rename(filepath.Join(dir, filepath.Base(k)), k); err != nil {
			t.Fatal(err)
		}
	}
	second, said, err := build(alone, filepath.Join(dir, "boot"), cache)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if second.Manifest != first.Manifest || first.Digest == "" || second.Folder == first.Folder {
		t.Errorf("the boot sets differ:\n%+v\n%+v", first, second)
	}
	if err := second.Verify(); err != nil {
		t.Error(err)
	}
}

func (l own) write(path, text string) {
	l.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		l.Fatal(err)
	}
}
