package zone

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Config says how zones are built. Its zero value is valid.
type Config struct {
	Serial Serial // of every zone: a counter that lives outside the entries and only grows

	// Server is the name of the name server that serves the zones (NS, and MNAME in the SOA). Empty: "ns." and the zone's
	// domain; in a reverse zone, "ns." and the first domain with an address in it.
	Server string
	// ServerAddresses are the addresses under which the server's name resolves where it lies inside a zone.
	ServerAddresses []netip.Addr
	// Reverse lists prefixes whose reverse zones are served whether or not an entry has an address in them. IPv4 prefixes
	// end at 8, 16 or 24 bits, IPv6 prefixes at a multiple of 4. Addresses outside them get the zone of their /24 or /64,
	// which lasts as long as it has an entry.
	Reverse []netip.Prefix

	TTL         uint32 // of every record, in seconds; 0: 30, as names move when machines are replaced
	NegativeTTL uint32 // how long an absence may be cached, in seconds; 0: 5, as names appear in the middle of a run
}

// Entry is a name with its addresses.
type Entry struct {
	Name      string // inside the zone's domain
	Addresses []netip.Addr
}

// Forward is a forward zone to be built. Zones inside other zones are folded into the outermost one; equal names join
// their addresses. (Who may own what is decided before, by those who take entries in.)
type Forward struct {
	Domain  string // apex
	Entries []Entry
}

// Set is a set of zones, immutable.
type Set struct {
	zones map[string]*zone
}

type zone struct {
	apex        string
	start       Record
	negativeTTL uint32
	nodes       map[string]*node // every name that exists, empty non-terminals (RFC 8020) included
}

type node struct {
	records []Record // sorted by type, then data
}

// Timers of the SOA, in seconds, for secondaries: they matter only where transfers are allowed.
const (
	refresh         = 60
	retry           = 15
	expire          = 7 * 24 * 3600
	defaultTTL      = 30
	defaultNegative = 5
	reverseBits4    = 24
	reverseBits6    = 64
)

// Build makes the zones. It fails on invalid names and prefixes, and on an entry outside its zone, naming the culprit.
func Build(cfg Config, zones []Forward) (*Set, error) {
	cfg, err := cfg.normal()
	if err != nil {
		return nil, err
	}
	forward, err := gather(zones)
	if err != nil {
		return nil, err
	}
	set := &Set{zones: make(map[string]*zone, len(forward)+1)}
	domains := slices.Sorted(maps.Keys(forward))
	first := ""
	if len(domains) > 0 {
		first = domains[0]
	}
	for _, prefix := range cfg.Reverse {
		set.open(cfg, reverse(prefix.Addr(), prefix.Bits()), first)
	}
	for _, domain := range domains {
		z := set.open(cfg, domain, domain)
		for name, addresses := range forward[domain] {
			for _, addr := range addresses {
				z.add(Record{Name: name, Type: typeOf(addr), TTL: cfg.TTL, Addr: addr})
				back := ReverseName(addr)
				set.open(cfg, set.reverseApex(addr, back), domain).
					add(Record{Name: back, Type: PTR, TTL: cfg.TTL, Target: name})
			}
		}
	}
	for _, z := range set.zones {
		for _, n := range z.nodes {
			slices.SortFunc(n.records, compare)
			n.records = slices.CompactFunc(n.records, func(a, b Record) bool { return compare(a, b) == 0 })
		}
	}
	return set, nil
}

// normal checks a Config and fills its defaults in.
func (c Config) normal() (Config, error) {
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	if c.NegativeTTL == 0 {
		c.NegativeTTL = defaultNegative
	}
	if c.Server != "" {
		name, err := ParseName(c.Server)
		if err != nil {
			return c, fmt.Errorf("name server: %w", err)
		}
		if len(mailbox)+len(name) > maxName {
			return c, fmt.Errorf("name server %.40s… has %d characters; at most %d leave room for its mailbox", name, len(name), maxName-len(mailbox))
		}
		c.Server = name
	}
	addresses := make([]netip.Addr, 0, len(c.ServerAddresses))
	for _, a := range c.ServerAddresses {
		if err := CheckAddress(a); err != nil {
			return c, fmt.Errorf("name server: %w", err)
		}
		addresses = append(addresses, a.Unmap())
	}
	c.ServerAddresses = addresses
	prefixes := make([]netip.Prefix, 0, len(c.Reverse))
	for _, p := range c.Reverse {
		step, most := 8, reverseBits4
		if p.Addr().Is6() {
			step, most = 4, 124
		}
		if !p.IsValid() || p.Bits() == 0 || p.Bits()%step != 0 || p.Bits() > most {
			return c, fmt.Errorf("reverse zone of %s: an IPv4 prefix must end at 8, 16 or 24 bits, an IPv6 prefix at a multiple of 4", p)
		}
		prefixes = append(prefixes, p.Masked())
	}
	// Wider ones first, so that a prefix inside another one finds its zone there already.
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	c.Reverse = slices.DeleteFunc(prefixes, func(p netip.Prefix) bool {
		return slices.ContainsFunc(prefixes, func(q netip.Prefix) bool { return q.Bits() < p.Bits() && q.Overlaps(p) })
	})
	return c, nil
}

// CheckAddress refuses addresses that no name may point to: none at all, unspecified, multicast, or with a zone index.
func CheckAddress(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("an address is missing")
	case a.Zone() != "":
		return fmt.Errorf("address %s has a zone index, which means nothing to other machines", a)
	case a.IsUnspecified(), a.IsMulticast():
		return fmt.Errorf("address %s is not the address of a machine", a)
	}
	return nil
}

// gather checks the entries and sorts them by outermost zone and name.
func gather(zones []Forward) (map[string]map[string][]netip.Addr, error) {
	apexes := map[string]bool{}
	domains := make([]string, len(zones))
	for i, f := range zones {
		domain, err := ParseDomain(f.Domain)
		if err != nil {
			return nil, fmt.Errorf("cannot build a zone: %w", err)
		}
		domains[i], apexes[domain] = domain, true
	}
	out := map[string]map[string][]netip.Addr{}
	for i, f := range zones {
		apex := domains[i]
		for up := Parent(apex); up != ""; up = Parent(up) {
			if apexes[up] {
				apex = up
			}
		}
		names := out[apex]
		if names == nil {
			names = make(map[string][]netip.Addr, len(f.Entries))
			out[apex] = names
		}
		for _, e := range f.Entries {
			name, err := ParseName(e.Name)
			if err != nil {
				return nil, err
			}
			if !Within(name, domains[i]) {
				return nil, fmt.Errorf("name %s lies outside its zone %s", name, domains[i])
			}
			for _, a := range e.Addresses {
				if err := CheckAddress(a); err != nil {
					return nil, fmt.Errorf("name %s: %w", name, err)
				}
				names[name] = append(names[name], a.Unmap())
			}
		}
	}
	return out, nil
}

const mailbox = "hostmaster."

// checkDomain refuses canonical names that can be no forward zone of ours.
func checkDomain(domain string) error {
	if Within(domain, "arpa") {
		return fmt.Errorf("zone %s lies under arpa: reverse zones are made from the addresses of names", domain)
	}
	if len(mailbox)+len(domain) > maxName {
		return fmt.Errorf("zone %.40s… has %d characters; at most %d leave room for its mailbox", domain, len(domain), maxName-len(mailbox))
	}
	return nil
}

// ParseDomain is ParseName for the apex of a forward zone.
func ParseDomain(text string) (string, error) {
	domain, err := ParseName(text)
	if err != nil {
		return "", err
	}
	return domain, checkDomain(domain)
}

// open returns the zone at apex, making it if need be. The name server of a new one is named after domain.
func (s *Set) open(cfg Config, apex, domain string) *zone {
	if z, ok := s.zones[apex]; ok {
		return z
	}
	server := cfg.Server
	if server == "" {
		server = ServerOf(domain)
	}
	z := &zone{apex: apex, negativeTTL: min(cfg.TTL, cfg.NegativeTTL), nodes: map[string]*node{}}
	z.start = Record{Name: apex, Type: SOA, TTL: cfg.TTL, Start: &Start{
		Primary: server, Mailbox: mailbox + strings.TrimPrefix(server, "ns."), Serial: cfg.Serial,
		Refresh: refresh, Retry: retry, Expire: expire, Minimum: cfg.NegativeTTL,
	}}
	s.zones[apex] = z
	z.add(z.start)
	z.add(Record{Name: apex, Type: NS, TTL: cfg.TTL, Target: server})
	if Within(server, apex) {
		z.node(server) // exists even without addresses: asking for them then says so
		for _, a := range cfg.ServerAddresses {
			z.add(Record{Name: server, Type: typeOf(a), TTL: cfg.TTL, Addr: a})
		}
	}
	return z
}

// ServerOf is the name that the name server has in a zone when it is not configured.
func ServerOf(domain string) string {
	if domain == "" {
		return "ns.invalid" // a reverse zone by configuration, while there is no forward zone yet (RFC 2606)
	}
	return "ns." + domain
}

func (z *zone) add(r Record) {
	n := z.node(r.Name)
	n.records = append(n.records, r)
}

// node returns the name's node and makes it, and those between it and the apex, exist.
func (z *zone) node(name string) *node {
	n, ok := z.nodes[name]
	if !ok {
		n = &node{}
		z.nodes[name] = n
		if name != z.apex {
			z.node(Parent(name))
		}
	}
	return n
}

// reverseApex is the apex of the reverse zone that an address belongs to: one that is served already, or that of its /24
// or /64.
func (s *Set) reverseApex(addr netip.Addr, back string) string {
	if z := s.find(back); z != nil {
		return z.apex
	}
	if addr.Is4() {
		return reverse(addr, reverseBits4)
	}
	return reverse(addr, reverseBits6)
}

// find returns the zone that a canonical name lies in, nil if none does.
func (s *Set) find(name string) *zone {
	for ; name != ""; name = Parent(name) {
		if z, ok := s.zones[name]; ok {
			return z
		}
	}
	return nil
}

func typeOf(a netip.Addr) Type {
	if a.Is4() {
		return A
	}
	return AAAA
}

func compare(a, b Record) int {
	if a.Type != b.Type {
		return int(a.Type) - int(b.Type)
	}
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return strings.Compare(a.Target, b.Target)
}
