// Package lease decides which address a DHCP client gets. It is a pure allocator: no I/O, no clock, no goroutine. The
// caller passes the time, serialises the calls, and stores the Records that calls return.
//
// An address is in one of these states: fresh (never touched), held (offered, for seconds), leased, quarantined (a
// client found it in use), or lapsed (its last lease ended, and its last client gets it back while nobody else needs
// it). Reserved addresses belong to one client and never enter the pool.
package lease

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// MAC is a client's hardware address in canonical text: lower-case hexadecimal bytes with colons, as ParseMAC gives.
type MAC string

// ParseMAC reads a hardware address of 6, 8 or 20 bytes (Ethernet, EUI-64, InfiniBand) in any usual notation.
func ParseMAC(text string) (MAC, error) {
	hw, err := net.ParseMAC(text)
	if err != nil {
		return "", fmt.Errorf("cannot read hardware address %q: want six hexadecimal bytes such as 52:54:00:12:34:56", text)
	}
	return MAC(hw.String()), nil
}

// Phase says how far a machine has come; it decides how long its lease lasts.
type Phase string

// The phases of a machine, shortest lease first.
const (
	Firmware Phase = "firmware" // PXE ROM, UEFI or iPXE: gone in a minute
	Scout    Phase = "scout"    // the discovery image, or anything not yet enrolled
	Enrolled Phase = "enrolled" // a node that the engine knows and trusts
)

// Times are the lease lengths by phase. Zero fields have the defaults given here.
type Times struct {
	Firmware time.Duration // default 2 minutes
	Scout    time.Duration // default 10 minutes
	Enrolled time.Duration // default 24 hours
}

// Of is the lease length of a phase; an unknown phase gets the length of Scout.
func (t Times) Of(p Phase) time.Duration {
	switch p {
	case Firmware:
		return orDefault(t.Firmware, 2*time.Minute)
	case Enrolled:
		return orDefault(t.Enrolled, 24*time.Hour)
	default:
		return orDefault(t.Scout, 10*time.Minute)
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Record is what must be remembered about one address through a restart.
type Record struct {
	Address     netip.Addr
	MAC         MAC       // last client; empty if none ever had it
	Phase       Phase     // phase of the last lease
	Started     time.Time // when MAC first got the address without a gap since
	Expires     time.Time // end of the last lease; in the past once released
	Quarantined time.Time // until when the address is given to nobody; zero for never
}

// Active reports whether a client may be using the address at now.
func (r Record) Active(now time.Time) bool { return r.MAC != "" && r.Expires.After(now) }

// Reservation ties an address to one client for good.
type Reservation struct {
	MAC     MAC
	Address netip.Addr
}

// Usage counts the addresses of the pool by state at one moment. Reserved ones are counted as such and nothing else.
type Usage struct {
	Size        int // addresses in the pool, reserved ones included
	Reserved    int
	Leased      int
	Held        int
	Quarantined int
	Free        int
	NextFree    time.Time // when the next taken address comes free; zero if one is free now or none is in the pool
}
