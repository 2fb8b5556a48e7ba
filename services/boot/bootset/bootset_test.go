package bootset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"

	"joist/engine/agent/scout/kmod"
)

const testVersion = "6.1.0-56-cloud-amd64"

// bzImage makes a kernel image that says its version.
func bzImage(version string) []byte {
	b := make([]byte, 4096)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x600)
	copy(b[0x800:], version+" (builder@host) #1 SMP\x00")
	return b
}

func squashfs(t testing.TB, kernel string) []byte {
	t.Helper()
	body := make([]byte, 8192)
	copy(body, "hsqs")
	binary.LittleEndian.PutUint64(body[40:], 8000)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := addLabel(path, label{Kernel: kernel, Inputs: "x"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func initrd(t testing.TB, kernel string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	entries := []entry{{name: "lib", mode: modeDir}, {name: "lib/modules", mode: modeDir}, {name: "lib/modules/" + kernel, mode: modeDir}, {name: "lib/modules/" + kernel + "/x.ko", mode: modeFile}}
	if _, err := z.Write(archiveOf(t, entries, make([]string, 4))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// writeSet writes a boot set whose parts are for the given kernels.
func writeSet(t *testing.T, manifest, kernel, scout, image string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string][]byte{kernelName: bzImage(kernel), initrdName: initrd(t, scout), imageName: squashfs(t, image)} {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := Manifest{Format: manifestFormat, Profile: Virt, KernelVersion: manifest, Inputs: "x"}
	if err := m.write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpen(t *testing.T) {
	set, err := Open(writeSet(t, testVersion, testVersion, testVersion, testVersion))
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Verify(); err != nil || len(set.Digest) != 64 || set.KernelVersion != testVersion {
		t.Errorf("set is %+v (%v)", set, err)
	}
	const other = "6.1.0-55-cloud-amd64"
	for _, tt := range []struct{ name, manifest, kernel, scout, image string }{
		{"image", testVersion, testVersion, testVersion, other}, {"scout", testVersion, testVersion, other, testVersion},
		{"kernel", testVersion, other, testVersion, testVersion}, {"manifest", other, testVersion, testVersion, testVersion},
	} {
		_, err := Open(writeSet(t, tt.manifest, tt.kernel, tt.scout, tt.image))
		if err == nil || !strings.Contains(err.Error(), "different kernels") {
			t.Errorf("%s for another kernel: error %v", tt.name, err)
		}
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"no manifest", func(d string) error { return os.Remove(filepath.Join(d, manifestName)) }, "no such file"},
		{"no image", func(d string) error { return os.Remove(filepath.Join(d, imageName)) }, "no such file"},
		{"image cut short", func(d string) error { return os.Truncate(filepath.Join(d, imageName), 5000) }, "node.squashfs has 5000 bytes, the manifest says"},
		{"manifest changed", func(d string) error {
			path := filepath.Join(d, manifestName)
			b, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, bytes.Replace(b, []byte(`"virt"`), []byte(`"metal"`), 1), 0o600))
		}, "its digest is not that of what it lists"},
		{"half a manifest", func(d string) error { return os.Truncate(filepath.Join(d, manifestName), 40) }, "manifest.json: "},
	} {
		dir := writeSet(t, testVersion, testVersion, testVersion, testVersion)
		if err := tt.damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	dir := writeSet(t, testVersion, testVersion, testVersion, testVersion)
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := squashfs(t, testVersion)
	b[100] ^= 1
	if err := os.WriteFile(filepath.Join(dir, imageName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := set.Verify(); err == nil || !strings.Contains(err.Error(), "is damaged: node.squashfs has SHA-256") {
		t.Errorf("error %v", err)
	}
}

func TestManifestNamesNoPath(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../x", "/etc/passwd", "a/b"} {
		m := Manifest{Format: manifestFormat, Profile: Virt, Kernel: File{name, 1, "x"}, Initrd: File{"i", 1, "x"}, Image: File{"n", 1, "x"}}
		m.Digest = m.digest()
		body := []byte(`{"format":1,"profile":"virt","digest":"` + m.Digest + `","kernel":{"file":"` + name + `","size":1,"sha256":"x"},"initrd":{"file":"i","size":1,"sha256":"x"},"image":{"file":"n","size":1,"sha256":"x"}}`)
		if _, err := parseManifest(body); err == nil || !strings.Contains(err.Error(), "names a file") {
			t.Errorf("%q: error %v", name, err)
		}
	}
}

func TestParseLock(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	good := "# comment\n\nimage libc6 2.36-9+deb12u14 amd64 " + sum + " # why\nkernel-virt linux-image-6.1.0-56-cloud-amd64 6.1.192-2 amd64 " + sum + "\nimage perl-base 1:5~rc1 all " + sum + "\n"
	lock, err := ParseLock(strings.NewReader(good))
	if err != nil || len(lock[GroupImage]) != 2 || lock["kernel-virt"][0].Version != "6.1.192-2" {
		t.Fatalf("lock is %v (%v)", lock, err)
	}
	again, err := ParseLock(strings.NewReader(lock.String()))
	if err != nil || again.String() != lock.String() {
		t.Errorf("a written lock reads as %v (%v)", again, err)
	}
	if got := lock[GroupImage][1].file(); got != "perl-base_1%3a5~rc1_all.deb" {
		t.Errorf("file is %s", got)
	}
	for line, want := range map[string]string{
		"image libc6 1 amd64":                                    "line 1: want GROUP NAME VERSION ARCH SHA256, got 4 words",
		"image -oDebug=1 1 amd64 " + sum:                         "is not a package name",
		"image ../x 1 amd64 " + sum:                              "is not a package name",
		"image libc6 1;reboot amd64 " + sum:                      "is not a package version",
		"image libc6 1 amd64/.. " + sum:                          "is not an architecture",
		"image libc6 1 amd64 abc":                                "is not a SHA-256 digest",
		"image a 1 all " + sum + "\n\nimage a 2 all " + sum + "": "line 3: a is in group image already, on line 1",
	} {
		if _, err := ParseLock(strings.NewReader(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", line, err, want)
		}
	}
}

func TestDefaultLockIsComplete(t *testing.T) {
	lock, err := DefaultLock()
	if err != nil {
		t.Fatal(err)
	}
	if len(lock[GroupImage]) < 100 || len(lock[kernelGroup(Virt)]) != 1 || len(lock[kernelGroup(Metal)]) != 1 {
		t.Errorf("groups of %d, %d and %d packages", len(lock[GroupImage]), len(lock[kernelGroup(Virt)]), len(lock[kernelGroup(Metal)]))
	}
	has := map[string]bool{}
	for _, p := range lock[GroupImage] {
		has[p.Name] = true
	}
	for _, name := range imagePackages {
		if !has[name] {
			t.Errorf("%s is not in the lock", name)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add("image libc6 2.36 amd64 " + strings.Repeat("0a", 32))
	f.Add("# x\nimage a b c d e f")
	f.Fuzz(func(t *testing.T, text string) {
		lock, err := ParseLock(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, packages := range lock {
			for _, p := range packages {
				if strings.ContainsAny(p.Name+p.Version+p.Arch, " /\\\x00$;|&") || p.Name[0] == '-' {
					t.Fatalf("accepted %+v", p)
				}
			}
		}
	})
}

func TestKernelVersion(t *testing.T) {
	if got, err := kernelVersion(bzImage(testVersion)); got != testVersion || err != nil {
		t.Errorf("version %q, %v", got, err)
	}
	for _, version := range []string{"", "../x", "..", "a/b"} {
		if got, err := kernelVersion(bzImage(version)); err == nil {
			t.Errorf("%q is read as %q", version, got)
		}
	}
	if _, err := kernelVersion([]byte("\x7fELF")); err == nil || err.Error() != "the kernel is not an x86 bzImage" {
		t.Errorf("error %v", err)
	}
}

func FuzzKernelVersion(f *testing.F) {
	f.Add(bzImage(testVersion))
	f.Add(bzImage("")[:0x220])
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := kernelVersion(b); err == nil && (v == "" || strings.Contains(v, "/")) {
			t.Fatalf("version %q", v)
		}
	})
}

func FuzzParseLabel(f *testing.F) {
	f.Add(squashfs(f, testVersion))
	f.Add([]byte("hsqs"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLabel(bytes.NewReader(b), int64(len(b))); err == nil && l.Kernel == "" {
			t.Fatal("a label without a kernel")
		}
	})
}

func FuzzInitrdKernel(f *testing.F) {
	f.Add(initrd(f, testVersion))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := initrdKernel(bytes.NewReader(b)); err == nil && v == "" {
			t.Fatal("no version and no error")
		}
	})
}

func TestModuleChoice(t *testing.T) {
	tree, err := kmod.Read(fstest.MapFS{"modules.dep": {Data: []byte(`kernel/drivers/net/ethernet/a/a.ko: kernel/lib/l.ko
kernel/drivers/net/ethernetx/b.ko:
kernel/lib/l.ko:
kernel/fs/n.ko:
`)}})
	if err != nil {
		t.Fatal(err)
	}
	c := moduleChoice{names: []string{"n"}, wanted: []string{"nothere"}, folders: []string{"kernel/drivers/net/ethernet"}}
	files, err := c.files(tree)
	if err != nil || strings.Join(files, " ") != "kernel/drivers/net/ethernet/a/a.ko kernel/fs/n.ko kernel/lib/l.ko" {
		t.Errorf("files %v, %v", files, err)
	}
	c.names = []string{"gone"}
	if _, err := c.files(tree); err == nil {
		t.Error("a needed module may be missing")
	}
}

// Firmware lies where the kernel looks for it; the version comes first, and the console before anything is mounted.
func TestArchive(t *testing.T) {
	staging, firmware := t.TempDir(), t.TempDir()
	for path, mode := range map[string]os.FileMode{staging + "/joist-agent": 0o755, firmware + "/tigon/tg3.bin": 0o640} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("joist-agent", staging+"/init"); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := (&builder{Config: Config{Firmware: firmware}}).archive(&b, staging, testVersion); err != nil {
		t.Fatal(err)
	}
	modes := map[string]uint32{}
	var order []string
	err := scanNewc(&b, func(e entry, _ io.Reader) error {
		order = append(order, e.name)
		modes[e.name] = e.mode
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{
		"init": modeLink | 0o777, "joist-agent": modeFile | 0o755, "lib/firmware": modeDir | 0o755, "lib/firmware/tigon": modeDir | 0o755,
		"lib/firmware/tigon/tg3.bin": modeFile | 0o644, "dev/console": modeChar | 0o600,
	} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, modes[name], mode)
		}
	}
	if order[2] != "lib/modules/"+testVersion {
		t.Errorf("the archive begins with %v", order[:3])
	}
}

func TestFixShadow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(path, []byte("root:*:19876:0:99999:7:::\netcd:!:20000::::::\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fixShadow(path); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "root:*:20454:0:99999:7:::\netcd:!:20454::::::\n" {
		t.Errorf("shadow is %q", b)
	}
}

func TestNotFound(t *testing.T) {
	for said, want := range map[string]string{
		"E: Version '1' for 'jq' was not found":                           "Version '1' for 'jq' was not found",
		"W: x\nE: Unable to locate package linux-image-6.1.0-1-amd64":     "Unable to locate package linux-image-6.1.0-1-amd64",
		"E: Can't find a source to download version '1' of 'libc6:amd64'": "Can't find a source to download version '1' of 'libc6:amd64'",
		"E: Failed to fetch x  Could not connect to x:80 (10.0.0.1)":      "",
	} {
		got := ""
		if m := notFound.FindStringSubmatch(said); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}
