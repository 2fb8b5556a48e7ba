// Package dhcp speaks DHCPv4 and PXE: a Responder turns a client's datagram into a question to a Handler and its answer
// into a reply; a Server puts a Responder on an interface; Probe looks for other servers. Encoding and decoding are
// github.com/insomniacslk/dhcp's.
package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Datagram is what arrived.
type Datagram struct {
	Payload []byte
	From    netip.AddrPort
	Unicast bool // it was sent to this host's own address
	Port    int  // it was sent to this port: ServerPort or BootServerPort
}

// Reply is what to send.
type Reply struct {
	Payload []byte
	Route   Route
	Query   Query // the question that it answers
}

// Responder answers datagrams. It has no sockets and is safe for concurrent use.
type Responder struct {
	address netip.Addr
	handler Handler
	log     *slog.Logger

	mu     sync.Mutex
	rivals map[netip.Addr]bool // other servers that clients on the link chose
}

// NewResponder returns a Responder that calls itself address (the server identifier, option 54).
func NewResponder(address netip.Addr, handler Handler, log *slog.Logger) (*Responder, error) {
	if !address.Is4() || address.IsUnspecified() || handler == nil || log == nil {
		return nil, fmt.Errorf("cannot answer DHCP as %v: an IPv4 address, a handler and a log are required", address)
	}
	return &Responder{address: address, handler: handler, log: log, rivals: map[netip.Addr]bool{}}, nil
}

// Respond answers one datagram. A nil reply means silence. The error is *MalformedError for a packet to be dropped, or
// what the handler failed with.
func (s *Responder) Respond(ctx context.Context, d Datagram) (*Reply, error) {
	p, err := decode(d.Payload)
	if err != nil {
		return nil, err
	}
	r, err := understand(p, s.address, d.Unicast)
	if d.Port == BootServerPort {
		r, err = asBootServer(r, d.From)
	}
	if err != nil {
		return nil, err
	}
	if r.server.IsValid() && r.server != r.self && r.server != s.address {
		s.noteRival(r)
		return nil, nil // the client talks to somebody else
	}
	a, kind, err := s.ask(ctx, r)
	if err != nil || a.Verdict == Silent {
		return nil, err
	}
	switch {
	case a.Verdict == Refuse && kind == dhcpv4.MessageTypeAck && r.Kind != Inform && r.Kind != BootServer:
		kind = dhcpv4.MessageTypeNak
	case a.Verdict != Give:
		return nil, nil
	case (r.Kind == Inform) && !r.Via.IsValid() && !a.Subnet.Contains(r.Address):
		return nil, malformed("an INFORM from %v, which is not on this network", r.Address) // and no way to hit a third party
	case r.Kind != Inform && r.Kind != BootServer && !a.Address.Is4():
		return nil, fmt.Errorf("internal error: the answer to a %s of %s has no address", r.Kind, r.Firmware.MAC)
	}
	return &Reply{Payload: build(r, kind, a), Route: route(r, kind, a, d.From), Query: r.Query}, nil
}

// ask puts the question to the handler; kind is the message type of a positive answer.
func (s *Responder) ask(ctx context.Context, r request) (a Answer, kind dhcpv4.MessageType, err error) {
	switch r.Kind {
	case Discover:
		a, err = s.handler.Offer(ctx, r.Query)
		kind = dhcpv4.MessageTypeOffer
	case Inform, BootServer:
		a, err = s.handler.Configure(ctx, r.Query)
		kind = dhcpv4.MessageTypeAck
	case Decline:
		err = s.handler.Decline(ctx, r.Query)
	case Release:
		err = s.handler.Release(ctx, r.Query)
	default:
		a, err = s.handler.Lease(ctx, r.Query)
		kind = dhcpv4.MessageTypeAck
	}
	if err != nil {
		return Answer{}, 0, fmt.Errorf("cannot answer the %s of %s: %w", r.Kind, r.Firmware.MAC, err)
	}
	return a, kind, nil
}

// asBootServer reads a packet to port 4011: a PXE client that has its address and asks for the boot file alone.
func asBootServer(r request, from netip.AddrPort) (request, error) {
	kind := r.MessageType()
	if !r.Firmware.PXE() || kind != dhcpv4.MessageTypeRequest && kind != dhcpv4.MessageTypeDiscover && kind != dhcpv4.MessageTypeInform {
		return r, malformed("port %d is for PXE clients", BootServerPort)
	}
	r.Kind, r.Address = BootServer, from.Addr().Unmap()
	if current := address(r.ClientIPAddr); current.IsValid() {
		r.Address = current
	}
	if r.Address.IsUnspecified() {
		return r, malformed("a PXE client without an address on port %d", BootServerPort)
	}
	return r, nil
}

// noteRival remembers that a client chose another server, and says so once for each.
func (s *Responder) noteRival(r request) {
	const enough = 64 // a client can name any number of servers; a handful is all a person needs
	s.mu.Lock()
	known := s.rivals[r.server] || len(s.rivals) >= enough
	if !known {
		s.rivals[r.server] = true
	}
	s.mu.Unlock()
	if !known {
		s.log.Warn("another DHCP server is on this segment: a client chose it; stop that server, or give joist a network of its own",
			"server", r.server, "client", r.Firmware.MAC)
	}
}

// Rivals are the other servers that clients were seen to choose, in no order; at most 64.
func (s *Responder) Rivals() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]netip.Addr, 0, len(s.rivals))
	for a := range s.rivals {
		list = append(list, a)
	}
	return list
}
