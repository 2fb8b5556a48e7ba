// Package dns serves a zone.Set over UDP and TCP. The set is replaced as a whole and atomically: a query sees one set,
// and the first query that arrives after Swap has returned sees the new one.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"

	"joist/dhcp-dns/holder"
	"joist/dhcp-dns/zone"
)

// Sizes and limits that are no matter of configuration.
const (
	maxUDP         = 1232 // largest UDP answer in bytes: fits IPv6's minimum MTU unfragmented (DNS Flag Day 2020)
	maxConnections = 256  // TCP connections at once, per address
	maxForwards    = 256  // forwarded queries at once; more are answered SERVFAIL
	idle           = 8 * time.Second
	bindAttempts   = 16 // for port 0: how often a port that is free for UDP may turn out taken for TCP
)

// Config is what a server needs. Addresses is required; every other zero field has the default stated with it.
type Config struct {
	// Addresses are served over UDP and TCP. Port 0 stands for one that the system chooses, the same for both. 0.0.0.0
	// stands for all IPv4 addresses, :: for all IPv6 addresses.
	Addresses []netip.AddrPort

	// Upstreams are asked, in order, for names outside the served zones. None: such names are refused.
	Upstreams []netip.AddrPort
	// Clients may have queries forwarded. None: loopback, private and link-local ranges, so that a server that can be
	// reached from elsewhere is no open resolver.
	Clients []netip.Prefix
	// UpstreamTimeout bounds the attempt with one upstream. 0: 2 s.
	UpstreamTimeout time.Duration

	// Transfers may transfer zones (AXFR). None: nobody.
	Transfers []netip.Prefix

	// Log receives warnings about upstreams, and refused transfers at debug level. nil: discarded.
	Log *slog.Logger
}

// localRanges are loopback, private use (RFC 1918, RFC 4193) and link-local (RFC 3927, RFC 4291).
func localRanges() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{
		"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "169.254.0.0/16", "fe80::/10",
	} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// Server answers queries. Make one with Listen, run it with Serve.
type Server struct {
	cfg      Config
	set      atomic.Pointer[zone.Set]
	forwards chan struct{} // a slot for each query being forwarded
	servers  []*mdns.Server
	sockets  []interface{ Close() error }
	bound    []netip.AddrPort
	serving  context.Context // ends when Serve returns; set before the first query is read
}

// Listen checks cfg and takes the ports, so that what is wrong is known before anything runs. A taken port's error names
// the process that holds it, where that can be known. The caller must run Serve or Close afterwards.
func Listen(cfg Config) (*Server, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("cannot serve DNS: no address to listen on is configured")
	}
	if cfg.UpstreamTimeout == 0 {
		cfg.UpstreamTimeout = 2 * time.Second
	}
	if cfg.UpstreamTimeout < 0 {
		return nil, fmt.Errorf("cannot serve DNS: time-out %s for upstreams is negative", cfg.UpstreamTimeout)
	}
	if len(cfg.Clients) == 0 {
		cfg.Clients = localRanges()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, up := range cfg.Upstreams {
		if !up.IsValid() || up.Port() == 0 {
			return nil, fmt.Errorf("cannot serve DNS: upstream %s needs an address and a port", up)
		}
		if slices.Contains(cfg.Addresses, up) {
			return nil, fmt.Errorf("cannot serve DNS: upstream %s is this server itself", up)
		}
	}
	s := &Server{cfg: cfg, forwards: make(chan struct{}, maxForwards), serving: context.Background()}
	for _, addr := range cfg.Addresses {
		if err := s.listen(addr); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot serve DNS: %w", err), s.Close())
		}
	}
	return s, nil
}

func (s *Server) listen(addr netip.AddrPort) error {
	pc, l, err := bind(addr)
	if err != nil {
		return err
	}
	s.sockets = append(s.sockets, pc, l)
	s.bound = append(s.bound, l.Addr().(*net.TCPAddr).AddrPort())
	handler := mdns.HandlerFunc(s.handle)
	s.servers = append(s.servers,
		&mdns.Server{PacketConn: pc, Handler: handler, UDPSize: maxUDP, MsgAcceptFunc: accept},
		&mdns.Server{
			Listener: &limited{Listener: l, slots: make(chan struct{}, maxConnections)}, Handler: handler,
			MsgAcceptFunc: accept, IdleTimeout: func() time.Duration { return idle },
		})
	return nil
}

// bind opens both sockets of an address, on one port.
func bind(addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	family := "6" // named, because the system would take "0.0.0.0" for both families otherwise
	if addr.Addr().Is4() {
		family = "4"
	}
	for attempt := 1; ; attempt++ {
		l, err := net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(addr))
		if err != nil {
			return nil, nil, explain("tcp", addr, err)
		}
		both := l.Addr().(*net.TCPAddr).AddrPort()
		pc, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(both))
		if err == nil {
			return pc, l, nil
		}
		err = errors.Join(explain("udp", both, err), l.Close())
		if addr.Port() != 0 || attempt == bindAttempts {
			return nil, nil, err
		}
	}
}

// explain says in one sentence why a socket could not be opened, and what to do.
func explain(network string, addr netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d/%s of %s is in use: %s: %w", addr.Port(), network, addr.Addr(), holder.Reason(network, addr), err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port %d/%s needs root or CAP_NET_BIND_SERVICE: %w", addr.Port(), network, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("no interface of this machine has address %s: %w", addr.Addr(), err)
	}
	return fmt.Errorf("cannot listen on %s/%s: %w", addr, network, err)
}

// Addresses are those that the server listens on, with the ports it got.
func (s *Server) Addresses() []netip.AddrPort { return slices.Clone(s.bound) }

// Swap makes set what is served. It is safe at any time; before the first one every name lies outside our zones.
func (s *Server) Swap(set *zone.Set) { s.set.Store(set) }

// Close gives the ports back. It is needed only where Serve is never called.
func (s *Server) Close() error {
	var errs []error
	for _, c := range s.sockets {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Serve answers queries until ctx ends, and then returns nil once every goroutine of the server has ended and the ports
// are free. An error is that of a socket that failed. It must be called at most once.
func (s *Server) Serve(ctx context.Context) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	s.serving = serving
	var wg sync.WaitGroup
	failures := make(chan error, len(s.servers))
	started := make(chan struct{}, len(s.servers))
	for _, srv := range s.servers {
		srv.NotifyStartedFunc = func() { started <- struct{}{} }
		wg.Go(func() { failures <- srv.ActivateAndServe() })
	}
	// A server that has not started yet cannot be shut down, so wait for all of them first.
	var failed error
	for range s.servers {
		select {
		case <-started:
		case failed = <-failures:
		}
	}
	if failed == nil {
		select {
		case <-ctx.Done():
		case failed = <-failures:
		}
	}
	stop()
	for _, srv := range s.servers {
		// Fails only for one that has ended by itself. The time-outs of reads bound how long this takes.
		_ = srv.Shutdown()
	}
	closed := s.Close()
	wg.Wait()
	if failed != nil {
		return fmt.Errorf("cannot go on serving DNS: %w", errors.Join(failed, closed))
	}
	return closed
}

// limited bounds the connections that a listener has open.
type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			_ = conn.Close() // a connection too many; the client tries again
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Write gives up on a client that does not read: the library sets no deadline, and one such would hold up the end.
func (c *limitedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
