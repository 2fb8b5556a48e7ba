package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joist/engine/agent/scout"
	"joist/services/boot/bootset"
)

var tools = map[string]string{"qemu-system-x86_64": "qemu-system-x86", "socat": "socat", "debootstrap": "debootstrap", "mksquashfs": "squashfs-tools", "go": "golang", "mkfs.ext4": "e2fsprogs"}

func assignment(set *bootset.Set) scout.Image {
	return scout.Image{URLs: []string{"http://10.0.2.100/image"}, SHA256: set.Image.SHA256, Size: set.Image.Size}
}

func serveImage(set *bootset.Set) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, set.Path(set.Image)) }
}

func decode[T any](t *testing.T, raw json.RawMessage) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// From a kernel and an initramfs to an agent under systemd, in the verified image under an overlay.
func TestVirtHandsOver(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	e := startEngine(t, assignment(set), serveImage(set))
	m := &machine{name: "virt", set: set, engine: e}
	start := time.Now()
	m.start(t)

	told := receive(t, e.facts, "facts")
	t.Logf("facts after %.1f s: %s", time.Since(start).Seconds(), told["facts"])
	checkFacts(t, told)

	node := receive(t, e.nodes, "report of the node")
	t.Logf("node after %.1f s", time.Since(start).Seconds())
	for name, value := range node {
		t.Logf("%s: %s", name, value)
	}
	session := decode[scout.Session](t, told["session"])
	for name, want := range map[string]string{
		"machineid": "^" + strings.ReplaceAll(session.Incarnation, "-", "") + "$",
		"root":      `^overlay +root$`, "lower": `^squashfs +ro,`, "pid1": `^systemd$`, "mode": `^700$`, "write": `^x$`, "modules": `^yes$`,
		"image": "^" + set.Image.SHA256, "identity": "^test$", "agent": `joist-agent\.service`, "address": `UP +10\.0\.2\.15/24`,
		"system": "^running$", "failed": "^$", "imagewrite": "Read-only file system", "modprobe": "^ok$", "python": "^none", "mkfs": "^5$",
		"initramfs": "^2$", "networkd": "^masked",
	} {
		if !regexp.MustCompile(want).MatchString(node[name]) {
			t.Errorf("node: %s is %q, want %s", name, node[name], want)
		}
	}
	m.see(t, m.agent, "lease renewed")
	t.Logf("agent log:\n%s", tailOf(m.agent))
}

// The kernel for real machines, under UEFI, with hardware that virtual machines' kernels know nothing of, and a data disk
// that has been here before.
func TestMetalHandsOver(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Metal)
	if set.ScoutModules < 400 {
		t.Errorf("scout has %d modules", set.ScoutModules)
	}
	const incarnation = "0c5eb6f2-0f5a-4d0e-9a5e-3f7a4b1c2d3e"
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	shell(t, "truncate -s 64M "+disk+" && mkfs.ext4 -q -L joist-data -U "+incarnation+" "+disk)
	shell(t, "cp /usr/share/OVMF/OVMF_VARS_4M.fd "+dir+"/vars.fd")
	e := startEngine(t, assignment(set), serveImage(set))
	m := &machine{
		name: "metal", set: set, engine: e, nics: []string{"e1000e,id=nic0,netdev=n0,mac=" + bootMAC},
		args: []string{
			"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive", "if=pflash,format=raw,file=" + dir + "/vars.fd",
			"-drive", "if=none,id=d0,format=raw,file=" + disk, "-device", "nvme,drive=d0,serial=N1",
		},
	}
	start := time.Now()
	m.start(t)
	told := receive(t, e.facts, "facts")
	t.Logf("facts after %.1f s: %s", time.Since(start).Seconds(), told["facts"])
	f := decode[scout.Facts](t, told["facts"])
	if f.Firmware != "uefi" || len(f.NICs) != 1 || f.NICs[0].Driver != "e1000e" || len(f.Disks) != 1 || f.Disks[0].Size != 64<<20 ||
		f.Disks[0].Serial != "N1" || f.Disks[0].Label != scout.DataLabel {
		t.Errorf("facts are not the machine's: %+v", f)
	}
	if s := decode[scout.Session](t, told["session"]); s.Incarnation != incarnation {
		t.Errorf("incarnation %s, the disk carries %s", s.Incarnation, incarnation)
	}
	node := receive(t, e.nodes, "report of the node")
	t.Logf("node after %.1f s, free: %s", time.Since(start).Seconds(), node["free"])
	if node["system"] != "running" || node["modprobe"] != "ok" || node["machineid"] != strings.ReplaceAll(incarnation, "-", "") {
		t.Errorf("node is %v", node)
	}
}

func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// A transfer that stalls is resumed, one that is not the image is thrown away, and both are shown.
func TestFetchRecovers(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	var requests atomic.Int32
	half := set.Image.Size / 2
	e := startEngine(t, assignment(set), func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(set.Path(set.Image))
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		switch requests.Add(1) {
		case 1: // half of it, and silence
			w.Header().Set("Content-Length", fmt.Sprint(set.Image.Size))
			_, _ = io.CopyN(w, f, half) // the machine hangs up
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case 2: // something else
			http.ServeContent(w, r, "image", time.Time{}, io.NewSectionReader(zeros{}, 0, set.Image.Size))
		default:
			http.ServeContent(w, r, "image", time.Time{}, f)
		}
	})
	m := &machine{name: "fetch", set: set, engine: e}
	m.start(t)
	receive(t, e.nodes, "report of the node")
	m.see(t, m.console, "the transfer stalled for 30s at ")
	m.see(t, m.console, "wrong digest: SHA-256 ")
	ranges := e.log.all()
	if len(ranges) != 3 || ranges[0] != "GET " || !strings.HasPrefix(ranges[1], "GET bytes=") || ranges[2] != "GET " {
		t.Errorf("asked for %q", ranges)
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// An image that cannot fit is refused before a byte of it is fetched; and a clock of 2001 has been set by then.
func TestImageLargerThanMemory(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	image := assignment(set)
	image.Size = 4 << 30
	e := startEngine(t, image, serveImage(set))
	m := &machine{name: "memory", set: set, engine: e, memory: 768, args: []string{"-rtc", "base=2001-01-01"}}
	m.start(t)
	m.see(t, m.console, "the node image is larger than this machine's memory allows: image 4096 MiB")
	m.see(t, m.agent, `msg="clock set" from=2001-01-01T`)
	if asked := e.log.all(); len(asked) > 0 {
		t.Errorf("it was fetched nevertheless: %q", asked)
	}
}

// A command line that makes no sense ends the agent; the supervisor says so, starts it again, and lives.
func TestBadCommandLine(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	e := startEngine(t, assignment(set), serveImage(set))
	m := &machine{name: "cmdline", set: set, engine: e, memory: 512, append: "joist.uri=x"}
	m.start(t)
	m.see(t, m.console, "joist: kernel command line: joist.uri: unknown word (reboot in 15m0s unless it recovers)")
	m.see(t, m.console, "joist: the agent ended with status 1")
	m.see(t, m.agent, "the agent ends")
}

// The interface that the firmware named is dead; the cable is in another.
func TestCarrierOnTheSecondInterface(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	e := startEngine(t, assignment(set), serveImage(set))
	const second = "52:54:00:6a:00:02"
	m := &machine{
		name: "carrier", set: set, engine: e, mac: bootMAC, before: "set_link dead off",
		nics: []string{"virtio-net-pci,id=dead,mac=" + bootMAC, "virtio-net-pci,id=nic1,netdev=n0,mac=" + second},
	}
	m.start(t)
	told := receive(t, e.facts, "facts")
	for _, n := range decode[scout.Facts](t, told["facts"]).NICs {
		if n.Carrier != (n.MAC == second) || n.Boot != (n.MAC == second) {
			t.Errorf("NIC %+v", n)
		}
	}
	receive(t, e.nodes, "report of the node")
}

// A machine whose time stamp counter Linux has measured wrong, as on a busy host, goes on by another clock.
func TestClockRunsWrong(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	e := startEngine(t, assignment(set), serveImage(set))
	m := &machine{name: "clock", set: set, engine: e, append: "tsc=reliable tsc_early_khz=800000"}
	m.start(t)
	m.see(t, m.agent, "the machine's clock ran wrong; another clock source is in use now")
	receive(t, e.nodes, "report of the node")
}

// A machine whose network card nobody drives says so, and goes on trying.
func TestNoDriver(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	set := buildSet(t, bootset.Virt)
	e := startEngine(t, assignment(set), serveImage(set))
	m := &machine{name: "driver", set: set, engine: e, memory: 512, nics: []string{"rtl8139,id=nic0,netdev=n0,mac=" + bootMAC}}
	m.start(t)
	m.see(t, m.console, "no network interface: this boot set has no driver for the machine's network card")
	m.see(t, m.console, "(reboot in 15m0s unless it recovers)")
}

// A build from nothing but the packages gives the same files, whatever happened before: a build that was interrupted,
// and another at the same time.
func TestBootSetIsReproducible(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	first := buildSet(t, bootset.Virt)
	agent, err := buildAgent()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	shell(t, "mkdir "+dir+"/cache && cp -a "+filepath.Join(scratch(t), "cache/packages")+" "+dir+"/cache/")
	config := bootset.Config{Out: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache"), Agent: agent}

	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = bootset.Build(ctx, config, func(stage, _ string) {
		if stage == "root" {
			time.AfterFunc(2*time.Second, func() { cancel(errors.New("power cut")) })
		}
	})
	if err == nil || !strings.Contains(err.Error(), "debootstrap was interrupted: power cut") {
		t.Fatalf("the interrupted build: error %v", err)
	}

	var both sync.WaitGroup
	var waited atomic.Bool
	for range 2 {
		both.Go(func() {
			set, err := bootset.Build(t.Context(), config, func(stage, _ string) {
				if stage == "wait" {
					waited.Store(true)
				}
			})
			if err != nil {
				t.Error(err)
				return
			}
			if err := set.Verify(); err != nil {
				t.Error(err)
			}
			if first.Manifest != set.Manifest {
				t.Errorf("the builds differ:\n%+v\n%+v", first.Manifest, set.Manifest)
			}
		})
	}
	both.Wait()
	if !waited.Load() {
		t.Error("two builds used one cache at the same time")
	}
}

// The agent itself, with an engine that is none: it says so on the console, and goes on.
func TestAgentShowsThatNoEngineAnswers(t *testing.T) {
	t.Parallel()
	requireTools(t, tools)
	agent, err := buildProgram("joist-agent", "../../cmd/joist-agent")
	if err != nil {
		t.Fatal(err)
	}
	set := buildSetWith(t, bootset.Virt, agent)
	e := startEngine(t, scout.Image{}, func(http.ResponseWriter, *http.Request) {})
	e.url = "https://10.0.2.100:80"
	m := &machine{name: "agent", set: set, engine: e, memory: 512, append: "joist.ca=" + strings.Repeat("ab", 32)}
	m.start(t)
	m.see(t, m.console, "joist: cannot enrol with https://10.0.2.100:80: ")
}

func checkFacts(t *testing.T, told map[string]json.RawMessage) {
	t.Helper()
	f := decode[scout.Facts](t, told["facts"])
	if f.CPU.Threads != 2 || f.Memory < 1<<30 || f.Firmware != "bios" || f.SMBIOS.UUID != "6a6f6973-7400-4000-8000-000000000001" || f.SMBIOS.Serial != "S1" {
		t.Errorf("facts are not the machine's: %+v", f)
	}
	if len(f.NICs) == 0 || !f.NICs[0].Boot || f.NICs[0].MAC != bootMAC || !f.NICs[0].Carrier {
		t.Errorf("NICs are not the machine's: %+v", f.NICs)
	}
	if oem := decode[[]string](t, told["oem"]); len(oem) != 1 || oem[0] != "joist:voucher:test" {
		t.Errorf("OEM strings are %q", oem)
	}
	if strings.Contains(string(told["facts"]), "voucher") {
		t.Error("the voucher is among the facts")
	}
}
