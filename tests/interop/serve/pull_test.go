package serve_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "joist/services/api/v1"
)

// origin is where a pack's artifacts are downloaded from.
type origin struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]http.HandlerFunc // by path
	asked int
}

func newOrigin(t *testing.T) *origin {
	o := &origin{files: map[string]http.HandlerFunc{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.asked++
		serve := o.files[r.URL.Path]
		o.mu.Unlock()
		if serve == nil {
			serve = http.NotFound
		}
		serve(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) set(path string, serve http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[path] = serve
}

func (o *origin) requests() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

func gives(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) } // a client may go away
}

func sum(data []byte) string {
	d := sha256.Sum256(data)
	return hex.EncodeToString(d[:])
}

// pulledPack names two artifacts by URL and checksum.
func pulledPack(base string, first, second []byte) []byte {
	artifact := func(name string, data []byte) string {
		return fmt.Sprintf("artifact %q {\n  version = \"1.2.3\"\n  kind    = \"program\"\n  licence = \"MIT\"\n  url     = \"%s/%s\"\n  sha256  = %q\n}\n\n", name, base, name, sum(data))
	}
	step := strings.Replace(suppliedPack[strings.Index(suppliedPack, "step \""):], "[tool]", "[tool, utility]", 1)
	return []byte("pack \"p\" {\n  version = \"1.0.0\"\n  summary = \"Artifacts with a URL.\"\n}\n\n" + artifact("tool", first) + artifact("utility", second) + step)
}

// TestPull: what packs name with a URL and a checksum comes whole, all of it, or not at all; and each failure says what, from
// where, and what to do.
func TestPull(t *testing.T) {
	dir, data, temp := t.TempDir(), filepath.Join(t.TempDir(), "data"), t.TempDir()
	t.Setenv("TMPDIR", temp)
	e := start(t, data)
	o := newOrigin(t)
	tool, more := bytes.Repeat([]byte("a tool "), 100_000), bytes.Repeat([]byte("one more "), 100_000)
	file, pack := filepath.Join(dir, "demo.hcl"), filepath.Join(dir, "p/pack.hcl")
	writeFile(t, file, clusterFile(""))
	writeFile(t, pack, pulledPack(o.URL, tool, more))
	writeFile(t, filepath.Join(dir, "p/files/use.sh"), []byte("#!/bin/sh\n"))
	o.set("/tool", gives(tool))

	untouched := func() {
		t.Helper()
		if list := e.mirrored(); len(list) != 0 {
			t.Errorf("the mirror has %+v", list)
		}
		for _, folder := range []string{filepath.Join(data, "artifacts"), temp} {
			if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
				t.Errorf("%s holds %v, %v", folder, left, err)
			}
		}
	}
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(more)))
		_, _ = w.Write(more[:1000])
	}
	url := o.URL + "/utility"
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		says  []string
	}{
		"wrong digest": {gives(tool), []string{url + " gives sha256-" + sum(tool) + " (700000 bytes), and pack p wants sha256-" + sum(more), "nothing was stored", "joist mirror add"}},
		"truncated":    {short, []string{url + " broke off after 1000 bytes", "nothing was stored, run the command again"}},
		"not found":    {nil, []string{url + " says 404 Not Found", "correct the url in pack p, or bring the file and use joist mirror add"}},
	} {
		t.Run(name, func(t *testing.T) {
			o.set("/utility", c.serve)
			e.failed(1, append(c.says, "cannot download utility: "), "mirror", "pull", file)
			untouched()
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		gone := httptest.NewServer(nil)
		gone.Close()
		writeFile(t, pack, pulledPack(gone.URL, tool, more))
		e.failed(1, []string{"cannot download tool: ", gone.URL + "/tool", "connection refused", "where there is no network, bring the file and use joist mirror add"}, "mirror", "pull", file)
		untouched()
		writeFile(t, pack, pulledPack(o.URL, tool, more))
	})
	t.Run("interrupted", func(t *testing.T) {
		o.set("/utility", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(more[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		e.interrupted(o, "mirror", "pull", file)
		untouched()
	})

	o.set("/utility", gives(more))
	code, out, errs := joist(t, "mirror", "pull", file, "-o", "json", "--socket", e.socket)
	var got []v1.MirrorEntry
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errs != "" || len(got) != 2 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
	have := map[string]v1.MirrorEntry{}
	for _, m := range e.mirrored() {
		have[m.Name] = m
	}
	for name, want := range map[string][]byte{"tool": tool, "utility": more} {
		stored, err := os.ReadFile(filepath.Join(data, "artifacts", "sha256-"+sum(want)))
		if err != nil || !bytes.Equal(stored, want) || have[name].URL != o.URL+"/"+name || have[name].Digest != "sha256-"+sum(want) {
			t.Errorf("%s: %d bytes, %v, %+v", name, len(stored), err, have[name])
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	e.want(0, "", "plan", file)

	before := o.requests()
	e.want(0, "nothing is to be downloaded", "mirror", "pull", file)
	if _, out, _ := joist(t, "mirror", "pull", file, "-o", "json", "--socket", e.socket); out != "[]\n" || o.requests() != before {
		t.Errorf("again: %q after %d more requests", out, o.requests()-before)
	}
}

// TestAddFromURL: what an operator names by URL and checksum is downloaded as what a pack names so, alone or from a manifest.
func TestAddFromURL(t *testing.T) {
	dir, data, temp := t.TempDir(), filepath.Join(t.TempDir(), "data"), t.TempDir()
	t.Setenv("TMPDIR", temp)
	e := start(t, data)
	o := newOrigin(t)
	tool, more := bytes.Repeat([]byte("a tool "), 100_000), bytes.Repeat([]byte("one more "), 100_000)
	url := o.URL + "/tool"
	unsure := []string{"mirror", "add", "--kind", "program", "--name", "tool", "--version", "1.2.3", "--licence", "MIT", "--url", url}
	add := append(unsure, "--sha256", strings.ToUpper(sum(tool)))
	manifest, local := filepath.Join(dir, "m.json"), filepath.Join(dir, "local")
	writeFile(t, local, []byte("brought"))
	named := func(name, digest, where, place string) string {
		return fmt.Sprintf(`{"name":%q,"kind":"program","version":"1.2.3","arch":"amd64","licence":"MIT","sha256":%q,%q:%q}`, name, digest, where, place)
	}
	writeFile(t, manifest, fmt.Appendf(nil, `{"artifacts":[%s,%s]}`, named("local", sum([]byte("brought")), "file", "local"), named("utility", sum(more), "url", o.URL+"/utility")))
	many := []string{"mirror", "add", "--manifest", manifest}
	empty := func() {
		t.Helper()
		if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}

	e.want(2, "give the checksum of "+url+" with --sha256", unsure...)
	if o.requests() != 0 {
		t.Error("it was downloaded without a checksum")
	}
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		args  []string
		says  []string
	}{
		"wrong digest": {gives(more), add, []string{"cannot download tool: " + url + " gives sha256-" + sum(more), "and the command wants sha256-" + sum(tool), "nothing was stored"}},
		"truncated": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(tool)))
			_, _ = w.Write(tool[:1000])
		}, add, []string{"cannot download tool: " + url + " broke off after 1000 bytes", "nothing was stored, run the command again"}},
		"not found":       {nil, add, []string{"cannot download tool: " + url + " says 404 Not Found", "correct the url in the command, or bring the file"}},
		"from a manifest": {nil, many, []string{"cannot download utility: ", "says 404 Not Found", "correct the url in the manifest " + manifest}},
	} {
		t.Run(name, func(t *testing.T) {
			o.set("/tool", c.serve)
			e.failed(1, c.says, c.args...)
			if left, err := os.ReadDir(filepath.Join(data, "artifacts")); err != nil || len(left)+len(e.mirrored()) != 0 {
				t.Errorf("stored: %v, %v", left, err)
			}
			empty()
		})
	}

	o.set("/tool", gives(tool))
	o.set("/utility", gives(more))
	code, out, errs := joist(t, append(add, "--socket", e.socket)...)
	if code != 0 || !strings.Contains(errs, " downloading "+url) || out != "program tool 1.2.3 (amd64) is in the mirror, sha256-"+sum(tool)+"\n" {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	e.want(0, "program utility 1.2.3 (amd64) is in the mirror", many...)
	before := o.requests()
	e.want(0, "is in the mirror", add...)
	e.want(0, "is in the mirror", many...)
	if o.requests() != before {
		t.Error("what the engine has was downloaded again")
	}
	empty()
	for _, m := range e.mirrored() {
		want := map[string]struct {
			data []byte
			url  string
		}{"tool": {tool, url}, "utility": {more, o.URL + "/utility"}, "local": {[]byte("brought"), ""}}[m.Name]
		stored, err := os.ReadFile(filepath.Join(data, "artifacts", m.Digest))
		if err != nil || !bytes.Equal(stored, want.data) || m.URL != want.url || m.Size != int64(len(want.data)) {
			t.Errorf("%d bytes, %v, %+v", len(stored), err, m)
		}
	}
	e.want(0, "3 files are what their digests say", "mirror", "verify")
}

// failed wants a command to fail with a code and to say certain things, and with -o json the same as data.
func (e *engine) failed(code int, says []string, args ...string) {
	e.t.Helper()
	args = append(args, "--socket", e.socket)
	got, out, errs := joist(e.t, args...)
	_, said, ok := strings.Cut("\n"+errs, "\njoist: ") // after what is under way
	said = strings.ReplaceAll(strings.TrimSpace(said), "\n  ", "; ")
	var p v1.Problem
	gotJSON, outJSON, errsJSON := joist(e.t, append(args, "-o", "json")...)
	err := json.Unmarshal([]byte(errsJSON), &p)
	if got != code || gotJSON != code || out != "" || outJSON != "" || err != nil || !ok || strings.Contains(said, "\n") {
		e.t.Errorf("joist %s: exit codes %d and %d, want %d, %v\n%s%s%s%s", strings.Join(args, " "), got, gotJSON, code, err, out, errs, outJSON, errsJSON)
	}
	for _, want := range says {
		if !strings.Contains(said, want) || !strings.Contains(p.Detail+"; "+p.Advice, want) {
			e.t.Errorf("joist %s does not say %q:\n%s%s", strings.Join(args, " "), want, errs, errsJSON)
		}
	}
}

// interrupted interrupts a command once it has asked the origin for both files.
func (e *engine) interrupted(o *origin, args ...string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	before := o.requests()
	var out buffer
	cmd := exec.CommandContext(ctx, os.Getenv(programEnv), append(args, "--socket", e.socket)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	must(e.t, cmd.Start())
	e.eventually("the download is under way", func() bool { return o.requests() == before+2 })
	must(e.t, cmd.Process.Signal(syscall.SIGINT))
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		e.t.Errorf("the interrupted command ended with %v\n%s", err, &out)
	}
}
