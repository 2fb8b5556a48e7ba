package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	mdns "github.com/miekg/dns"
)

// forward asks the upstreams in order and returns the first reply that is one; SERVFAIL if none is, or if too many
// queries are under way.
func (s *Server) forward(q *mdns.Msg, from asker) *mdns.Msg {
	select {
	case s.forwards <- struct{}{}:
		defer func() { <-s.forwards }()
	default:
		return s.unforwarded(q)
	}
	var errs []error
	for _, upstream := range s.cfg.Upstreams {
		reply, err := s.exchange(upstream, q, from)
		if err == nil {
			return reply
		}
		errs = append(errs, fmt.Errorf("upstream %s: %w", upstream, err))
	}
	s.cfg.Log.Warn("cannot forward a query", "name", q.Question[0].Name, "error", errors.Join(errs...))
	return s.unforwarded(q)
}

func (s *Server) unforwarded(q *mdns.Msg) *mdns.Msg {
	reply := new(mdns.Msg)
	reply.SetRcode(q, mdns.RcodeServerFailure)
	reply.RecursionAvailable = true
	return reply
}

// exchange asks one upstream, by the transport that the asker used.
func (s *Server) exchange(upstream netip.AddrPort, q *mdns.Msg, from asker) (*mdns.Msg, error) {
	ask := new(mdns.Msg)
	ask.Id = mdns.Id()
	ask.RecursionDesired, ask.CheckingDisabled = true, q.CheckingDisabled
	ask.Question = q.Question
	ask.SetEdns0(maxUDP, q.IsEdns0() != nil && q.IsEdns0().Do())
	network := "udp" // a cut reply goes to a UDP asker as it is: it asks again by TCP
	if from.tcp {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(s.serving, s.cfg.UpstreamTimeout)
	defer cancel()
	client := mdns.Client{Net: network, UDPSize: maxUDP, Timeout: s.cfg.UpstreamTimeout}
	reply, _, err := client.ExchangeContext(ctx, ask, upstream.String())
	if err != nil {
		return nil, err
	}
	if !reply.Response || len(reply.Question) != 1 || !same(reply.Question[0], ask.Question[0]) {
		return nil, errors.New("its reply answers another question")
	}
	reply.Id, reply.Question = q.Id, q.Question
	reply.RecursionDesired, reply.RecursionAvailable, reply.Authoritative = true, true, false
	extra := reply.Extra[:0]
	for _, rr := range reply.Extra {
		if rr.Header().Rrtype != mdns.TypeOPT { // it belongs to the hop between us and the upstream (RFC 6891 § 6.1.1)
			extra = append(extra, rr)
		}
	}
	reply.Extra = extra
	return reply, nil
}

func same(a, b mdns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
