// Package tftp serves the first boot loaders, and nothing else, to firmware. Everything larger goes by HTTP.
//
// The protocol is github.com/pin/tftp/v3. What this package adds: a fixed list of files held in memory, limits, an
// answer to "who holds port 69", clean shutdown, and the knowledge of what firmware does that looks like a failure.
package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pin/tftp/v3"

	"joist/dhcp-dns/holder"
)

const (
	maxFile = 8 << 20 // a loader is 70 to 1,100 KB
	// A silent client is given up after Config.Timeout × (1 + retries): long enough for a switch port in spanning-tree
	// learning to lose packets, short enough for a shutdown to wait for it.
	retries = 7
)

// Outcome says how a request ended.
type Outcome uint8

// Outcomes of a request.
const (
	Sent    Outcome = iota // acknowledged to the last block
	Probed                 // the client stopped after learning the size, as UEFI does before it fetches: normal
	Refused                // no such file, or too many transfers
	Failed                 // the client fell silent or reported an error in mid-transfer
)

// String returns the outcome's name.
func (o Outcome) String() string {
	return [...]string{"sent", "probed", "refused", "failed"}[o&3]
}

// Transfer reports one request.
type Transfer struct {
	Client  netip.AddrPort
	File    string // as cleaned; quoted raw name if it was refused
	Bytes   int64  // given to the client, acknowledged or not
	Outcome Outcome
	Err     error // why it was refused or failed
}

// Config describes a server.
type Config struct {
	Files        map[string]string // name asked for → path of the file, such as "snponly.efi" → "/usr/lib/ipxe/snponly.efi"
	MaxTransfers int               // at one time; default 256
	MaxPerClient int               // at one time, for one address; default 4: firmware repeats a request it got no answer to
	Timeout      time.Duration     // before a block is sent again, seven times at most; default 1 s
	Report       func(Transfer)    // called at the end of each request, from several goroutines; may be nil
	Log          *slog.Logger      // default: discard
}

// Server serves a fixed list of files. Make one with New.
type Server struct {
	cfg   Config
	files map[string][]byte

	mu      sync.Mutex
	total   int
	clients map[netip.Addr]int
}

// New reads the files into memory, so that a package upgrade in mid-transfer mixes no versions, and returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.MaxTransfers == 0 {
		cfg.MaxTransfers = 256
	}
	if cfg.MaxPerClient == 0 {
		cfg.MaxPerClient = 4
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	if cfg.MaxTransfers < 0 || cfg.MaxPerClient < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("cannot serve TFTP with a negative limit")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, files: map[string][]byte{}, clients: map[netip.Addr]int{}}
	for name, file := range cfg.Files {
		if clean, ok := CleanName(name); !ok || clean != name {
			return nil, fmt.Errorf("cannot serve %q by TFTP: not a plain file name", name)
		}
		content, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("cannot serve %s by TFTP: %w", name, err)
		}
		s.files[name] = content
	}
	return s, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) == 0:
		return nil, fmt.Errorf("%s is empty", file)
	case len(content) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d MiB; only loaders go by TFTP", file, maxFile>>20)
	}
	return content, nil
}

// Listen opens the socket, normally port 69. If the port is taken the error names the program that holds it.
func Listen(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot serve TFTP: UDP port %d is in use: %s: %w", addr.Port(), holder.Reason("udp", addr), err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot serve TFTP: port %d needs root or CAP_NET_BIND_SERVICE: %w", addr.Port(), err)
	case err != nil:
		return nil, fmt.Errorf("cannot serve TFTP on %s: %w", addr, err)
	}
	return conn.(*net.UDPConn), nil
}

// Serve answers requests on conn until the context ends, then waits for the transfers in flight, which end with their
// next block, or after eight time-outs where the client has fallen silent. It closes conn. A server may serve several sockets.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	library := tftp.NewServer(func(name string, to io.ReaderFrom) error { return s.handle(ctx, name, to) }, nil)
	library.SetTimeout(s.cfg.Timeout)
	library.SetRetries(retries)
	library.SetBackoff(func(int) time.Duration { return 0 }) // the time-out has passed already
	// 1,468 bytes fill an untagged Ethernet frame; the library goes lower where the interface's MTU is.
	library.SetBlockSize(1468)

	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		library.Shutdown() // closes conn and waits for the transfers
	})
	err := library.Serve(conn)
	if stop() {
		library.Shutdown()
		return fmt.Errorf("cannot serve TFTP: %w", err)
	}
	<-stopped
	return nil
}

// handle answers one read request. The library runs it in a goroutine of its own.
func (s *Server) handle(ctx context.Context, raw string, to io.ReaderFrom) (err error) {
	out := to.(tftp.OutgoingTransfer) // the library's documented contract for read handlers
	remote := out.RemoteAddr()
	t := Transfer{Client: remote.AddrPort(), File: fmt.Sprintf("%q", clip(raw))}
	t.Client = netip.AddrPortFrom(t.Client.Addr().Unmap(), t.Client.Port())
	defer func() {
		// A library's slip over one strange packet must not end the engine.
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
			t.Outcome, t.Err = Failed, err
		}
		s.report(t)
	}()

	name, ok := CleanName(raw)
	content, listed := s.files[name]
	if !ok || !listed {
		t.Outcome, t.Err = Refused, errors.New("file not found")
		return t.Err
	}
	t.File = name
	if !s.enter(t.Client.Addr()) {
		t.Outcome, t.Err = Refused, errors.New("too many transfers at once, try again")
		return t.Err
	}
	defer s.leave(t.Client.Addr())

	// Setting the size also overwrites whatever the client sent as tsize, which the library would copy into its answer
	// and, if it is long enough, panic.
	out.SetSize(int64(len(content)))
	t.Bytes, err = to.ReadFrom(&reader{ctx: ctx, r: bytes.NewReader(content)})
	switch {
	case err == nil:
		t.Outcome = Sent
	case isProbe(err):
		t.Outcome = Probed
	default:
		t.Outcome, t.Err = Failed, err
	}
	return err
}

// isProbe recognises a client that answers the offered options (block 0) with an error: it wanted the size alone.
func isProbe(err error) bool { return strings.HasPrefix(err.Error(), "sending block 0: code=") }

func (s *Server) enter(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.cfg.MaxTransfers || s.clients[client] >= s.cfg.MaxPerClient {
		return false
	}
	s.total++
	s.clients[client]++
	return true
}

func (s *Server) leave(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
}

func (s *Server) report(t Transfer) {
	level := slog.LevelInfo
	switch t.Outcome {
	case Failed:
		level = slog.LevelWarn
	case Probed:
		level = slog.LevelDebug
	}
	s.cfg.Log.Log(context.Background(), level, "tftp request", "client", t.Client, "file", t.File, "outcome", t.Outcome, "bytes", t.Bytes, "err", t.Err)
	if s.cfg.Report != nil {
		s.cfg.Report(t)
	}
}

// reader ends a transfer at its next block when the server stops.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, errors.New("the server is stopping")
	}
	return r.r.Read(p)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
