package zone_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"joist/dhcp-dns/zone"
)

func entry(name string, addresses ...string) zone.Entry {
	e := zone.Entry{Name: name}
	for _, a := range addresses {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(a))
	}
	return e
}

func build(t testing.TB, cfg zone.Config, zones ...zone.Forward) *zone.Set {
	t.Helper()
	set, err := zone.Build(cfg, zones)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func text(r zone.Record) string {
	head := fmt.Sprintf("%s %d ", r.Name, r.TTL)
	switch r.Type {
	case zone.A:
		return head + "A " + r.Addr.String()
	case zone.AAAA:
		return head + "AAAA " + r.Addr.String()
	case zone.NS:
		return head + "NS " + r.Target
	case zone.PTR:
		return head + "PTR " + r.Target
	case zone.SOA:
		s := r.Start
		return head + fmt.Sprintf("SOA %s %s %d %d %d %d %d", s.Primary, s.Mailbox, s.Serial, s.Refresh, s.Retry, s.Expire, s.Minimum)
	}
	return head + "?"
}

func texts(list []zone.Record) []string {
	var out []string
	for _, r := range list {
		out = append(out, text(r))
	}
	return out
}

func outcome(o zone.Outcome) string {
	return map[zone.Outcome]string{zone.Elsewhere: "elsewhere", zone.Found: "found", zone.NoData: "nodata", zone.NoName: "noname"}[o]
}

func demo(t testing.TB) *zone.Set {
	return build(t, zone.Config{
		Serial: 7, ServerAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.254")},
		Reverse: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("10.9.8.0/24")},
	},
		zone.Forward{Domain: "demo.lab", Entries: []zone.Entry{
			entry("n2.demo.lab", "10.0.0.12"),
			entry("N1.demo.lab", "10.0.0.11", "fd00::11", "::ffff:10.0.0.11"),
			entry("deep.a.b.demo.lab", "10.9.8.1"),
			entry("etcd.demo.lab", "10.0.0.12", "10.0.0.11"),
		}},
		zone.Forward{Domain: "other.lab", Entries: []zone.Entry{entry("other.lab", "10.0.0.11")}},
	)
}

func TestLookup(t *testing.T) {
	t.Parallel()
	const soa = "demo.lab 5 SOA ns.demo.lab hostmaster.demo.lab 7 60 15 604800 5"
	set := demo(t)
	for _, c := range []struct {
		name string
		t    zone.Type
		want string
	}{
		{"n1.demo.lab", zone.A, "found demo.lab | n1.demo.lab 30 A 10.0.0.11"},
		{"n1.demo.lab.", zone.A, "found demo.lab | n1.demo.lab 30 A 10.0.0.11"},
		{"N1.dEmO.lab.", zone.A, "found demo.lab | n1.demo.lab 30 A 10.0.0.11"},
		{"n1.demo.lab", zone.AAAA, "found demo.lab | n1.demo.lab 30 AAAA fd00::11"},
		{"n1.demo.lab", zone.Any, "found demo.lab | n1.demo.lab 30 A 10.0.0.11 | n1.demo.lab 30 AAAA fd00::11"},
		{"etcd.demo.lab", zone.A, "found demo.lab | etcd.demo.lab 30 A 10.0.0.11 | etcd.demo.lab 30 A 10.0.0.12"},
		{"n2.demo.lab", zone.AAAA, "nodata demo.lab | " + soa},
		{"a.b.demo.lab", zone.A, "nodata demo.lab | " + soa}, // empty non-terminal
		{"b.demo.lab", zone.Any, "nodata demo.lab | " + soa},
		{"n3.demo.lab", zone.A, "noname demo.lab | " + soa},
		{"x.n1.demo.lab", zone.A, "noname demo.lab | " + soa},
		{`n1\.demo.lab`, zone.A, "elsewhere "}, // one label "n1.demo" under lab
		{`x\.n1.demo.lab`, zone.A, "noname demo.lab | " + soa},
		{"xdemo.lab", zone.A, "elsewhere "},
		{"lab", zone.SOA, "elsewhere "},
		{"", zone.A, "elsewhere "},
		{".", zone.NS, "elsewhere "},
		{"demo.lab", zone.A, "nodata demo.lab | " + soa},
		{"demo.lab", zone.NS, "found demo.lab | demo.lab 30 NS ns.demo.lab"},
		{"demo.lab", zone.SOA, "found demo.lab | demo.lab 30 SOA ns.demo.lab hostmaster.demo.lab 7 60 15 604800 5"},
		{"ns.demo.lab", zone.A, "found demo.lab | ns.demo.lab 30 A 10.0.0.254"},
		{"other.lab", zone.A, "found other.lab | other.lab 30 A 10.0.0.11"},
		{
			"11.0.0.10.in-addr.arpa", zone.PTR, "found 0.0.10.in-addr.arpa | 11.0.0.10.in-addr.arpa 30 PTR etcd.demo.lab" +
				" | 11.0.0.10.in-addr.arpa 30 PTR n1.demo.lab | 11.0.0.10.in-addr.arpa 30 PTR other.lab",
		},
		{"13.0.0.10.IN-ADDR.arpa", zone.PTR, "noname 0.0.10.in-addr.arpa | 0.0.10.in-addr.arpa 5 SOA ns.demo.lab hostmaster.demo.lab 7 60 15 604800 5"},
		{"1.8.9.10.in-addr.arpa", zone.PTR, "found 9.10.in-addr.arpa | 1.8.9.10.in-addr.arpa 30 PTR deep.a.b.demo.lab"},
		{"8.9.10.in-addr.arpa", zone.PTR, "nodata 9.10.in-addr.arpa | 9.10.in-addr.arpa 5 SOA ns.demo.lab hostmaster.demo.lab 7 60 15 604800 5"},
		{"1.0.0.11.in-addr.arpa", zone.PTR, "elsewhere "},
		{
			zone.ReverseName(netip.MustParseAddr("fd00::11")), zone.PTR,
			"found 0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa | " + zone.ReverseName(netip.MustParseAddr("fd00::11")) + " 30 PTR n1.demo.lab",
		},
	} {
		a := set.Lookup(c.name, c.t)
		got := strings.Join(append([]string{outcome(a.Outcome) + " " + a.Zone}, append(texts(a.Records), texts(a.Authority)...)...), " | ")
		if got != c.want {
			t.Errorf("%s %d:\n got %s\nwant %s", c.name, c.t, got, c.want)
		}
	}
}

func TestZonesAndTransfer(t *testing.T) {
	t.Parallel()
	set := demo(t)
	want := []string{"0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "0.0.10.in-addr.arpa", "9.10.in-addr.arpa", "demo.lab", "other.lab"}
	if diff := cmp.Diff(want, set.Zones()); diff != "" {
		t.Error(diff)
	}
	soa := "0.0.10.in-addr.arpa 30 SOA ns.demo.lab hostmaster.demo.lab 7 60 15 604800 5"
	if diff := cmp.Diff([]string{
		soa,
		"0.0.10.in-addr.arpa 30 NS ns.demo.lab",
		"11.0.0.10.in-addr.arpa 30 PTR etcd.demo.lab",
		"11.0.0.10.in-addr.arpa 30 PTR n1.demo.lab",
		"11.0.0.10.in-addr.arpa 30 PTR other.lab",
		"12.0.0.10.in-addr.arpa 30 PTR etcd.demo.lab",
		"12.0.0.10.in-addr.arpa 30 PTR n2.demo.lab",
		soa,
	}, texts(set.Transfer("0.0.10.in-addr.ARPA."))); diff != "" {
		t.Error(diff)
	}
	if got := set.Transfer("n1.demo.lab"); got != nil {
		t.Errorf("a name that is no apex was transferred: %v", got)
	}
}

func TestNilSetIsEmpty(t *testing.T) {
	t.Parallel()
	var set *zone.Set
	if set.Lookup("a.lab", zone.A).Outcome != zone.Elsewhere || set.Zones() != nil || set.Transfer("lab") != nil {
		t.Error("the nil set has zones")
	}
}

func TestNestedZonesAreOne(t *testing.T) {
	t.Parallel()
	set := build(t, zone.Config{},
		zone.Forward{Domain: "b.demo.lab", Entries: []zone.Entry{entry("x.b.demo.lab", "10.0.0.1")}},
		zone.Forward{Domain: "demo.lab", Entries: []zone.Entry{entry("y.demo.lab", "10.0.0.2")}})
	if a := set.Lookup("x.b.demo.lab", zone.A); a.Zone != "demo.lab" || len(a.Records) != 1 {
		t.Errorf("%+v", a)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	one := func(domain string, e ...zone.Entry) []zone.Forward {
		return []zone.Forward{{Domain: domain, Entries: e}}
	}
	for _, c := range []struct {
		name  string
		cfg   zone.Config
		zones []zone.Forward
		err   string
	}{
		{name: "outside", zones: one("demo.lab", entry("n.other.lab", "10.0.0.1")), err: "name n.other.lab lies outside its zone demo.lab"},
		{name: "bad name", zones: one("demo.lab", entry("n_1.demo.lab", "10.0.0.1")), err: "contains '_'"},
		{name: "bad domain", zones: one(""), err: "is empty"},
		{name: "arpa", zones: one("10.in-addr.arpa"), err: "lies under arpa"},
		{name: "long", zones: one(strings.Repeat("a.", 122) + "b"), err: "leave room for its mailbox"},
		{name: "multicast", zones: one("lab", entry("a.lab", "224.0.0.1")), err: "not the address of a machine"},
		{name: "unspecified", zones: one("lab", entry("a.lab", "::")), err: "not the address of a machine"},
		{name: "zone index", zones: one("lab", entry("a.lab", "fe80::1%eth0")), err: "zone index"},
		{name: "reverse", cfg: zone.Config{Reverse: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/22")}}, err: "8, 16 or 24 bits"},
		{name: "reverse all", cfg: zone.Config{Reverse: []netip.Prefix{netip.MustParsePrefix("::/0")}}, err: "multiple of 4"},
		{name: "reverse none", cfg: zone.Config{Reverse: []netip.Prefix{{}}}, err: "8, 16 or 24 bits"},
		{name: "server", cfg: zone.Config{Server: "-"}, err: "hyphen"},
	} {
		if _, err := zone.Build(c.cfg, c.zones); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.err)
		}
	}
}

// names draws entries from few names and addresses, so that they collide, nest and share reverse zones.
func names(domain string) *rapid.Generator[zone.Entry] {
	return rapid.Custom(func(t *rapid.T) zone.Entry {
		labels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3).Draw(t, "labels")
		addresses := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Addr {
			low := rapid.ByteRange(1, 3).Draw(t, "low")
			if rapid.Bool().Draw(t, "six") {
				return netip.AddrFrom16([16]byte{0: 0xfd, 7: rapid.ByteRange(0, 1).Draw(t, "net"), 15: low})
			}
			return netip.AddrFrom4([4]byte{10, 0, rapid.ByteRange(0, 1).Draw(t, "net"), low})
		}), 1, 3).Draw(t, "addresses")
		return zone.Entry{Name: strings.Join(append(labels, domain), "."), Addresses: addresses}
	})
}

// TestLookupAgainstOracle compares with a plain reading of the entries, without zones, nodes or indices.
func TestLookupAgainstOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(names("x.lab"), 1, 8).Draw(t, "entries")
		set, err := zone.Build(zone.Config{}, []zone.Forward{{Domain: "x.lab", Entries: all}})
		if err != nil {
			t.Fatal(err)
		}
		ask := names("x.lab").Draw(t, "ask")
		for _, family := range []zone.Type{zone.A, zone.AAAA} {
			checkForward(t, set, all, ask.Name, family)
		}
		for _, a := range ask.Addresses {
			checkBack(t, set, all, a)
		}
	})
}

func checkForward(t *rapid.T, set *zone.Set, all []zone.Entry, name string, family zone.Type) {
	var want []netip.Addr
	exists := name == "x.lab"
	for _, e := range all {
		exists = exists || strings.HasSuffix("."+e.Name, "."+name)
		for _, a := range e.Addresses {
			if e.Name == name && a.Is4() == (family == zone.A) {
				want = append(want, a)
			}
		}
	}
	slices.SortFunc(want, netip.Addr.Compare)
	want = slices.Compact(want)
	got := set.Lookup(name, family)
	var addresses []netip.Addr
	for _, r := range got.Records {
		addresses = append(addresses, r.Addr)
	}
	outcome := zone.NoName
	switch {
	case len(want) > 0:
		outcome = zone.Found
	case exists:
		outcome = zone.NoData
	}
	if !slices.Equal(addresses, want) || got.Outcome != outcome || (len(got.Authority) == 1) != (outcome != zone.Found) {
		t.Fatalf("%s %d: got %+v, want %v (%v)", name, family, got, want, outcome)
	}
}

func checkBack(t *rapid.T, set *zone.Set, all []zone.Entry, addr netip.Addr) {
	var want []string
	for _, e := range all {
		if slices.Contains(e.Addresses, addr) {
			want = append(want, e.Name)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	var got []string
	for _, r := range set.Lookup(zone.ReverseName(addr), zone.PTR).Records {
		got = append(got, r.Target)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", addr, got, want)
	}
}

// TestOrderDoesNotMatter builds the same entries in two orders and in two forms of grouping: every zone is the same.
func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(names("x.lab"), 0, 6).Draw(t, "x")
		y := rapid.SliceOfN(names("y.lab"), 0, 6).Draw(t, "y")
		all := []zone.Forward{{Domain: "x.lab", Entries: x}, {Domain: "y.lab", Entries: y}}
		var single []zone.Forward
		for _, f := range all {
			single = append(single, zone.Forward{Domain: f.Domain})
			for _, e := range f.Entries {
				single = append(single, zone.Forward{Domain: f.Domain, Entries: []zone.Entry{e}})
			}
		}
		if diff := cmp.Diff(dump(t, all), dump(t, rapid.Permutation(single).Draw(t, "order"))); diff != "" {
			t.Fatal(diff)
		}
	})
}

func dump(t *rapid.T, zones []zone.Forward) map[string][]string {
	set, err := zone.Build(zone.Config{}, zones)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, apex := range set.Zones() {
		out[apex] = texts(set.Transfer(apex))
	}
	return out
}

func BenchmarkBuild10000(b *testing.B) {
	var list []zone.Entry
	for i := range 10000 {
		list = append(list, zone.Entry{
			Name:      fmt.Sprintf("n%d.demo.lab", i),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})},
		})
	}
	for b.Loop() {
		if _, err := zone.Build(zone.Config{}, []zone.Forward{{Domain: "demo.lab", Entries: list}}); err != nil {
			b.Fatal(err)
		}
	}
}
