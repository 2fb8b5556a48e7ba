// Package try_test runs what `make artifacts` built: bundles are mounted, containers are started by containerd with runc
// and with crun, pods' interfaces are made by the CNI plugins, and a control plane answers. It needs root, the Debian
// packages runc, crun and nftables, and a finished build; `make test-artifacts` sees to the last.
//
// Each test runs in network, mount and process namespaces of its own, so nothing stays behind.
package try_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/tests/artifacts"
)

// insideEnv tells a process of this test that it is in namespaces of its own.
const insideEnv = "JOIST_TEST_INSIDE"

// patience bounds the wait for a process to become ready.
const patience = 3 * time.Minute

// inside runs the calling test again in namespaces of its own, and says whether this is that run.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "mount", "-t", "tmpfs", "tmpfs", "/run")
		cgroups(t)
		return true
	}
	for _, tool := range []string{"unshare", "runc", "crun", "nft", "ip", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s: %v", tool, err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// cgroups mounts what runtimes need: version 2 as on nodes, or, on hosts where version 1 still owns the controllers, only
// those, for crun takes no mixture.
func cgroups(t *testing.T) {
	t.Helper()
	const root = "/sys/fs/cgroup"
	run(t, "mount", "-t", "cgroup2", "cgroup2", root)
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(controllers), "memory") {
		return
	}
	run(t, "mount", "-t", "tmpfs", "tmpfs", root)
	known, err := os.ReadFile("/proc/self/cgroup") // NUMBER:CONTROLLERS:PATH, cgroups(7)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(known)) {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) < 3 || parts[1] == "" {
			continue
		}
		options, name := parts[1], strings.TrimPrefix(parts[1], "name=")
		if name != options {
			options = "none," + options
		}
		at := filepath.Join(root, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, "mount", "-t", "cgroup", "-o", options, "cgroup", at)
	}
}

// built opens the build that is tried: JOIST_ARTIFACTS, or the newest of this checkout.
func built(t *testing.T) *artifacts.Set {
	t.Helper()
	folder := os.Getenv("JOIST_ARTIFACTS")
	if folder == "" {
		folder = "../../../build/artifacts/current"
	}
	set, err := artifacts.Open(folder)
	if err != nil {
		t.Fatalf("%v; run make artifacts", err)
	}
	return set
}

// mount mounts a bundle as nodes do, and returns where.
func mount(t *testing.T, set *artifacts.Set, name string) string {
	t.Helper()
	bundle, ok := set.Find(artifacts.Bundle, name)
	if !ok {
		t.Fatalf("there is no bundle %s", name)
	}
	at := t.TempDir()
	run(t, "mount", "-t", "squashfs", "-o", "loop,ro,nodev,nosuid", set.Path(bundle), at)
	t.Cleanup(func() { run(t, "umount", "--lazy", at) })
	return at
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try(context.WithoutCancel(t.Context()), args...) // also in cleanups
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try runs a command and returns what it wrote to standard output.
func try(ctx context.Context, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(limited, args[0], args[1:]...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", strings.Join(args, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

// start runs a program until the test ends, which it fails if the program ends by itself. Its log is shown if the test fails.
func start(t *testing.T, args ...string) {
	t.Helper()
	name := filepath.Base(args[0])
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(args[0])+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		select {
		case err := <-ended:
			t.Errorf("%s ended: %v", name, err)
		default:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Errorf("%s does not end", name)
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				<-ended
			}
		}
		if t.Failed() {
			body, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", name, body[max(0, len(body)-6000):])
		}
		_ = log.Close()
	})
}

// until repeats a command until it succeeds and says what is wanted, and returns what it said.
func until(t *testing.T, want string, args ...string) string {
	t.Helper()
	var out string
	var err error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(100 * time.Millisecond) { // other processes send us no events
		if out, err = try(t.Context(), args...); err == nil && strings.Contains(out, want) {
			return out
		}
	}
	t.Fatalf("%s: %q, %v, want %q", strings.Join(args, " "), out, err, want)
	return ""
}

func write(t *testing.T, name, body string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// What is built is what the manifest says, and bundles hold it.
func TestBundles(t *testing.T) {
	if !inside(t) {
		return
	}
	set := built(t)
	if err := set.Verify(); err != nil {
		t.Fatal(err)
	}
	for _, bundle := range set.Artifacts {
		if bundle.Kind != artifacts.Bundle {
			continue
		}
		at := mount(t, set, bundle.Name)
		for _, name := range bundle.Holds {
			found := 0
			for _, file := range []string{"bin/" + name, "cni/" + name, "images/" + name + ".tar"} {
				info, err := os.Stat(filepath.Join(at, file))
				if err != nil {
					continue
				}
				found++
				if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 || stat.Gid != 0 || info.Mode().Perm()&0o022 != 0 {
					t.Errorf("%s in bundle %s has mode %s and belongs to %+v", file, bundle.Name, info.Mode(), info.Sys())
				}
			}
			if found != 1 {
				t.Errorf("bundle %s has %d files of %s", bundle.Name, found, name)
			}
		}
		if err := os.WriteFile(filepath.Join(at, "new"), nil, 0o600); err == nil {
			t.Errorf("bundle %s can be written to", bundle.Name)
		}
	}
}

// runtimes is containerd with the images and a CRI runtime by the name of each of runc and crun.
type runtimes struct {
	t      *testing.T
	set    *artifacts.Set
	dir    string
	bundle string // where the bundle containerd is mounted
	socket string
}

func newRuntimes(t *testing.T) *runtimes {
	t.Helper()
	r := &runtimes{t: t, set: built(t), dir: t.TempDir()}
	r.bundle = mount(t, r.set, "containerd")
	images := mount(t, r.set, "images")
	run(t, "mount", "-t", "tmpfs", "tmpfs", r.dir) // an overlay's upper folder is not on an overlay
	t.Cleanup(func() { run(t, "umount", "--lazy", r.dir) })
	r.socket = filepath.Join(r.dir, "containerd.sock")
	write(t, filepath.Join(r.dir, "10-pods.conflist"), `{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":"/run/cni","ranges":[[{"subnet":"10.200.1.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`)
	config := fmt.Sprintf(`version = 3
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
address = %[2]q
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "joist.internal/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true # a test may lack the right to go below
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["%[3]s/cni"]
conf_dir = %[1]q
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
`, r.dir, r.socket, r.bundle)
	for name, binary := range map[string]string{"runc": "runc", "crun": r.oldCrun()} {
		config += fmt.Sprintf(`[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.%s]
runtime_type = "io.containerd.runc.v2"
options = { BinaryName = %q }
`, name, binary)
	}
	t.Cleanup(func() { // what containerd leaves of its own; the pods' are gone
		left, err := filepath.Glob("/sys/fs/cgroup/*/k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range append(left, "/sys/fs/cgroup/k8s.io") {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	start(t, filepath.Join(r.bundle, "bin/containerd"), "--config", write(t, filepath.Join(r.dir, "config.toml"), config))
	until(t, "Server:", r.ctr("version")...)
	for _, image := range r.set.Artifacts {
		if image.Kind == artifacts.Image {
			run(t, r.ctr("images", "import", filepath.Join(images, "images", image.Name+".tar"))...)
		}
	}
	return r
}

// ctr is a command line of containerd's own client.
func (r *runtimes) ctr(args ...string) []string {
	return append([]string{filepath.Join(r.bundle, "bin/ctr"), "--address", r.socket, "--namespace", "k8s.io"}, args...)
}

// container describes one with the network of this test, from an image, and returns the description's file.
func (r *runtimes) container(image string, args ...string) string {
	r.t.Helper()
	a, ok := r.set.Find(artifacts.Image, image)
	if !ok {
		r.t.Fatalf("there is no image %s", image)
	}
	at, err := os.MkdirTemp(r.dir, image)
	if err != nil {
		r.t.Fatal(err)
	}
	run(r.t, r.ctr("images", "mount", "--rw", a.Image, at)...)
	r.t.Cleanup(func() { run(r.t, r.ctr("images", "unmount", at)...) })
	var spec map[string]any
	if err := json.Unmarshal([]byte(run(r.t, r.ctr("oci", "spec")...)), &spec); err != nil {
		r.t.Fatal(err)
	}
	spec["root"] = map[string]any{"path": at}
	process, ok := spec["process"].(map[string]any)
	linux, also := spec["linux"].(map[string]any)
	if !ok || !also {
		r.t.Fatalf("containerd describes containers as %v", spec)
	}
	process["args"] = args
	namespaces, ok := linux["namespaces"].([]any)
	if !ok {
		r.t.Fatalf("containerd describes containers as %v", spec)
	}
	linux["namespaces"] = slices.DeleteFunc(namespaces, func(n any) bool {
		kind, ok := n.(map[string]any)
		return ok && kind["type"] == "network"
	})
	return write(r.t, at+".json", encode(r.t, spec))
}

// end stops and removes a container.
func (r *runtimes) end(id string) {
	r.t.Helper()
	run(r.t, r.ctr("tasks", "kill", "--signal", "SIGTERM", id)...)
	until(r.t, "STOPPED", r.ctr("tasks", "ls")...)
	run(r.t, r.ctr("tasks", "delete", id)...)
	run(r.t, r.ctr("containers", "delete", id)...)
}

// oldCrun writes a program that calls crun for containerd. Debian 12's crun refuses any OCI version but 1.0 ("unknown
// version specified"), and containerd 2 writes a newer one. Its option base_runtime_spec would help with containers, but
// not with sandboxes, which begin elsewhere.
func (r *runtimes) oldCrun() string {
	r.t.Helper()
	name := write(r.t, filepath.Join(r.dir, "crun"), `#!/bin/sh
set -eu
last=
for arg; do
  case $last in
  --bundle | -b) sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "$arg/config.json" ;;
  esac
  last=$arg
done
exec /usr/bin/crun "$@"
`)
	if err := os.Chmod(name, 0o700); err != nil {
		r.t.Fatal(err)
	}
	return name
}

func encode(t *testing.T, v any) string {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Containers run: images are imported without a registry, and both runtimes start them.
func TestContainers(t *testing.T) {
	if !inside(t) {
		return
	}
	r := newRuntimes(t)
	list := run(t, r.ctr("images", "ls", "-q")...)
	for _, image := range r.set.Artifacts {
		if image.Kind == artifacts.Image && !strings.Contains(list, image.Image+"\n") {
			t.Errorf("%s is not among the images: %q", image.Image, list)
		}
	}
	echo := program(t, r.set, "echo")
	for i, name := range []string{"runc", "crun"} {
		binary := name
		if name == "crun" {
			binary = r.oldCrun()
		}
		address := fmt.Sprintf("127.0.0.1:%d", 8081+i)
		run(t, r.ctr("run", "--detach", "--runc-binary", binary, "--config", r.container("echo", "/echo", "serve", address), name)...)
		until(t, "ok", echo, "get", "http://"+address+"/healthz")
		if said := run(t, r.ctr("tasks", "exec", "--exec-id", "e1", name, "/echo", "say", "from", "inside")...); said != "from inside\n" {
			t.Errorf("with %s, a command in the container says %q", name, said)
		}
		r.end(name)
	}
	run(t, r.ctr("run", "--detach", "--config", r.container("pause", "/pause"), "sandbox")...)
	until(t, "RUNNING", r.ctr("tasks", "ls")...)
	r.end("sandbox")
	if said := run(t, r.ctr("run", "--rm", "--config", r.container("coredns", "/coredns", "-plugins"), "dns")...); !strings.Contains(said, "\nkubernetes\n") {
		t.Errorf("CoreDNS in its container lists the plugins %q", said)
	}
}

// Pods run as a kubelet starts them: pause holds the sandbox, the bridge gives it an address, and the container has the
// limits and rights that are asked for.
func TestPods(t *testing.T) {
	const clientEnv = "JOIST_TEST_POD"
	if os.Getenv(clientEnv) == "" { // where modules can still be fetched
		client := filepath.Join(t.TempDir(), "pod")
		run(t, "go", "build", "-C", "../cluster", "-trimpath", "-tags", "grpcnotrace", "-o", client, "./pod")
		t.Setenv(clientEnv, client)
	}
	if !inside(t) {
		return
	}
	r, client := newRuntimes(t), os.Getenv(clientEnv)
	for _, binary := range []string{"runc", "crun"} {
		cmd := exec.CommandContext(t.Context(), client, r.socket, binary, "joist.internal/echo:1", "/echo", "get", "http://127.0.0.1:8080/client")
		said := new(bytes.Buffer)
		cmd.Stderr = said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		goOn, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if address, err := lines.ReadString('\n'); err == nil {
			until(t, binary, program(t, r.set, "echo"), "get", "http://"+strings.TrimSpace(address)+":8080/")
		}
		_, _ = goOn.Write([]byte("\n")) // a client that ended says why
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("with %s: %v: %s", binary, err, said)
		}
		if !strings.Contains(string(rest), "127.0.0.1:") || !strings.Contains(string(rest), `GET "/" for 10.200.1.1:`) {
			t.Errorf("with %s, the command in the container and its log say %q", binary, rest)
		}
	}
}

func program(t *testing.T, set *artifacts.Set, name string) string {
	t.Helper()
	a, ok := set.Find(artifacts.Program, name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return set.Path(a)
}

func version(t *testing.T, set *artifacts.Set, program string) string {
	t.Helper()
	a, ok := set.Find(artifacts.Program, program)
	if !ok {
		t.Fatalf("there is no %s", program)
	}
	return a.Version
}
