// Package try_test runs what `make artifacts` built: bundles are mounted, containers are started by containerd with runc
// and with crun, pods' interfaces are made by the CNI plugins, and a control plane answers. It needs root, the Debian
// packages runc, crun and nftables, and a finished build; `make test-artifacts` sees to the last.
//
// Each test runs in network, mount and process namespaces of its own, so nothing stays behind.
package try_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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
		run(t, "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup") // as on nodes, also where the host mixes both versions
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

// Containers run: images are imported without a registry, and both runtimes start them.
func TestContainers(t *testing.T) {
	if !inside(t) {
		return
	}
	set := built(t)
	runtime, images := mount(t, set, "containerd"), mount(t, set, "images")
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "tmpfs", dir) // an overlay's upper folder is not on an overlay
	t.Cleanup(func() { run(t, "umount", "--lazy", dir) })
	socket := filepath.Join(dir, "containerd.sock")
	config := write(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket))
	start(t, filepath.Join(runtime, "bin/containerd"), "--config", config)
	ctr := func(args ...string) []string {
		return append([]string{filepath.Join(runtime, "bin/ctr"), "--address", socket, "--namespace", "k8s.io"}, args...)
	}
	until(t, "Server:", ctr("version")...)
	for _, image := range set.Artifacts {
		if image.Kind != artifacts.Image {
			continue
		}
		run(t, ctr("images", "import", filepath.Join(images, "images", image.Name+".tar"))...)
		if list := run(t, ctr("images", "ls", "-q")...); !strings.Contains(list, image.Image+"\n") {
			t.Errorf("%s is not among the images: %q", image.Image, list)
		}
	}
	echo, ok := set.Find(artifacts.Program, "echo")
	if !ok {
		t.Fatal("there is no echo")
	}
	// container describes one with the network of this test, from an image, and returns the description's file.
	container := func(image string, args ...string) string {
		a, ok := set.Find(artifacts.Image, image)
		if !ok {
			t.Fatalf("there is no image %s", image)
		}
		at, err := os.MkdirTemp(dir, image)
		if err != nil {
			t.Fatal(err)
		}
		run(t, ctr("images", "mount", "--rw", a.Image, at)...)
		t.Cleanup(func() { run(t, ctr("images", "unmount", at)...) })
		return write(t, at+".json", oldSpec(t, run(t, ctr("oci", "spec")...), at, args...))
	}
	end := func(id string) {
		run(t, ctr("tasks", "kill", "--signal", "SIGTERM", id)...)
		until(t, "STOPPED", ctr("tasks", "ls")...)
		run(t, ctr("tasks", "delete", id)...)
		run(t, ctr("containers", "delete", id)...)
	}
	for i, binary := range []string{"runc", "crun"} {
		address := fmt.Sprintf("127.0.0.1:%d", 8081+i)
		run(t, ctr("run", "--detach", "--runc-binary", binary, "--config", container("echo", "/echo", "serve", address), binary)...)
		until(t, "ok", set.Path(echo), "get", "http://"+address+"/healthz")
		if said := run(t, ctr("tasks", "exec", "--exec-id", "e1", binary, "/echo", "say", "from", "inside")...); said != "from inside\n" {
			t.Errorf("with %s, a command in the container says %q", binary, said)
		}
		end(binary)
	}
	run(t, ctr("run", "--detach", "--config", container("pause", "/pause"), "sandbox")...)
	until(t, "RUNNING", ctr("tasks", "ls")...)
	end("sandbox")
	if said := run(t, ctr("run", "--rm", "--config", container("coredns", "/coredns", "-plugins"), "dns")...); !strings.Contains(said, "\nkubernetes\n") {
		t.Errorf("CoreDNS in its container lists the plugins %q", said)
	}
}

// oldSpec makes a container's description one that Debian 12's crun takes: it refuses any OCI version but 1.0 ("unknown
// version specified"), and containerd 2 writes a newer one, unless it is told by base_runtime_spec where to begin. The
// container shares the network of its host, and has no limits, which not every host lets a test set.
func oldSpec(t *testing.T, spec, root string, args ...string) string {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	s["ociVersion"] = "1.0.2"
	s["root"] = map[string]any{"path": root}
	process, ok := s["process"].(map[string]any)
	linux, also := s["linux"].(map[string]any)
	if !ok || !also {
		t.Fatalf("containerd describes containers as %s", spec)
	}
	process["args"] = args
	namespaces, ok := linux["namespaces"].([]any)
	if !ok {
		t.Fatalf("containerd describes containers as %s", spec)
	}
	delete(linux, "resources")
	linux["namespaces"] = slices.DeleteFunc(namespaces, func(n any) bool {
		kind, ok := n.(map[string]any)
		return ok && kind["type"] == "network"
	})
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func version(t *testing.T, set *artifacts.Set, program string) string {
	t.Helper()
	a, ok := set.Find(artifacts.Program, program)
	if !ok {
		t.Fatalf("there is no %s", program)
	}
	return a.Version
}
