package scout

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"pgregory.net/rapid"
)

var testMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}

func ack(t testing.TB, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithHwAddr(testMAC), dhcpv4.WithYourIP(net.IP{10, 0, 0, 5})}, modifiers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func seconds(code dhcpv4.OptionCode, d time.Duration) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.Option{Code: code, Value: dhcpv4.Duration(d)})
}

func TestNewLease(t *testing.T) {
	l, err := newLease(ack(t, dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IP{10, 0, 0, 1}), dhcpv4.WithDNS(net.IP{10, 0, 0, 2}),
		dhcpv4.WithLeaseTime(600), dhcpv4.WithServerIP(net.IP{9, 9, 9, 9}), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 0, 0, 1})),
		dhcpv4.WithOption(dhcpv4.OptDomainName("demo.lab")), dhcpv4.WithOption(dhcpv4.OptHostName("n1")), dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28})), testMAC, 7*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if l.Address != netip.MustParsePrefix("10.0.0.5/24") || l.Router.String() != "10.0.0.1" || l.Server.String() != "10.0.0.1" || l.Hostname != "n1" || l.MTU != 9000 {
		t.Errorf("lease is %+v", l)
	}
	if l.Expire != 10*time.Minute || l.Renew != 5*time.Minute || l.Rebind != 525*time.Second || l.Obtained != 7*time.Second {
		t.Errorf("times are %s, %s, %s from %s", l.Renew, l.Rebind, l.Expire, l.Obtained)
	}
	if got := l.resolver(); got != "search demo.lab\nnameserver 10.0.0.2\n" {
		t.Errorf("resolv.conf is %q", got)
	}
	if got := l.routes(); len(got) != 1 || got[0].To.String() != "0.0.0.0/0" {
		t.Errorf("routes are %v", got)
	}
	if _, err := newLease(ack(t, dhcpv4.WithYourIP(net.IPv4zero)), testMAC, 0); err == nil {
		t.Error("an answer without an address is a lease")
	}
}

// A server's timers are kept only within the lease; a wild server must not make the agent ask without end.
func TestLeaseTimers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(name string) time.Duration {
			return time.Duration(rapid.Uint32().Draw(rt, name)) * time.Second
		}
		l, err := newLease(ack(t, seconds(dhcpv4.OptionIPAddressLeaseTime, draw("lease")), seconds(dhcpv4.OptionRenewTimeValue, draw("t1")),
			seconds(dhcpv4.OptionRebindingTimeValue, draw("t2"))), testMAC, 0)
		if err != nil {
			rt.Fatal(err)
		}
		if !(0 < l.Renew && l.Renew <= l.Rebind && l.Rebind < l.Expire && l.Expire >= minLease) {
			rt.Fatalf("T1 %s, T2 %s, expiry %s", l.Renew, l.Rebind, l.Expire)
		}
	})
}

func TestClasslessRoutesReplaceTheRouter(t *testing.T) {
	// RFC 3442: 10.9.0.0/16 via 10.0.0.7, and 10.8.0.0/16 on the link.
	l, err := newLease(ack(t, dhcpv4.WithRouter(net.IP{10, 0, 0, 1}), dhcpv4.WithGeneric(dhcpv4.OptionClasslessStaticRoute,
		[]byte{16, 10, 9, 10, 0, 0, 7, 16, 10, 8, 0, 0, 0, 0})), testMAC, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{{To: netip.MustParsePrefix("10.8.0.0/16")}, {To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.7")}}
	if got := l.routes(); !reflect.DeepEqual(got, want) {
		t.Errorf("routes are %v, want %v", got, want)
	}
}

func TestNext(t *testing.T) {
	l := &Lease{Obtained: 100 * time.Second, Renew: 300 * time.Second, Rebind: 525 * time.Second, Expire: 600 * time.Second}
	const never = -1
	for _, tt := range []struct {
		name     string
		now, try time.Duration
		state    leaseState
		wait     time.Duration
	}{
		{"fresh", 100 * time.Second, never, leaseHeld, 300 * time.Second},
		{"just before T1", 399 * time.Second, never, leaseHeld, time.Second},
		{"T1", 400 * time.Second, never, leaseRenew, 0},
		{"an old try does not count", 400 * time.Second, 350 * time.Second, leaseRenew, 0},
		{"half of the rest until T2", 402 * time.Second, 400 * time.Second, leaseHeld, (625-400)*time.Second/2 - 2*time.Second},
		{"at least a minute", 601 * time.Second, 600 * time.Second, leaseHeld, 59 * time.Second},
		{"T2", 661 * time.Second, 600 * time.Second, leaseRebind, 0},
		{"over", 760 * time.Second, 660 * time.Second, leaseLost, 0},
		{"over, tried just now", 765 * time.Second, 760 * time.Second, leaseHeld, 55 * time.Second},
		{"over for a day", 24 * time.Hour, 23 * time.Hour, leaseLost, 0},
	} {
		state, wait := l.next(tt.now, tt.try)
		if state != tt.state || wait != tt.wait {
			t.Errorf("%s: state %d in %s, want %d in %s", tt.name, state, wait, tt.state, tt.wait)
		}
	}
}

func TestLeaseSurvivesItsFile(t *testing.T) {
	l, err := newLease(ack(t, dhcpv4.WithNetmask(net.CIDRMask(20, 32)), dhcpv4.WithRouter(net.IP{10, 0, 0, 1}), dhcpv4.WithLeaseTime(900)), testMAC, 42*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := l.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLease(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.ack, got.ack = nil, nil
	if !reflect.DeepEqual(got, l) {
		t.Errorf("read %+v, wrote %+v", got, l)
	}
}

func TestCandidates(t *testing.T) {
	a := link{"a", net.HardwareAddr{1, 1, 1, 1, 1, 1}, false}
	b := link{"b", net.HardwareAddr{2, 2, 2, 2, 2, 2}, true}
	c := link{"c", net.HardwareAddr{3, 3, 3, 3, 3, 3}, true}
	for _, tt := range []struct {
		name  string
		links []link
		boot  net.HardwareAddr
		grace bool
		want  string
	}{
		{"no boot interface named: all with carrier", []link{a, b, c}, nil, false, "bc"},
		{"the boot interface alone", []link{a, b, c}, c.mac, false, "c"},
		{"it has no carrier yet", []link{a, b, c}, a.mac, false, ""},
		{"it had its time: the others", []link{a, b, c}, a.mac, true, "bc"},
		{"it comes first", []link{a, b, c}, c.mac, true, "cb"},
		{"its driver is not there yet", []link{b}, a.mac, false, ""},
		{"it never appeared", []link{b}, a.mac, true, "b"},
		{"nothing", nil, a.mac, true, ""},
	} {
		got := ""
		for _, l := range candidates(tt.links, tt.boot, tt.grace) {
			got += l.name
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
