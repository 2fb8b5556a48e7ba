package serve_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "joist/services/api/v1"
)

const suppliedPack = `pack "p" {
  version = "1.0.0"
  summary = "A step with an artifact."
}

artifact "tool" {
  version = "1.2.3"
  kind    = "program"
  licence = "MIT"
}

step "use" {
  scope        = "node"
  artifacts    = [tool]
  irreversible = "a test"
  apply { script = "files/use.sh" }
}

workflow "cluster" {
  role "m" {}
  task "use" {
    step = use
    each = role.m
  }
}
`

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, data, 0o644))
}

func clusterFile(frozen string) []byte {
	return fmt.Appendf(nil, "cluster \"demo\" {\n  workflow = p.cluster\n  packs    = { p = { source = \"./p\" } }\n  nodes    = { m = [] }\n%s}\n", frozen)
}

func (e *engine) mirrored() []v1.MirrorEntry {
	e.t.Helper()
	var list []v1.MirrorEntry
	must(e.t, json.Unmarshal([]byte(e.want(0, "", "mirror", "list", "-o", "json")), &list))
	return list
}

// TestMirror: what a cluster needs is asked for before anything runs, served to machines in ranges, kept as long as it is
// used, and frozen for good.
func TestMirror(t *testing.T) {
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	e := start(t, data)
	file := filepath.Join(dir, "demo.hcl")
	writeFile(t, filepath.Join(dir, "p/pack.hcl"), []byte(suppliedPack))
	writeFile(t, filepath.Join(dir, "p/files/use.sh"), []byte("#!/bin/sh\nartifacts/tool\n"))
	writeFile(t, file, clusterFile(""))
	first, second := bytes.Repeat([]byte("first version "), 100_000), bytes.Repeat([]byte("second version "), 100_000)
	tool := filepath.Join(dir, "tool")
	writeFile(t, tool, first)

	missing := `program tool 1.2.3 (amd64) of pack p is not in the mirror; add it with: joist mirror add --kind program --name tool --version 1.2.3 --arch amd64 --licence "MIT" FILE`
	e.want(1, missing, "plan", file)
	e.want(1, missing, "apply", file)
	if clusters := e.status().Clusters; len(clusters) != 0 {
		t.Fatalf("a refused cluster is there: %v", clusters)
	}
	add := []string{"mirror", "add", tool, "--kind", "program", "--name", "tool", "--version", "1.2.3", "--licence", "MIT"}
	e.want(0, "program tool 1.2.3 (amd64) is in the mirror", add...)
	entry := e.mirrored()[0]

	t.Run("ranges", func(t *testing.T) { ranges(t, entry.Digest, first) })

	writeFile(t, tool, second)
	e.want(1, "add --replace if the new file is to take its place", add...)
	e.want(0, "", "apply", file)
	if got := e.mirrored(); len(got) != 1 || got[0].Digest != entry.Digest || len(got[0].Used) != 1 || got[0].Used[0] != "demo" {
		t.Fatalf("the mirror has %+v", got)
	}
	packages := filepath.Join(dir, "packages")
	writeFile(t, filepath.Join(packages, "pool/a.deb"), []byte("a package"))
	writeFile(t, filepath.Join(packages, "pool/b.deb"), []byte("a package")) // the same content in another place
	e.want(0, "frozen set winter", "mirror", "freeze", "winter", "--cluster", "demo", "--folder", packages)
	e.want(0, "", "mirror", "freeze", "winter", "--cluster", "demo", "--folder", packages) // the same again
	e.want(1, "a set of that name is frozen already", "mirror", "freeze", "winter", "--cluster", "demo")

	// Another file takes the entry's place, the packs' source goes, and so does whatever nothing names.
	e.want(0, "", append(add, "--replace")...)
	must(t, os.RemoveAll(filepath.Join(dir, "p")))
	e.want(1, "it has no pack.hcl", "plan", file)
	e.want(0, "", "mirror", "gc", "--unused")
	e.stop()
	e = start(t, data)
	writeFile(t, file, clusterFile("  frozen   = \"winter\"\n"))
	e.want(0, "", "apply", file)
	if got := e.mirrored(); len(got) != 0 {
		t.Fatalf("what nothing uses is there still: %+v", got)
	}
	e.want(1, "cluster demo is pinned to it", "mirror", "thaw", "winter")
	e.want(0, "files are what their digests say", "mirror", "verify")
	out := filepath.Join(dir, "out")
	e.want(0, "", "mirror", "export", "winter", out)
	for name, want := range map[string][]byte{"artifacts/program-tool-1.2.3-amd64": first, "files/pool/a.deb": []byte("a package"), "files/pool/b.deb": []byte("a package")} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}

	// The disk loses a byte: nobody is given the file.
	stored := filepath.Join(data, "artifacts", entry.Digest)
	must(t, os.Chmod(stored, 0o644))
	must(t, os.WriteFile(stored, first[1:], 0o644))
	e.want(1, "the frozen set winter is not whole: artifacts/program-tool-1.2.3-amd64, "+entry.Digest+", has 1399999 bytes and should have 1400000", "plan", file)
	e.want(1, "files are missing or damaged; joist mirror add brings them back", "mirror", "verify")
	must(t, os.Remove(stored))
	e.want(1, entry.Digest+", is not there", "apply", file)
	writeFile(t, tool, first)
	e.want(0, "", add...)
	e.want(0, "", "apply", file)
}

// spoilt are ways in which a disk loses what it was given.
func spoilt(t *testing.T, stored string) map[string]func() {
	return map[string]func(){
		"gone":      func() { must(t, os.Remove(stored)) },
		"truncated": func() { must(t, os.Truncate(stored, 1000)) },
		"damaged": func() { // a byte is another one, and nothing about the file says so
			info, err := os.Stat(stored)
			must(t, err)
			f, err := os.OpenFile(stored, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{'x'}, 1)
			must(t, errors.Join(err, f.Close(), os.Chtimes(stored, info.ModTime(), info.ModTime())))
		},
	}
}

// TestMirrorIsMended: what verify finds missing or damaged comes back by the commands that verify names, also after a restart
// of the engine.
func TestMirrorIsMended(t *testing.T) {
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	e := start(t, data)
	o := newOrigin(t)
	tool, more := bytes.Repeat([]byte("a tool "), 100_000), bytes.Repeat([]byte("one more "), 100_000)
	file, local := filepath.Join(dir, "demo.hcl"), filepath.Join(dir, "tool")
	writeFile(t, file, clusterFile(""))
	writeFile(t, filepath.Join(dir, "p/pack.hcl"), pulledPack(o.URL, tool, more))
	writeFile(t, filepath.Join(dir, "p/files/use.sh"), []byte("#!/bin/sh\n"))
	writeFile(t, local, tool)
	o.set("/tool", gives(tool))
	o.set("/utility", gives(more))
	e.want(0, "is in the mirror", "mirror", "pull", file)
	stored := filepath.Join(data, "artifacts", "sha256-"+sum(tool))
	add := slices.Clip([]string{"mirror", "add", "--kind", "program", "--name", "tool", "--version", "1.2.3", "--licence", "MIT"})
	for name, spoil := range spoilt(t, stored) {
		for by, args := range map[string][]string{
			"pull": {"mirror", "pull", file},
			"add":  append(add, local),
			"url":  append(add, "--url", o.URL+"/tool", "--sha256", sum(tool)),
		} {
			for _, again := range []bool{false, true} {
				t.Logf("%s, %s, restarted %t", name, by, again)
				spoil()
				e.want(1, "1 of 2 files are missing or damaged; joist mirror add brings them back, and joist mirror pull what packs name with a URL", "mirror", "verify")
				if again {
					e.stop()
					e = start(t, data)
				}
				before := o.requests()
				out := e.want(0, "program tool 1.2.3 (amd64) is in the mirror", args...)
				if asked := o.requests() - before; by != "add" && asked != 1 || strings.Contains(out, "utility") {
					t.Errorf("what is whole was brought, too: %d requests\n%s", asked, out)
				}
				if got, err := os.ReadFile(stored); err != nil || !bytes.Equal(got, tool) {
					t.Errorf("stored: %d bytes, %v", len(got), err)
				}
				e.want(0, "2 files are what their digests say", "mirror", "verify")
				e.want(0, "", "plan", file)
			}
		}
	}
}

// ranges asks for a file as machines and caches do.
func ranges(t *testing.T, digest string, want []byte) {
	url := "http://" + address + ":8080/artifact/" + digest
	curl := func(args ...string) []byte {
		out, err := exec.Command("curl", append([]string{"-sf", "--max-time", "20"}, args...)...).Output()
		if err != nil {
			t.Fatalf("curl %q: %v", args, err)
		}
		return out
	}
	if got := curl(url); !bytes.Equal(got, want) {
		t.Errorf("whole: %d bytes", len(got))
	}
	if got := curl("-r", "1000-1999", url); !bytes.Equal(got, want[1000:2000]) {
		t.Errorf("a range: %d bytes", len(got))
	}
	if got := curl("-r", "-500", url); !bytes.Equal(got, want[len(want)-500:]) {
		t.Errorf("the end: %d bytes", len(got))
	}
	part := filepath.Join(t.TempDir(), "part")
	writeFile(t, part, want[:123_456])
	curl("-C", "-", "-o", part, url)
	if got, err := os.ReadFile(part); err != nil || !bytes.Equal(got, want) {
		t.Errorf("resumed: %d bytes, %v", len(got), err)
	}
	head := string(curl("-I", url))
	if !strings.Contains(head, "Accept-Ranges: bytes") || !strings.Contains(head, `Etag: "`+digest+`"`) || !strings.Contains(head, "immutable") {
		t.Errorf("headers:\n%s", head)
	}
}

// TestUploadCutShort: an engine that is killed in the middle of an upload has nothing of it when it is back.
func TestUploadCutShort(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	e := start(t, data)
	conn, err := net.Dial("unix", e.socket)
	must(t, err)
	defer conn.Close()
	digest := "sha256-" + strings.Repeat("ab", 32)
	_, err = fmt.Fprintf(conn, "PUT /v1/artifacts/%s HTTP/1.1\r\nHost: joist\r\nContent-Length: %d\r\n\r\n", digest, 64<<20)
	must(t, err)
	_, err = conn.Write(make([]byte, 8<<20))
	must(t, err)
	incoming := func() []string {
		names, _ := filepath.Glob(filepath.Join(data, "artifacts", ".incoming-*"))
		return names
	}
	e.eventually("the upload is under way", func() bool { return len(incoming()) == 1 })
	e.kill()
	if len(incoming()) != 1 {
		t.Fatal("the upload was not cut short")
	}
	start(t, data)
	if left := incoming(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	resp, err := http.Get("http://" + address + ":8080/artifact/" + digest)
	must(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the cut upload is served: %s", resp.Status)
	}
}
