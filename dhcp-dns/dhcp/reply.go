package dhcp

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	ipUDPHeaders = 28
	minMaxSize   = 576 // what every client takes (RFC 2131 §2)
	maxFile      = 127 // bytes that the header's `file` holds before its NUL
)

// build makes the reply to a request. All replies echo what RFC 2131 table 3, RFC 3046, RFC 6842 and PXE 2.1 say.
func build(r request, kind dhcpv4.MessageType, a Answer) []byte {
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: r.HWType, TransactionID: r.TransactionID, Flags: r.Flags,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero,
		GatewayIPAddr: r.GatewayIPAddr, ClientHWAddr: r.ClientHWAddr, Options: dhcpv4.Options{},
	}
	p.UpdateOption(dhcpv4.OptMessageType(kind))
	p.UpdateOption(dhcpv4.OptServerIdentifier(ip(r.self)))
	for _, echo := range []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionRelayAgentInformation} {
		if value := r.GetOneOption(echo); value != nil {
			p.Options[echo.Code()] = value
		}
	}
	if kind == dhcpv4.MessageTypeNak {
		if r.Via.IsValid() {
			p.SetBroadcast() // the relay must broadcast it: the client's address is wrong (RFC 2131 §4.3.2)
		}
		text(p, dhcpv4.OptionMessage, a.Reason)
		return p.ToBytes()
	}
	if kind == dhcpv4.MessageTypeAck {
		p.ClientIPAddr = r.ClientIPAddr
	}
	if r.Kind != Inform && r.Kind != BootServer {
		p.YourIPAddr = ip(a.Address)
		leaseOptions(p, a.Lease)
	}
	networkOptions(p, r, a)
	bootOptions(p, r, a.Boot)
	return fit(p, r)
}

// leaseOptions adds the lease time with its renewal (half) and rebinding (seven eighths) times, RFC 2131 §4.4.5.
func leaseOptions(p *dhcpv4.DHCPv4, lease time.Duration) {
	seconds := uint64(min(max(lease/time.Second, 0), math.MaxUint32))
	for code, value := range map[dhcpv4.OptionCode]uint64{
		dhcpv4.OptionIPAddressLeaseTime: seconds, dhcpv4.OptionRenewTimeValue: seconds / 2, dhcpv4.OptionRebindingTimeValue: seconds * 7 / 8,
	} {
		p.Options[code.Code()] = binary.BigEndian.AppendUint32(nil, uint32(value))
	}
}

func networkOptions(p *dhcpv4.DHCPv4, r request, a Answer) {
	if a.Subnet.IsValid() {
		p.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(a.Subnet.Bits(), 32)))
	}
	addresses(p, dhcpv4.OptionRouter, a.Routers)
	addresses(p, dhcpv4.OptionDomainNameServer, a.DNS)
	if r.IsOptionRequested(dhcpv4.OptionDomainName) {
		text(p, dhcpv4.OptionDomainName, a.Domain)
	}
	if r.IsOptionRequested(dhcpv4.OptionHostName) {
		text(p, dhcpv4.OptionHostName, a.Hostname)
	}
}

// bootOptions adds the boot part, in both the header and option 67: U-Boot reads only the former, UEFI wants the latter,
// in OFFER and ACK alike.
func bootOptions(p *dhcpv4.DHCPv4, r request, b Boot) {
	f := r.Firmware
	if uuid := r.GetOneOption(dhcpv4.OptionClientMachineIdentifier); len(uuid) == 17 {
		p.Options[dhcpv4.OptionClientMachineIdentifier.Code()] = uuid
	}
	if b.Filename == "" || !speaks(f, b.Filename) {
		return
	}
	next := b.NextServer
	if !next.IsValid() {
		next = r.self
	}
	p.ServerIPAddr = ip(next)
	if len(b.Filename) <= maxFile {
		p.BootFileName = b.Filename
	}
	text(p, dhcpv4.OptionBootfileName, b.Filename)
	switch {
	case f.IPXE:
		// no-pxedhcp (176): the boot file is here, so there is no proxy DHCP server to wait seconds for.
		p.Options[optionIPXE.Code()] = []byte{176, 1, 1}
	case f.HTTP():
		text(p, dhcpv4.OptionClassIdentifier, "HTTPClient") // without it UEFI ignores the URL
	case f.PXE():
		// Old ROMs read option 67 as a C string and run into what follows it, so it ends with a NUL, which all clients
		// must bear (RFC 2132 §2).
		text(p, dhcpv4.OptionBootfileName, b.Filename+"\x00")
		// Option 60 alone makes EDK2 ask port 4011 for the file; discovery control (6) = 8 says that it has it already.
		text(p, dhcpv4.OptionClassIdentifier, "PXEClient")
		p.Options[dhcpv4.OptionVendorSpecificInformation.Code()] = []byte{6, 1, 8, 255}
	}
}

// speaks reports whether the client can fetch such a name: PXE firmware knows TFTP paths only, UEFI HTTP boot URLs only.
func speaks(f Firmware, filename string) bool {
	isURL := strings.HasPrefix(filename, "http://") || strings.HasPrefix(filename, "https://")
	switch {
	case f.IPXE:
		return true
	case f.HTTP():
		return isURL
	case f.PXE():
		return !isURL
	}
	return true
}

// fit encodes a reply within what the client takes (option 57), giving up what it can live without.
func fit(p *dhcpv4.DHCPv4, r request) []byte {
	limit := minMaxSize
	if size, err := r.MaxMessageSize(); err == nil && int(size) > limit {
		limit = int(size)
	}
	raw := p.ToBytes()
	for _, spare := range []dhcpv4.OptionCode{dhcpv4.OptionHostName, dhcpv4.OptionDomainName, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
		if len(raw)+ipUDPHeaders <= limit {
			break
		}
		p.DeleteOption(spare)
		raw = p.ToBytes()
	}
	return raw
}

func ip(a netip.Addr) net.IP {
	if !a.Is4() {
		return net.IPv4zero
	}
	return a.AsSlice()
}

func text(p *dhcpv4.DHCPv4, code dhcpv4.OptionCode, value string) {
	if value != "" {
		p.Options[code.Code()] = []byte(value)
	}
}

func addresses(p *dhcpv4.DHCPv4, code dhcpv4.OptionCode, list []netip.Addr) {
	var value []byte
	for _, a := range list {
		if a.Is4() {
			value = append(value, a.AsSlice()...)
		}
	}
	if value != nil {
		p.Options[code.Code()] = value
	}
}
