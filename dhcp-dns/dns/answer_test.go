package dns

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"

	"joist/dhcp-dns/zone"
)

func testSet(t testing.TB) *zone.Set {
	t.Helper()
	big := zone.Entry{Name: "big.demo.lab"}
	for i := range 100 {
		big.Addresses = append(big.Addresses, netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}))
	}
	set, err := zone.Build(zone.Config{Serial: 7}, []zone.Forward{{Domain: "demo.lab", Entries: []zone.Entry{
		{Name: "n1.demo.lab", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("fd00::11")}},
		big,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// golden is a message in one line: rcode, flags, sections.
func golden(m *mdns.Msg) string {
	flags := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}} {
		if f.on {
			flags += " " + f.name
		}
	}
	out := mdns.RcodeToString[m.Rcode] + flags
	for _, section := range [][]mdns.RR{m.Answer, m.Ns, m.Extra} {
		out += " |"
		for _, rr := range section {
			if opt, ok := rr.(*mdns.OPT); ok {
				out += fmt.Sprintf(" OPT %d do=%v;", opt.UDPSize(), opt.Do())
				continue
			}
			out += " " + strings.ReplaceAll(rr.String(), "\t", " ") + ";"
		}
	}
	return out
}

func query(name string, t uint16, change ...func(*mdns.Msg)) *mdns.Msg {
	q := new(mdns.Msg)
	q.SetQuestion(name, t)
	q.RecursionDesired = false
	for _, f := range change {
		f(q)
	}
	return q
}

func edns(size uint16) func(*mdns.Msg) { return func(m *mdns.Msg) { m.SetEdns0(size, false) } }

func TestAnswer(t *testing.T) {
	t.Parallel()
	const soa = "demo.lab. 5 IN SOA ns.demo.lab. hostmaster.demo.lab. 7 60 15 604800 5;"
	set := testSet(t)
	for _, c := range []struct {
		name string
		q    *mdns.Msg
		tcp  bool
		want string
	}{
		{name: "A", q: query("n1.demo.lab.", mdns.TypeA), want: "NOERROR aa | n1.demo.lab. 30 IN A 10.0.0.11; | |"},
		{name: "0x20", q: query("N1.dEMo.lab.", mdns.TypeAAAA), want: "NOERROR aa | N1.dEMo.lab. 30 IN AAAA fd00::11; | |"},
		{name: "PTR", q: query("11.0.0.10.in-addr.arpa.", mdns.TypePTR), want: "NOERROR aa | 11.0.0.10.in-addr.arpa. 30 IN PTR n1.demo.lab.; | |"},
		{name: "SOA", q: query("demo.lab.", mdns.TypeSOA), want: "NOERROR aa | " + strings.Replace(soa, " 5 ", " 30 ", 1) + " | |"},
		{name: "NS", q: query("demo.lab.", mdns.TypeNS), want: "NOERROR aa | demo.lab. 30 IN NS ns.demo.lab.; | |"},
		{name: "no such name", q: query("n9.demo.lab.", mdns.TypeA), want: "NXDOMAIN aa | | " + soa + " |"},
		{name: "no such type", q: query("n1.demo.lab.", mdns.TypeMX), want: "NOERROR aa | | " + soa + " |"},
		{name: "elsewhere", q: query("example.com.", mdns.TypeA), want: "REFUSED | | |"},
		{name: "root", q: query(".", mdns.TypeNS), want: "REFUSED | | |"},
		{name: "RD is copied", q: query("n9.lab.", mdns.TypeA, func(m *mdns.Msg) { m.RecursionDesired = true }), want: "REFUSED rd | | |"},
		{name: "EDNS", q: query("n1.demo.lab.", mdns.TypeA, edns(4096)), want: "NOERROR aa | n1.demo.lab. 30 IN A 10.0.0.11; | | OPT 1232 do=false;"},
		{
			name: "DO", q: query("n1.demo.lab.", mdns.TypeA, func(m *mdns.Msg) { m.SetEdns0(1232, true) }),
			want: "NOERROR aa | n1.demo.lab. 30 IN A 10.0.0.11; | | OPT 1232 do=true;",
		},
		// BADVERS and BADSIG are the same number, 16; the library prints the latter.
		{name: "EDNS 1", q: query("n1.demo.lab.", mdns.TypeA, edns(512), func(m *mdns.Msg) { m.IsEdns0().SetVersion(1) }), want: "BADSIG | | | OPT 1232 do=false;"},
		{
			name: "two OPT", q: query("n1.demo.lab.", mdns.TypeA, edns(512), func(m *mdns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }),
			want: "FORMERR | | | OPT 1232 do=false;",
		},
		{name: "cut", q: query("big.demo.lab.", mdns.TypeA), want: "NOERROR aa tc | | |"},
		{name: "cut with EDNS", q: query("big.demo.lab.", mdns.TypeA, edns(4096)), want: "NOERROR aa tc | | | OPT 1232 do=false;"},
		{name: "version.bind", q: query("version.bind.", mdns.TypeTXT, class(mdns.ClassCHAOS)), want: "REFUSED | | |"},
		{name: "class ANY", q: query("n1.demo.lab.", mdns.TypeA, class(mdns.ClassANY)), want: "REFUSED | | |"},
		{name: "MAILB", q: query("n1.demo.lab.", mdns.TypeMAILB), want: "NOTIMP | | |"},
		{name: "update", q: query("demo.lab.", mdns.TypeSOA, opcode(mdns.OpcodeUpdate)), want: "REFUSED | | |"},
		{name: "notify", q: query("demo.lab.", mdns.TypeSOA, opcode(mdns.OpcodeNotify)), want: "REFUSED | | |"},
		{name: "no question", q: new(mdns.Msg), want: "FORMERR | | |"},
	} {
		reply, _ := answer(set, c.q)
		finish(reply, c.q, asker{tcp: c.tcp})
		if diff := cmp.Diff(c.want, golden(reply)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	q := query("big.demo.lab.", mdns.TypeA)
	reply, _ := answer(set, q)
	if finish(reply, q, asker{tcp: true}); len(reply.Answer) != 100 || reply.Truncated {
		t.Errorf("over TCP: %d addresses", len(reply.Answer))
	}
}

func class(c uint16) func(*mdns.Msg) { return func(m *mdns.Msg) { m.Question[0].Qclass = c } }

func opcode(o int) func(*mdns.Msg) { return func(m *mdns.Msg) { m.Opcode = o } }

func TestAccept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h    mdns.Header
		want mdns.MsgAcceptAction
	}{
		{mdns.Header{Qdcount: 1}, mdns.MsgAccept},
		{mdns.Header{Bits: 1 << 15, Qdcount: 1}, mdns.MsgIgnore}, // a response: answering would make loops
		{mdns.Header{Bits: 1<<15 | mdns.OpcodeUpdate<<11, Qdcount: 1}, mdns.MsgIgnore},
		{mdns.Header{Bits: mdns.OpcodeUpdate << 11, Qdcount: 1, Nscount: 9}, mdns.MsgAccept},
		{mdns.Header{Bits: mdns.OpcodeNotify << 11, Qdcount: 1}, mdns.MsgAccept},
		{mdns.Header{Bits: mdns.OpcodeStatus << 11, Qdcount: 1}, mdns.MsgRejectNotImplemented},
		{mdns.Header{Bits: mdns.OpcodeIQuery << 11}, mdns.MsgRejectNotImplemented},
		{mdns.Header{Qdcount: 2}, mdns.MsgReject},
		{mdns.Header{}, mdns.MsgReject},
	} {
		if got := accept(c.h); got != c.want {
			t.Errorf("%+v: %v, want %v", c.h, got, c.want)
		}
	}
}

// recorder is a mdns.ResponseWriter that keeps what is written.
type recorder struct {
	mdns.ResponseWriter
	remote net.Addr
	wrote  []*mdns.Msg
}

func (r *recorder) RemoteAddr() net.Addr       { return r.remote }
func (r *recorder) WriteMsg(m *mdns.Msg) error { r.wrote = append(r.wrote, m.Copy()); return nil }

// FuzzPacket feeds packets to everything between the socket's two sides. Whatever arrives, the reply, if any, is one that
// packs, fits, and answers the question that was asked.
func FuzzPacket(f *testing.F) {
	set := testSet(f)
	for _, q := range []*mdns.Msg{
		query("n1.demo.lab.", mdns.TypeA), query("N1.demo.LAB.", mdns.TypeANY, edns(4096)), query("demo.lab.", mdns.TypeAXFR),
		query("demo.lab.", mdns.TypeIXFR, edns(1)), query("big.demo.lab.", mdns.TypeA, edns(65535)), query(".", mdns.TypeNS),
		query("version.bind.", mdns.TypeTXT, class(mdns.ClassCHAOS)), query("demo.lab.", mdns.TypeSOA, opcode(mdns.OpcodeUpdate)),
		query(`a\.b\000\\.demo.lab.`, mdns.TypeA), query("11.0.0.10.in-addr.arpa.", mdns.TypePTR),
	} {
		raw, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
		f.Add(raw, true)
		f.Add(raw[:len(raw)-1], true)
	}
	for _, text := range []string{
		"",
		"000001000001000000000000c00c00010001",   // a name that points to itself
		"000001000001000000000000c00e0001000100", // beyond the end
		"0000010000010000000000013f61",           // a label cut short
		"00000100000100000000000100000100010000290000", // an OPT cut short
		"00002800000100000000000000000600010000",       // an update
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
	}
	any4 := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	f.Fuzz(func(t *testing.T, raw []byte, tcp bool) {
		q := new(mdns.Msg)
		if q.Unpack(raw) != nil || q.Response {
			return
		}
		s := &Server{cfg: Config{Transfers: any4, Log: slog.New(slog.DiscardHandler)}}
		s.set.Store(set)
		w := &recorder{remote: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)}}
		if tcp {
			w.remote = &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}
		}
		s.handle(w, q)
		if len(w.wrote) == 0 {
			t.Fatal("no reply")
		}
		for _, reply := range w.wrote {
			packed, err := reply.Pack()
			if err != nil {
				t.Fatalf("reply does not pack: %v\n%s", err, reply)
			}
			if !tcp && len(packed) > maxUDP {
				t.Errorf("reply of %d bytes over UDP", len(packed))
			}
			if !reply.Response || reply.Id != q.Id || len(q.Question) == 1 && (len(reply.Question) != 1 || reply.Question[0] != q.Question[0]) {
				t.Errorf("reply to another question:\n%s\n%s", q, reply)
			}
		}
	})
}
