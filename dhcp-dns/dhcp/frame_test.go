package dhcp

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestFrameRoundTrip(t *testing.T) {
	from := endpoint{hardware: net.HardwareAddr{2, 0, 0, 0, 0, 1}, addr: netip.MustParseAddrPort("10.77.0.1:67")}
	to := endpoint{hardware: net.HardwareAddr{2, 0, 0, 0, 0, 2}, addr: netip.MustParseAddrPort("10.77.0.10:68")}
	for _, payload := range []string{"", "x", "even", "a longer payload of odd size."} {
		raw := frame(from, to, []byte(payload))
		got, body, ok := unframe(raw, ClientPort)
		if !ok || string(body) != payload || got.addr != from.addr || !bytes.Equal(got.hardware, from.hardware) {
			t.Errorf("%q came back as %q from %v (%v)", payload, body, got, ok)
		}
		// A header sums to zero with its checksum in place; UDP with its pseudo header as well.
		ip, udp := raw[ethernetHeader:ethernetHeader+ipHeader], raw[ethernetHeader+ipHeader:]
		if checksum(0, ip) != 0 || checksum(sumOf(ip[12:20])+protocolUDP+uint32(len(udp)), udp) != 0 {
			t.Errorf("%q: a checksum is wrong", payload)
		}
	}
	if _, _, ok := unframe(frame(from, to, nil), ServerPort); ok {
		t.Error("a datagram to another port was taken")
	}
	const want = "45000020000040004011" // version to protocol; the checksum follows
	if got := hex.EncodeToString(frame(from, to, []byte("even"))[14:24]); got != want {
		t.Errorf("IP header %s, want %s", got, want)
	}
}

func FuzzUnframe(f *testing.F) {
	from := endpoint{hardware: everybody(), addr: netip.MustParseAddrPort("10.77.0.1:67")}
	offer, _ := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithServerIP(net.IPv4(10, 77, 0, 1)))
	offer.OpCode = dhcpv4.OpcodeBootReply
	good := frame(from, endpoint{hardware: everybody(), addr: netip.MustParseAddrPort("255.255.255.255:68")}, offer.ToBytes())
	f.Add(good)
	f.Add(good[:40])
	f.Add(frame(from, from, []byte("x")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, payload, ok := unframe(raw, ClientPort)
		if ok && !bytes.Contains(raw, payload) {
			t.Error("the payload is not part of the frame")
		}
		rivalIn(raw, offer.TransactionID)
	})
}

func TestRivalIn(t *testing.T) {
	p, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 9)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 2))), dhcpv4.WithOption(dhcpv4.OptBootFileName("x.efi")))
	if err != nil {
		t.Fatal(err)
	}
	p.OpCode = dhcpv4.OpcodeBootReply
	from := endpoint{hardware: net.HardwareAddr{2, 0, 0, 0, 0, 7}, addr: netip.MustParseAddrPort("10.77.0.3:67")}
	raw := frame(from, endpoint{hardware: everybody(), addr: netip.MustParseAddrPort("255.255.255.255:68")}, p.ToBytes())
	r, ok := rivalIn(raw, p.TransactionID)
	if !ok || r.BootFile != "x.efi" {
		t.Fatalf("got %+v, %v", r, ok)
	}
	const want = "another DHCP server, 10.77.0.2 (02:00:00:00:00:07), offers addresses on this segment; stop it, or give joist a network of its own"
	if r.String() != want {
		t.Errorf("got %s", r)
	}
	if _, ok := rivalIn(raw, dhcpv4.TransactionID{}); ok {
		t.Error("an answer to somebody else's question was taken")
	}
}
