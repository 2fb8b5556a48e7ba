// Package boot takes a machine from its firmware's first question to scout. It joins the pure parts (decide, ipxe,
// phase) with the servers (tftp, and HTTP here) and with what the engine knows, which it asks for through the interfaces
// below. A DHCP server calls Server.DHCP and Server.Leased; everything else a machine fetches comes from here.
package boot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"joist/dhcp-dns/holder"
	"joist/services/boot/artifacts"
	"joist/services/boot/decide"
	"joist/services/boot/phase"
	"joist/services/boot/tftp"
)

// Record is what the inventory knows about a machine and wants of it.
type Record struct {
	decide.Machine
	Target decide.Target
}

// Inventory knows the machines.
type Inventory interface {
	// Machine returns the record of the machine with this MAC address (and UUID, where the firmware names one), and
	// whether there is one. It is asked for every DHCP packet and must not wait for anything.
	Machine(ctx context.Context, mac decide.MAC, uuid decide.UUID) (Record, bool)
}

// BootRequest is what is journalled before a machine gets a script that lets it enrol.
type BootRequest struct {
	MAC  decide.MAC
	UUID decide.UUID
	Node string     // empty for a machine without a record or name
	Addr netip.Addr // the address that asked
	Set  string     // digest of the boot set
	At   time.Time
}

// Issuer gives out boot ids.
type Issuer interface {
	// Issue returns a fresh random boot id, 128 bits in 32 lower-case hexadecimal digits, after the request is durable.
	Issue(ctx context.Context, r BootRequest) (id string, err error)
}

// Set is a boot set: kernel, scout and node image that belong together.
type Set struct {
	Digest  string           // of the whole set
	Kernel  artifacts.Digest // all three are in the artifact store
	Initrd  artifacts.Digest
	Image   artifacts.Digest // may be empty here: scout learns it when it is assigned; only used to recognise the transfer
	Console []string         // kernel consoles, the last being /dev/console; default tty0, ttyS0,115200n8
	Args    []string         // further kernel arguments
}

// Sets knows which boot set is in force.
type Sets interface {
	// BootSet returns the set that this machine is to boot. Its error is shown on the machine's console.
	BootSet(ctx context.Context, r Record) (Set, error)
}

// Observer hears what machines do. Calls come from requests' goroutines and must not block for long.
type Observer interface {
	// Reached says that a machine came to a phase of its boot.
	Reached(mac decide.MAC, m phase.Mark)
	// Notice says something that a person should know, at most once in ten minutes for the same machine and text.
	Notice(mac decide.MAC, text string)
}

// Config describes the boot service. Fields without a default are required.
type Config struct {
	Inventory Inventory
	Issuer    Issuer
	Sets      Sets
	Observer  Observer // default: nobody
	Artifacts *artifacts.Store

	URLs    []string          // the engine's addresses for agents, https with IP literals
	CA      string            // SHA-256 of the root's public key, 64 hexadecimal digits
	HTTP    netip.AddrPort    // where to listen for HTTP, such as 0.0.0.0:8080; port 0 takes a free one
	TFTP    netip.AddrPort    // where to listen for TFTP; default 0.0.0.0:69, the only port firmware asks
	Loaders map[string]string // TFTP name → file; default: Debian's iPXE for decide.LoaderBIOS and decide.LoaderUEFI
	Policy  decide.Policy
	Revoked http.Handler // answers GET and HEAD of /crl and of what is below it; default: there is nothing

	MaxConnections int              // of HTTP at one time; default 1,024
	Now            func() time.Time // default time.Now
	Log            *slog.Logger     // default: discard
}

func (c Config) validate() (Config, error) {
	if c.Inventory == nil || c.Issuer == nil || c.Sets == nil || c.Artifacts == nil {
		return c, errors.New("an inventory, an issuer, boot sets and an artifact store are needed")
	}
	if len(c.URLs) == 0 {
		return c, errors.New("no address of the engine is given")
	}
	for _, u := range c.URLs {
		p, err := url.Parse(u)
		if err != nil || p.Scheme != "https" {
			return c, fmt.Errorf("%q is no https address", u)
		}
		if _, err := netip.ParseAddr(p.Hostname()); err != nil {
			return c, fmt.Errorf("%q must name an IP address: a booting machine may have no DNS", u)
		}
	}
	if b, err := hex.DecodeString(c.CA); err != nil || len(b) != 32 {
		return c, fmt.Errorf("the pin %q is not 64 hexadecimal digits", c.CA)
	}
	if !c.HTTP.IsValid() {
		return c, errors.New("no address to listen on for HTTP is given")
	}
	if !c.TFTP.IsValid() {
		c.TFTP = netip.AddrPortFrom(netip.IPv4Unspecified(), 69)
	}
	if c.Loaders == nil {
		c.Loaders = map[string]string{decide.LoaderBIOS: "/usr/lib/ipxe/undionly.kpxe", decide.LoaderUEFI: "/usr/lib/ipxe/snponly.efi"}
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 1024
	}
	if c.MaxConnections < 0 {
		return c, errors.New("the limit of HTTP connections is negative")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Server is the boot service. Make one with New, open its ports with Listen, then Serve.
type Server struct {
	cfg   Config
	since time.Time // from when on it hears of machines
	tftp  *tftp.Server
	track *tracker

	mu       sync.Mutex
	listener net.Listener
	udp      *net.UDPConn
	port     uint16 // of HTTP, for addresses given to machines
	roles    map[artifacts.Digest]phase.Phase
}

// New checks the configuration, reads the loaders and returns a server that does not listen yet.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("cannot set up boot service: %w", err)
	}
	s := &Server{cfg: cfg, since: cfg.Now(), port: cfg.HTTP.Port(), roles: map[artifacts.Digest]phase.Phase{}}
	s.track = newTracker(cfg.Observer)
	s.tftp, err = tftp.New(tftp.Config{Files: cfg.Loaders, Report: s.loaderSent, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("cannot set up boot service (is the package ipxe installed?): %w", err)
	}
	return s, nil
}

// Listen opens both ports. An error names the program that holds a port that is taken.
func (s *Server) Listen(ctx context.Context) error {
	udp, err := tftp.Listen(ctx, s.cfg.TFTP)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.HTTP.String())
	if err != nil {
		udp.Close()
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("cannot serve boot files: TCP port %d is in use: %s: %w", s.cfg.HTTP.Port(), holder.Reason("tcp", s.cfg.HTTP), err)
		}
		return fmt.Errorf("cannot serve boot files on %s: %w", s.cfg.HTTP, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener, s.udp = l, udp
	s.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	return nil
}

// Addrs returns where the server listens: HTTP and TFTP. Call it after Listen.
func (s *Server) Addrs() (http, tftp netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener.Addr().(*net.TCPAddr).AddrPort(), s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Serve answers machines until the context ends, then lets transfers in flight go on for five seconds. It closes what
// Listen opened.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	l, udp := s.listener, s.udp
	s.mu.Unlock()
	if l == nil {
		return errors.New("internal error: boot service serves before it listens")
	}
	web := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		// Writing has a deadline for each piece (see paced), so that a large image may take long but never stand still.
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.tftp.Serve(ctx, udp) })
	g.Go(func() error {
		if err := web.Serve(netutil.LimitListener(l, s.cfg.MaxConnections)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("cannot serve boot files: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if web.Shutdown(patience) != nil {
			return web.Close()
		}
		return nil
	})
	return g.Wait()
}

// Ask is a DHCP request as the boot service sees it.
type Ask struct {
	Firmware decide.Firmware
	Server   netip.Addr // our address on the network that the request came from
}

// Offer is the answer for a DHCP reply. Silence means no reply at all.
type Offer struct {
	decide.Answer
	NextServer netip.Addr // for siaddr and option 66; set with a loader only
	BootFile   string     // for both the header's file and option 67: a TFTP name or an http address; empty for an address alone
}

// DHCP decides what a DHCP request is answered.
func (s *Server) DHCP(ctx context.Context, a Ask) Offer {
	mac := a.Firmware.MAC
	record, known := s.cfg.Inventory.Machine(ctx, mac, a.Firmware.UUID)
	record.Known = known
	now := s.cfg.Now()
	o := Offer{Answer: decide.Decide(decide.Request{
		Stage: decide.StageDHCP, Machine: record.Machine, Firmware: a.Firmware, Target: record.Target, Policy: s.cfg.Policy, Now: now,
	})}
	switch o.Kind {
	case decide.Loader:
		o.NextServer, o.BootFile = a.Server, o.Loader
	case decide.Script:
		o.BootFile = s.scriptURL(a.Server, mac, a.Firmware.UUID)
	}
	if o.BootFile != "" {
		s.track.reached(mac, phase.Mark{Phase: phase.Offer, At: now})
	}
	if o.Notice {
		s.track.notice(mac, o.Reason, now)
	}
	return o
}

// Leased tells which address a machine has, so that what the address fetches counts as the machine's. The DHCP server
// calls it with each ACK.
func (s *Server) Leased(mac decide.MAC, addr netip.Addr) { s.track.at(addr.Unmap(), mac, s.cfg.Now()) }

// Reached records a phase that was seen elsewhere: power by the provider, enrolment and agent by the gateway.
func (s *Server) Reached(mac decide.MAC, p phase.Phase) {
	s.track.reached(mac, phase.Mark{Phase: p, At: s.cfg.Now()})
}

// Status says in one sentence how far a machine's boot came, or why it was not sent to scout.
func (s *Server) Status(mac decide.MAC) phase.Report {
	if why, at, ok := s.track.holding(mac); ok {
		return phase.Report{Sentence: why + ", told " + phase.Ago(s.cfg.Now().Sub(at))}
	}
	return phase.Describe(s.track.marks(mac), s.cfg.Now())
}

// Lost reports whether nothing comes any more of a machine that was switched on (phase.Lost). One that was told to wait is not lost.
func (s *Server) Lost(mac decide.MAC) bool {
	if _, _, told := s.track.holding(mac); told {
		return false
	}
	return phase.Lost(s.track.marks(mac), s.since, s.cfg.Now())
}

// Recall takes in a phase that was seen before the engine's last start.
func (s *Server) Recall(mac decide.MAC, m phase.Mark) { s.track.reached(mac, m) }

// Traffic returns what a machine was sent over HTTP since the engine started.
func (s *Server) Traffic(mac decide.MAC) Traffic { return s.track.traffic(mac) }

// scriptURL is the address of a machine's own script. It has an IP literal, for a booting machine may have no DNS.
func (s *Server) scriptURL(server netip.Addr, mac decide.MAC, uuid decide.UUID) string {
	return s.base(server) + "/boot/ipxe?mac=" + mac.Hyphens() + "&uuid=" + string(uuid)
}

func (s *Server) base(server netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + netip.AddrPortFrom(server.Unmap().WithZone(""), s.port).String()
}

func (s *Server) loaderSent(t tftp.Transfer) {
	if mac, ok := s.track.who(t.Client.Addr()); ok && t.Outcome == tftp.Sent {
		s.track.reached(mac, phase.Mark{Phase: phase.Loader, At: s.cfg.Now()})
	}
}
