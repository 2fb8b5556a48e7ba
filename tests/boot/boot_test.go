package boot

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"joist/engine/agent/scout"
	"joist/services/boot/bootset"
)

var tools = map[string]string{"qemu-system-x86_64": "qemu-system-x86", "socat": "socat", "debootstrap": "debootstrap", "mksquashfs": "squashfs-tools", "go": "golang"}

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
