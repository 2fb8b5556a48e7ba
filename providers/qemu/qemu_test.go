package qemu

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"joist/services/power"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSpec(t *testing.T) {
	got, err := Spec{Name: "n1"}.withDefaults()
	if want := (Spec{Name: "n1", Memory: 2048 * mib, CPUs: 2, Firmware: BIOS}); err != nil || got != want {
		t.Errorf("defaults %+v, %v", got, err)
	}
	for want, s := range map[string]Spec{
		"DNS label":            {Name: "N1"},
		"not a DNS label":      {Name: "../n1"},
		"is not a DNS label":   {},
		"from 128 MiB up":      {Name: "n1", Memory: 1 << 20},
		"whole number of MiB":  {Name: "n1", Memory: 1<<30 + 1},
		"not between 1 and 64": {Name: "n1", CPUs: 65},
		"neither":              {Name: "n1", Firmware: "coreboot"},
		"a disk of":            {Name: "n1", Disk: -mib},
	} {
		if _, err := s.withDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

// TestIdentity: what is derived is valid, stable, and another one for another machine or data folder.
func TestIdentity(t *testing.T) {
	m := machineOf("/data", Spec{Name: "n1", Memory: 1 << 30, CPUs: 1, Firmware: UEFI, Disk: 1 << 30})
	if got, want := m.MAC+" "+m.UUID+" "+tapOf("/data", "n1"), "66:1e:48:c7:a3:6a 040c7808-c9e4-80e1-bce6-f09a5097681c vm-084a04ff928d"; got != want {
		t.Errorf("identity %q, want %q: a new release must not give old machines new addresses", got, want)
	}
	if m.Facts.Memory != 1<<30 || m.Facts.Disks[0] != (Disk{Name: "vda", Size: 1 << 30}) || m.Facts.NICs[0].MAC != m.MAC || m.Facts.Firmware != UEFI {
		t.Errorf("facts %+v", m.Facts)
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.StringMatching(`[a-z0-9/]{1,20}`)
		where, name := draw.Draw(t, "where"), draw.Draw(t, "name")
		a := macOf(where, name)
		if a[0]&0x03 != 0x02 {
			t.Fatalf("%v is not a locally administered unicast address", a)
		}
		if u := uuidOf(where, name); len(u) != 36 || u[14] != '8' || !strings.ContainsRune("89ab", rune(u[19])) {
			t.Fatalf("%q is no UUID of version 8", u)
		}
		if tap := tapOf(where, name); len(tap) > 15 {
			t.Fatalf("interface name %q is too long", tap)
		}
		if other := draw.Draw(t, "other"); other != name && (slices.Equal(a, macOf(where, other)) || uuidOf(where, name) == uuidOf(where, other)) {
			t.Fatal("two machines have the same identity")
		}
		if other := draw.Draw(t, "elsewhere"); other != where && slices.Equal(a, macOf(other, name)) {
			t.Fatal("two data folders have a machine with the same address")
		}
	})
}

func TestArgs(t *testing.T) {
	cfg := Config{DataDir: "/data,x", RunDir: "/run/joist/00000000"}
	build := func(s Spec, first power.Device, a Accel) string {
		s, err := s.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		v := invocation{spec: s, machine: machineOf(cfg.DataDir, s), files: cfg.filesOf(s.Name), boot: first, accel: a, tap: "vm-1", ovmf: "/ovmf/code"}
		return strings.Join(v.args(), " ")
	}
	bios := build(Spec{Name: "n1", Disk: mib}, power.Network, TCG)
	uefi := build(Spec{Name: "n1", Firmware: UEFI, Bare: true, Clock: time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC)}, power.Network, KVM)
	disk := build(Spec{Name: "n1", Disk: mib}, power.Disk, TCG)
	for _, c := range []struct {
		line, part string
		want       bool
	}{
		{bios, "-accel tcg,thread=multi", true},
		{bios, "-cpu max", true},
		{bios, "bootindex=1 -blockdev", true},
		{bios, "serial=n1,bootindex=2", true},
		{bios, "pflash", false},
		{bios, "romfile", false},
		{bios, "-smbios type=11,path=/data,,x/machines/n1/voucher", true},
		{bios, "filename=/data,,x/machines/n1/disk.raw", true},
		{bios, VoucherPrefix, false},
		{bios, "-daemonize", true},
		{bios, "-rtc", false},
		{disk, "bootindex=2 -blockdev", true},
		{disk, "serial=n1,bootindex=1", true},
		{uefi, "-accel kvm", true},
		{uefi, "unit=1,format=raw,file=/data,,x/machines/n1/vars.fd", true},
		{uefi, ",romfile= ", true},
		{uefi, "type=11", false},
		{uefi, "virtio-blk", false},
		{uefi, "-rtc base=2001-01-02T03:04:05", true},
	} {
		if strings.Contains(c.line, c.part) != c.want {
			t.Errorf("%q in the command line: want %v\n%s", c.part, c.want, c.line)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for want, cfg := range map[string]Config{
		"must be absolute paths": {DataDir: "data", RunDir: "/run/x", Bridge: "b"},
		"no bridge":              {DataDir: "/d", RunDir: "/r"},
		"at most 107 work":       {DataDir: "/d", RunDir: "/" + strings.Repeat("r", 60), Bridge: "b"},
		"accelerator":            {DataDir: "/d", RunDir: "/r", Bridge: "b", Accel: "xen"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
	if os.Geteuid() == 0 {
		ok := Config{DataDir: t.TempDir(), RunDir: t.TempDir(), Bridge: "joist-none0", QEMU: "qemu-none"}
		if _, err := New(ok); err == nil || !strings.Contains(err.Error(), "install the Debian package qemu-system-x86") {
			t.Errorf("%v", err)
		}
		ok.QEMU = "true"
		if _, err := New(ok); err == nil || !strings.Contains(err.Error(), "no bridge joist-none0") {
			t.Errorf("%v", err)
		}
		p := &Provider{cfg: Config{OVMF: "/nowhere"}}
		if err := p.firmware(UEFI); err == nil || !strings.Contains(err.Error(), "install the Debian package ovmf") {
			t.Errorf("%v", err)
		}
	}
}

// speak serves one QMP client with a script: for each line received, the next element of answers.
func speak(t *testing.T, greeting string, answers ...string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = c.Write([]byte(greeting))
		buf := make([]byte, 4096)
		for _, a := range answers {
			if _, err := c.Read(buf); err != nil {
				return
			}
			_, _ = c.Write([]byte(a))
		}
		_, _ = c.Read(buf)
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return socket
}

func TestQMP(t *testing.T) {
	const hello = `{"QMP": {"version": {}, "capabilities": []}}` + "\n"
	const yes = `{"return": {}}` + "\n"
	const reset = `{"event": "RESET", "data": {}}` + "\n"
	t.Run("events around answers", func(t *testing.T) {
		q, err := dialQMP(t.Context(), speak(t, hello, yes, reset+yes+reset))
		if err != nil {
			t.Fatal(err)
		}
		defer q.close()
		if _, err := q.command("system_reset", nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := q.await("RESET", time.Second); err != nil {
				t.Error(err)
			}
		}
		if err := q.await("RESET", 20*time.Millisecond); !errors.Is(err, power.ErrUnreachable) {
			t.Errorf("a third reset: %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		q, err := dialQMP(t.Context(), speak(t, hello, yes, `{"error": {"class": "GenericError", "desc": "The bootindex 2 has already been used"}}`+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		defer q.close()
		var no *refusal
		if err := q.setBootIndex("nic0", 2); !errors.As(err, &no) || no.Class != "GenericError" || errors.Is(err, power.ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
	for name, greeting := range map[string]string{
		"no greeting object": yes, "not JSON": "hello\n", "closed in mid-line": `{"QMP`, "huge line": strings.Repeat("x", 2<<20),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := dialQMP(ctx, speak(t, greeting)); !errors.Is(err, power.ErrUnreachable) {
				t.Errorf("%v, want ErrUnreachable", err)
			}
		})
	}
	t.Run("cancelled while waiting", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		begin := time.Now()
		if _, err := dialQMP(ctx, speak(t, "")); err == nil || time.Since(begin) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		if _, err := dialQMP(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, power.ErrUnreachable) {
			t.Errorf("%v", err)
		}
	})
}

// FuzzQMP: whatever stands at the other end of the socket, a conversation ends without a panic.
func FuzzQMP(f *testing.F) {
	f.Add([]byte(`{"return": 1}` + "\n"))
	f.Add([]byte(`{"event": "RESET"}` + "\n" + `{"return": {}}` + "\n"))
	f.Add([]byte(`{"error": {"class": "X", "desc": "y"}}` + "\n"))
	f.Add([]byte("null\n[]\n\"\"\n"))
	f.Fuzz(func(_ *testing.T, in []byte) {
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = there.Read(make([]byte, 4096))
			_, _ = there.Write(in)
			_ = there.Close()
		}()
		q := newQMP(here)
		_, _ = q.bootIndex(nicDevice)
		_ = q.await("RESET", 10*time.Millisecond)
		q.close()
		<-done
	})
}

// TestStore: definitions survive, are checked, and are replaced only as promised.
func TestStore(t *testing.T) {
	p := &Provider{cfg: Config{DataDir: t.TempDir(), RunDir: t.TempDir()}, machines: map[string]*machine{}}
	spec := func(s Spec) Spec {
		s.Name = "n1"
		s, err := s.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	fresh := func() *machine { return p.machine("n1") }
	if err := fresh().define(spec(Spec{Disk: 2 * mib})); err != nil {
		t.Fatal(err)
	}
	m := fresh()
	voucher, err := os.ReadFile(m.files.voucher)
	if st, serr := os.Stat(m.files.voucher); err != nil || serr != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("voucher: %v, %v", err, serr)
	}
	if err := m.define(spec(Spec{Disk: mib})); err == nil || !strings.Contains(err.Error(), "cannot shrink") {
		t.Errorf("a shrunk disk: %v", err)
	}
	if err := m.SetBoot(t.Context(), power.Boot{First: power.Disk}); err != nil {
		t.Fatal(err)
	}
	if err := fresh().define(spec(Spec{Disk: 4 * mib, CPUs: 1})); err != nil {
		t.Fatal(err)
	}
	m = fresh()
	if err := m.load(); err != nil {
		t.Fatal(err)
	}
	if r := m.record(); r.Boot != power.Disk || r.Spec.CPUs != 1 || r.Spec.Disk != 4*mib {
		t.Errorf("record %+v", r)
	}
	if again, _ := os.ReadFile(m.files.voucher); !bytes.Equal(again, voucher) {
		t.Error("the voucher changed")
	}
	if err := m.prepare(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(m.files.disk); err != nil || st.Size() != 4*mib {
		t.Errorf("disk: %v", err)
	}
	for _, bad := range []string{"{", `{"spec":{"name":"n2"},"boot":"disk"}`, `{"spec":{"name":"n1"}}`} {
		if err := os.WriteFile(m.files.record, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fresh().load(); err == nil {
			t.Errorf("the record %s was accepted", bad)
		}
		if err := p.adopt(); err == nil {
			t.Errorf("the record %s was adopted", bad)
		}
	}
}

// TestStrangersProcess: a process id that another program has by now is not taken for the machine's QEMU.
func TestStrangersProcess(t *testing.T) {
	p := &Provider{cfg: Config{DataDir: t.TempDir(), RunDir: t.TempDir()}}
	m := p.machine("n1")
	for _, pid := range []string{"", "x", "1", "999999999", "2\n"} {
		if err := os.WriteFile(m.files.pid, []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := m.process(); id.PID != 0 || (err != nil) != (pid == "1") {
			t.Errorf("pid file %q: %v, %v", pid, id, err)
		}
	}
}

func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	c := Console{path: path}
	write := func(s string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := c.Copy(t.Context(), &b, -1, false); err != nil || b.Len() != 0 {
		t.Errorf("before the first power-on: %q, %v", b.String(), err)
	}
	write("one\ntwo\n")
	for tail, want := range map[int64]string{-1: "one\ntwo\n", 0: "", 4: "two\n", 100: "one\ntwo\n"} {
		b.Reset()
		if err := c.Copy(t.Context(), &b, tail, false); err != nil || b.String() != want {
			t.Errorf("tail %d: %q, %v", tail, b.String(), err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, w := newPipe()
	done := make(chan error, 1)
	go func() { done <- c.Copy(ctx, w, 4, true) }()
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if err := r(got); err != nil || string(got) != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	expect("two\n")
	write("three\n")
	expect("three\n")
	write("four\n")
	if err := os.Rename(path, path+".1"); err != nil { // set aside at a power-on
		t.Fatal(err)
	}
	write("five\n")
	expect("four\nfive\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// newPipe is a pipe whose reading end fills a buffer whole.
func newPipe() (read func([]byte) error, w net.Conn) {
	r, w := net.Pipe()
	return func(b []byte) error {
		_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
		for n := 0; n < len(b); {
			k, err := r.Read(b[n:])
			if err != nil {
				return err
			}
			n += k
		}
		return nil
	}, w
}
