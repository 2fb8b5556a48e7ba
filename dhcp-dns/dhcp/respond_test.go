package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"joist/dhcp-dns/dhcp"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	server = netip.MustParseAddr("10.77.0.1")
	client = netip.MustParseAddr("10.77.0.10")
	hw     = net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1}
)

// fixed is a handler that remembers what it was asked and always gives the same answer.
type fixed struct {
	answer dhcp.Answer
	err    error
	asked  []dhcp.Query
}

func (f *fixed) take(q dhcp.Query) (dhcp.Answer, error) {
	f.asked = append(f.asked, q)
	return f.answer, f.err
}

func (f *fixed) Offer(_ context.Context, q dhcp.Query) (dhcp.Answer, error)     { return f.take(q) }
func (f *fixed) Lease(_ context.Context, q dhcp.Query) (dhcp.Answer, error)     { return f.take(q) }
func (f *fixed) Configure(_ context.Context, q dhcp.Query) (dhcp.Answer, error) { return f.take(q) }
func (f *fixed) Decline(_ context.Context, q dhcp.Query) error {
	_, err := f.take(q)
	return err
}
func (f *fixed) Release(_ context.Context, q dhcp.Query) error {
	_, err := f.take(q)
	return err
}

func giving() *fixed {
	return &fixed{answer: dhcp.Answer{
		Verdict: dhcp.Give, Address: client, Lease: 10 * time.Minute, Subnet: netip.MustParsePrefix("10.77.0.0/24"),
		DNS: []netip.Addr{server}, Domain: "demo.lab", Hostname: "n1",
	}}
}

func responder(t testing.TB, h dhcp.Handler) *dhcp.Responder {
	t.Helper()
	r, err := dhcp.NewResponder(server, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// packet is a client's packet; the zero fields of a message are the most usual ones.
func packet(t testing.TB, kind dhcpv4.MessageType, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(kind),
		dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4})}, modifiers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wants(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice()))
}
func has(a netip.Addr) dhcpv4.Modifier { return dhcpv4.WithClientIP(a.AsSlice()) }
func names(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(a.AsSlice()))
}
func generic(code uint8, value string) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), []byte(value))
}
func via(a string) dhcpv4.Modifier { return dhcpv4.WithGatewayIP(net.ParseIP(a)) }

const (
	pxeUEFI = "PXEClient:Arch:00007:UNDI:003016"
	fromAny = "0.0.0.0:68"
)

// TestKindsAndRoutes is RFC 2131 §4.3.2 (which question is it) and §4.1 (where does the reply go).
func TestKindsAndRoutes(t *testing.T) {
	const toAll, toClient = "255.255.255.255:68", "10.77.0.10:68"
	other := netip.MustParseAddr("10.77.0.2")
	for _, c := range []struct {
		name    string
		packet  *dhcpv4.DHCPv4
		unicast bool
		port    int
		refuse  bool // the handler refuses
		kind    dhcp.Kind
		reply   dhcpv4.MessageType // none: silence
		to      string
		raw     bool
	}{
		{name: "discover, broadcast flag", packet: packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithBroadcast(true)),
			kind: dhcp.Discover, reply: dhcpv4.MessageTypeOffer, to: toAll},
		{name: "discover, no flag", packet: packet(t, dhcpv4.MessageTypeDiscover),
			kind: dhcp.Discover, reply: dhcpv4.MessageTypeOffer, to: toClient, raw: true},
		{name: "discover by relay", packet: packet(t, dhcpv4.MessageTypeDiscover, via("10.88.0.1"), dhcpv4.WithBroadcast(true)),
			kind: dhcp.Discover, reply: dhcpv4.MessageTypeOffer, to: "10.88.0.1:67"},
		{name: "discover refused", packet: packet(t, dhcpv4.MessageTypeDiscover), refuse: true, kind: dhcp.Discover},
		{name: "discover, InfiniBand", packet: packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr(net.HardwareAddr{1, 2, 3, 4, 5, 6, 7, 8})),
			kind: dhcp.Discover, reply: dhcpv4.MessageTypeOffer, to: toAll},
		{name: "selecting", packet: packet(t, dhcpv4.MessageTypeRequest, wants(client), names(server)),
			kind: dhcp.Selecting, reply: dhcpv4.MessageTypeAck, to: toClient, raw: true},
		{name: "selecting refused", packet: packet(t, dhcpv4.MessageTypeRequest, wants(client), names(server)), refuse: true,
			kind: dhcp.Selecting, reply: dhcpv4.MessageTypeNak, to: toAll},
		{name: "selecting another server", packet: packet(t, dhcpv4.MessageTypeRequest, wants(client), names(other))},
		{name: "init-reboot", packet: packet(t, dhcpv4.MessageTypeRequest, wants(client)),
			kind: dhcp.InitReboot, reply: dhcpv4.MessageTypeAck, to: toClient, raw: true},
		{name: "init-reboot refused by relay", packet: packet(t, dhcpv4.MessageTypeRequest, wants(client), via("10.88.0.1")), refuse: true,
			kind: dhcp.InitReboot, reply: dhcpv4.MessageTypeNak, to: "10.88.0.1:67"},
		{name: "renewing", packet: packet(t, dhcpv4.MessageTypeRequest, has(client)), unicast: true,
			kind: dhcp.Renewing, reply: dhcpv4.MessageTypeAck, to: toClient},
		{name: "rebinding", packet: packet(t, dhcpv4.MessageTypeRequest, has(client)),
			kind: dhcp.Rebinding, reply: dhcpv4.MessageTypeAck, to: toClient},
		{name: "rebinding refused", packet: packet(t, dhcpv4.MessageTypeRequest, has(client)), refuse: true,
			kind: dhcp.Rebinding, reply: dhcpv4.MessageTypeNak, to: toAll},
		{name: "decline", packet: packet(t, dhcpv4.MessageTypeDecline, wants(client), names(server)), kind: dhcp.Decline},
		{name: "decline of another server's", packet: packet(t, dhcpv4.MessageTypeDecline, wants(client), names(other))},
		{name: "release", packet: packet(t, dhcpv4.MessageTypeRelease, has(client), names(server)), kind: dhcp.Release},
		{name: "inform", packet: packet(t, dhcpv4.MessageTypeInform, has(client)),
			kind: dhcp.Inform, reply: dhcpv4.MessageTypeAck, to: toClient},
		{name: "boot server", packet: packet(t, dhcpv4.MessageTypeRequest, has(client), generic(60, pxeUEFI)), port: dhcp.BootServerPort, unicast: true,
			kind: dhcp.BootServer, reply: dhcpv4.MessageTypeAck, to: "10.77.0.10:4011"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := giving()
			if c.refuse {
				h.answer.Verdict = dhcp.Refuse
			}
			d := dhcp.Datagram{Payload: c.packet.ToBytes(), From: netip.MustParseAddrPort(fromAny), Unicast: c.unicast, Port: dhcp.ServerPort}
			if c.port != 0 {
				d.Port, d.From = c.port, netip.MustParseAddrPort("10.77.0.10:4011")
			}
			reply, err := responder(t, h).Respond(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if c.kind == "" && len(h.asked) > 0 || c.kind != "" && (len(h.asked) != 1 || h.asked[0].Kind != c.kind) {
				t.Fatalf("asked %+v, want %q", h.asked, c.kind)
			}
			if c.reply == dhcpv4.MessageTypeNone {
				if reply != nil {
					t.Fatalf("answered to %v", reply.Route.To)
				}
				return
			}
			if reply == nil {
				t.Fatal("no answer")
			}
			p, err := dhcpv4.FromBytes(reply.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if p.MessageType() != c.reply || reply.Route.To.String() != c.to || (reply.Route.Hardware != nil) != c.raw {
				t.Errorf("got %v to %v (raw: %v), want %v to %v (raw: %v)", p.MessageType(), reply.Route.To, reply.Route.Hardware, c.reply, c.to, c.raw)
			}
			checkReply(t, p, c.packet, c.kind, c.reply)
		})
	}
}

// checkReply checks what table 3 of RFC 2131 says of every reply.
func checkReply(t *testing.T, p, question *dhcpv4.DHCPv4, kind dhcp.Kind, reply dhcpv4.MessageType) {
	t.Helper()
	if p.TransactionID != question.TransactionID || !bytes.Equal(p.ClientHWAddr, question.ClientHWAddr) || !p.GatewayIPAddr.Equal(question.GatewayIPAddr) {
		t.Errorf("the reply does not echo the request: %v", p)
	}
	if !p.ServerIdentifier().Equal(server.AsSlice()) {
		t.Errorf("server identifier %v", p.ServerIdentifier())
	}
	leases := reply != dhcpv4.MessageTypeNak && kind != dhcp.Inform && kind != dhcp.BootServer
	if got := address(p.YourIPAddr); leases && got != client || !leases && got.IsValid() {
		t.Errorf("yiaddr %v", p.YourIPAddr)
	}
	if _, timed := p.Options[51]; timed != leases {
		t.Errorf("lease time present: %v", timed)
	}
	if leases && (p.IPAddressLeaseTime(0) != 10*time.Minute || p.IPAddressRenewalTime(0) != 5*time.Minute || p.IPAddressRebindingTime(0) != 525*time.Second) {
		t.Errorf("times %v %v %v", p.IPAddressLeaseTime(0), p.IPAddressRenewalTime(0), p.IPAddressRebindingTime(0))
	}
	if reply == dhcpv4.MessageTypeNak && question.GatewayIPAddr.IsUnspecified() == p.IsBroadcast() {
		t.Errorf("a NAK through relay %v has the broadcast flag %v", question.GatewayIPAddr, p.IsBroadcast())
	}
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func ask(t *testing.T, h dhcp.Handler, p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	t.Helper()
	reply, err := responder(t, h).Respond(t.Context(), dhcp.Datagram{Payload: p.ToBytes(), From: netip.MustParseAddrPort(fromAny), Port: dhcp.ServerPort})
	if err != nil || reply == nil {
		t.Fatalf("got %v, %v", reply, err)
	}
	decoded, err := dhcpv4.FromBytes(reply.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

func TestBootFileByClient(t *testing.T) {
	uuid := "\x00" + string([]byte{0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88})
	const url = "http://10.77.0.1/boot"
	for _, c := range []struct {
		name, class, user, file string
		header, option, class60 string
		option43, option175     string
	}{
		{name: "UEFI PXE", class: pxeUEFI, file: "snponly.efi", header: "snponly.efi", option: "snponly.efi\x00", class60: "PXEClient", option43: "\x06\x01\x08\xff"},
		{name: "iPXE", class: "PXEClient:Arch:00000", user: "iPXE", file: url, header: url, option: url, option175: "\xb0\x01\x01"},
		{name: "iPXE, RFC 3004", class: "PXEClient:Arch:00000", user: "\x04iPXE", file: url, header: url, option: url, option175: "\xb0\x01\x01"},
		{name: "UEFI HTTP", class: "HTTPClient:Arch:00016", file: url, header: url, option: url, class60: "HTTPClient"},
		{name: "UEFI HTTP gets no TFTP path", class: "HTTPClient:Arch:00016", file: "snponly.efi"},
		{name: "PXE gets no URL", class: pxeUEFI, file: url},
		{name: "U-Boot", class: "U-Boot.armv8", file: "boot.scr", header: "boot.scr", option: "boot.scr"},
		{name: "long name", user: "iPXE", file: "http://10.77.0.1/" + strings.Repeat("x", 150), option: "http://10.77.0.1/" + strings.Repeat("x", 150), option175: "\xb0\x01\x01"},
		{name: "nothing to boot", class: pxeUEFI},
	} {
		for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest} {
			t.Run(c.name+" "+kind.String(), func(t *testing.T) {
				h := giving()
				h.answer.Boot = dhcp.Boot{Filename: c.file}
				question := packet(t, kind, wants(client), generic(97, uuid))
				if c.class != "" {
					question.UpdateOption(dhcpv4.OptClassIdentifier(c.class))
				}
				if c.user != "" {
					question.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte(c.user)))
				}
				p := ask(t, h, question)
				got := []string{p.BootFileName, string(p.Options[67]), string(p.Options[60]), string(p.Options[43]), string(p.Options[175]), string(p.Options[97])}
				if diff := cmp.Diff([]string{c.header, c.option, c.class60, c.option43, c.option175, uuid}, got); diff != "" {
					t.Errorf("file, 67, 60, 43, 175, 97: %s", diff)
				}
				if boots := c.option != ""; boots != (address(p.ServerIPAddr) == server) {
					t.Errorf("next server %v", p.ServerIPAddr)
				}
			})
		}
	}
}

func TestFirmwareFacts(t *testing.T) {
	h := giving()
	ask(t, h, packet(t, dhcpv4.MessageTypeDiscover, wants(client), generic(60, pxeUEFI+"\x00"), generic(93, "\x00\x07\x00\x09"), generic(12, "n1"),
		generic(97, "\x00\x78\x56\x34\x12\xbc\x9a\xf0\xde\x11\x22\x33\x44\x55\x66\x77\x88"), generic(77, "\x03one\x04iPXE")))
	want := dhcp.Query{Kind: dhcp.Discover, Address: client, Firmware: dhcp.Firmware{
		MAC: "52:54:00:77:00:01", UUID: "12345678-9abc-def0-1122-334455667788", Arch: []uint16{7, 9}, VendorClass: pxeUEFI,
		UserClass: []string{"one", "iPXE"}, IPXE: true, Requested: client, Hostname: "n1",
	}}
	if diff := cmp.Diff(want, h.asked[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for name, value := range map[string]string{"blank": strings.Repeat("\x00", 17), "all ones": "\x00" + strings.Repeat("\xff", 16), "short": "\x00\x01"} {
		h := giving()
		ask(t, h, packet(t, dhcpv4.MessageTypeDiscover, generic(97, value), generic(175, "\xb1\x05")))
		if h.asked[0].Firmware.UUID != "" || !h.asked[0].Firmware.IPXE {
			t.Errorf("%s: %+v", name, h.asked[0].Firmware)
		}
	}
}

func TestEchoesAndRelays(t *testing.T) {
	// 1: circuit "port7", 5: link selection 10.99.0.0, 11: server identifier override 10.88.0.1
	relay := "\x01\x05port7\x05\x04\x0a\x63\x00\x00\x0b\x04\x0a\x58\x00\x01"
	h := giving()
	p := ask(t, h, packet(t, dhcpv4.MessageTypeRequest, via("10.88.0.1"), wants(client), names(netip.MustParseAddr("10.88.0.1")),
		generic(82, relay), generic(61, "\x01abcdef")))
	if string(p.Options[82]) != relay || string(p.Options[61]) != "\x01abcdef" {
		t.Errorf("option 82 %q, 61 %q", p.Options[82], p.Options[61])
	}
	raw := p.ToBytes()
	if i := bytes.Index(raw, []byte(relay)); i < 0 || raw[i+len(relay)] != 255 {
		t.Error("option 82 does not come last")
	}
	if q := h.asked[0]; q.Link.String() != "10.99.0.0" || q.Via.String() != "10.88.0.1" || !p.ServerIdentifier().Equal(net.ParseIP("10.88.0.1")) {
		t.Errorf("link %v, via %v, server %v", q.Link, q.Via, p.ServerIdentifier())
	}
	ask(t, h, packet(t, dhcpv4.MessageTypeDiscover, via("10.88.0.1"), generic(118, "\x0a\x64\x00\x00")))
	if q := h.asked[1]; q.Link.String() != "10.100.0.0" {
		t.Errorf("link %v by option 118", q.Link)
	}
}

func TestOptionsRequestedAndSize(t *testing.T) {
	all := ask(t, giving(), packet(t, dhcpv4.MessageTypeDiscover))
	if all.DomainName() != "demo.lab" || all.HostName() != "n1" || len(all.DNS()) != 1 || all.Router() != nil {
		t.Errorf("without a list: %v", all.Options)
	}
	some := ask(t, giving(), packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask)))
	if some.DomainName() != "" || some.HostName() != "" {
		t.Errorf("with a list: %v", some.Options)
	}
	h := giving()
	h.answer.Hostname, h.answer.Boot.Filename = strings.Repeat("n", 200), strings.Repeat("f", 100)
	small, large := packet(t, dhcpv4.MessageTypeDiscover), packet(t, dhcpv4.MessageTypeDiscover, generic(57, "\x05\xdc"))
	if p := ask(t, h, small); len(p.ToBytes()) > 576-28 || p.HostName() != "" || p.BootFileNameOption() == "" {
		t.Errorf("%d bytes for a client that takes 576", len(p.ToBytes())+28)
	}
	if p := ask(t, h, large); p.HostName() == "" {
		t.Error("a client that takes 1500 bytes misses an option")
	}
}

// TestOverload puts options into the header's text fields, as RFC 2132 §9.3 allows.
func TestOverload(t *testing.T) {
	raw := packet(t, dhcpv4.MessageTypeDiscover, generic(52, "\x03")).ToBytes()
	copy(raw[108:], "\x0c\x02n1\xff")
	copy(raw[44:], "\x32\x04\x0a\x4d\x00\x0a\xff")
	h := giving()
	if _, err := responder(t, h).Respond(t.Context(), dhcp.Datagram{Payload: raw, Port: dhcp.ServerPort}); err != nil {
		t.Fatal(err)
	}
	if f := h.asked[0].Firmware; f.Hostname != "n1" || f.Requested != client {
		t.Errorf("got %+v", f)
	}
}

func TestMalformedPacketsAreDropped(t *testing.T) {
	good := packet(t, dhcpv4.MessageTypeDiscover).ToBytes()
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	reply := packet(t, dhcpv4.MessageTypeOffer)
	for name, raw := range map[string][]byte{
		"empty":               nil,
		"short":               good[:200],
		"no cookie":           change(236, 0),
		"no end":              good[:243],
		"a reply":             change(0, 2),
		"no hardware address": change(2, 0),
		"group address":       change(28, 0x53),
		"too many hops":       change(3, 17),
		"BOOTP":               change(240, 12),
		"server's message":    reply.ToBytes(),
		"unknown message":     change(242, 99),
		"lost request":        packet(t, dhcpv4.MessageTypeRequest).ToBytes(),
		"selecting nothing":   packet(t, dhcpv4.MessageTypeRequest, names(server)).ToBytes(),
		"decline of nothing":  packet(t, dhcpv4.MessageTypeDecline).ToBytes(),
		"inform of nobody":    packet(t, dhcpv4.MessageTypeInform).ToBytes(),
		"inform from afar":    packet(t, dhcpv4.MessageTypeInform, has(netip.MustParseAddr("192.0.2.1"))).ToBytes(),
		"bad overload":        packet(t, dhcpv4.MessageTypeDiscover, generic(52, "\x09")).ToBytes(),
		"zero address":        packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr(make(net.HardwareAddr, 6))).ToBytes(),
	} {
		reply, err := responder(t, giving()).Respond(t.Context(), dhcp.Datagram{Payload: raw, Port: dhcp.ServerPort})
		var bad *dhcp.MalformedError
		if reply != nil || !errors.As(err, &bad) {
			t.Errorf("%s: got %v, %v", name, reply, err)
		}
	}
	d := dhcp.Datagram{Payload: good, Port: dhcp.BootServerPort, From: netip.MustParseAddrPort("10.77.0.10:68")}
	if reply, err := responder(t, giving()).Respond(t.Context(), d); reply != nil || err == nil {
		t.Errorf("no PXE client on 4011: got %v, %v", reply, err)
	}
}

func TestRivalsAreNoted(t *testing.T) {
	var log bytes.Buffer
	r, err := dhcp.NewResponder(server, giving(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	rival := netip.MustParseAddr("10.77.0.200")
	for range 3 {
		d := dhcp.Datagram{Payload: packet(t, dhcpv4.MessageTypeRequest, wants(client), names(rival)).ToBytes(), Port: dhcp.ServerPort}
		if reply, err := r.Respond(t.Context(), d); reply != nil || err != nil {
			t.Fatalf("got %v, %v", reply, err)
		}
	}
	if list := r.Rivals(); len(list) != 1 || list[0] != rival {
		t.Errorf("rivals %v", list)
	}
	if n := strings.Count(log.String(), "another DHCP server is on this segment"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

func TestHandlerErrorsAreWrapped(t *testing.T) {
	h := giving()
	h.err = errors.New("disk full")
	_, err := responder(t, h).Respond(t.Context(), dhcp.Datagram{Payload: packet(t, dhcpv4.MessageTypeDiscover).ToBytes(), Port: dhcp.ServerPort})
	if !errors.Is(err, h.err) || err.Error() != "cannot answer the discover of 52:54:00:77:00:01: disk full" {
		t.Errorf("got %v", err)
	}
}
