package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"joist/dhcp-dns/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func loopback() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")} }

// run starts a server and returns its address; it ends, and must have ended well, with the test.
func run(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	if cfg.Addresses == nil {
		cfg.Addresses = loopback()
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, s.Addresses()[0].String()
}

func ask(t testing.TB, network, addr string, q *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, UDPSize: maxUDP}
	reply, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %v: %v", network, q.Question, err)
	}
	return reply
}

func TestServe(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Config{})
	if got := golden(ask(t, "udp", addr, query("n1.demo.lab.", mdns.TypeA))); got != "REFUSED | | |" {
		t.Errorf("before the first set: %s", got)
	}
	s.Swap(testSet(t))
	for _, network := range []string{"udp", "tcp"} {
		if got := golden(ask(t, network, addr, query("n1.demo.lab.", mdns.TypeA))); got != "NOERROR aa | n1.demo.lab. 30 IN A 10.0.0.11; | |" {
			t.Errorf("%s: %s", network, got)
		}
		update := new(mdns.Msg)
		update.SetUpdate("demo.lab.")
		for i := range 5 {
			rr, err := mdns.NewRR(fmt.Sprintf("n%d.demo.lab. 1 IN A 10.0.0.1", i))
			if err != nil {
				t.Fatal(err)
			}
			update.Insert([]mdns.RR{rr})
		}
		if got := ask(t, network, addr, update); got.Rcode != mdns.RcodeRefused || got.Opcode != mdns.OpcodeUpdate {
			t.Errorf("%s: update: %s", network, got)
		}
	}
	if got := ask(t, "udp", addr, query("big.demo.lab.", mdns.TypeA)); !got.Truncated {
		t.Error("100 addresses in 512 bytes were not cut")
	}
	if got := ask(t, "tcp", addr, query("big.demo.lab.", mdns.TypeA)); len(got.Answer) != 100 {
		t.Errorf("%d addresses over TCP", len(got.Answer))
	}
}

// TestSurvivesGarbage sends what is no query and then a query, on the same sockets.
func TestSurvivesGarbage(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Config{})
	s.Swap(testSet(t))
	for _, network := range []string{"udp", "tcp"} {
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range []string{"", "\x00", "\xff\xff", strings.Repeat("\xc0\x0c", 100), strings.Repeat("\x00", 2000)} {
			_, _ = conn.Write([]byte(raw)) // the server may hang up on garbage
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		ask(t, network, addr, query("n1.demo.lab.", mdns.TypeA))
	}
}

// TestSwapIsAtomic swaps between two sets while queries run: each reply is wholly of one set.
func TestSwapIsAtomic(t *testing.T) {
	t.Parallel()
	s, addr := run(t, Config{})
	var sets []*zone.Set
	for i := range 2 {
		set, err := zone.Build(zone.Config{Serial: zone.Serial(i)}, []zone.Forward{{Domain: "lab", Entries: []zone.Entry{{
			Name: "x.lab", Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), netip.AddrFrom4([4]byte{10, 0, byte(i), 2})},
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, set)
	}
	s.Swap(sets[0])
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			c := mdns.Client{Net: "udp"}
			for range 200 {
				reply, _, err := c.Exchange(query("x.lab.", mdns.TypeA), addr)
				if err != nil || len(reply.Answer) != 2 {
					t.Errorf("%v %v", reply, err)
					return
				}
				if a, b := reply.Answer[0].(*mdns.A).A.To4(), reply.Answer[1].(*mdns.A).A.To4(); a[2] != b[2] {
					t.Errorf("mixed reply: %s", reply)
				}
			}
		})
	}
	for i := range 1000 {
		s.Swap(sets[i%2])
	}
	asking.Wait()
}

func TestTransfers(t *testing.T) {
	t.Parallel()
	set := testSet(t)
	transfer := func(addr string) ([]mdns.RR, error) {
		in, err := new(mdns.Transfer).In(query("demo.lab.", mdns.TypeAXFR), addr)
		if err != nil {
			t.Fatal(err)
		}
		var all []mdns.RR
		for envelope := range in {
			if envelope.Error != nil {
				err = envelope.Error
			}
			all = append(all, envelope.RR...)
		}
		return all, err
	}
	closed, addr := run(t, Config{})
	closed.Swap(set)
	if _, err := transfer(addr); err == nil {
		t.Error("transferred to anybody")
	}
	open, addr := run(t, Config{Transfers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	open.Swap(set)
	all, err := transfer(addr)
	if err != nil || len(all) != len(set.Transfer("demo.lab")) { // more than one message
		t.Errorf("%d records, %v", len(all), err)
	}
	if got := ask(t, "udp", addr, query("demo.lab.", mdns.TypeAXFR)); got.Rcode != mdns.RcodeRefused {
		t.Errorf("AXFR over UDP: %s", golden(got))
	}
	if got := ask(t, "udp", addr, query("demo.lab.", mdns.TypeIXFR)); len(got.Answer) != 1 {
		t.Errorf("IXFR over UDP: %s", golden(got))
	}
	if got := ask(t, "tcp", addr, query("n1.demo.lab.", mdns.TypeAXFR)); got.Rcode != mdns.RcodeNotAuth {
		t.Errorf("AXFR of a name that is no zone: %s", golden(got))
	}
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	upstream, up := run(t, Config{})
	upstream.Swap(testSet(t))
	dead := deadPort(t)
	recurse := func(m *mdns.Msg) { m.RecursionDesired = true }
	cfg := Config{Upstreams: []netip.AddrPort{dead, netip.MustParseAddrPort(up)}, UpstreamTimeout: 5 * time.Second}
	_, addr := run(t, cfg)
	for _, network := range []string{"udp", "tcp"} {
		if got := golden(ask(t, network, addr, query("N1.demo.lab.", mdns.TypeA, recurse))); got != "NOERROR rd ra | N1.demo.lab. 30 IN A 10.0.0.11; | |" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if got := golden(ask(t, "udp", addr, query("n1.demo.lab.", mdns.TypeA))); got != "REFUSED ra | | |" {
		t.Errorf("without RD: %s", got)
	}
	if got := golden(ask(t, "udp", addr, query("big.demo.lab.", mdns.TypeA, recurse, edns(4096)))); got != "NOERROR tc rd ra | | | OPT 1232 do=false;" {
		t.Errorf("cut: %s", got)
	}
	if got := ask(t, "tcp", addr, query("big.demo.lab.", mdns.TypeA, recurse)); len(got.Answer) != 100 {
		t.Errorf("over TCP: %s", golden(got))
	}
	_, addr = run(t, Config{Upstreams: []netip.AddrPort{dead}})
	if got := golden(ask(t, "udp", addr, query("n1.demo.lab.", mdns.TypeA, recurse))); got != "SERVFAIL rd ra | | |" {
		t.Errorf("upstream dead: %s", got)
	}
	cfg.Clients = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	_, addr = run(t, cfg)
	if got := golden(ask(t, "udp", addr, query("n1.demo.lab.", mdns.TypeA, recurse))); got != "REFUSED rd | | |" {
		t.Errorf("for a client that may not: %s", got)
	}
}

// deadPort is a port of this machine that nobody listens on.
func deadPort(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close() // nothing was written
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	first, _ := run(t, Config{})
	addr := first.Addresses()[0]
	_, err := Listen(Config{Addresses: []netip.AddrPort{addr}})
	want := fmt.Sprintf("cannot serve DNS: port %d/tcp of 127.0.0.1 is in use: it is held by dns.test (pid %d)", addr.Port(), os.Getpid())
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close() // nothing was written
	taken := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	_, err = Listen(Config{Addresses: append(loopback(), taken)})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d/udp of 127.0.0.1 is in use: it is held by dns.test", taken.Port())) {
		t.Errorf("got %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	self := netip.MustParseAddrPort("127.0.0.1:5353")
	for _, c := range []struct {
		cfg Config
		err string
	}{
		{Config{}, "no address to listen on"},
		{Config{Addresses: loopback(), UpstreamTimeout: -1}, "negative"},
		{Config{Addresses: loopback(), Upstreams: []netip.AddrPort{{}}}, "needs an address and a port"},
		{Config{Addresses: []netip.AddrPort{self}, Upstreams: []netip.AddrPort{self}}, "is this server itself"},
		{Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")}}, "no interface of this machine has address 192.0.2.1"},
	} {
		s, err := Listen(c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("got %v, want an error with %q", err, c.err)
		}
		if s != nil {
			t.Error("a server was returned")
		}
	}
}

// TestStopFreesThePorts stops a server while a client holds a connection, and starts another one in its place.
func TestStopFreesThePorts(t *testing.T) {
	t.Parallel()
	s, err := Listen(Config{Addresses: loopback(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	conn, err := mdns.Dial("tcp", s.Addresses()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // nothing is left to write
	if err := conn.WriteMsg(query("a.lab.", mdns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	run(t, Config{Addresses: s.Addresses()})
}

func BenchmarkAnswer(b *testing.B) {
	set, q := testSet(b), query("n1.demo.lab.", mdns.TypeA, edns(1232))
	buf := make([]byte, maxUDP)
	for b.Loop() {
		reply, _ := answer(set, q)
		if _, err := finish(reply, q, asker{}).PackBuffer(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkQueries measures queries/s over loopback UDP; the clients share the machine's cores with the server, and each
// keeps several queries in flight.
func BenchmarkQueries(b *testing.B) {
	s, addr := run(b, Config{})
	s.Swap(testSet(b))
	raw, err := query("n1.demo.lab.", mdns.TypeA, edns(1232)).Pack()
	if err != nil {
		b.Fatal(err)
	}
	const window = 32
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close() // nothing is left to write
		buf := make([]byte, maxUDP)
		flying := 0
		for more := true; more || flying > 0; {
			for more && flying < window {
				if more = pb.Next(); more {
					if _, err := conn.Write(raw); err != nil {
						b.Error(err)
						return
					}
					flying++
				}
			}
			if flying > 0 {
				if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
					b.Error(err)
					return
				}
				if _, err := conn.Read(buf); err != nil {
					b.Error(err)
					return
				}
				flying--
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}
