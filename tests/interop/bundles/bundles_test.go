// Package bundles_test mounts real bundles as agents do. It needs root, loop devices and mksquashfs (Debian:
// squashfs-tools), and runs in a mount namespace of its own.
package bundles_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/engine/agent/artifacts"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
)

const inNamespace = "BUNDLES_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	_ = cmd.Run() // its code is passed on
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		os.Exit(code)
	}
	panic("these tests need root, for a mount namespace")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bundle makes a squashfs with one program in it.
func bundle(t *testing.T, says string) []byte {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "root/bin"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "root/bin/tool"), []byte("#!/bin/sh\necho "+says+"\n"), 0o755))
	out, err := exec.Command("mksquashfs", filepath.Join(dir, "root"), filepath.Join(dir, "b.squashfs"), "-no-progress", "-quiet").CombinedOutput()
	if err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "b.squashfs"))
	must(t, err)
	return data
}

// node is a store of artifacts with a sandbox, as in an agent.
type node struct {
	t     *testing.T
	cfg   artifacts.Config
	url   string
	store *artifacts.Store
	box   *sandbox.Sandbox
}

// restart is what a new agent does.
func (n *node) restart() {
	n.t.Helper()
	var err error
	n.store, err = artifacts.Open(n.cfg)
	must(n.t, err)
	n.box, err = sandbox.New(sandbox.Config{Root: n.t.TempDir(), Artifacts: n.store})
	must(n.t, err)
}

func (n *node) artifact(data []byte) wire.Artifact {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	return wire.Artifact{Name: "tools", Digest: "sha256:" + digest, Size: int64(len(data)), Bundle: true, URLs: []string{n.url + "/" + digest}}
}

func (n *node) run(script string, a wire.Artifact) (wire.Result, string) {
	var log strings.Builder
	res := n.box.Run(n.t.Context(), wire.Request{
		ID: "c/i#1", Cluster: "c", Instance: "c/i", Attempt: 1, Epoch: 1, Action: wire.Apply, Script: []byte(script), Timeout: time.Minute, Artifacts: []wire.Artifact{a},
	}, func(text string) { log.WriteString(text) })
	return res, log.String()
}

func mounts(t *testing.T, dir string) int {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Count(string(info), dir)
}

// TestBundle: a script runs a program out of a mounted bundle; the mount outlives the agent, stays while something runs
// from it, and goes when nobody uses it.
func TestBundle(t *testing.T) {
	one, broken := bundle(t, "one"), bytes.Repeat([]byte("not a squashfs "), 1000)
	files := map[string][]byte{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(files[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	defer server.Close()
	n := &node{t: t, url: server.URL, cfg: artifacts.Config{Dir: filepath.Join(t.TempDir(), "artifacts"), Marks: t.TempDir(), Client: server.Client(), Attempts: 1}}
	n.restart()
	for _, data := range [][]byte{one, broken} {
		files[strings.TrimPrefix(n.artifact(data).Digest, "sha256:")] = data
	}
	a := n.artifact(one)
	script := "#!/bin/sh -e\nartifacts/tools/bin/tool\n! touch artifacts/tools/x 2>/dev/null\nreadlink artifacts/tools\n"
	res, log := n.run(script, a)
	dir := filepath.Join(n.cfg.Dir, "bundles", strings.TrimPrefix(a.Digest, "sha256:"))
	if !res.OK || !strings.HasSuffix(log, "one\n"+dir+"\n") || mounts(t, dir) != 1 {
		t.Fatalf("result %+v\n%s", res, log)
	}
	n.restart()
	if res, log := n.run(script, a); !res.OK || log != "one\n"+dir+"\n" || mounts(t, dir) != 1 {
		t.Fatalf("after a restart: result %+v, %d mounts\n%s", res, mounts(t, dir), log)
	}
	busy, err := os.Open(filepath.Join(dir, "bin/tool"))
	must(t, err)
	must(t, n.store.Uses("c/i", nil))
	if mounts(t, dir) != 1 {
		t.Fatal("the bundle went although somebody reads from it")
	}
	must(t, busy.Close())
	must(t, n.store.Uses("c/i", nil))
	if left, _ := filepath.Glob(filepath.Join(n.cfg.Dir, "*", "*")); mounts(t, dir) != 0 || len(left) != 0 {
		t.Fatalf("the bundle stays although nobody uses it: %v", left)
	}
	if res, _ := n.run(script, n.artifact(broken)); res.OK || !strings.Contains(res.Error, "is it a squashfs, as a bundle has to be?") {
		t.Errorf("result %+v", res)
	}
}
