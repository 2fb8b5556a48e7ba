package packs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"joist/engine/drive"
	"joist/engine/model"
	"joist/engine/step"
)

// stage is a node on which the real scripts of steps run: a root of its own, with the programs of this machine but for
// those that would act on it, and a network of its own. What the scripts leave can be looked at below its root.
type stage struct {
	name   string
	root   string
	holder *exec.Cmd // its namespaces live as long as this process
	mu     sync.Mutex
	keys   map[string]bool // paths of the keys that were made on it
	valid  string          // until when the last success holds; empty for always
}

// stubs are the programs that are not the real ones. Each call is a line of /log/calls.
var stubs = map[string]string{
	"systemctl": `case $1 in is-active) for unit; do :; done; [ -e "/etc/systemd/system/$unit.service" ] && [ ! -e "/log/stopped" ]; exit;; esac`,
	"kubectl":   `while [ $# -gt 0 ]; do case $1 in -f) shift; cp "$1" "$(mktemp /log/objects-XXXXXX)";; esac; shift; done`,
	"etcdctl":   `case "$*" in *"endpoint status"*) echo "x, 1, 3.6.8, 20 kB, true, false, 2, 8";; esac`,
	"curl":      `echo ok`,
	"id":        `exit 0`,
	"modprobe":  "", "swapoff": "", "sysctl": "", "haproxy": "", "ctr": "", "etcd": "", "journalctl": "", "kube-apiserver": "",
}

// bundles are what artifacts have that scripts run.
var bundles = map[string][]string{
	"etcd":               {"bin/etcd", "bin/etcdctl"},
	"kubernetes-control": {"bin/kubectl", "bin/kube-apiserver", "bin/kube-controller-manager", "bin/kube-scheduler"},
	"kubernetes-node":    {"bin/kubelet", "bin/kube-proxy"},
	"containerd":         {"bin/ctr", "bin/containerd", "cni/bridge", "cni/host-local"},
	"images":             {"images/pause.tar"},
}

// setUp makes the namespaces' view of the root, says so, and keeps it until it is killed.
const setUp = `set -eu
mount --make-rprivate /
mount --rbind -o ro /usr "$1/usr"
mount --rbind /dev "$1/dev"
mount --rbind /proc "$1/proc"
mount --bind /etc/alternatives "$1/etc/alternatives"
mount --bind /etc/ssl "$1/etc/ssl"
ip link set lo up
ip link add eth0 type veth peer name eth1
ip link set eth1 up
ip addr add "$2/24" dev eth0
ip link set eth0 up
echo ready
exec sleep infinity
`

func newStage(t *testing.T, name, address string) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: the scripts of the packs run in namespaces of their own")
	}
	s := &stage{name: name, root: t.TempDir(), keys: map[string]bool{}}
	for _, dir := range []string{"usr", "dev", "proc", "sys/fs/cgroup", "tmp", "log", "stub", "work", "etc/systemd/system", "etc/sysctl.d", "etc/alternatives", "etc/ssl", "var/lib/joist/keys", "var/lib/joist/service-accounts"} {
		s.must(t, os.MkdirAll(filepath.Join(s.root, dir), 0o755))
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		s.must(t, os.Symlink("usr/"+dir, filepath.Join(s.root, dir)))
	}
	s.must(t, os.WriteFile(filepath.Join(s.root, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\nkube:x:901:901::/:/bin/sh\netcd:x:902:902::/:/bin/sh\n"), 0o644))
	s.must(t, os.WriteFile(filepath.Join(s.root, "etc/group"), []byte("root:x:0:\nkube:x:901:\netcd:x:902:\n"), 0o644))
	s.must(t, os.WriteFile(filepath.Join(s.root, "etc/hosts"), []byte("127.0.0.1 localhost\n"), 0o644))
	s.must(t, os.WriteFile(filepath.Join(s.root, "sys/fs/cgroup/cgroup.controllers"), nil, 0o644))
	stub := func(file string) {
		body := fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>/log/calls\n%s\n", path.Base(file), stubs[path.Base(file)])
		s.must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		s.must(t, os.WriteFile(file, []byte(body), 0o755))
	}
	for program := range stubs {
		stub(filepath.Join(s.root, "stub", program))
	}
	for bundle, programs := range bundles {
		for _, program := range programs {
			stub(filepath.Join(s.root, "bundles", bundle, program))
		}
	}
	s.holder = exec.Command("sh", "-c", setUp, "sh", s.root, address)
	s.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	var complaints strings.Builder
	s.holder.Stderr = &complaints
	out, err := s.holder.StdoutPipe()
	s.must(t, err)
	s.must(t, s.holder.Start())
	t.Cleanup(func() {
		_ = s.holder.Process.Kill()
		_ = s.holder.Wait()
	})
	said := make([]byte, 6)
	if _, err := out.Read(said); err != nil {
		_ = s.holder.Process.Kill()
		_ = s.holder.Wait()
		t.Fatalf("cannot make a stage: %v\n%s", err, complaints.String())
	}
	return s
}

func (s *stage) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command is a program inside the stage.
func (s *stage) command(ctx context.Context, dir string, argv ...string) *exec.Cmd {
	pid := fmt.Sprint(s.holder.Process.Pid)
	in := []string{"-t", pid, "-m", "-n", "chroot", s.root, "env", "-i", "-C", dir, "PATH=/stub:/usr/sbin:/usr/bin", "LANG=C.UTF-8"}
	return exec.CommandContext(ctx, "nsenter", append(in, argv...)...)
}

// run does one action of a step as the agent would.
func (s *stage) run(action *model.Action, kind step.Action, inputs map[string]json.RawMessage) (json.RawMessage, error) {
	if action.Builtin != "" {
		return s.builtin(action.Builtin, inputs)
	}
	work, err := os.MkdirTemp(filepath.Join(s.root, "work"), "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	given, err := json.Marshal(inputs)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"script": action.Script.Body, "inputs.json": given}
	for name, body := range action.Script.Files {
		files[path.Base(name)] = body
	}
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(work, name), body, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink("/bundles", filepath.Join(work, "artifacts")); err != nil {
		return nil, err
	}
	dir := strings.TrimPrefix(work, s.root)
	out, err := s.command(context.Background(), dir,
		"HOME="+dir, "JOIST_ACTION="+string(kind), "JOIST_INPUTS="+dir+"/inputs.json", "JOIST_OUTPUTS="+dir+"/outputs.json", "JOIST_VALID_UNTIL="+dir+"/valid_until", "sh", dir+"/script",
	).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s of %s on %s: %w\n%s", kind, action.Script.Name, s.name, err, out)
	}
	until, err := os.ReadFile(filepath.Join(work, "valid_until"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	s.mu.Lock()
	s.valid = strings.TrimSpace(string(until))
	s.mu.Unlock()
	outputs, err := os.ReadFile(filepath.Join(work, "outputs.json"))
	if errors.Is(err, os.ErrNotExist) {
		return json.RawMessage("{}"), nil
	}
	return outputs, err
}

func (s *stage) builtin(name string, inputs map[string]json.RawMessage) (json.RawMessage, error) {
	if name != "key" {
		return json.RawMessage("{}"), nil
	}
	key, out, err := newKey(inputs)
	if err != nil {
		return nil, err
	}
	var made struct{ Path string }
	if err := json.Unmarshal(out, &made); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.keys[made.Path] = true
	s.mu.Unlock()
	return out, os.WriteFile(s.root+made.Path, key, 0o600)
}

// newKey is the built-in action, but for the file.
func newKey(inputs map[string]json.RawMessage) (file []byte, outputs json.RawMessage, err error) {
	purpose, folder := "", "/var/lib/joist/keys"
	if err := json.Unmarshal(inputs["purpose"], &purpose); err != nil {
		return nil, nil, err
	}
	if given, ok := inputs["folder"]; ok && string(given) != "null" {
		if err := json.Unmarshal(given, &folder); err != nil {
			return nil, nil, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	out, err := json.Marshal(map[string]string{
		"path": folder + "/" + purpose + ".key", "csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})),
	})
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), out, err
}

// perform implements bed.perform on one stage.
func (s *stage) perform(o drive.Order) (json.RawMessage, error) {
	action := &o.Step.Apply
	if o.Action != step.Apply {
		return nil, nil
	}
	return s.run(action, o.Action, o.Clear)
}

// read gives a file of the stage, empty if there is none.
func (s *stage) read(name string) string {
	data, err := os.ReadFile(s.root + name)
	if err != nil {
		return ""
	}
	return string(data)
}

// files gives all files below some folders of the stage.
func (s *stage) files(folders ...string) map[string]string {
	found := map[string]string{}
	for _, folder := range folders {
		_ = filepath.Walk(s.root+folder, func(name string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().IsRegular() {
				found[strings.TrimPrefix(name, s.root)] = s.read(strings.TrimPrefix(name, s.root))
			}
			return nil
		})
	}
	return found
}

// restarts gives the calls that start a program anew.
func (s *stage) restarts() []string {
	var calls []string
	for line := range strings.Lines(s.read("/log/calls")) {
		if strings.HasPrefix(line, "systemctl restart ") {
			calls = append(calls, strings.TrimSpace(line))
		}
	}
	return calls
}

// linked reports whether a unit starts at a boot.
func (s *stage) linked(unit string) bool {
	to, err := os.Readlink(s.root + "/etc/systemd/system/multi-user.target.wants/" + unit)
	return err == nil && to == "/etc/systemd/system/"+unit
}
