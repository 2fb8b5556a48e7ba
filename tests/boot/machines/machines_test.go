// Package machines_test runs virtual machines in labs of its own: power, boot order, re-adoption, network boot. It needs
// root, QEMU, OVMF, iPXE, dnsmasq and iproute2, and fails where one is missing.
package machines_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/providers/qemu"
	"joist/providers/qemu/lab"
	"joist/providers/qemu/process"
	"joist/services/power"
	"joist/services/power/powertest"
)

// insideEnv tells a process of this test that it runs in the lab of that data folder.
const insideEnv = "JOIST_TEST_LAB"

// inLab runs the calling test a second time, as a process inside a new lab, and reports whether this is that process.
// The lab is taken down afterwards, and must be gone.
func inLab(t *testing.T) (*lab.Lab, bool) {
	t.Helper()
	data := os.Getenv(insideEnv)
	inside := data != ""
	if !inside {
		data = t.TempDir()
	}
	l, err := lab.Open(lab.Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if inside {
		return l, true
	}
	ctx := context.Background()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
	}()
	cmd, err := l.Command(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), insideEnv+"="+data)
	out, err := cmd.CombinedOutput()
	t.Logf("inside the lab:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return l, false
}

func provider(t *testing.T, l *lab.Lab) *qemu.Provider {
	t.Helper()
	p, err := qemu.New(qemu.Config{DataDir: os.Getenv(insideEnv), RunDir: l.RunDir(), Bridge: lab.Bridge, Accel: qemu.TCG})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func define(t *testing.T, p *qemu.Provider, spec qemu.Spec) power.Power {
	t.Helper()
	if _, err := p.Define(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Undefine(context.Background(), spec.Name); err != nil {
			t.Error(err)
		}
	})
	pw, err := p.Power(spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	return pw
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func consoleOf(t *testing.T, p *qemu.Provider, name string) string {
	t.Helper()
	c, err := p.Console(name)
	do(t, err)
	var b bytes.Buffer
	do(t, c.Copy(context.Background(), &b, -1, false))
	return b.String()
}

// TestConformance: the Power of real QEMU processes, raw and under the Controller, for both firmwares.
func TestConformance(t *testing.T) {
	l, inside := inLab(t)
	if !inside {
		return
	}
	p := provider(t, l)
	n := 0
	subject := func(spec qemu.Spec, checked bool) func(t *testing.T) powertest.Subject {
		return func(t *testing.T) powertest.Subject {
			n++
			spec.Name = fmt.Sprintf("n%d", n)
			spec.Memory = 256 << 20
			pw := define(t, p, spec)
			s := powertest.Subject{Power: pw, Disk: spec.Disk > 0, Within: 20 * time.Second}
			if spec.Firmware == qemu.BIOS { // it greets once at each start; OVMF does not
				s.Starts = func() int { return strings.Count(consoleOf(t, p, spec.Name), "SeaBIOS (version") }
			}
			if checked {
				c, err := power.NewController(power.Config{Graceful: time.Second, Poll: 50 * time.Millisecond})
				do(t, err)
				s.Power = c.Add(spec.Name, pw)
			}
			return s
		}
	}
	t.Run("bios with disk", func(t *testing.T) {
		powertest.Run(t, subject(qemu.Spec{Firmware: qemu.BIOS, Disk: 64 << 20}, false))
	})
	t.Run("bios without disk, checked", func(t *testing.T) { powertest.Run(t, subject(qemu.Spec{Firmware: qemu.BIOS}, true)) })
	t.Run("uefi with disk, checked", func(t *testing.T) {
		powertest.Run(t, subject(qemu.Spec{Firmware: qemu.UEFI, Disk: 64 << 20}, true))
	})
}

// TestFirmwareHeedsBootOrder: what is set and read back is what the firmware does, for once and for good.
func TestFirmwareHeedsBootOrder(t *testing.T) {
	l, inside := inLab(t)
	if !inside {
		return
	}
	p := provider(t, l)
	pw := define(t, p, qemu.Spec{Name: "n1", Memory: 128 << 20, Disk: 1 << 20})
	starts := 0
	const banner, disk, network = "SeaBIOS (version", "Booting from Hard Disk", "Booting from ROM"
	first := func(want string) {
		t.Helper()
		starts++
		for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			parts := strings.Split(consoleOf(t, p, "n1"), banner)
			last := parts[len(parts)-1]
			_, what, found := strings.Cut(last, "Booting from ")
			if len(parts) == starts+1 && found && len(what) >= len("Hard Disk") {
				if got := "Booting from " + what; !strings.HasPrefix(got, want) {
					t.Fatalf("start %d: %.30q, want %q", starts, got, want)
				}
				return
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatalf("start %d: nothing booted within 20 s:\n%s", starts, consoleOf(t, p, "n1"))
			}
		}
	}
	set := func(b power.Boot) { t.Helper(); do(t, pw.SetBoot(t.Context(), b)) }
	do(t, pw.On(t.Context()))
	first(network)
	set(power.Boot{First: power.Disk})
	do(t, pw.Reset(t.Context()))
	first(disk)
	set(power.Boot{First: power.Network, Once: true})
	do(t, pw.Reset(t.Context()))
	first(network)
	do(t, pw.Reset(t.Context()))
	first(disk)
	do(t, pw.Off(t.Context(), power.Force))
	set(power.Boot{First: power.Network, Once: true})
	do(t, pw.On(t.Context()))
	first(network)
	do(t, pw.Reset(t.Context()))
	first(disk)
}

// TestFenceOfAHungMachine: QEMU is stopped and answers nothing; readings say so, and force still works.
func TestFenceOfAHungMachine(t *testing.T) {
	l, inside := inLab(t)
	if !inside {
		return
	}
	p := provider(t, l)
	pw := define(t, p, qemu.Spec{Name: "n1", Memory: 128 << 20, Disk: 1 << 20})
	do(t, pw.On(t.Context()))
	rec, err := process.Load(l.Pids(), "vm-n1")
	do(t, err)
	do(t, syscall.Kill(rec.ID.PID, syscall.SIGSTOP))
	begin := time.Now()
	if _, err := pw.State(t.Context()); !errors.Is(err, power.ErrUnreachable) {
		t.Errorf("State of a stopped QEMU: %v, want ErrUnreachable", err)
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("it took %v to notice", took)
	}
	do(t, pw.Off(t.Context(), power.Force))
	st, err := pw.State(t.Context())
	do(t, err)
	if st.Power != power.Off || rec.ID.Alive() {
		t.Errorf("status %+v, alive %v", st, rec.ID.Alive())
	}
}

// TestSecondClient: QEMU gives a second client no greeting; that is an error within the time limit, not a hang.
func TestSecondClient(t *testing.T) {
	l, inside := inLab(t)
	if !inside {
		return
	}
	p := provider(t, l)
	pw := define(t, p, qemu.Spec{Name: "n1", Memory: 128 << 20, Disk: 1 << 20})
	do(t, pw.On(t.Context()))
	nc := exec.Command("socat", "-u", "UNIX-CONNECT:"+filepath.Join(l.RunDir(), "vm-n1.qmp"), "STDOUT")
	out, err := nc.StdoutPipe()
	do(t, err)
	do(t, nc.Start())
	defer func() { _ = nc.Process.Kill(); _ = nc.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil { // the greeting: the first client is served
		t.Fatal(err)
	}
	_, err = pw.State(t.Context())
	if !errors.Is(err, power.ErrUnreachable) || !strings.Contains(err.Error(), "another client") {
		t.Errorf("%v, want ErrUnreachable that names the cause", err)
	}
}

// startEnv makes a process of this test stand in for an engine: it starts the machine and waits to be killed.
const startEnv = "JOIST_TEST_ENGINE"

// TestReadoption: machines outlive a killed engine, and the next one finds them, also if the engine died before it could
// record the process.
func TestReadoption(t *testing.T) {
	l, inside := inLab(t)
	if !inside {
		return
	}
	if os.Getenv(startEnv) != "" {
		p := provider(t, l)
		_, err := p.Define(t.Context(), qemu.Spec{Name: "n1", Memory: 128 << 20, Disk: 1 << 20})
		do(t, err)
		pw, err := p.Power("n1")
		do(t, err)
		do(t, pw.On(t.Context()))
		do(t, pw.SetBoot(t.Context(), power.Boot{First: power.Disk}))
		fmt.Println("ready")
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestReadoption$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), startEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	do(t, err)
	do(t, cmd.Start())
	said := make([]byte, 6)
	if _, err := out.Read(said); err != nil || string(said) != "ready\n" {
		t.Fatalf("engine said %q, %v", said, err)
	}
	do(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)) // what Ctrl-C does
	do(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	_ = cmd.Wait()

	rec, err := process.Load(l.Pids(), "vm-n1")
	do(t, err)
	for _, recorded := range []bool{true, false} {
		if !recorded {
			do(t, process.Forget(l.Pids(), "vm-n1"))
		}
		p := provider(t, l)
		pw, err := p.Power("n1")
		do(t, err)
		st, err := pw.State(t.Context())
		do(t, err)
		if st != (power.Status{Power: power.On, Boot: power.Boot{First: power.Disk}}) {
			t.Errorf("recorded %v: %+v", recorded, st)
		}
		again, err := process.Load(l.Pids(), "vm-n1")
		do(t, err)
		if again.ID != rec.ID {
			t.Errorf("recorded %v: another process %v, was %v", recorded, again.ID, rec.ID)
		}
	}
	p := provider(t, l)
	held, err := p.Power("n1")
	do(t, err)
	do(t, p.Undefine(t.Context(), "n1"))
	if err := held.On(t.Context()); !errors.Is(err, power.ErrUnknown) {
		t.Errorf("On of an undefined machine: %v, want ErrUnknown", err)
	}
	if rec.ID.Alive() {
		t.Error("QEMU lives on after Undefine")
	}
}

// TestNetworkBoot: a machine of each firmware asks DHCP, takes its first loader by TFTP where it needs one, and runs a
// script in iPXE. The secret of its voucher is nowhere on its command line.
func TestNetworkBoot(t *testing.T) {
	l, inside := inLab(t)
	if !inside {
		return
	}
	root := t.TempDir()
	do(t, os.Chmod(root, 0o755))
	do(t, os.WriteFile(filepath.Join(root, "test.ipxe"), []byte("#!ipxe\necho reached ${net0/mac} ${uuid}\necho ${smbios/11.4.0}\nsleep 60\n"), 0o644))
	loader, err := os.ReadFile("/usr/lib/ipxe/snponly.efi")
	do(t, err)
	do(t, os.WriteFile(filepath.Join(root, "snponly.efi"), loader, 0o644))
	dns := exec.Command("dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=root", "--log-facility=-",
		"--log-dhcp", "--no-ping", "--interface="+lab.Bridge, "--bind-dynamic", "--dhcp-leasefile="+filepath.Join(root, "leases"),
		"--dhcp-range=10.77.0.50,10.77.0.99,2m", "--dhcp-userclass=set:ipxe,iPXE", "--dhcp-match=set:efi,option:client-arch,7",
		"--dhcp-boot=tag:ipxe,test.ipxe", "--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi", "--enable-tftp", "--tftp-root="+root,
		"--dhcp-option-force=tag:ipxe,encap:175,176,1b") // no proxy DHCP: iPXE would wait 10 s for an offer of one
	var log bytes.Buffer
	dns.Stdout, dns.Stderr = &log, &log
	do(t, dns.Start())
	defer func() {
		_ = dns.Process.Kill()
		_ = dns.Wait()
		t.Logf("dnsmasq said:\n%s", log.String())
	}()

	p := provider(t, l)
	for _, fw := range []qemu.Firmware{qemu.BIOS, qemu.UEFI} {
		name := "boot-" + string(fw)
		pw := define(t, p, qemu.Spec{Name: name, Memory: 512 << 20, Firmware: fw, Disk: 64 << 20})
		begin := time.Now()
		do(t, pw.On(t.Context()))
		all, err := p.Machines(t.Context())
		do(t, err)
		var m qemu.Machine
		for _, m = range all {
			if m.Name == name {
				break
			}
		}
		secret, err := p.Voucher(name)
		do(t, err)
		// The first string of SMBIOS type 11, which iPXE finds by the count at offset 4: the guest sees its voucher.
		want := "reached " + m.MAC + " " + m.UUID + "\r\n" + qemu.VoucherPrefix + secret
		for !strings.Contains(consoleOf(t, p, name), want) {
			if time.Since(begin) > 90*time.Second {
				t.Fatalf("%s: no %q on the console within 90 s:\n%s", name, want, consoleOf(t, p, name))
			}
			time.Sleep(200 * time.Millisecond)
		}
		t.Logf("%s: the script runs %.1f s after power-on", fw, time.Since(begin).Seconds())

		rec, err := process.Load(l.Pids(), "vm-"+name)
		do(t, err)
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", rec.ID.PID))
		do(t, err)
		if len(secret) != 32 || bytes.Contains(cmdline, []byte(secret)) {
			t.Errorf("voucher %q, on the command line: %v", secret, bytes.Contains(cmdline, []byte(secret)))
		}
		do(t, pw.Off(t.Context(), power.Force))
	}
}

// TestDownAfterEverythingDied: an engine, machines and strangers in the lab, and nobody left who knows of them.
func TestDownAfterEverythingDied(t *testing.T) {
	data := t.TempDir()
	ctx := context.Background()
	open := func() *lab.Lab {
		l, err := lab.Open(lab.Config{Data: data})
		do(t, err)
		return l
	}
	l := open()
	do(t, l.Up(ctx))
	t.Cleanup(func() { _ = l.Down(ctx) })
	do(t, l.Up(ctx)) // again: nothing to do

	engine, id, err := l.Start(ctx, lab.Service{
		Name: "engine", Argv: []string{os.Args[0], "-test.run=^TestReadoption$"},
		Env: append(os.Environ(), insideEnv+"="+data, startEnv+"=1"), Log: filepath.Join(data, "engine.log"),
	})
	do(t, err)
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if raw, _ := os.ReadFile(filepath.Join(data, "engine.log")); bytes.Contains(raw, []byte("ready")) {
			break
		} else if time.Since(begin) > 30*time.Second {
			t.Fatalf("the engine does not come up:\n%s", raw)
		}
	}
	vm, err := process.Load(l.Pids(), "vm-n1")
	do(t, err)
	stray, err := l.Command(ctx, "setsid", "sleep", "1000") // recorded by nobody
	do(t, err)
	do(t, stray.Start())
	strayID, err := process.Find(stray.Process.Pid)
	do(t, err)

	do(t, engine.Process.Kill())
	_ = engine.Wait()
	if !vm.ID.Alive() || id.Alive() {
		t.Fatalf("after the engine was killed: machine alive %v, engine alive %v", vm.ID.Alive(), id.Alive())
	}
	do(t, process.Save(l.Pids(), "someone-else", process.ID{PID: os.Getpid(), Start: 1})) // an id that was given anew: spared
	do(t, os.WriteFile(filepath.Join(l.Pids(), "damaged.json"), []byte("{"), 0o600))

	do(t, open().Down(ctx))
	if vm.ID.Alive() || strayID.Alive() {
		t.Errorf("alive after Down: machine %v, stray %v", vm.ID.Alive(), strayID.Alive())
		do(t, errors.Join(vm.ID.Kill(ctx), strayID.Kill(ctx)))
	}
	_ = stray.Wait()
	for _, path := range []string{"/run/netns/" + l.Name(), l.RunDir(), l.RunDir() + ".lock"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	do(t, open().Down(ctx)) // nothing there: no error
}
