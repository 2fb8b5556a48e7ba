package dhcp

import (
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// MalformedError reports a packet that breaks the protocol, or is none of a server's business. It gets no answer.
type MalformedError struct{ Reason string }

// Error implements error.
func (e *MalformedError) Error() string { return "cannot use this DHCP packet: " + e.Reason }

func malformed(format string, args ...any) error {
	return &MalformedError{Reason: fmt.Sprintf(format, args...)}
}

// Where the BOOTP header has its text fields (RFC 2131 §2), and how far relays may pass a packet on (RFC 1542 §4.1.1).
const (
	snameAt = 44
	fileAt  = 108
	fileEnd = 236
	maxHops = 16
)

// decode reads a client's packet, strictly: what is not understood is dropped.
func decode(raw []byte) (*dhcpv4.DHCPv4, error) {
	p, err := dhcpv4.FromBytes(raw)
	if err != nil {
		return nil, malformed("%v", err)
	}
	switch {
	case p.OpCode != dhcpv4.OpcodeBootRequest:
		return nil, malformed("it is a reply (op %d)", p.OpCode)
	case len(p.ClientHWAddr) == 0 || allEqual(p.ClientHWAddr, 0):
		return nil, malformed("it has no hardware address")
	case p.ClientHWAddr[0]&1 != 0 && len(p.ClientHWAddr) == 6:
		return nil, malformed("its hardware address %v is a group's", p.ClientHWAddr)
	case p.HopCount > maxHops:
		return nil, malformed("it has passed %d relays", p.HopCount)
	}
	if err := unfold(p, raw); err != nil {
		return nil, err
	}
	if len(p.GetOneOption(dhcpv4.OptionDHCPMessageType)) != 1 {
		return nil, malformed("it has no message type, so it is plain BOOTP")
	}
	return p, nil
}

// unfold adds the options that a client put into the header's text fields (option 52, RFC 2132 §9.3), which the codec
// leaves as text. The order of concatenation is options, file, sname (RFC 3396 §5).
func unfold(p *dhcpv4.DHCPv4, raw []byte) error {
	overload := p.GetOneOption(dhcpv4.OptionOptionOverload)
	if overload == nil {
		return nil
	}
	if len(overload) != 1 || overload[0] < 1 || overload[0] > 3 {
		return malformed("its option overload is %v", overload)
	}
	if overload[0]&1 != 0 {
		p.BootFileName = ""
		if err := p.Options.FromBytes(raw[fileAt:fileEnd]); err != nil {
			return malformed("options in `file`: %v", err)
		}
	}
	if overload[0]&2 != 0 {
		p.ServerHostName = ""
		if err := p.Options.FromBytes(raw[snameAt:fileAt]); err != nil {
			return malformed("options in `sname`: %v", err)
		}
	}
	return nil
}

// request is a decoded packet with what follows from it.
type request struct {
	*dhcpv4.DHCPv4
	Query
	server netip.Addr // the server the client names (option 54); invalid if none
	self   netip.Addr // the server we are for this client: our address, or the relay's override (RFC 5107)
}

// understand classifies a packet (RFC 2131 §4.3, table 4). unicast says that it was sent to this host's own address.
func understand(p *dhcpv4.DHCPv4, self netip.Addr, unicast bool) (request, error) {
	r := request{DHCPv4: p, self: self, server: address(p.ServerIdentifier())}
	r.Firmware = firmwareOf(p)
	r.Via = address(p.GatewayIPAddr)
	r.Link = r.Via
	if link := address(dhcpv4.GetIP(dhcpv4.OptionSubnetSelection, p.Options)); link.IsValid() {
		r.Link = link // RFC 3011
	}
	if relay := p.RelayAgentInfo(); relay != nil {
		if link := address(dhcpv4.GetIP(dhcpv4.LinkSelectionSubOption, relay.Options)); link.IsValid() {
			r.Link = link // RFC 3527
		}
		if override := address(dhcpv4.GetIP(dhcpv4.ServerIdentifierOverrideSubOption, relay.Options)); override.IsValid() {
			r.self = override
		}
	}
	current := address(p.ClientIPAddr)
	var err error
	switch kind := p.MessageType(); kind {
	case dhcpv4.MessageTypeDiscover:
		r.Kind, r.Address = Discover, r.Firmware.Requested
	case dhcpv4.MessageTypeRequest:
		r.Kind, r.Address, err = requestState(r.Firmware.Requested, current, r.server, unicast)
	case dhcpv4.MessageTypeDecline:
		r.Kind, r.Address = Decline, r.Firmware.Requested
	case dhcpv4.MessageTypeRelease:
		r.Kind, r.Address = Release, current
	case dhcpv4.MessageTypeInform:
		r.Kind, r.Address = Inform, current
	default:
		err = malformed("clients do not send message type %v", kind)
	}
	if err == nil && r.Kind != Discover && !r.Address.IsValid() {
		err = malformed("a %s without an address", r.Kind)
	}
	return r, err
}

// requestState tells the four uses of a REQUEST apart (RFC 2131 §4.3.2). Some clients name the server when they renew,
// too: what they have (ciaddr) then decides.
func requestState(requested, current, server netip.Addr, unicast bool) (Kind, netip.Addr, error) {
	switch {
	case current.IsValid() && unicast:
		return Renewing, current, nil
	case current.IsValid():
		return Rebinding, current, nil
	case server.IsValid():
		return Selecting, requested, nil
	case requested.IsValid():
		return InitReboot, requested, nil
	}
	return "", netip.Addr{}, malformed("a REQUEST that names neither a server nor an address")
}
