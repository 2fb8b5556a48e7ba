package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves one random file as loader.efi on loopback and returns its content, the address and the reports.
func start(t *testing.T, change func(*Config)) ([]byte, *net.UDPAddr, chan Transfer) {
	t.Helper()
	content := make([]byte, 100_001)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	file := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	reports := make(chan Transfer, 100)
	cfg := Config{Files: map[string]string{"loader.efi": file}, Timeout: 100 * time.Millisecond, Report: func(tr Transfer) { reports <- tr }}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return content, conn.LocalAddr().(*net.UDPAddr), reports
}

func fetch(t *testing.T, addr *net.UDPAddr, name string) ([]byte, error) {
	t.Helper()
	c, err := tftp.NewClient(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetBlockSize(1468)
	to, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var got bytes.Buffer
	_, err = to.WriteTo(&got)
	return got.Bytes(), err
}

func TestServe(t *testing.T) {
	content, addr, reports := start(t, nil)
	for _, name := range []string{"loader.efi", "/loader.efi", `\loader.efi`, "loader.efi\xff", "./loader.efi"} {
		got, err := fetch(t, addr, name)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%q: %d bytes, %v", name, len(got), err)
		}
		if r := <-reports; r.Outcome != Sent || r.File != "loader.efi" || r.Bytes != int64(len(content)) || r.Client.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Fatalf("%q: %+v", name, r)
		}
	}
	for _, name := range []string{"autoexec.ipxe", "../../etc/passwd", "/etc/passwd", "loader.efi/../loader.efi", strings.Repeat("x", 400), "loader\x01.efi"} {
		if got, err := fetch(t, addr, name); err == nil {
			t.Fatalf("%q: served %d bytes", name, len(got))
		}
		if r := <-reports; r.Outcome != Refused {
			t.Fatalf("%q: %+v", name, r)
		}
	}
}

// dial opens a client's socket, sends one raw request and reads the answer, with the address it came from.
func dial(t *testing.T, addr *net.UDPAddr, request []byte) (*net.UDPConn, []byte, *net.UDPAddr) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.WriteTo(request, addr); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := conn.ReadFromUDP(buf)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return conn, buf[:n], from
}

func rrq(words ...string) []byte { return []byte("\x00\x01" + strings.Join(words, "\x00") + "\x00") }

// TestSizeProbe does what UEFI does before it fetches a file: it asks for the size and breaks off.
func TestSizeProbe(t *testing.T) {
	content, addr, reports := start(t, nil)
	conn, answer, from := dial(t, addr, rrq("loader.efi", "octet", "tsize", "0", "blksize", "1468"))
	if binary.BigEndian.Uint16(answer) != 6 || !bytes.Contains(answer, fmt.Appendf(nil, "tsize\x00%d\x00", len(content))) {
		t.Fatalf("got %q", answer)
	}
	if _, err := conn.WriteTo([]byte("\x00\x05\x00\x08User aborted the transfer\x00"), from); err != nil {
		t.Fatal(err)
	}
	if r := <-reports; r.Outcome != Probed || r.Err != nil {
		t.Fatalf("got %+v", r)
	}
}

// TestHostileOptions sends a tsize longer than the block it would be answered in, which makes the library panic unless
// the size is set first; and an upload, which nobody may do.
func TestHostileOptions(t *testing.T) {
	content, addr, _ := start(t, nil)
	_, answer, _ := dial(t, addr, rrq("loader.efi", "octet", "tsize", strings.Repeat("9", 600), "blksize", "512"))
	if binary.BigEndian.Uint16(answer) != 6 || !bytes.Contains(answer, fmt.Appendf(nil, "tsize\x00%d\x00", len(content))) {
		t.Fatalf("got %q", answer)
	}
	_, answer, _ = dial(t, addr, []byte("\x00\x02loader.efi\x00octet\x00"))
	if binary.BigEndian.Uint16(answer) != 5 {
		t.Fatalf("an upload is answered %q", answer)
	}
	for _, junk := range []string{"", "\x00", "\x00\x01", "\x00\x01ab", "\x00\x01\x00\x00\x00\x00", "\x00\x09xxxx", "\x00\x06aaaa", strings.Repeat("\xff", 1000)} {
		conn, err := net.Dial("udp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(junk)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if got, err := fetch(t, addr, "loader.efi"); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("after junk: %d bytes, %v", len(got), err)
	}
}

func TestLimits(t *testing.T) {
	_, addr, _ := start(t, func(c *Config) { c.MaxPerClient = 2 })
	for range 2 {
		if _, answer, _ := dial(t, addr, rrq("loader.efi", "octet")); binary.BigEndian.Uint16(answer) != 3 {
			t.Fatalf("got %q", answer)
		}
	}
	if _, answer, _ := dial(t, addr, rrq("loader.efi", "octet")); binary.BigEndian.Uint16(answer) != 5 || !bytes.Contains(answer, []byte("too many")) {
		t.Fatalf("third of two transfers is answered %q", answer[:min(60, len(answer))])
	}
}

func TestPortInUse(t *testing.T) {
	_, addr, _ := start(t, nil)
	_, err := Listen(t.Context(), addr.AddrPort())
	if want := fmt.Sprintf("cannot serve TFTP: UDP port %d is in use: it is held by tftp.test (pid %d)", addr.Port, os.Getpid()); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("got %v, want %s", err, want)
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	large := filepath.Join(dir, "large")
	for name, size := range map[string]int64{empty: 0, large: maxFile + 1} {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for want, cfg := range map[string]Config{
		"no such file":          {Files: map[string]string{"a": filepath.Join(dir, "none")}},
		"is empty":              {Files: map[string]string{"a": empty}},
		"is larger than 8 MiB":  {Files: map[string]string{"a": large}},
		"not a plain file name": {Files: map[string]string{"../a": large}},
		"negative limit":        {MaxTransfers: -1},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"undionly.kpxe", "/snponly.efi", `\boot\x64\snponly.efi`, "../../etc/passwd", "a\xff", "", "/", "a//b", "..", "a/..", "%2e%2e/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, ok := CleanName(raw)
		if !ok {
			return
		}
		if again, ok := CleanName(name); !ok || again != name {
			t.Fatalf("%q: %q is not clean: %q", raw, name, again)
		}
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\x00\\ ") {
			t.Fatalf("%q gives %q", raw, name)
		}
	})
}
