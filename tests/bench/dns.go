package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"joist/dhcp-dns/dns"
	"joist/dhcp-dns/zone"
)

const (
	dnsNames = 1000
	dnsPort  = "5300"
)

func dnsName(i int) string { return fmt.Sprintf("n%04d", i) }

func dnsAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }

// dnsRates measures queries for addresses of a thousand names with dnsperf.
func dnsRates(ctx context.Context, s *suite) error {
	if !installed("dnsperf", "DNS") {
		return nil
	}
	w, err := newWire(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := w.remove(); err != nil {
			progress("%v", err)
		}
	}()
	var hosts, queries strings.Builder
	for i := range dnsNames {
		fmt.Fprintf(&hosts, "%s %s.demo.lab\n", dnsAddress(i), dnsName(i))
		fmt.Fprintf(&queries, "%s.demo.lab A\n", dnsName(i))
	}
	hostsFile, queryFile := filepath.Join(s.dir, "hosts"), filepath.Join(s.dir, "queries")
	if err := os.WriteFile(hostsFile, []byte(hosts.String()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(queryFile, []byte(queries.String()), 0o644); err != nil {
		return err
	}
	list := []candidate{{ourselves, func() (*server, error) {
		cmd, err := command(ctx, w.srv, "dns", arguments{Address: "127.0.0.1:" + dnsPort})
		if err != nil {
			return nil, err
		}
		p, err := start(cmd)
		if err != nil {
			return nil, err
		}
		return p, p.hear(new(string))
	}}}
	if installed("dnsmasq", "dnsmasq as a peer of DNS") {
		list = append(list, candidate{"dnsmasq", func() (*server, error) {
			return settled(start(inside(ctx, w.srv, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port="+dnsPort, "--listen-address=127.0.0.1", "--bind-interfaces",
				"--user=root", "--pid-file="+filepath.Join(s.dir, "dnsmasq.pid"), "--no-resolv", "--no-hosts", "--addn-hosts="+hostsFile, "--local=/demo.lab/")))
		}})
	}
	if installed("coredns", "CoreDNS as a peer of DNS") {
		list = append(list, candidate{"coredns", func() (*server, error) {
			file := filepath.Join(s.dir, "Corefile")
			if err := os.WriteFile(file, []byte("demo.lab:"+dnsPort+" {\n  bind 127.0.0.1\n  hosts "+hostsFile+"\n}\n"), 0o600); err != nil {
				return nil, err
			}
			return settled(start(inside(ctx, w.srv, "coredns", "-quiet", "-conf", file)))
		}})
	}
	got, err := contest(ctx, 3, list, func(name string) (map[string]float64, error) {
		out, err := inside(ctx, w.srv, "dnsperf", "-s", "127.0.0.1", "-p", dnsPort, "-d", queryFile, "-l", "3", "-c", "8", "-q", "200").CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("dnsperf: %w: %s", err, bytes.TrimSpace(out))
		}
		rate, lost := dnsperfRate.FindSubmatch(out), dnsperfGood.FindSubmatch(out)
		if rate == nil || lost == nil || !bytes.HasPrefix(lost[1], []byte("NOERROR")) {
			return nil, fmt.Errorf("dnsperf found no answers: %s", out)
		}
		v, err := strconv.ParseFloat(string(rate[1]), 64)
		progress("%s: %.0f queries/s", name, v)
		return map[string]float64{"rate": v}, err
	})
	if err != nil {
		return err
	}
	return show(s, "dns_queries", "1/s", got["rate"])
}

var (
	dnsperfRate = regexp.MustCompile(`Queries per second:\s+([0-9.]+)`)
	dnsperfGood = regexp.MustCompile(`Response codes:\s+(.*)`)
)

// serveDNS is joist's DNS server with the names of a cluster.
func serveDNS(ctx context.Context, a arguments) error {
	s, err := dns.Listen(dns.Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort(a.Address)}})
	if err != nil {
		return err
	}
	entries := make([]zone.Entry, dnsNames)
	for i := range entries {
		entries[i] = zone.Entry{Name: dnsName(i) + ".demo.lab", Addresses: []netip.Addr{dnsAddress(i)}}
	}
	set, err := zone.Build(zone.Config{ServerAddresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, []zone.Forward{{Domain: "demo.lab", Entries: entries}})
	if err != nil {
		return err
	}
	s.Swap(set)
	if err := say("listening"); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	go func() {
		untilTold()
		stop()
	}()
	return s.Serve(ctx)
}
