package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	ethernetHeader = 14
	ipHeader       = 20
	udpHeader      = 8
	etherTypeIPv4  = 0x0800
	protocolUDP    = 17
)

// endpoint is one end of a frame.
type endpoint struct {
	hardware net.HardwareAddr // six bytes
	addr     netip.AddrPort   // IPv4
}

// frame wraps a payload in UDP, IPv4 (RFC 791, RFC 768) and Ethernet.
func frame(from, to endpoint, payload []byte) []byte {
	b := make([]byte, 0, ethernetHeader+ipHeader+udpHeader+len(payload))
	b = append(b, to.hardware...)
	b = append(b, from.hardware...)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)

	length := udpHeader + len(payload)
	header := make([]byte, ipHeader)
	header[0] = 0x45 // version 4, five words
	binary.BigEndian.PutUint16(header[2:], uint16(ipHeader+length))
	binary.BigEndian.PutUint16(header[6:], 0x4000) // don't fragment: then the identification may be zero (RFC 6864)
	header[8] = 64                                 // time to live
	header[9] = protocolUDP
	copy(header[12:], from.addr.Addr().AsSlice())
	copy(header[16:], to.addr.Addr().AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(0, header))
	b = append(b, header...)

	udp := make([]byte, udpHeader, length)
	binary.BigEndian.PutUint16(udp, from.addr.Port())
	binary.BigEndian.PutUint16(udp[2:], to.addr.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	udp = append(udp, payload...)
	// The pseudo header: both addresses, protocol and length.
	sum := checksum(sumOf(header[12:20])+protocolUDP+uint32(length), udp)
	if sum == 0 {
		sum = 0xffff // zero means "no checksum"
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return append(b, udp...)
}

// unframe reads an Ethernet frame with an unfragmented IPv4 UDP datagram to the port; ok is false for anything else.
func unframe(b []byte, port uint16) (from endpoint, payload []byte, ok bool) {
	if len(b) < ethernetHeader+ipHeader+udpHeader || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv4 {
		return endpoint{}, nil, false
	}
	from.hardware = net.HardwareAddr(append([]byte(nil), b[6:12]...))
	packet := b[ethernetHeader:]
	words := int(packet[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(packet[2:]))
	fragment := binary.BigEndian.Uint16(packet[6:]) & 0x3fff // more fragments, or not the first
	if packet[0]>>4 != 4 || words < ipHeader || total > len(packet) || total < words+udpHeader || fragment != 0 || packet[9] != protocolUDP {
		return endpoint{}, nil, false
	}
	udp := packet[words:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != port || length < udpHeader || length > len(udp) {
		return endpoint{}, nil, false
	}
	from.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[12:16])), binary.BigEndian.Uint16(udp))
	return from, udp[udpHeader:length], true
}

func sumOf(b []byte) uint32 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// checksum is the Internet checksum (RFC 1071) of b on top of a partial sum.
func checksum(partial uint32, b []byte) uint16 {
	sum := partial + sumOf(b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
