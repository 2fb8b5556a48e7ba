package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Ports of the protocols (RFC 2131 §4.1, PXE 2.1 §2.2).
const (
	ServerPort     = 67
	ClientPort     = 68
	BootServerPort = 4011
)

// Route says where a reply goes.
type Route struct {
	To netip.AddrPort

	// Hardware, if set, is the address of the frame: the client has no address yet to answer ARP with, and did not ask for
	// a broadcast. Whoever cannot send such a frame broadcasts instead.
	Hardware net.HardwareAddr
}

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// route addresses a reply by RFC 2131 §4.1: to the relay, else to the address the client has, else by broadcast if it
// asks for that, else to its hardware address. A NAK that no relay passes on is always broadcast.
func route(r request, kind dhcpv4.MessageType, a Answer, from netip.AddrPort) Route {
	current := address(r.ClientIPAddr)
	switch {
	case r.Kind == BootServer:
		return Route{To: from}
	case r.Via.IsValid():
		return Route{To: netip.AddrPortFrom(r.Via, ServerPort)}
	case kind == dhcpv4.MessageTypeNak:
		return Route{To: netip.AddrPortFrom(broadcast(), ClientPort)}
	case current.IsValid():
		return Route{To: netip.AddrPortFrom(current, ClientPort)}
	case r.IsBroadcast() || len(r.ClientHWAddr) != 6:
		return Route{To: netip.AddrPortFrom(broadcast(), ClientPort)}
	}
	return Route{To: netip.AddrPortFrom(a.Address, ClientPort), Hardware: r.ClientHWAddr}
}
