package serve_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// small mounts a file system of a few MiB on a folder; it is seen by this process and its children alone.
func small(t *testing.T, folder string) {
	t.Helper()
	segment(t) // whose mounts nobody else sees
	must(t, os.MkdirAll(folder, 0o755))
	must(t, syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// ballast takes all space of a folder's file system but so many bytes; what it gives makes room again.
func ballast(t *testing.T, folder string, but int64) (free func()) {
	t.Helper()
	path := filepath.Join(folder, ".ballast")
	fill(t, path, but)
	return func() { must(t, os.Remove(path)) }
}

// TestMirrorFull: an engine without room for a file says so, and what to do, before anything names the file; what it had
// stays as it was, and once there is room the same command goes through.
func TestMirrorFull(t *testing.T) {
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	stored, catalogue := filepath.Join(data, "artifacts"), filepath.Join(data, "mirror")
	small(t, stored)
	small(t, catalogue)
	e := start(t, data)
	o := newOrigin(t)
	first, second := bytes.Repeat([]byte("first "), 1000), bytes.Repeat([]byte("second "), 200_000)
	o.set("/tool", gives(first))
	o.set("/utility", gives(second))
	file, more := filepath.Join(dir, "demo.hcl"), filepath.Join(dir, "utility")
	writeFile(t, file, clusterFile(""))
	writeFile(t, filepath.Join(dir, "p/pack.hcl"), pulledPack(o.URL, first, second))
	writeFile(t, filepath.Join(dir, "p/files/use.sh"), []byte("#!/bin/sh\n"))
	writeFile(t, filepath.Join(dir, "tool"), first)
	writeFile(t, more, second)
	add := func(name string) []string {
		return []string{"mirror", "add", filepath.Join(dir, name), "--kind", "program", "--name", name, "--version", "1.2.3", "--licence", "MIT"}
	}
	e.want(0, "", add("tool")...)

	// asBefore wants one entry, and its file alone.
	asBefore := func(when string, files int) {
		t.Helper()
		if list := e.mirrored(); len(list) != 1 || list[0].Name != "tool" {
			t.Errorf("%s: the mirror has %+v", when, list)
		}
		list, err := os.ReadDir(stored)
		must(t, err)
		count := 0
		for _, f := range list {
			if strings.HasPrefix(f.Name(), ".incoming-") {
				t.Errorf("%s: %s is left", when, f.Name())
			}
			if strings.HasPrefix(f.Name(), "sha256-") {
				count++
			}
		}
		if count != files {
			t.Errorf("%s: %d files, want %d", when, count, files)
		}
		if got, err := os.ReadFile(filepath.Join(stored, "sha256-"+sum(first))); err != nil || !bytes.Equal(got, first) {
			t.Errorf("%s: the file that was there: %d bytes, %v", when, len(got), err)
		}
	}
	says := []string{"the engine's disk is full: ", "no space left on device", "free space there (joist mirror gc --dry-run shows", "the mirror is as it was"}

	free := ballast(t, stored, 512<<10)
	e.failed(1, append(says, stored), add("utility")...)
	asBefore("after an add", 1)
	e.failed(1, append(says, stored), "mirror", "pull", file)
	asBefore("after a pull", 1)
	e.want(1, "program utility 1.2.3 (amd64) of pack p", "apply", file)
	if clusters := e.status().Clusters; len(clusters) != 0 {
		t.Errorf("a refused cluster is there: %v", clusters)
	}
	free()

	t.Run("downloads", func(t *testing.T) {
		temp := t.TempDir()
		small(t, temp)
		ballast(t, temp, 512<<10)
		t.Setenv("TMPDIR", temp)
		e.failed(1, []string{"cannot download utility: ", temp, "no space left on device; free space there, or name another folder with TMPDIR"}, "mirror", "pull", file)
	})
	asBefore("without room for downloads", 1)

	free = ballast(t, catalogue, 0)
	e.failed(1, append(says, catalogue), add("utility")...)
	asBefore("without room for the catalogue", 2) // the file is whole, and is not downloaded again; gc removes what nothing names
	free()

	e.want(0, "program utility 1.2.3 (amd64) is in the mirror", "mirror", "pull", file)
	e.want(0, "files are what their digests say", "mirror", "verify")
	e.want(0, "", "plan", file)
	e.stop()
}
