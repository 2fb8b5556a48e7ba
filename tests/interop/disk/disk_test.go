// Package disk_test makes, mounts, loses and wipes data disks with the real tools, on loop devices. The tests need root,
// for these and for a mount namespace that nobody else sees.
package disk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"joist/content"
	"joist/engine/agent/disk"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
)

const (
	first  = "11111111-1111-4111-8111-111111111111"
	second = "22222222-2222-4222-8222-222222222222"
	size   = 320 << 20
)

// childDir names, in the environment of the process within the mount namespace, the folder it works in.
const childDir = "DISK_TEST_DIR"

// inside runs the calling test again in a mount namespace of its own, and returns a folder there. It returns "" to the
// test outside, which is then done.
func inside(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(childDir); dir != "" {
		must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		return dir
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, to mount loop devices in a mount namespace of its own")
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childDir+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("inside the namespace:\n%s", out)
	must(t, err)
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is a machine with disks, which keep what is on them when it loses its power.
type machine struct {
	t     *testing.T
	dir   string
	place disk.Place
}

func newMachine(t *testing.T, dir string) *machine {
	m := &machine{t: t, dir: dir, place: disk.Place{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev")}}
	must(t, os.MkdirAll(m.place.Sys, 0o755))
	must(t, os.MkdirAll(m.place.Dev, 0o755))
	return m
}

// disk gives the machine a blank disk and returns the path of its image.
func (m *machine) disk(name string) string {
	m.t.Helper()
	image := filepath.Join(m.dir, name+".raw")
	must(m.t, os.WriteFile(image, nil, 0o600))
	must(m.t, os.Truncate(image, size))
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	must(m.t, err)
	device := strings.TrimSpace(string(out))
	m.t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			m.t.Errorf("%v: %s", err, out)
		}
	})
	must(m.t, os.Symlink(filepath.Join("/sys/class/block", filepath.Base(device)), filepath.Join(m.place.Sys, name)))
	must(m.t, os.Symlink(device, filepath.Join(m.place.Dev, name)))
	return image
}

func (m *machine) mount(of string) string { return filepath.Join(m.dir, "root", of) }

// boot is the agent of a boot with an incarnation.
func (m *machine) boot(incarnation string) func(wire.Action, string) error {
	d := disk.New(disk.Config{Incarnation: incarnation, Place: m.place, Root: filepath.Join(m.dir, "data")})
	return func(a wire.Action, of string) error {
		storage, of, ok := strings.Cut(of, ":")
		if !ok {
			storage, of = "disk", storage
		}
		inputs, err := json.Marshal(disk.Wanted{Mount: m.mount(of), Storage: storage, Size: "8m", Overlay: true})
		must(m.t, err)
		_, err = d.Builtin(m.t.Context(), sandbox.BuiltinCall{Action: a, Inputs: inputs})
		return err
	}
}

// cut takes the power: whatever is mounted goes, in no order.
func (m *machine) cut() {
	m.t.Helper()
	raw, err := os.ReadFile("/proc/self/mounts")
	must(m.t, err)
	for line := range strings.Lines(string(raw)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, m.dir+"/") {
			must(m.t, syscall.Unmount(at, 0))
		}
	}
}

func (m *machine) incarnation() string {
	m.t.Helper()
	disks, err := m.place.Look()
	must(m.t, err)
	id, _, err := disk.Incarnation(disks)
	must(m.t, err)
	return id
}

func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return [32]byte(h.Sum(nil))
}

func refused(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("not refused")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

// A blank disk becomes the node's; what is on it outlives the boot, and so does the incarnation; a wipe ends both.
func TestLife(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	m := newMachine(t, dir)
	image := m.disk("vda")
	if id := m.incarnation(); id != "" {
		t.Fatalf("a blank disk carries %s", id)
	}
	do := m.boot(first)
	for _, place := range []string{"var/lib/etcd", "var/lib/containerd"} {
		must(t, do(wire.Apply, place))
		must(t, do(wire.Verify, place))
		must(t, os.WriteFile(filepath.Join(m.mount(place), "kept"), []byte(place), 0o600))
	}
	must(t, do(wire.Apply, "var/lib/etcd")) // again, over what is there
	if _, err := m.place.Wipe(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("a mounted disk was wiped: %v", err)
	}
	m.cut()
	if id := m.incarnation(); id != first {
		t.Fatalf("after the power cut the disk carries %q", id)
	}
	do = m.boot(first)
	refused(t, do(wire.Verify, "var/lib/etcd"), "nothing is mounted")
	refused(t, do(wire.Apply, "memory:var/lib/etcd"), "vda", "would outlive data in memory")
	must(t, do(wire.Apply, "var/lib/etcd"))
	kept, err := os.ReadFile(filepath.Join(m.mount("var/lib/etcd"), "kept"))
	if err != nil || string(kept) != "var/lib/etcd" {
		t.Fatalf("the data is gone: %q, %v", kept, err)
	}
	must(t, do(wire.Remove, "var/lib/etcd"))
	must(t, do(wire.Remove, "var/lib/etcd"))
	refused(t, do(wire.Verify, "var/lib/etcd"), "nothing is mounted")
	must(t, do(wire.Apply, "var/lib/etcd"))
	if _, err := os.Stat(filepath.Join(m.mount("var/lib/etcd"), "kept")); err == nil {
		t.Error("what was removed is back")
	}
	must(t, do(wire.Apply, "var/lib/containerd"))
	if _, err := os.Stat(filepath.Join(m.mount("var/lib/containerd"), "kept")); err != nil {
		t.Error("removing one place took another's data")
	}
	m.cut()
	refused(t, m.boot(second)(wire.Apply, "var/lib/etcd"), "vda", first, second)

	done, err := m.place.Wipe()
	must(t, err)
	if len(done) != 1 || done[0].Disk != "vda" || done[0].Size != size || done[0].How != "discarded" || done[0].Looked == 0 {
		t.Errorf("wiped %+v", done)
	}
	if id := m.incarnation(); id != "" {
		t.Errorf("a wiped disk carries %s", id)
	}
	if !bytes.Equal(make([]byte, 32<<20), head(t, image, 32<<20)) {
		t.Error("the wiped disk is not blank")
	}
	if st, err := os.Stat(image); err != nil || st.Sys().(*syscall.Stat_t).Blocks != 0 {
		t.Errorf("the wiped disk takes %d blocks", st.Sys().(*syscall.Stat_t).Blocks)
	}
	if done, err := m.place.Wipe(); err != nil || len(done) != 0 {
		t.Errorf("wiped a blank disk: %+v, %v", done, err)
	}
	must(t, m.boot(second)(wire.Apply, "var/lib/etcd"))
	m.cut()
	if id := m.incarnation(); id != second {
		t.Errorf("the new incarnation's disk carries %q", id)
	}
}

func head(t *testing.T, path string, n int) []byte {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(f, b)
	must(t, err)
	return b
}

// Disks that are somebody's are neither made nor wiped, and not a byte of them changes.
func TestForeign(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	m := newMachine(t, dir)
	root, raw := m.disk("sda"), m.disk("sdb")
	must(t, exec.Command("mkfs.ext4", "-q", "-L", "root", filepath.Join(m.place.Dev, "sda")).Run())
	f, err := os.OpenFile(raw, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("database"), 1<<20), 300<<20)
	must(t, err)
	must(t, f.Close())
	before := [][32]byte{digest(t, root), digest(t, raw)}
	refused(t, m.boot(first)(wire.Apply, "var/lib/etcd"), "sda (320 MiB) holds an ext4 file system labelled \"root\"", "sdb (320 MiB) holds data that joist does not know", `storage = "memory"`)
	if done, err := m.place.Wipe(); err != nil || len(done) != 0 {
		t.Fatalf("wiped %+v, %v", done, err)
	}
	if after := [][32]byte{digest(t, root), digest(t, raw)}; before[0] != after[0] || before[1] != after[1] {
		t.Error("a foreign disk was written to")
	}
	m.disk("sdc")
	must(t, m.boot(first)(wire.Apply, "var/lib/etcd"))
	m.cut()
	if after := [][32]byte{digest(t, root), digest(t, raw)}; before[0] != after[0] || before[1] != after[1] {
		t.Error("a foreign disk was written to, although there is a blank one")
	}
}

// A power cut while the file system is made leaves a disk that carries no incarnation, and that the next boot makes anew.
func TestCutShort(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	m := newMachine(t, dir)
	m.disk("vda")
	tools := t.TempDir()
	fake := "#!/bin/sh\nfor d; do [ -b \"$d\" ] && yes rubbish | dd of=\"$d\" bs=1M seek=1 count=40 iflag=fullblock conv=notrunc 2>/dev/null; done\nexit 1\n"
	must(t, os.WriteFile(filepath.Join(tools, "mkfs.ext4"), []byte(fake), 0o755))
	path := os.Getenv("PATH")
	t.Setenv("PATH", tools+":"+path)
	refused(t, m.boot(first)(wire.Apply, "var/lib/etcd"), "cannot make the data disk vda", "mkfs.ext4")
	t.Setenv("PATH", path)
	if id := m.incarnation(); id != "" {
		t.Fatalf("a disk that is half made carries %s", id)
	}
	content, err := disk.Content(filepath.Join(m.place.Dev, "vda"))
	if err != nil || content == "" {
		t.Fatalf("the disk is blank (%v): nothing is tested", err)
	}
	must(t, m.boot(second)(wire.Apply, "var/lib/etcd"))
	must(t, m.boot(second)(wire.Verify, "var/lib/etcd"))
	m.cut()
	if id := m.incarnation(); id != second {
		t.Errorf("the disk carries %q", id)
	}
}

// In memory each place has its own limit.
func TestMemory(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	m := newMachine(t, dir)
	m.disk("vda")
	do := m.boot(first)
	must(t, do(wire.Apply, "memory:var/lib/etcd"))
	must(t, do(wire.Verify, "memory:var/lib/etcd"))
	err := os.WriteFile(filepath.Join(m.mount("var/lib/etcd"), "large"), make([]byte, 9<<20), 0o600)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("9 MiB in a place of 8: %v", err)
	}
	refused(t, do(wire.Apply, "var/lib/etcd"), "does not move between disk and memory")
	if id := m.incarnation(); id != "" {
		t.Error("a disk was made for a node that keeps its data in memory")
	}
	must(t, do(wire.Remove, "memory:var/lib/etcd"))
	refused(t, do(wire.Verify, "memory:var/lib/etcd"), "nothing is mounted")
	m.cut()
}

// A file system on which no overlay works is found out.
func TestOverlay(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"))
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		must(t, os.Mkdir(in(name), 0o755))
	}
	must(t, disk.Overlay(dir))
	must(t, syscall.Mount("overlay", in("merged"), "overlay", 0, "lowerdir="+in("lower")+",upperdir="+in("upper")+",workdir="+in("work")))
	refused(t, disk.Overlay(in("merged")), "overlay")
	must(t, syscall.Unmount(in("merged"), 0))
	must(t, syscall.Unmount(dir, 0))
}

// overlayOn mounts an overlay at a place, whose layers are in a tmpfs below dir.
func overlayOn(t *testing.T, dir, place string) {
	t.Helper()
	layers := filepath.Join(dir, "layers")
	must(t, os.MkdirAll(layers, 0o755))
	must(t, syscall.Mount("tmpfs", layers, "tmpfs", 0, "size=8m"))
	for _, name := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(layers, name), 0o755))
	}
	must(t, os.MkdirAll(place, 0o755))
	must(t, syscall.Mount("overlay", place, "overlay", 0, "lowerdir="+layers+"/lower,upperdir="+layers+"/upper,workdir="+layers+"/work"))
}

// A place for layers whose data disk is itself an overlay is refused, and one that holds no layers is not.
func TestOverlayOfPlace(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	m := newMachine(t, dir)
	d := disk.New(disk.Config{Incarnation: first, Place: m.place, Root: filepath.Join(dir, "data")})
	overlayOn(t, dir, filepath.Join(dir, "data"))
	for of, overlay := range map[string]bool{"var/lib/kubelet": false, "var/lib/containerd": true} {
		inputs, err := json.Marshal(disk.Wanted{Mount: m.mount(of), Storage: "disk", Size: "8m", Overlay: overlay})
		must(t, err)
		_, err = d.Builtin(t.Context(), sandbox.BuiltinCall{Action: wire.Apply, Inputs: inputs})
		must(t, err)
		if _, err = d.Builtin(t.Context(), sandbox.BuiltinCall{Action: wire.Verify, Inputs: inputs}); overlay {
			refused(t, err, "cannot hold an overlay", m.mount(of))
		} else {
			must(t, err)
		}
	}
	m.cut()
}

// The check of the shipped containerd step finds an overlay below its layers, which containerd itself does not.
func TestOverlayOfContainerd(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	pack, err := content.Find("kubernetes", content.Builtin, "")
	must(t, err)
	body := string(pack["files/containerd.sh"])
	must(t, syscall.Mount("tmpfs", "/var/lib", "tmpfs", 0, "size=8m")) // in this namespace: nothing is made on the machine
	tools := filepath.Join(dir, "tools")
	must(t, os.Mkdir(tools, 0o755))
	must(t, os.WriteFile(filepath.Join(tools, "systemctl"), []byte("#!/bin/sh\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "lib.sh"), pack["files/lib.sh"], 0o644))
	verify := func(old, text string) error {
		t.Helper()
		if !strings.Contains(body, old) {
			t.Fatalf("containerd.sh has no %q any more: plant the defect where it would be now", old)
		}
		must(t, os.WriteFile(filepath.Join(dir, "script"), []byte(strings.Replace(body, old, text, 1)), 0o755))
		cmd := exec.Command("sh", "./script")
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + tools + ":" + os.Getenv("PATH"), "JOIST_ACTION=verify"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		if left, _ := filepath.Glob("/var/lib/containerd/.joist*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		return err
	}
	must(t, verify("", ""))
	overlayOn(t, dir, "/var/lib/containerd")
	refused(t, verify("", ""), "joist-probe")
	// Without what looks, nothing is seen: it is this check that refuses, and nothing else.
	if err := verify("\toverlay\n\texit\n", "\texit\n"); err != nil {
		t.Errorf("without its check, the verify fails all the same: %v", err)
	}
	must(t, syscall.Unmount("/var/lib/containerd", 0))
	must(t, syscall.Unmount("/var/lib", 0))
	m := machine{t: t, dir: dir}
	m.cut()
}
