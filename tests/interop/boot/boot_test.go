// Package boot_test lets real clients, and not our own idea of them, fetch from the boot service.
package boot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/boot/decide"
)

// engine is the rest of the engine: one known machine, one boot set.
type engine struct{ set boot.Set }

func (engine) Machine(_ context.Context, mac decide.MAC, _ decide.UUID) (boot.Record, bool) {
	return boot.Record{Machine: decide.Machine{Name: "n1"}}, mac == "52:54:00:00:00:01"
}

func (engine) Issue(context.Context, boot.BootRequest) (string, error) {
	return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()), nil
}

func (e engine) BootSet(context.Context, boot.Record) (boot.Set, error) { return e.set, nil }

type fixture struct {
	server     *boot.Server
	http, tftp netip.AddrPort
	image      artifacts.Digest
	content    []byte // of the image
	loader     []byte
}

// start runs the boot service on loopback with a 3 MB image and Debian's own loader for BIOS.
func start(t *testing.T) fixture {
	t.Helper()
	const bios = "/usr/lib/ipxe/undionly.kpxe"
	loader, err := os.ReadFile(bios)
	if err != nil {
		t.Fatalf("%v: install the Debian package ipxe", err)
	}
	content := make([]byte, 3_000_017)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	store, err := artifacts.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image, err := store.Write(t.Context(), bytes.NewReader(content), "")
	if err != nil {
		t.Fatal(err)
	}
	e := engine{boot.Set{Digest: "set", Kernel: image.Digest, Initrd: image.Digest}}
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	s, err := boot.New(boot.Config{
		Inventory: e, Issuer: e, Sets: e, Artifacts: store, HTTP: loopback, TFTP: loopback,
		URLs: []string{"https://127.0.0.1:8443"}, CA: strings.Repeat("ab", 32),
		Loaders: map[string]string{decide.LoaderBIOS: bios},
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
	f := fixture{server: s, image: image.Digest, content: content, loader: loader}
	f.http, f.tftp = s.Addrs()
	return f
}

// run runs a real client in an empty folder and returns its exit code and what it printed.
func run(t *testing.T, dir, name string, args ...string) (int, string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: install the Debian packages atftp, tftp-hpa and curl", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		t.Fatalf("cannot run %s: %v", name, err)
	}
	return c.ProcessState.ExitCode(), string(out)
}

func same(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes that differ from the %d wanted", file, len(got), len(want))
	}
}

func TestAtftp(t *testing.T) {
	f := start(t)
	port := strconv.Itoa(int(f.tftp.Port()))
	for _, options := range [][]string{nil, {"--option", "blksize 1468"}, {"--option", "blksize 1468", "--option", "tsize 0"}, {"--option", "blksize 9000"}, {"--option", "windowsize 8"}} {
		dir := t.TempDir()
		args := append(options, "--get", "--remote-file", "/undionly.kpxe", "--local-file", "out", "127.0.0.1", port)
		if code, out := run(t, dir, "atftp", args...); code != 0 {
			t.Fatalf("%v: exit %d: %s", options, code, out)
		}
		same(t, filepath.Join(dir, "out"), f.loader)
	}
	if code, out := run(t, t.TempDir(), "atftp", "--get", "--remote-file", "../../etc/passwd", "--local-file", "out", "127.0.0.1", port); code == 0 {
		t.Fatalf("a file outside the list was served: %s", out)
	}
}

func TestTftpHpa(t *testing.T) {
	f := start(t)
	port := strconv.Itoa(int(f.tftp.Port()))
	for _, name := range []string{"undionly.kpxe", `\undionly.kpxe`} {
		dir := t.TempDir()
		if code, out := run(t, dir, "tftp", "-4", "-m", "binary", "127.0.0.1", port, "-c", "get", name, "out"); code != 0 {
			t.Fatalf("exit %d: %s", code, out)
		}
		same(t, filepath.Join(dir, "out"), f.loader)
	}
	if _, out := run(t, t.TempDir(), "tftp", "-4", "-m", "binary", "127.0.0.1", port, "-c", "get", "autoexec.ipxe", "out"); !strings.Contains(out, "file not found") {
		t.Fatalf("got %q", out)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "up"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, out := run(t, dir, "tftp", "-4", "-m", "binary", "127.0.0.1", port, "-c", "put", "up", "undionly.kpxe"); !strings.Contains(out, "does not support write") {
		t.Fatalf("an upload got %q", out)
	}
}

func TestCurl(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	url := "http://" + f.http.String() + boot.ArtifactPath(f.image)
	if code, out := run(t, dir, "curl", "-sSf", "-o", "whole", url); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	same(t, filepath.Join(dir, "whole"), f.content)
	if sum := sha256.Sum256(f.content); f.image.Hex() != hex.EncodeToString(sum[:]) {
		t.Fatalf("the digest is %s", f.image)
	}

	// A transfer that broke off is resumed where it stopped.
	if err := os.WriteFile(filepath.Join(dir, "part"), f.content[:1_000_003], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run(t, dir, "curl", "-sSf", "-C", "-", "-o", "part", url); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	same(t, filepath.Join(dir, "part"), f.content)

	// A slow client is served as long as it reads at all.
	if code, out := run(t, dir, "curl", "-sSf", "--limit-rate", "1500k", "-o", "slow", url); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	same(t, filepath.Join(dir, "slow"), f.content)

	if code, out := run(t, dir, "curl", "-sSf", "-r", "10-19,30-39", "-o", "multi", "-w", "%{http_code} %{content_type}", url); code != 0 || !strings.HasPrefix(out, "206 multipart/byteranges") {
		t.Fatalf("exit %d: %s", code, out)
	}
	_, out := run(t, dir, "curl", "-sSI", url)
	for _, want := range []string{"HTTP/1.1 200 OK", "Content-Length: 3000017", "Accept-Ranges: bytes", `Etag: "` + string(f.image) + `"`, "immutable"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	_, out = run(t, dir, "curl", "-sS", "-w", "%{http_code} %{num_redirects}", "http://"+f.http.String()+"/boot/ipxe?mac=52-54-00-00-00-01&uuid=")
	if !strings.HasPrefix(out, "#!ipxe\n") || !strings.HasSuffix(out, "200 0") {
		t.Errorf("got %s", out)
	}
	_, out = run(t, dir, "curl", "-sS", "--path-as-is", "-w", "%{http_code} %{redirect_url}", "-o", os.DevNull, "http://"+f.http.String()+"//artifact/../../etc/passwd")
	if out != "404 " {
		t.Errorf("an unclean path got %q", out)
	}
}
