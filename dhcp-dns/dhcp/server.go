//go:build linux

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"joist/dhcp-dns/holder"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Config says where a server listens and whom it asks.
type Config struct {
	Interface string       // the one interface to serve; required
	Address   netip.Addr   // server identifier and source of replies; default: the interface's first IPv4 address
	Handler   Handler      // required
	Log       *slog.Logger // required
	Workers   int          // requests answered at once, most of them waiting for a durable write; default 256
	Queue     int          // requests waiting for a worker, beyond which packets are dropped; default 1024, little enough that none is answered after its client gave up

	// NoBootServer leaves port 4011 alone. By default the server answers PXE firmware there, too: some ROMs ask again
	// there although the first answer named the file.
	NoBootServer bool
}

// Server answers DHCP and PXE on one interface.
type Server struct {
	*Responder
	config  Config
	iface   *net.Interface
	sockets []*socket
	raw     *packet.Conn // nil where the link is not Ethernet
	dropped atomic.Uint64
	refused atomic.Uint64
}

// socket is one of the server's UDP sockets.
type socket struct {
	*net.UDPConn
	port int
}

// Listen opens the sockets. Errors say which process holds a port that is taken. Call Serve next, or Close.
func Listen(c Config) (*Server, error) {
	iface, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return nil, fmt.Errorf("cannot serve DHCP on interface %q: %w", c.Interface, err)
	}
	if !c.Address.IsValid() {
		if c.Address, err = firstAddress(iface); err != nil {
			return nil, err
		}
	}
	if c.Workers == 0 {
		c.Workers = 256
	}
	if c.Queue == 0 {
		c.Queue = 1024
	}
	if c.Workers < 0 || c.Queue < 0 {
		return nil, fmt.Errorf("cannot serve DHCP with %d workers and a queue of %d: neither may be negative", c.Workers, c.Queue)
	}
	responder, err := NewResponder(c.Address, c.Handler, c.Log)
	if err != nil {
		return nil, err
	}
	s := &Server{Responder: responder, config: c, iface: iface}
	ports := []int{ServerPort}
	if !c.NoBootServer {
		ports = append(ports, BootServerPort)
	}
	for _, port := range ports {
		conn, err := listenUDP(c.Interface, port)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.sockets = append(s.sockets, &socket{UDPConn: conn, port: port})
	}
	if len(iface.HardwareAddr) == 6 {
		if s.raw, err = sendOnly(iface); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func firstAddress(iface *net.Interface) (netip.Addr, error) {
	list, err := iface.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot read the addresses of %s: %w", iface.Name, err)
	}
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() {
			return prefix.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("cannot serve DHCP on %s: it has no IPv4 address; give it one with `ip address add`", iface.Name)
}

const receiveBuffer = 4 << 20 // bytes, as the kernel counts them: some thousands of packets

// listenUDP listens on 0.0.0.0, because a socket bound to one address receives no broadcast, and on one interface only.
// Without SO_REUSEADDR, so that a second server on the interface is an error and not a race.
func listenUDP(iface string, port int) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if outer := c.Control(func(fd uintptr) {
			if err = unix.BindToDevice(int(fd), iface); err != nil {
				err = os.NewSyscallError("bind to "+iface, err)
				return
			}
			// The system's default holds some 150 packets, which a hall of machines sends at power-on within milliseconds.
			// Beyond net.core.rmem_max only with CAP_NET_ADMIN.
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as is allowed
			}
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
		}); outer != nil {
			return outer
		}
		return err
	}}
	conn, err := config.ListenPacket(context.Background(), "udp4", "0.0.0.0:"+strconv.Itoa(port))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		why := holder.Reason("udp", netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)))
		return nil, fmt.Errorf("cannot serve DHCP on %s: UDP port %d is in use: %s; stop that program, or bind it to other interfaces: %w", iface, port, why, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot serve DHCP on %s: run as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW: %w", iface, err)
	case err != nil:
		return nil, fmt.Errorf("cannot serve DHCP on %s: %w", iface, err)
	}
	return conn.(*net.UDPConn), nil
}

// sendOnly opens the packet socket for frames to clients without an address; it receives nothing.
func sendOnly(iface *net.Interface) (*packet.Conn, error) {
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	conn, err := packet.Listen(iface, packet.Raw, unix.ETH_P_IP, &packet.Config{Filter: nothing})
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket on %s (run as root, or with CAP_NET_RAW): %w", iface.Name, err)
	}
	return conn, nil
}

// Close closes the sockets; a running Serve returns. It may be called twice.
func (s *Server) Close() {
	for _, c := range s.sockets {
		c.Close()
	}
	if s.raw != nil {
		s.raw.Close()
	}
}

// Dropped counts packets that found the queue full, and malformed ones.
func (s *Server) Dropped() (overload, malformed uint64) { return s.dropped.Load(), s.refused.Load() }

// job is one received datagram with the socket it came by.
type job struct {
	Datagram
	by *socket
}

// Serve answers until ctx ends or the server is closed, then waits for the requests in hand and returns nil; or fails
// with what broke a socket.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	jobs := make(chan job, s.config.Queue)
	var workers, readers sync.WaitGroup
	for range s.config.Workers {
		workers.Go(func() {
			for j := range jobs {
				s.answer(ctx, j)
			}
		})
	}
	failed := make([]error, len(s.sockets))
	for i, by := range s.sockets {
		readers.Go(func() {
			failed[i] = s.read(by, jobs)
			cancel() // one socket alone is no service
		})
	}
	readers.Wait()
	close(jobs)
	workers.Wait()
	s.Close()
	return errors.Join(failed...)
}

// read passes on what arrives until the socket is closed.
func (s *Server) read(by *socket, jobs chan<- job) error {
	buffer, control := make([]byte, 4096), make([]byte, 256)
	for {
		n, nc, _, from, err := by.ReadMsgUDPAddrPort(buffer, control)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("cannot receive DHCP on %s: %w", s.config.Interface, err)
		}
		j := job{by: by, Datagram: Datagram{
			Payload: append([]byte(nil), buffer[:n]...), From: from, Port: by.port, Unicast: sentTo(control[:nc]) == s.address,
		}}
		select {
		case jobs <- j:
		default:
			s.dropped.Add(1) // clients retry
		}
	}
}

// sentTo is the destination address in a received control message (IP_PKTINFO, ip(7)); invalid if there is none.
func sentTo(control []byte) netip.Addr {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range list {
		// struct in_pktinfo: index (4 bytes), local address (4), destination (4).
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12 {
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		}
	}
	return netip.Addr{}
}

func (s *Server) answer(ctx context.Context, j job) {
	reply, err := s.Respond(ctx, j.Datagram)
	var bad *MalformedError
	switch {
	case errors.As(err, &bad):
		s.refused.Add(1)
		s.log.Debug("dropped a DHCP packet", "from", j.From, "reason", bad.Reason)
		return
	case err != nil && ctx.Err() != nil:
		return // stopping; the client asks again
	case err != nil:
		s.log.Warn("left a DHCP client without an answer", "error", err)
		return
	case reply == nil:
		return
	}
	err = s.send(j.by, reply)
	switch {
	case errors.Is(err, net.ErrClosed):
	case err != nil:
		s.log.Warn("could not send a DHCP reply", "to", reply.Route.To, "error", err)
	case s.log.Enabled(ctx, slog.LevelDebug):
		s.log.Debug("answered a DHCP client", "question", reply.Query.Kind, "mac", reply.Query.Firmware.MAC, "to", reply.Route.To)
	}
}

func (s *Server) send(by *socket, reply *Reply) error {
	to := reply.Route.To
	if hw := reply.Route.Hardware; hw != nil && s.raw != nil {
		self := endpoint{hardware: s.iface.HardwareAddr, addr: netip.AddrPortFrom(s.address, uint16(by.port))}
		_, err := s.raw.WriteTo(frame(self, endpoint{hardware: hw, addr: to}, reply.Payload), &packet.Addr{HardwareAddr: hw})
		return err
	} else if hw != nil {
		to = netip.AddrPortFrom(broadcast(), to.Port())
	}
	// The source must be the server identifier even if the interface has more addresses.
	info := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(s.iface.Index), Spec_dst: s.address.As4()})
	_, _, err := by.WriteMsgUDPAddrPort(reply.Payload, info, to)
	return err
}
