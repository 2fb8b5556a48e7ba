package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeGo stands for the go command: it answers what the builder asks and "compiles" programs into scripts that print a
// version. It writes each build it is asked for into calls. A file named slow beside it makes the first build of the
// cluster's programs stop after one of them, until it is killed; one named wrong makes programs print no version.
const fakeGo = `#!/bin/sh
set -eu
here=$(dirname "$0")
case "$1" in
env) cat "$here/version" ;;
mod) cat "$here/mod.json" ;;
list)
  shift 4
  for m; do echo "$m $here"; done ;;
build)
  out= last=
  for a; do
    [ "$last" = -o ] && out=$a
    last=$a
  done
  echo "$out" >>"$here/calls"
  case "$out" in
  */)
    echo "some/package"
    while read -r name say; do
      if [ ! -e "$out$name" ]; then
        printf '#!/bin/sh\necho "%s"\n' "$say" >"$out$name"
        chmod 755 "$out$name"
        echo "linked $name" >>"$here/calls"
      fi
      if [ -e "$here/slow" ]; then
        rm "$here/slow"
        echo stopped >>"$here/calls"
        exec sleep 600
      fi
    done <"$here/says" ;;
  *)
    mkdir -p "$(dirname "$out")"
    printf '#!/bin/sh\necho %s\n' "$last" >"$out"
    chmod 755 "$out" ;;
  esac ;;
esac
`

// fakeSquash writes the names of what it packs.
const fakeSquash = `#!/bin/sh
set -eu
if [ "$1" = -version ]; then
  cat "$(dirname "$0")/squash"
  exit 1
fi
(cd "$1" && find . -type f | sort) >"$2"
`

// bench is a source folder with fake tools.
type bench struct {
	t      *testing.T
	dir    string // of the tools and what steers them
	config Config
	heard  []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.config = Config{
		Source: t.TempDir(), Out: t.TempDir(), Go: filepath.Join(b.dir, "go"), Squash: filepath.Join(b.dir, "mksquashfs"),
		Progress: func(stage, detail string) { b.heard = append(b.heard, stage+": "+detail) },
	}
	b.write(b.config.Go, fakeGo)
	b.write(b.config.Squash, fakeSquash)
	b.write(filepath.Join(b.dir, "version"), "go1.26.8\n")
	b.write(filepath.Join(b.dir, "squash"), "mksquashfs version 4.5.1\n")
	b.write(filepath.Join(b.dir, "LICENSE"), "a licence\n")
	b.write(filepath.Join(b.dir, "calls"), "")
	type requirement struct{ Path, Version string }
	var mod struct{ Require []requirement }
	for _, c := range components() {
		mod.Require = append(mod.Require, requirement{c.module, "v1.2.3"})
	}
	body, err := json.Marshal(mod)
	if err != nil {
		t.Fatal(err)
	}
	b.write(filepath.Join(b.dir, "mod.json"), string(body))
	b.says("1.2.3")
	for _, name := range []string{"a.go", "a_test.go", "pause/main.go", "echo/main.go", "cluster/go.mod", "cluster/go.sum", "cluster/coredns/main.go"} {
		b.write(filepath.Join(b.config.Source, name), name)
	}
	return b
}

// says is the version that compiled programs will print.
func (b *bench) says(version string) {
	b.t.Helper()
	var says strings.Builder
	for _, p := range programs() {
		fmt.Fprintf(&says, "%s %s\n", p.output(), strings.ReplaceAll(p.as, "%s", version))
	}
	b.write(filepath.Join(b.dir, "says"), says.String())
}

func (b *bench) write(name, body string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) build() *Set {
	b.t.Helper()
	set, err := Build(b.t.Context(), b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	return set
}

// calls returns the builds that the fake go was asked for since the last look.
func (b *bench) calls() []string {
	b.t.Helper()
	name := filepath.Join(b.dir, "calls")
	body, err := os.ReadFile(name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(name, "")
	return strings.Fields(string(body))
}

func TestBuild(t *testing.T) {
	b := newBench(t)
	set := b.build()
	if err := set.Verify(); err != nil {
		t.Fatal(err)
	}
	if want := len(programs()) + len(own()) + len(images()) + len(bundles()); len(set.Artifacts) != want {
		t.Errorf("%d artifacts, want %d", len(set.Artifacts), want)
	}
	etcd, ok := set.Find(Program, "etcd")
	if !ok || etcd.File != "bin/etcd" || etcd.Version != "1.2.3" || etcd.Source != etcdServer+"@v1.2.3" {
		t.Errorf("etcd, which Go names server, is %+v", etcd)
	}
	node, ok := set.Find(Bundle, "kubernetes-node")
	if !ok || !slices.Equal(node.Holds, []string{"kube-proxy", "kubectl", "kubelet"}) {
		t.Errorf("the node's bundle is %+v", node)
	}
	inside, err := os.ReadFile(set.Path(node))
	if want := "./bin/kube-proxy\n./bin/kubectl\n./bin/kubelet\n./licences/kube-proxy\n./licences/kubectl\n./licences/kubelet\n"; err != nil || string(inside) != want {
		t.Errorf("the node's bundle holds %q, want %q", inside, want)
	}
	runtime, _ := set.Find(Bundle, "containerd")
	inside, err = os.ReadFile(set.Path(runtime))
	if err != nil || !strings.Contains(string(inside), "./cni/bridge\n") || !strings.Contains(string(inside), "./bin/ctr\n") {
		t.Errorf("the runtime's bundle holds %q", inside)
	}
	current, err := Open(filepath.Join(b.config.Out, currentName))
	if err != nil || current.Inputs != set.Inputs {
		t.Errorf("current is %v, %v", current, err)
	}

	b.calls()
	if again := b.build(); again.Inputs != set.Inputs {
		t.Error("another build of the same inputs has another digest")
	}
	if calls := b.calls(); len(calls) != 0 {
		t.Errorf("what was built is built again: %q", calls)
	}
}

// Everything that a build is made from is part of its digest, and what programs are compiled from of theirs.
func TestInputs(t *testing.T) {
	for _, c := range []struct {
		what     string
		change   func(*bench)
		set      bool // the build is another one
		programs bool // the cluster's programs are compiled anew
	}{
		{"go.mod", func(b *bench) { b.write(filepath.Join(b.config.Source, "cluster/go.mod"), "new") }, true, true},
		{"go.sum", func(b *bench) { b.write(filepath.Join(b.config.Source, "cluster/go.sum"), "new") }, true, true},
		{"CoreDNS's plugins", func(b *bench) { b.write(filepath.Join(b.config.Source, "cluster/coredns/main.go"), "new") }, true, true},
		{"Go", func(b *bench) { b.write(filepath.Join(b.dir, "version"), "go1.26.9\n") }, true, true},
		{"the builder", func(b *bench) { b.write(filepath.Join(b.config.Source, "a.go"), "new") }, true, false},
		{"a program of ours", func(b *bench) { b.write(filepath.Join(b.config.Source, "pause/main.go"), "new") }, true, false},
		{"mksquashfs", func(b *bench) { b.write(filepath.Join(b.dir, "squash"), "mksquashfs version 4.5.2\n") }, true, false},
		{"a test", func(b *bench) { b.write(filepath.Join(b.config.Source, "a_test.go"), "new") }, false, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := newBench(t)
			before := b.build()
			b.calls()
			c.change(b)
			after := b.build()
			if got := after.Inputs != before.Inputs; got != c.set {
				t.Errorf("another build: %t, want %t", got, c.set)
			}
			compiled := slices.ContainsFunc(b.calls(), func(call string) bool { return strings.Contains(call, "/programs-") })
			if compiled != c.programs {
				t.Errorf("compiled: %t, want %t", compiled, c.programs)
			}
		})
	}
}

// A build of another architecture is a build of its own, and its programs are not run.
func TestArch(t *testing.T) {
	b := newBench(t)
	native := b.build()
	b.config.Arch = "riscv64"
	b.says("0.0.0-master")
	other := b.build()
	if other.Folder == native.Folder || other.Artifacts[0].Arch != "riscv64" {
		t.Errorf("%s has %s", other.Folder, other.Artifacts[0].Arch)
	}
}

func TestInterrupted(t *testing.T) {
	b := newBench(t)
	b.write(filepath.Join(b.dir, "slow"), "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := filepath.Join(b.dir, "calls")
	done := make(chan error, 1)
	go func() {
		_, err := Build(ctx, b.config)
		done <- err
	}()
	for { // no event says that a child sleeps
		if body, err := os.ReadFile(calls); err != nil || strings.Contains(string(body), "stopped") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("the interrupted build ends with %v", err)
	}
	if _, err := os.Lstat(filepath.Join(b.config.Out, currentName)); err == nil {
		t.Error("an interrupted build became the current one")
	}
	b.calls()
	left := filepath.Join(b.config.Out, ".new-left")
	b.write(filepath.Join(left, "bin/etcd"), "half")
	b.build()
	first := programs()[0].output()
	for _, call := range b.calls() {
		if call == first {
			t.Errorf("%s, which the interrupted build had linked, is linked again", first)
		}
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what an interrupted build left is still there")
	}
}

// While one build runs, another one waits, and can be told not to.
func TestOneAtATime(t *testing.T) {
	b := newBench(t)
	first, err := newBuilder(b.config)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := first.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.config.Progress = func(stage, _ string) {
		if stage != "wait" {
			t.Errorf("beside another build this one goes on to %s", stage)
		}
		cancel()
	}
	if _, err := Build(ctx, b.config); !errors.Is(err, context.Canceled) {
		t.Errorf("a build that waits ends with %v", err)
	}
	unlock()
	b.config.Progress = nil
	b.build()
}

// A build whose folder was damaged is made again, without compiling.
func TestDamaged(t *testing.T) {
	b := newBench(t)
	set := b.build()
	pause, _ := set.Find(Program, "pause")
	b.write(set.Path(pause), "")
	if _, err := Open(set.Folder); err == nil || !strings.Contains(err.Error(), "has 0 bytes") {
		t.Errorf("a truncated file is opened: %v", err)
	}
	if err := b.build().Verify(); err != nil {
		t.Error(err)
	}
	same := strings.Repeat("x", int(pause.Size))
	b.write(set.Path(pause), same)
	set, err := Open(set.Folder)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Verify(); err == nil || !strings.Contains(err.Error(), "bin/pause has SHA-256") {
		t.Errorf("a changed file is not seen: %v", err)
	}
}

func TestStamps(t *testing.T) {
	for _, said := range []string{"0.0.0-master", "1.2.30", "11.2.3", "1.2.3.4", "1.2"} {
		b := newBench(t)
		b.says(said)
		_, err := Build(t.Context(), b.config)
		if err == nil || !strings.Contains(err.Error(), "is not stamped with its version") {
			t.Errorf("programs that say %s are taken for 1.2.3: %v", said, err)
		}
	}
	b := newBench(t)
	b.write(filepath.Join(b.dir, "mod.json"), `{"Require":[]}`)
	if _, err := Build(t.Context(), b.config); err == nil || !strings.Contains(err.Error(), "does not require k8s.io/kubernetes") {
		t.Errorf("a module without Kubernetes is built: %v", err)
	}
}

// What the build relies on in the module that is committed: one version for Kubernetes and each of its staging modules,
// those that issue and pack name, and a tool directive for each program.
func TestClusterModule(t *testing.T) {
	said, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", "cluster/go.mod").Output()
	if err != nil {
		t.Fatal(err)
	}
	type version struct{ Path, Version string }
	var mod struct {
		Require []version
		Replace []struct{ Old, New version }
		Tool    []struct{ Path string }
	}
	if err := json.Unmarshal(said, &mod); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, r := range mod.Require {
		versions[r.Path] = r.Version
	}
	for module, want := range map[string]string{kubernetes: `v1\.36\.3`, etcdServer: `v3\.6\.\d+`, containerd: `v2\.\d+\.\d+`} {
		if !regexp.MustCompile("^" + want + "$").MatchString(versions[module]) {
			t.Errorf("%s is at %q, want %s", module, versions[module], want)
		}
	}
	if versions[etcdServer] != versions[etcdClient] {
		t.Errorf("etcd is at %s and etcdctl at %s", versions[etcdServer], versions[etcdClient])
	}
	staged := strings.Replace(versions[kubernetes], "v1.", "v0.", 1)
	if len(mod.Replace) != 33 {
		t.Errorf("%d modules are replaced, want Kubernetes's 33", len(mod.Replace))
	}
	for _, r := range mod.Replace {
		if r.Old.Path != r.New.Path || r.New.Version != staged {
			t.Errorf("%s is replaced by %s %s, want %s", r.Old.Path, r.New.Path, r.New.Version, staged)
		}
	}
	var tools []string
	for _, tool := range mod.Tool {
		tools = append(tools, tool.Path)
	}
	for _, p := range programs() {
		if !strings.HasPrefix(p.pkg, "./") && !slices.Contains(tools, p.pkg) {
			t.Errorf("cluster/go.mod has no tool directive for %s", p.pkg)
		}
	}
}

func TestOutput(t *testing.T) {
	for pkg, want := range map[string]string{
		etcdServer: "server", etcdClient: "etcdctl", containerd + "/cmd/ctr": "ctr", "./coredns": "coredns",
		"a/vlan": "vlan", "a/v": "v", "a/b/v10": "b",
	} {
		if got := (program{pkg: pkg}).output(); got != want {
			t.Errorf("%s is built as %s, want %s", pkg, got, want)
		}
	}
}

// Each name that a bundle or an image uses is one of a program or an image, and folders hold no two of a name.
func TestCatalogue(t *testing.T) {
	known, packed := map[string]bool{}, map[string]bool{}
	for _, p := range programs() {
		if known[p.name] {
			t.Errorf("there are two programs named %s", p.name)
		}
		known[p.name] = true
	}
	for _, name := range own() {
		known[name] = true
	}
	for _, i := range images() {
		if !known[i.name] {
			t.Errorf("image %s has no program", i.name)
		}
		packed[i.name] = true
	}
	bundled := map[string]bool{}
	for _, b := range bundles() {
		for _, name := range b.programs {
			if !known[name] {
				t.Errorf("bundle %s has the unknown program %s", b.name, name)
			}
			bundled[name] = true
		}
		for _, name := range b.images {
			if !packed[name] {
				t.Errorf("bundle %s has the unknown image %s", b.name, name)
			}
			bundled[name] = true
		}
	}
	for name := range known {
		if !bundled[name] {
			t.Errorf("%s is in no bundle", name)
		}
	}
}
