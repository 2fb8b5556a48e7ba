package zone_test

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"joist/dhcp-dns/zone"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	full := strings.Join([]string{long, long, long, strings.Repeat("b", 61)}, ".") // 253
	for _, c := range []struct{ in, want, err string }{
		{in: "n1.demo.lab", want: "n1.demo.lab"},
		{in: "N1.Demo.LAB.", want: "n1.demo.lab"},
		{in: "3com.example", want: "3com.example"}, // RFC 1123 lets labels begin with a digit
		{in: "host", want: "host"},
		{in: full, want: full},
		{in: full + ".", want: full},
		{in: full + "b", err: "at most 253"},
		{in: long + "a.lab", err: "at most 63"},
		{in: "", err: "is empty"},
		{in: ".", err: "is empty"},
		{in: "a..lab", err: "empty label"},
		{in: ".lab", err: "empty label"},
		{in: "lab..", err: "empty label"},
		{in: "-a.lab", err: `label "-a" begins or ends with a hyphen`},
		{in: "a-.lab", err: `label "a-" begins or ends with a hyphen`},
		{in: "a_b.lab", err: `contains '_'`},
		{in: "*.lab", err: `contains '*'`},
		{in: "a b.lab", err: `contains ' '`},
		{in: "bücher.lab", err: `contains 'ü'`},
		{in: `a\.b.lab`, err: `contains '\\'`},
		{in: "10.0.0.1", err: "could be taken for an address"},
		{in: "a.1", err: "could be taken for an address"},
	} {
		got, err := zone.ParseName(c.in)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("ParseName(%q) = %q, %v; want %q", c.in, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("ParseName(%q) = %q, %v; want an error with %q", c.in, got, err, c.err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, seed := range []string{"n1.demo.lab", "N1.LAB.", "", ".", "a..b", "-", "xn--bcher-kva.lab", "\x00", strings.Repeat("a.", 127)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		name, err := zone.ParseName(in)
		if err != nil {
			return
		}
		again, err := zone.ParseName(name)
		if err != nil || again != name {
			t.Errorf("ParseName(%q) gives %q, which gives %q, %v", in, name, again, err)
		}
		if !strings.EqualFold(strings.TrimSuffix(in, "."), name) {
			t.Errorf("ParseName(%q) gives another name: %q", in, name)
		}
		if _, err := netip.ParseAddr(name); err == nil {
			t.Errorf("%q is an address", name)
		}
	})
}

func TestReverseName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"10.1.2.3":        "3.2.1.10.in-addr.arpa",
		"::ffff:10.1.2.3": "3.2.1.10.in-addr.arpa",
		// RFC 3596 § 2.5
		"4321:0:1:2:3:4:567:89ab": "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
	} {
		if got := zone.ReverseName(netip.MustParseAddr(in)); got != want {
			t.Errorf("ReverseName(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestParentHonoursEscapes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a.b.c": "b.c", "c": "", "": "", `a\.b.c`: "c", `a\\.b`: "b", `a\`: "", `\046.lab`: "lab",
	} {
		if got := zone.Parent(in); got != want {
			t.Errorf("Parent(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSerialArithmetic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b zone.Serial
		want bool
	}{
		{0, 1, true},
		{1, 0, false},
		{7, 7, false},
		{1<<32 - 1, 0, true},
		{0, 1<<32 - 1, false},
		{0, 1<<31 - 1, true},
		{0, 1 << 31, false}, // RFC 1982 § 3.2 leaves it undefined: neither is before the other
		{1 << 31, 0, false},
	} {
		if got := c.a.Before(c.b); got != c.want {
			t.Errorf("%d before %d: %v", c.a, c.b, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.Uint64().Draw(t, "version")
		step := rapid.Uint64Range(1, 1<<31-1).Draw(t, "step")
		if !zone.SerialOf(version).Before(zone.SerialOf(version + step)) {
			t.Fatalf("the serial of version %d is not before that of %d", version, version+step)
		}
	})
}
