// Package firmware_test starts virtual machines with real firmware against the boot service: SeaBIOS with iPXE in the
// card's ROM, the same made to fetch undionly.kpxe first, and OVMF that fetches snponly.efi. Each must come to a Linux
// that has the command line of its script; one whose target is its disk must leave iPXE again. DHCP is the least that
// the firmware takes, so that what is tried here is the boot service's decision and nothing else.
//
// The test starts itself again within a network namespace of its own, which has no link to the host and is gone with its
// last process. It needs root, the Debian packages qemu-system-x86, ovmf, ipxe, ipxe-qemu, iproute2, and a kernel:
// JOIST_TEST_KERNEL names its file, otherwise the newest /boot/vmlinuz-*-cloud-amd64 is taken.
package firmware_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/u-root/u-root/pkg/cpio"

	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/boot/decide"
	"joist/services/boot/phase"
)

const (
	inside  = "JOIST_TEST_INSIDE" // set in the process within the namespace
	server  = "10.99.0.1"
	chained = decide.MAC("52:54:00:99:00:02")
	disk    = decide.MAC("52:54:00:99:00:04")
	waiting = decide.MAC("52:54:00:99:00:05")
	broken  = decide.MAC("52:54:00:99:00:06")
	pin     = "abababababababababababababababababababababababababababababababab"
)

// TestFirmware runs the machines below in a namespace of their own.
func TestFirmware(t *testing.T) {
	if os.Getenv(inside) != "" {
		run(t)
		return
	}
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root: run this test as root")
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^TestFirmware$", "-test.v", "-test.timeout", "10m")
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// engine is the rest of the engine: machines by MAC, one boot set, boot ids that count up.
type engine struct {
	set     boot.Set
	broken  boot.Set // for the machine whose kernel is none
	targets map[decide.MAC]decide.Target

	mu     sync.Mutex
	issued map[decide.MAC][]string
	marks  map[decide.MAC][]phase.Phase
}

func (e *engine) Machine(_ context.Context, mac decide.MAC, _ decide.UUID) (boot.Record, bool) {
	target, ok := e.targets[mac]
	return boot.Record{Machine: decide.Machine{Name: "m" + string(mac[len(mac)-1:])}, Target: target}, ok
}

func (e *engine) Issue(_ context.Context, r boot.BootRequest) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := fmt.Sprintf("%s%020x", strings.ReplaceAll(string(r.MAC), ":", ""), len(e.issued[r.MAC])+1)
	e.issued[r.MAC] = append(e.issued[r.MAC], id)
	return id, nil
}

func (e *engine) BootSet(_ context.Context, r boot.Record) (boot.Set, error) {
	if r.Name == "m"+string(broken[len(broken)-1]) {
		return e.broken, nil
	}
	return e.set, nil
}

func (e *engine) Reached(mac decide.MAC, m phase.Mark) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.marks[mac] = append(e.marks[mac], m.Phase)
}

func (e *engine) Notice(decide.MAC, string) {}

func (e *engine) seen(mac decide.MAC) ([]phase.Phase, []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.marks[mac]), slices.Clone(e.issued[mac])
}

// run is the test proper, within the namespace.
func run(t *testing.T) {
	for _, tool := range []string{"ip", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: install the Debian packages iproute2 and qemu-system-x86", err)
		}
	}
	network(t)
	e := &engine{issued: map[decide.MAC][]string{}, marks: map[decide.MAC][]phase.Phase{}, targets: map[decide.MAC]decide.Target{
		disk: decide.TargetDisk, waiting: decide.TargetWait, broken: decide.TargetScout,
	}}
	s := e.start(t)
	dhcp(t, s)

	for _, m := range []struct {
		name string
		mac  decide.MAC
		uefi bool
		want string // pattern on the console
		path []phase.Phase
	}{
		{"BIOS with iPXE in ROM", "52:54:00:99:00:01", false, "END", []phase.Phase{phase.Offer, phase.Script, phase.Kernel, phase.Initrd}},
		{"BIOS by undionly.kpxe", chained, false, "END", []phase.Phase{phase.Offer, phase.Loader, phase.Offer, phase.Script, phase.Kernel, phase.Initrd}},
		{"UEFI by snponly.efi", "52:54:00:99:00:03", true, "END", []phase.Phase{phase.Offer, phase.Loader, phase.Offer, phase.Script, phase.Kernel, phase.Initrd}},
		{"BIOS to its disk", disk, false, "going on to the next boot device", []phase.Phase{phase.Offer}},
		{"BIOS that waits asks again", waiting, false, "(?s)m5 waits: the machine is told to wait.*m5 waits: the machine is told to wait", []phase.Phase{phase.Offer}},
		{"BIOS with a broken kernel gives up", broken, false, "(?s)attempt 1 of 5.*attempt 5 of 5.*could not fetch scout in 5 attempts.*rebooting in 30 seconds", []phase.Phase{phase.Offer, phase.Script, phase.Initrd}}, // the one file that is both
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			console := machine(t, string(m.mac), m.uefi, m.want)
			marks, ids := e.seen(m.mac)
			if !slices.Equal(slices.Compact(marks), m.path) {
				t.Errorf("phases %v, want %v", marks, m.path)
			}
			t.Logf("status: %s; traffic: %+v", s.Status(m.mac).Sentence, s.Traffic(m.mac))
			if m.want != "END" {
				return
			}
			got := regexp.MustCompile(`(?s)SCOUT REACHED (.*?)END`).FindStringSubmatch(console)
			if got == nil || len(ids) != 1 {
				t.Fatalf("%d boot ids, and no command line in\n%s", len(ids), console)
			}
			for _, want := range []string{
				"joist.url=https://" + server + ":8443", "joist.ca=" + pin, "joist.boot=" + ids[0],
				"joist.mac=" + string(m.mac), "BOOTIF=01-" + m.mac.Hyphens(), "initrd=scout.cpio",
			} {
				if !slices.Contains(strings.Fields(got[1]), want) {
					t.Errorf("no %s in %s", want, got[1])
				}
			}
		})
	}
}

// dhcp answers what the boot service decides, and one fixed address for each machine: the last octet of its MAC. Every
// ROM that QEMU has is iPXE; the machine named chained is made an ordinary PXE client until its loader has been sent.
func dhcp(t *testing.T, s *boot.Server) {
	t.Helper()
	us := net.ParseIP(server).To4()
	handle := func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		mac, err := decide.ParseMAC(m.ClientHWAddr.String())
		if err != nil {
			t.Errorf("DHCP: %v", err)
			return
		}
		f := decide.Firmware{MAC: mac, VendorClass: m.ClassIdentifier(), IPXE: m.Options.Has(dhcpv4.GenericOptionCode(175))}
		for _, a := range m.ClientArch() {
			f.Archs = append(f.Archs, uint16(a))
		}
		if mac == chained && !strings.Contains(s.Status(mac).Sentence, "loader fetched") {
			f.IPXE = false
		}
		o := s.DHCP(context.Background(), boot.Ask{Firmware: f, Server: netip.MustParseAddr(server)})
		t.Logf("%s %s %q %v ipxe=%v: %s %s", m.MessageType(), mac, f.VendorClass, f.Archs, f.IPXE, o.Kind, o.BootFile)
		if o.Kind == decide.Silence {
			return
		}
		addr := netip.AddrFrom4([4]byte{10, 99, 0, 100 + m.ClientHWAddr[5]})
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithYourIP(addr.AsSlice()), dhcpv4.WithServerIP(us), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(us)),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(uint32(o.Lease.Duration().Seconds())),
			dhcpv4.WithOption(dhcpv4.OptBootFileName(o.BootFile)), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")),
			dhcpv4.WithGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}), // no discovery, take the file name
		)
		if err != nil {
			t.Errorf("DHCP: %v", err)
			return
		}
		reply.BootFileName = o.BootFile
		switch m.MessageType() {
		case dhcpv4.MessageTypeDiscover:
			reply.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
		case dhcpv4.MessageTypeRequest:
			reply.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeAck))
			s.Leased(mac, addr)
		default:
			return
		}
		if _, err := conn.WriteTo(reply.ToBytes(), peer); err != nil {
			t.Errorf("DHCP: %v", err)
		}
	}
	d, err := server4.NewServer("br0", &net.UDPAddr{Port: 67}, handle)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Serve() }()
	t.Cleanup(func() {
		d.Close()
		<-done // a closed socket, as asked
	})
}

// network makes a bridge with six taps.
func network(t *testing.T) {
	t.Helper()
	lines := []string{"link set lo up", "link add br0 type bridge", "address add " + server + "/24 dev br0", "link set br0 up"}
	for i := range 6 {
		lines = append(lines, fmt.Sprintf("tuntap add tap%d mode tap", i+1), fmt.Sprintf("link set tap%d master br0 up", i+1))
	}
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// bootSet stores a kernel and an initramfs whose init prints the command line and switches off.
func bootSet(t *testing.T) (*artifacts.Store, boot.Set) {
	t.Helper()
	kernel := os.Getenv("JOIST_TEST_KERNEL")
	if kernel == "" {
		all, _ := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
		if len(all) == 0 {
			t.Fatal("no kernel: install the Debian package linux-image-cloud-amd64, or name one in JOIST_TEST_KERNEL")
		}
		kernel = slices.Max(all)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "init"), "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		t.Fatal(err)
	}
	var initrd bytes.Buffer
	w := cpio.Newc.Writer(&initrd)
	if err := cpio.WriteRecordsAndDirs(w, []cpio.Record{cpio.Directory("proc", 0o755), cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.StaticFile("init", string(program), 0o755)}); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	store, err := artifacts.Open(filepath.Join(dir, "artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := store.Add(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	i, err := store.Write(t.Context(), &initrd, "")
	if err != nil {
		t.Fatal(err)
	}
	return store, boot.Set{Digest: "test", Kernel: k.Digest, Initrd: i.Digest, Console: []string{"ttyS0,115200n8"}, Args: []string{"panic=-1"}}
}

func (e *engine) start(t *testing.T) *boot.Server {
	t.Helper()
	store, set := bootSet(t)
	e.set, e.broken = set, set
	e.broken.Kernel = set.Initrd // no kernel at all
	s, err := boot.New(boot.Config{
		Inventory: e, Issuer: e, Sets: e, Observer: e, Artifacts: store,
		URLs: []string{"https://" + server + ":8443"}, CA: pin,
		HTTP: netip.MustParseAddrPort("0.0.0.0:8080"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// machine powers a machine on and returns its console's text once the pattern is in it. It fails after three minutes.
func machine(t *testing.T, mac string, uefi bool, want string) string {
	t.Helper()
	dir := t.TempDir()
	console := filepath.Join(dir, "console")
	args := []string{"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "768", "-nographic", "-nodefaults", "-no-reboot",
		"-serial", "file:" + console, "-netdev", "tap,id=n,script=no,downscript=no,ifname=tap" + mac[len(mac)-1:],
		"-device", "virtio-net-pci,netdev=n,bootindex=0,mac=" + mac + romFor(uefi)}
	if uefi {
		vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
		if err != nil {
			t.Fatalf("%v: install the Debian package ovmf", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "vars"), vars, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
			"-drive", "if=pflash,format=raw,unit=1,file="+filepath.Join(dir, "vars"))
	}
	pattern := regexp.MustCompile(want)
	var out bytes.Buffer
	qemu := exec.Command("qemu-system-x86_64", args...)
	qemu.Stdout, qemu.Stderr = &out, &out
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- qemu.Wait() }()
	defer func() {
		_ = qemu.Process.Kill() // it may have ended by itself
		<-ended
	}()
	began := time.Now()
	for tick := time.NewTicker(200 * time.Millisecond); time.Since(began) < 3*time.Minute; <-tick.C {
		off := len(ended) > 0
		text, err := os.ReadFile(console)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if pattern.Match(text) {
			t.Logf("after %v", time.Since(began).Round(time.Second))
			return string(text)
		}
		if off {
			t.Fatalf("the machine went off without %q on its console:\n%s\n%s", want, text, out.String())
		}
	}
	text, _ := os.ReadFile(console)
	t.Fatalf("no %q on the console within 3 minutes:\n%s", want, text)
	return ""
}

// romFor keeps the card's own iPXE from UEFI machines, which then fetch their loader.
func romFor(uefi bool) string {
	if uefi {
		return ",romfile="
	}
	return ""
}
