package zone

import (
	"maps"
	"slices"
	"strings"
)

// Outcome is what a lookup came to.
type Outcome int

// The outcomes of a lookup.
const (
	Elsewhere Outcome = iota // the name lies in none of the zones
	Found                    // there are records
	NoData                   // the name exists, without records of that type (RFC 2308 § 2.2)
	NoName                   // the name does not exist, and nothing below it (NXDOMAIN, RFC 2308 § 2.1, RFC 8020)
)

// Answer is the result of a lookup. Its records belong to the Set: read them only.
type Answer struct {
	Outcome   Outcome
	Zone      string   // apex of the zone that answers
	Records   []Record // of Found: of the type asked for; all of the name's for Any
	Authority []Record // of NoData and NoName: the zone's SOA with the TTL for absences
}

// Lookup answers for a name in presentation form (RFC 1035 § 5.1), of any case and with or without the final dot. The nil
// Set has no zones.
func (s *Set) Lookup(name string, t Type) Answer {
	if s == nil {
		return Answer{}
	}
	name = fold(name)
	z := s.find(name)
	if z == nil {
		return Answer{}
	}
	n, ok := z.nodes[name]
	if !ok {
		return z.absent(NoName)
	}
	records := n.records
	if t != Any {
		from := 0
		for from < len(records) && records[from].Type < t {
			from++
		}
		to := from
		for to < len(records) && records[to].Type == t {
			to++
		}
		records = records[from:to:to]
	}
	if len(records) == 0 {
		return z.absent(NoData)
	}
	return Answer{Outcome: Found, Zone: z.apex, Records: records}
}

func (z *zone) absent(o Outcome) Answer {
	soa := z.start
	soa.TTL = z.negativeTTL // RFC 2308 § 3: the lesser of the SOA's TTL and its minimum
	return Answer{Outcome: o, Zone: z.apex, Authority: []Record{soa}}
}

// Zones returns the apexes, sorted.
func (s *Set) Zones() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.zones))
}

// Transfer returns all records of the zone at apex in the order of a zone transfer: the SOA, the others by name, and the
// SOA again (RFC 5936 § 2.2). It returns nil if apex, in presentation form, is no apex of the Set.
func (s *Set) Transfer(apex string) []Record {
	if s == nil {
		return nil
	}
	z, ok := s.zones[fold(apex)]
	if !ok {
		return nil
	}
	out := []Record{z.start}
	for _, name := range slices.SortedFunc(maps.Keys(z.nodes), func(a, b string) int {
		if a == z.apex || b == z.apex {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	}) {
		for _, r := range z.nodes[name].records {
			if r.Type != SOA {
				out = append(out, r)
			}
		}
	}
	return append(out, z.start)
}
