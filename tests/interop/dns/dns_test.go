// Package dns_test asks joist's names service through real clients: dig and host (Debian's dnsutils and bind9-host) and
// kdig (knot-dnsutils). It needs no root: everything happens on loopback ports.
package dns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"joist/dhcp-dns/dns"
	"joist/dhcp-dns/zone"
	"joist/engine/journal/sqlstore"
	"joist/engine/step"
	"joist/services/names"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine is the service with its server and its durable table, as the composition root would join them.
type engine struct {
	t       *testing.T
	service *names.Service
	port    string
	stop    func()
}

func start(t *testing.T, dir string, cfg dns.Config) *engine {
	t.Helper()
	db, err := sqlstore.Open(context.Background(), sqlstore.Config{Dir: dir, Holder: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addresses = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	server, err := dns.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	service, err := names.New(names.Config{Store: db.Entries(), Server: server, Zone: zone.Config{
		ServerAddresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	e := &engine{t: t, service: service, port: strconv.Itoa(int(server.Addresses()[0].Port()))}
	stopped := false
	e.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, db.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(e.stop)
	return e
}

func (e *engine) call(action step.Action, owner, name string, addresses ...string) {
	e.t.Helper()
	in, err := json.Marshal(map[string]any{"name": name, "addresses": addresses})
	if err != nil {
		e.t.Fatal(err)
	}
	cluster, _, _ := strings.Cut(owner, "/")
	if _, err := e.service.Handlers()["names.put"].Call(context.Background(), step.Call{
		Name: "names.put", Action: action, Cluster: cluster, Owner: owner, Epoch: 1, Inputs: in,
	}); err != nil {
		e.t.Fatal(err)
	}
}

// client runs a real client and returns what it printed. The client may exit with an error: host does for NXDOMAIN.
func client(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s: apt-get install bind9-dnsutils bind9-host knot-dnsutils", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C") // no .digrc
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String()
}

func (e *engine) dig(args ...string) string {
	e.t.Helper()
	return client(e.t, "dig", append([]string{"@127.0.0.1", "-p", e.port, "+tries=1", "+time=5", "+norecurse"}, args...)...)
}

func (e *engine) kdig(args ...string) string {
	e.t.Helper()
	return client(e.t, "kdig", append([]string{"@127.0.0.1", "-p", e.port, "+retry=0", "+time=5", "+norec"}, args...)...)
}

func wantAll(t *testing.T, what, out string, wants ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	for _, want := range wants {
		if !strings.Contains(flat, want) {
			t.Errorf("%s: %q is missing in\n%s", what, want, out)
		}
	}
}

func TestClients(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), dns.Config{})
	wantAll(t, "nothing yet", e.dig("n1.demo.lab"), "status: REFUSED")
	e.call(step.Apply, "c1/name[n1]", "n1.demo.lab", "10.0.0.11", "fd00::11")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("10.1.0.%d", i+1))
	}
	e.call(step.Apply, "c1/big", "big.demo.lab", many...)

	wantAll(t, "dig A", e.dig("N1.Demo.lab"), "status: NOERROR", "flags: qr aa;", "udp: 1232", "N1.Demo.lab. 30 IN A 10.0.0.11")
	wantAll(t, "dig -x", e.dig("-x", "10.0.0.11"), "status: NOERROR", "11.0.0.10.in-addr.arpa. 30 IN PTR n1.demo.lab.")
	wantAll(t, "dig -x 6", e.dig("-x", "fd00::11"), "ip6.arpa. 30 IN PTR n1.demo.lab.")
	wantAll(t, "dig NXDOMAIN", e.dig("n2.demo.lab"), "status: NXDOMAIN", "AUTHORITY: 1", "demo.lab. 5 IN SOA ns.demo.lab. hostmaster.demo.lab. 2 ")
	wantAll(t, "dig NODATA", e.dig("n1.demo.lab", "MX"), "status: NOERROR", "ANSWER: 0, AUTHORITY: 1")
	wantAll(t, "dig NS", e.dig("demo.lab", "NS", "+short"), "ns.demo.lab.")
	wantAll(t, "dig ns A", e.dig("ns.demo.lab", "+short"), "127.0.0.1")
	wantAll(t, "dig elsewhere", e.dig("example.com"), "status: REFUSED")
	wantAll(t, "dig version.bind", e.dig("version.bind", "TXT", "CH"), "status: REFUSED")
	wantAll(t, "dig AXFR", e.dig("demo.lab", "AXFR"), "Transfer failed")
	wantAll(t, "dig EDNS 1", e.dig("n1.demo.lab", "+edns=1", "+noednsneg"), "status: BADVERS")
	wantAll(t, "dig NOTIFY", e.dig("demo.lab", "SOA", "+opcode=NOTIFY"), "status: REFUSED")
	wantAll(t, "dig cut", e.dig("big.demo.lab", "+ignore"), "flags: qr aa tc;", "ANSWER: 0")
	wantAll(t, "dig TCP fallback", e.dig("big.demo.lab"), "ANSWER: 100", "(TCP)")
	wantAll(t, "dig TCP fallback without EDNS", e.dig("big.demo.lab", "+noedns"), "ANSWER: 100", "(TCP)")

	wantAll(t, "kdig A", e.kdig("n1.demo.lab", "+tcp"), "status: NOERROR", "10.0.0.11", "(TCP)")
	wantAll(t, "kdig TCP fallback", e.kdig("big.demo.lab", "+edns", "+bufsize=4096"), "ANSWER: 100", "(TCP)")
	wantAll(t, "kdig -x", e.kdig("-x", "10.0.0.11"), "PTR n1.demo.lab.")

	wantAll(t, "host", client(t, "host", "-p", e.port, "n1.demo.lab.", "127.0.0.1"), "n1.demo.lab has address 10.0.0.11", "n1.demo.lab has IPv6 address fd00::11")
	wantAll(t, "host back", client(t, "host", "-p", e.port, "10.0.0.11", "127.0.0.1"), "domain name pointer n1.demo.lab.")
	wantAll(t, "host NXDOMAIN", client(t, "host", "-p", e.port, "n2.demo.lab.", "127.0.0.1"), "not found: 3(NXDOMAIN)")

	e.call(step.Remove, "c1/name[n1]", "")
	wantAll(t, "after removal", e.dig("n1.demo.lab"), "status: NXDOMAIN")
	wantAll(t, "reverse after removal", e.dig("-x", "10.0.0.11"), "status: REFUSED")
}

func TestTransferToWhoMay(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), dns.Config{Transfers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for i := range 300 {
		e.call(step.Apply, fmt.Sprintf("c1/name[n%d]", i), fmt.Sprintf("n%d.demo.lab", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250+1))
	}
	// 300 names, SOA twice, NS, the name server's address
	wantAll(t, "dig", e.dig("demo.lab", "AXFR"), "n299.demo.lab. 30 IN A 10.0.1.50", "XFR size: 304 records (messages 4")
	wantAll(t, "kdig", e.kdig("demo.lab", "AXFR"), "n0.demo.lab.", "304 records")
	wantAll(t, "dig IXFR", e.dig("demo.lab", "IXFR=1"), "XFR size: 304 records")
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	up := start(t, t.TempDir(), dns.Config{})
	up.call(step.Apply, "c1/n", "n1.upstream.lab", "10.0.0.1")
	e := start(t, t.TempDir(), dns.Config{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:" + up.port)}})
	wantAll(t, "dig", e.dig("n1.upstream.lab", "+recurse"), "status: NOERROR", "flags: qr rd ra;", "n1.upstream.lab. 30 IN A 10.0.0.1")
	wantAll(t, "kdig", e.kdig("n2.upstream.lab", "+rec", "+tcp"), "status: NXDOMAIN")
}

// TestSerialGrowsAcrossRestarts reads the serial through dig after each change and each restart.
func TestSerialGrowsAcrossRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var last uint64
	for life := range 3 {
		e := start(t, dir, dns.Config{})
		serial := func(grown bool) {
			t.Helper()
			fields := strings.Fields(e.dig("demo.lab", "SOA", "+short"))
			if len(fields) != 7 {
				t.Fatalf("no SOA but %q", fields)
			}
			got, err := strconv.ParseUint(fields[2], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			if got < last || grown && got == last {
				t.Errorf("life %d: serial %d after %d", life, got, last)
			}
			last = got
		}
		if life > 0 {
			serial(false)
			wantAll(t, "after restart", e.dig("keep.demo.lab", "+short"), "10.0.0.1")
		}
		e.call(step.Apply, "c1/keep", "keep.demo.lab", "10.0.0.1")
		serial(life == 0)
		e.call(step.Apply, "c1/n", "n.demo.lab", "10.0.0.2")
		serial(true)
		e.call(step.Remove, "c1/n", "")
		serial(true)
		e.stop()
	}
}
