package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/boot/decide"
	"joist/services/boot/tftp"
)

const (
	tftpPort, httpPort = "6900", "8080"
	loaderSize         = 4 << 20 // bytes; loaders are smaller, and then the client's start is what is measured
	imageSize          = 256 << 20
	parallelTransfers  = 4
)

// downloads measures a client that fetches one file: alone, and several at once. size is in bytes, the rates in MiB/s.
func downloads(size int, fetch func() *exec.Cmd) (map[string]float64, error) {
	rates := map[string]float64{}
	for figure, n := range map[string]int{"single": 1, "parallel": parallelTransfers} {
		begun := time.Now()
		var running []*exec.Cmd
		var complaints bytes.Buffer
		for range n {
			cmd := fetch()
			cmd.Stderr = &complaints
			if err := cmd.Start(); err != nil {
				return nil, err
			}
			running = append(running, cmd)
		}
		var errs []error
		for _, cmd := range running {
			errs = append(errs, cmd.Wait())
		}
		if err := errors.Join(errs...); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", running[0].Path, err, bytes.TrimSpace(complaints.Bytes()))
		}
		rates[figure] = float64(n*size) / (1 << 20) / time.Since(begun).Seconds()
	}
	return rates, nil
}

// tftpRates fetches a loader with atftp, with blocks that fill an Ethernet frame.
func tftpRates(ctx context.Context, s *suite) error {
	if !installed("atftp", "TFTP") {
		return nil
	}
	w, err := newWire(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := w.remove(); err != nil {
			progress("%v", err)
		}
	}()
	dir := filepath.Join(s.dir, "tftp")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "loader"), bytes.Repeat([]byte("loader.."), loaderSize/8), 0o644); err != nil {
		return err
	}
	list := []candidate{{ourselves, func() (*server, error) { return listening(ctx, w, "tftp", dir) }}}
	if installed("in.tftpd", "tftpd-hpa as a peer of TFTP") {
		list = append(list, candidate{"tftpd-hpa", func() (*server, error) {
			return settled(start(inside(ctx, w.srv, "in.tftpd", "--foreground", "--address", "127.0.0.1:"+tftpPort, "--user", "root", "--secure", dir)))
		}})
	}
	got, err := contest(ctx, 5, list, func(string) (map[string]float64, error) {
		return downloads(loaderSize, func() *exec.Cmd {
			return inside(ctx, w.srv, "atftp", "--option", "blksize 1468", "--option", "tsize 0", "--get", "--remote-file", "loader", "--local-file", "/dev/null", "127.0.0.1", tftpPort)
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(show(s, "tftp_single", "MiB/s", got["single"]), show(s, "tftp_parallel", "MiB/s", got["parallel"]))
}

// listening is a role of this program on loopback that says when it listens.
func listening(ctx context.Context, w wire, role, dir string) (*server, error) {
	cmd, err := command(ctx, w.srv, role, arguments{Dir: dir})
	if err != nil {
		return nil, err
	}
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	return p, p.hear(new(string))
}

// serveTFTP is joist's TFTP server. All its clients have one address here, so it lets that have several transfers.
func serveTFTP(ctx context.Context, a arguments) error {
	s, err := tftp.New(tftp.Config{Files: map[string]string{"loader": filepath.Join(a.Dir, "loader")}, MaxPerClient: 2 * parallelTransfers})
	if err != nil {
		return err
	}
	conn, err := tftp.Listen(ctx, netip.MustParseAddrPort("127.0.0.1:"+tftpPort))
	if err != nil {
		return err
	}
	if err := say("listening"); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	go func() {
		untilTold()
		stop()
	}()
	return s.Serve(ctx, conn)
}

// httpRates fetches a node image with curl.
func httpRates(ctx context.Context, s *suite) error {
	if !installed("curl", "HTTP") {
		return nil
	}
	w, err := newWire(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := w.remove(); err != nil {
			progress("%v", err)
		}
	}()
	dir := filepath.Join(s.dir, "http")
	store, err := artifacts.Open(filepath.Join(dir, "artifacts"))
	if err != nil {
		return err
	}
	image, err := store.Write(ctx, bytes.NewReader(bytes.Repeat([]byte("a squash"), imageSize/8)), "")
	if err != nil {
		return err
	}
	path := boot.ArtifactPath(image.Digest)
	list := []candidate{{ourselves, func() (*server, error) { return listening(ctx, w, "http", dir) }}}
	if installed("nginx", "nginx as a peer of HTTP") {
		if err := nginxFolder(dir, path, store, image.Digest); err != nil {
			return err
		}
		list = append(list, candidate{"nginx", func() (*server, error) {
			return settled(start(inside(ctx, w.srv, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))))
		}})
	}
	got, err := contest(ctx, 5, list, func(string) (map[string]float64, error) {
		return downloads(imageSize, func() *exec.Cmd {
			return inside(ctx, w.srv, "curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "http://127.0.0.1:"+httpPort+path)
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(show(s, "http_single", "MiB/s", got["single"]), show(s, "http_parallel", "MiB/s", got["parallel"]))
}

// nginxFolder lets nginx serve the same file under the same path, in the way that its manual recommends for large files.
func nginxFolder(dir, path string, store *artifacts.Store, d artifacts.Digest) error {
	f, _, err := store.Open(d)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	link := filepath.Join(dir, "root", path)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.Link(f.Name(), link); err != nil {
		return err
	}
	conf := `daemon off;
master_process off;
user root;
pid ` + dir + `/pid;
error_log ` + dir + `/log;
events { worker_connections 768; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  server { listen 127.0.0.1:` + httpPort + `; root ` + dir + `/root; }
}
`
	return os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600)
}

// noMachines is an inventory, an issuer and a store of boot sets with nothing in it.
type noMachines struct{}

func (noMachines) Machine(context.Context, decide.MAC, decide.UUID) (boot.Record, bool) {
	return boot.Record{}, false
}
func (noMachines) Issue(context.Context, boot.BootRequest) (string, error) {
	return "", errors.New("there are no machines")
}
func (noMachines) BootSet(context.Context, boot.Record) (boot.Set, error) {
	return boot.Set{}, errors.New("there are no boot sets")
}

// serveHTTP is joist's boot service.
func serveHTTP(ctx context.Context, a arguments) error {
	store, err := artifacts.Open(filepath.Join(a.Dir, "artifacts"))
	if err != nil {
		return err
	}
	loader := filepath.Join(a.Dir, "loader")
	if err := os.WriteFile(loader, []byte("loader"), 0o600); err != nil {
		return err
	}
	port, err := strconv.ParseUint(httpPort, 10, 16)
	if err != nil {
		return err
	}
	s, err := boot.New(boot.Config{
		Inventory: noMachines{}, Issuer: noMachines{}, Sets: noMachines{}, Artifacts: store, URLs: []string{"https://127.0.0.1:8443"}, CA: strings.Repeat("ab", 32),
		HTTP: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), TFTP: netip.MustParseAddrPort("127.0.0.1:0"),
		Loaders: map[string]string{decide.LoaderBIOS: loader, decide.LoaderUEFI: loader},
	})
	if err != nil {
		return err
	}
	if err := s.Listen(ctx); err != nil {
		return err
	}
	if err := say("listening"); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	go func() {
		untilTold()
		stop()
	}()
	return s.Serve(ctx)
}
