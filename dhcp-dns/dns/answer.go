package dns

import (
	"net"
	"net/netip"

	mdns "github.com/miekg/dns"

	"joist/dhcp-dns/zone"
)

// accept decides from a message's header whether to look at the rest. It differs from the library's in letting updates
// through, so that they are refused (RFC 2136 § 2.2.2) instead of called unknown.
func accept(h mdns.Header) mdns.MsgAcceptAction {
	const response, opcodeShift, opcodeMask = 1 << 15, 11, 0xf
	if h.Bits&response != 0 {
		return mdns.MsgIgnore
	}
	switch int(h.Bits>>opcodeShift) & opcodeMask {
	case mdns.OpcodeUpdate:
		return mdns.MsgAccept
	case mdns.OpcodeQuery, mdns.OpcodeNotify:
		return mdns.DefaultMsgAcceptFunc(h)
	}
	return mdns.MsgRejectNotImplemented
}

// asker is who sent a query, and how.
type asker struct {
	addr netip.Addr
	tcp  bool
}

func askerOf(remote net.Addr) asker {
	switch a := remote.(type) {
	case *net.UDPAddr:
		return asker{addr: a.AddrPort().Addr().Unmap().WithZone("")}
	case *net.TCPAddr:
		return asker{addr: a.AddrPort().Addr().Unmap().WithZone(""), tcp: true}
	}
	return asker{}
}

func (a asker) in(prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(a.addr) {
			return true
		}
	}
	return false
}

// handle implements mdns.HandlerFunc. Write errors are the client's: it has gone.
func (s *Server) handle(w mdns.ResponseWriter, q *mdns.Msg) {
	from := askerOf(w.RemoteAddr())
	set := s.set.Load()
	if kind := transferKind(q); kind != mdns.TypeNone {
		s.transfer(w, q, from, set)
		return
	}
	reply, verdict := answer(set, q)
	if verdict == elsewhere && len(s.cfg.Upstreams) > 0 && from.in(s.cfg.Clients) {
		reply.RecursionAvailable = true
		if q.RecursionDesired {
			reply = s.forward(q, from)
		}
	}
	_ = w.WriteMsg(finish(reply, q, from))
}

// verdict says whether a reply is final.
type verdict int

const (
	final     verdict = iota
	elsewhere         // refused, but an upstream may know
)

// answer replies from the set. It does no I/O, and gives a valid reply to whatever the library can parse.
func answer(set *zone.Set, q *mdns.Msg) (*mdns.Msg, verdict) {
	reply := new(mdns.Msg)
	reply.SetReply(q)
	if q.Opcode != mdns.OpcodeQuery { // UPDATE and NOTIFY; accept keeps the others out
		reply.Opcode, reply.Rcode = q.Opcode, mdns.RcodeRefused
		return reply, final
	}
	if len(q.Question) != 1 {
		reply.Rcode = mdns.RcodeFormatError
		return reply, final
	}
	opts := 0
	for _, rr := range q.Extra {
		if opt, ok := rr.(*mdns.OPT); ok {
			opts++
			if opt.Version() != 0 {
				reply.Rcode = mdns.RcodeBadVers // RFC 6891 § 6.1.3
				return reply, final
			}
		}
	}
	question := q.Question[0]
	switch {
	case opts > 1: // RFC 6891 § 6.1.1
		reply.Rcode = mdns.RcodeFormatError
		return reply, final
	case question.Qclass != mdns.ClassINET: // version.bind and its like live in CHAOS
		reply.Rcode = mdns.RcodeRefused
		return reply, final
	case meta(question.Qtype):
		reply.Rcode = mdns.RcodeNotImplemented
		return reply, final
	}
	found := set.Lookup(question.Name, zone.Type(question.Qtype))
	if found.Outcome == zone.Elsewhere {
		reply.Rcode = mdns.RcodeRefused
		return reply, elsewhere
	}
	reply.Authoritative = true
	if found.Outcome == zone.NoName {
		reply.Rcode = mdns.RcodeNameError
	}
	reply.Answer = records(found.Records, question.Name)
	reply.Ns = records(found.Authority, "")
	return reply, final
}

// meta reports types that are no data (RFC 6895 § 3.1), ANY apart.
func meta(t uint16) bool {
	const first, last = 128, 254
	return t == mdns.TypeNone || t == mdns.TypeOPT || t >= first && t <= last
}

// records gives records the library's form. Where name is not empty, they are its records, and carry the spelling that
// was asked for.
func records(list []zone.Record, name string) []mdns.RR {
	if len(list) == 0 {
		return nil
	}
	out := make([]mdns.RR, len(list))
	for i, r := range list {
		out[i] = record(r, name)
	}
	return out
}

func record(r zone.Record, name string) mdns.RR {
	if name == "" {
		name = r.Name + "."
	}
	h := mdns.RR_Header{Name: name, Rrtype: uint16(r.Type), Class: mdns.ClassINET, Ttl: r.TTL}
	switch r.Type {
	case zone.A:
		return &mdns.A{Hdr: h, A: r.Addr.AsSlice()}
	case zone.AAAA:
		return &mdns.AAAA{Hdr: h, AAAA: r.Addr.AsSlice()}
	case zone.PTR:
		return &mdns.PTR{Hdr: h, Ptr: r.Target + "."}
	case zone.NS:
		return &mdns.NS{Hdr: h, Ns: r.Target + "."}
	case zone.SOA:
		return &mdns.SOA{
			Hdr: h, Ns: r.Start.Primary + ".", Mbox: r.Start.Mailbox + ".", Serial: uint32(r.Start.Serial),
			Refresh: r.Start.Refresh, Retry: r.Start.Retry, Expire: r.Start.Expire, Minttl: r.Start.Minimum,
		}
	}
	panic("internal error: zone holds a record of unknown type") // zone.Any is never stored
}

// finish gives the reply its OPT record, if the query had one, and cuts it to what the asker can take.
func finish(reply, q *mdns.Msg, from asker) *mdns.Msg {
	const maxPlainRcode = 15
	size := mdns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = max(size, min(int(opt.UDPSize()), maxUDP))
		own := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT}}
		own.SetUDPSize(maxUDP)
		if opt.Do() {
			own.SetDo() // RFC 3225 § 3
		}
		reply.Extra = append(reply.Extra, own)
	} else if reply.Rcode > maxPlainRcode { // an upstream's; it cannot be said without EDNS
		reply.Rcode = mdns.RcodeServerFailure
	}
	if from.tcp {
		size = mdns.MaxMsgSize
	}
	reply.Truncate(size)
	if reply.Truncated {
		// A partial set of addresses invites clients to use it; the whole is one TCP query away (RFC 2181 § 9).
		reply.Answer, reply.Ns = nil, nil
	}
	reply.Compress = true
	return reply
}

// transferKind is AXFR or IXFR where the query asks for one, else none.
func transferKind(q *mdns.Msg) uint16 {
	if q.Opcode != mdns.OpcodeQuery || len(q.Question) != 1 || q.Question[0].Qclass != mdns.ClassINET {
		return mdns.TypeNone
	}
	switch t := q.Question[0].Qtype; t {
	case mdns.TypeAXFR, mdns.TypeIXFR:
		return t
	}
	return mdns.TypeNone
}

// transfer sends a whole zone to whoever may have it, in messages of a hundred records (RFC 5936). IXFR gets the whole
// zone as well; over UDP the SOA alone, which tells the asker to come back by TCP (RFC 1995 § 2).
func (s *Server) transfer(w mdns.ResponseWriter, q *mdns.Msg, from asker, set *zone.Set) {
	const batch = 100
	reply := new(mdns.Msg)
	reply.SetReply(q)
	question := q.Question[0]
	all := set.Transfer(question.Name)
	switch {
	case !from.in(s.cfg.Transfers), !from.tcp && question.Qtype == mdns.TypeAXFR:
		// Not a warning: anybody can cause any number of these.
		s.cfg.Log.Debug("zone transfer refused", "client", from.addr, "zone", question.Name)
		reply.Rcode = mdns.RcodeRefused
	case all == nil:
		reply.Rcode = mdns.RcodeNotAuth // RFC 5936 § 2.2.1
	case !from.tcp:
		reply.Authoritative, reply.Answer = true, records(all[:1], "")
	default:
		for len(all) > 0 {
			n := min(batch, len(all))
			reply.Authoritative, reply.Answer, reply.Compress = true, records(all[:n], ""), true
			if w.WriteMsg(reply) != nil {
				return // the client has gone
			}
			all = all[n:]
		}
		return
	}
	_ = w.WriteMsg(finish(reply, q, from)) // the client has gone
}
