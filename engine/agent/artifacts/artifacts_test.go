package artifacts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"joist/engine/agent/fetch"
	"joist/engine/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine serves one file, as the engine's boot server does, and does worse if it is told to.
type engine struct {
	content []byte
	hits    atomic.Int32
	ranges  sync.Map                                                          // by number of the request
	do      func(n int32, w http.ResponseWriter, r *http.Request) (done bool) // nil: all is well
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := e.hits.Add(1)
	e.ranges.Store(n, r.Header.Get("Range"))
	if e.do != nil && e.do(n, w, r) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(e.content))
}

// machine is a node's store in front of an engine. Mounting is noted instead of done.
type machine struct {
	*Store
	cfg     Config
	mounted map[string]string // file by folder
	busy    bool
	logged  []string
}

func newMachine(t *testing.T, e *engine) (*machine, wire.Artifact) {
	t.Helper()
	server := httptest.NewServer(e)
	transport := &http.Transport{}
	t.Cleanup(func() { transport.CloseIdleConnections(); server.Close() })
	m := &machine{mounted: map[string]string{}}
	m.cfg = Config{
		Dir: filepath.Join(t.TempDir(), "artifacts"), Marks: t.TempDir(), Client: &http.Client{Transport: transport}, Attempts: 1,
		Mount:   func(file, dir string) error { m.mounted[dir] = file; return nil },
		Mounted: func(dir string) (bool, error) { return m.mounted[dir] != "", nil },
		Unmount: func(dir string) error {
			if m.busy {
				return fmt.Errorf("cannot unmount: %w", unix.EBUSY)
			}
			delete(m.mounted, dir)
			return nil
		},
	}
	m.restart(t)
	return m, wire.Artifact{Name: "kubelet", Digest: "sha256:" + digest(e.content), Size: int64(len(e.content)), URLs: []string{server.URL}}
}

// restart is what a new agent on the same boot finds.
func (m *machine) restart(t *testing.T) {
	t.Helper()
	var err error
	if m.Store, err = Open(m.cfg); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) want(ctx context.Context, instance string, list ...wire.Artifact) (map[string]string, error) {
	return m.Provide(ctx, wire.Request{Instance: instance, Artifacts: list}, func(line string) { m.logged = append(m.logged, line) })
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

var content = bytes.Repeat([]byte("a program for nodes "), 40_000)

func TestProvide(t *testing.T) {
	e := &engine{content: content}
	m, a := newMachine(t, e)
	for range 2 { // the second time it is here
		paths, err := m.want(t.Context(), "c/kubelet[n1]", a)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(paths["kubelet"]); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if info, err := os.Stat(paths["kubelet"]); err != nil || info.Mode().Perm() != 0o555 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	m.restart(t) // the mark says that it was verified
	if _, err := m.want(t.Context(), "c/kubelet[n1]", a); err != nil || e.hits.Load() != 1 {
		t.Errorf("%v after %d requests", err, e.hits.Load())
	}
	bundle := a
	bundle.Bundle, bundle.Name = true, "node"
	paths, err := m.want(t.Context(), "c/node[n1]", bundle, a)
	if err != nil || m.mounted[paths["node"]] != paths["kubelet"] || e.hits.Load() != 1 {
		t.Errorf("paths %v, mounted %v, %v", paths, m.mounted, err)
	}
}

// What a disk that outlived the boot brings back is read again before it is used, and fetched again if it changed.
func TestDamage(t *testing.T) {
	e := &engine{content: content}
	m, a := newMachine(t, e)
	paths, err := m.want(t.Context(), "i", a)
	if err != nil {
		t.Fatal(err)
	}
	m.cfg.Marks = t.TempDir() // another boot
	m.restart(t)
	if _, err := m.want(t.Context(), "i", a); err != nil || e.hits.Load() != 1 {
		t.Fatalf("%v after %d requests: a good file is not fetched again", err, e.hits.Load())
	}
	bad := bytes.Clone(content)
	bad[1000] ^= 1
	if err := errors.Join(os.Chmod(paths["kubelet"], 0o644), os.WriteFile(paths["kubelet"], bad, 0o644)); err != nil {
		t.Fatal(err)
	}
	if paths, err = m.want(t.Context(), "i", a); err != nil || e.hits.Load() != 2 {
		t.Fatalf("%v after %d requests", err, e.hits.Load())
	}
	if got, err := os.ReadFile(paths["kubelet"]); err != nil || !bytes.Equal(got, content) || !strings.Contains(strings.Join(m.logged, "\n"), "is damaged and is fetched again") {
		t.Errorf("%d bytes, %v, log %q", len(got), err, m.logged)
	}
}

func TestTrouble(t *testing.T) {
	for name, tt := range map[string]struct {
		do  func(n int32, w http.ResponseWriter, r *http.Request) bool
		err string
	}{
		"wrong digest": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, len(content))))
			return true
		}, "artifact kubelet: cannot fetch it: "},
		"truncated": {func(_ int32, w http.ResponseWriter, r *http.Request) bool {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[:1000]))
			return true
		}, "it has 1000 bytes there, not 800000"},
		"lost": {func(_ int32, w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true },
			"it is not there: the server says 404 Not Found; the engine has lost it: see joist mirror list, and joist mirror add to bring it back"},
	} {
		t.Run(name, func(t *testing.T) {
			m, a := newMachine(t, &engine{content: content, do: tt.do})
			paths, err := m.want(t.Context(), "i", a)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("paths %v, error %v", paths, err)
			}
			if name == "wrong digest" && !strings.Contains(err.Error(), "wrong digest: SHA-256 ") {
				t.Errorf("error %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(m.cfg.Dir, "sha256-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// The engine ends in the middle of a transfer, and so does the agent: the next one goes on where they were.
func TestResume(t *testing.T) {
	e := &engine{content: content}
	e.do = func(n int32, w http.ResponseWriter, _ *http.Request) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:300_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	m, a := newMachine(t, e)
	if _, err := m.want(t.Context(), "i", a); err != nil { // new bytes came, so that it tried again
		t.Fatal(err)
	}
	if got, _ := e.ranges.Load(int32(2)); got != "bytes=300000-" {
		t.Errorf("the second request asked for %q", got)
	}
	other := &engine{content: content}
	m2, b := newMachine(t, other)
	if err := errors.Join(os.MkdirAll(m2.cfg.Dir, 0o755), os.WriteFile(filepath.Join(m2.cfg.Dir, partial+digest(content)), content[:500_000], 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := m2.want(t.Context(), "i", b); err != nil {
		t.Fatal(err)
	}
	if got, _ := other.ranges.Load(int32(1)); got != "bytes=500000-" {
		t.Errorf("a new agent asked for %q", got)
	}
}

func TestCancelled(t *testing.T) {
	e := &engine{content: content, do: func(_ int32, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }}
	m, a := newMachine(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the step's time is over")
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if _, err := m.want(ctx, "i", a); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// Many steps want one artifact: it is fetched once.
func TestTogether(t *testing.T) {
	e := &engine{content: content}
	m, a := newMachine(t, e)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, err := m.Provide(t.Context(), wire.Request{Instance: fmt.Sprint(i), Artifacts: []wire.Artifact{a}}, func(string) {}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if e.hits.Load() != 1 {
		t.Errorf("%d requests", e.hits.Load())
	}
}

func TestNoRoom(t *testing.T) {
	m, a := newMachine(t, &engine{content: content})
	a.Size = 1 << 60
	if _, err := m.want(t.Context(), "i", a); err == nil || !strings.Contains(err.Error(), "it does not fit: 1099511627776 MiB are to come and "+m.cfg.Dir+" has ") {
		t.Errorf("error %v", err)
	}
	if !errors.Is(fmt.Errorf("%w: %w", fetch.ErrWrite, unix.ENOSPC), unix.ENOSPC) {
		t.Error("a full disk is not known as one")
	}
}

// Only what nobody uses goes: a bundle stays mounted for its other user, and while something runs from it.
func TestUses(t *testing.T) {
	e := &engine{content: content}
	m, a := newMachine(t, e)
	a.Bundle = true
	here := func() bool {
		_, err := os.Stat(m.path(digest(content)))
		if mounted := len(m.mounted) > 0; mounted != (err == nil) {
			t.Errorf("mounted %v, and the file: %v", mounted, err)
		}
		return err == nil
	}
	for _, i := range []string{"c/one[n1]", "c/two[n1]"} {
		if _, err := m.want(t.Context(), i, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Uses("c/one[n1]", []wire.Artifact{a}); err != nil || !here() {
		t.Fatal(err)
	}
	if err := m.Uses("c/one[n1]", nil); err != nil || !here() { // two was given it, and may run from it already
		t.Fatal("it is gone although another instance uses it", err)
	}
	m.restart(t)
	m.busy = true
	if err := m.Uses("c/two[n1]", nil); err != nil || !here() {
		t.Fatal("it is gone although something runs from it", err)
	}
	m.busy = false
	if err := m.Uses("c/three[n1]", nil); err != nil || here() {
		t.Fatal("nobody uses it and it stays", err)
	}
	if _, err := m.want(t.Context(), "c/one[n1]", a); err != nil || e.hits.Load() != 2 || !here() {
		t.Errorf("%v after %d requests", err, e.hits.Load())
	}
}

// As soon as there is a disk, it takes what comes; what came before stays where it is.
func TestDisk(t *testing.T) {
	e := &engine{content: content}
	m, a := newMachine(t, e)
	m.cfg.Disk = filepath.Join(t.TempDir(), "data", "artifacts")
	m.restart(t)
	old := filepath.Join(m.cfg.Dir, name(digest(content)))
	if paths, err := m.want(t.Context(), "i", a); err != nil || paths["kubelet"] != old {
		t.Fatal(paths, err)
	}
	m.mounted[filepath.Dir(m.cfg.Disk)] = "disk"
	if paths, err := m.want(t.Context(), "j", a); err != nil || paths["kubelet"] != old || e.hits.Load() != 1 {
		t.Fatal(paths, err)
	}
	if err := errors.Join(m.Uses("i", nil), m.Uses("j", nil)); err != nil {
		t.Fatal(err)
	}
	unused := filepath.Join(m.cfg.Disk, name(strings.Repeat("ab", 32)))
	if err := errors.Join(os.MkdirAll(m.cfg.Disk, 0o755), os.WriteFile(unused, []byte("of an earlier boot"), 0o444)); err != nil {
		t.Fatal(err)
	}
	paths, err := m.want(t.Context(), "i", a)
	if err != nil || paths["kubelet"] != filepath.Join(m.cfg.Disk, name(digest(content))) {
		t.Fatal(paths, err)
	}
	if _, err := os.Stat(unused); err != nil {
		t.Error("a file went although there is room", err)
	}
	if err := m.room(m.cfg.Disk, 1<<60); err == nil {
		t.Error("an exbibyte fits")
	}
	if _, err := os.Stat(unused); err == nil {
		t.Error("an unused file takes the room of another one")
	}
	if _, err := os.Stat(paths["kubelet"]); err != nil {
		t.Error("a file that is used went", err)
	}
}
