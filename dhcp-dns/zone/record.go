// Package zone builds authoritative zones, forward and reverse, from names with addresses, and answers questions about
// them. It is pure: a Set is a function of its Config and entries, does not change, and is safe for concurrent use.
//
// Names are canonical throughout: lower case, without the final dot ("n1.demo.lab"). Lookup folds the case of what it is
// asked; keeping the asker's spelling in the reply (the 0x20 bits) is the server's business, as records carry no more
// than the canonical form.
package zone

import "net/netip"

// Type is a record type with its value on the wire.
type Type uint16

// The types that zones hold, and Any, which asks for whatever there is.
const (
	A    Type = 1   // RFC 1035
	NS   Type = 2   // RFC 1035
	SOA  Type = 6   // RFC 1035
	PTR  Type = 12  // RFC 1035
	AAAA Type = 28  // RFC 3596
	Any  Type = 255 // RFC 1035, RFC 8482
)

// Record is one resource record of class IN.
type Record struct {
	Name   string // canonical
	Type   Type
	TTL    uint32     // seconds
	Addr   netip.Addr // of A and AAAA
	Target string     // of NS and PTR, canonical
	Start  *Start     // of SOA
}

// Start is the data of a SOA record (RFC 1035 § 3.3.13); times are in seconds.
type Start struct {
	Primary string // name of the name server (MNAME), canonical
	Mailbox string // mailbox of the person responsible as a name (RNAME), canonical
	Serial  Serial
	Refresh uint32
	Retry   uint32
	Expire  uint32
	Minimum uint32 // how long an absence may be cached (RFC 2308 § 4)
}

// Serial is a zone's serial number, compared in the arithmetic of RFC 1982: it wraps, and stays "greater" as long as
// nobody misses 2³¹ steps.
type Serial uint32

// SerialOf is the serial of a table's version. Versions only grow, and so do their serials in the sense of Before.
func SerialOf(version uint64) Serial { return Serial(version) } //nolint:gosec // the wrap is RFC 1982's

// Before reports whether s comes before other (RFC 1982 § 3.2). Of two serials exactly 2³¹ apart neither does.
func (s Serial) Before(other Serial) bool {
	return s != other && other-s < 1<<31
}
