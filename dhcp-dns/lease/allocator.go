package lease

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// Allocator gives out the addresses of one subnet. It is not safe for concurrent use: whoever drives it serialises the
// calls, which also fixes the order in which Records are to be stored. Times passed to it must not run backwards by
// more than the caller can bear: a lease is active while its end lies after now.
type Allocator struct {
	c          compiled
	touched    map[netip.Addr]*state // every address that is no longer fresh
	last       map[MAC]netip.Addr    // the address a client had last, or has
	holds      map[MAC]netip.Addr    // the address offered to a client
	reserved   map[MAC]netip.Addr
	reservedBy map[netip.Addr]MAC
	queue      queue      // touched, unreserved addresses of the pool by the time they come free
	freshRange int        // cursor: nothing before it in the pool is fresh
	freshNext  netip.Addr // next candidate in that range; invalid when the pool has no fresh address
}

// state is what is known of a touched address.
type state struct {
	Record
	heldBy    MAC
	heldUntil time.Time
	index     int // in the queue; -1 if not there
}

// freeAt is the first moment at which anybody may have the address.
func (s *state) freeAt() time.Time {
	at := s.heldUntil
	if s.MAC != "" && s.Expires.After(at) {
		at = s.Expires
	}
	if s.Quarantined.After(at) {
		at = s.Quarantined
	}
	return at
}

// New returns an allocator with nothing given out. It fails if the configuration makes no sense.
func New(config Config) (*Allocator, error) {
	c, err := compile(config)
	if err != nil {
		return nil, err
	}
	return &Allocator{
		c: c, touched: map[netip.Addr]*state{}, last: map[MAC]netip.Addr{}, holds: map[MAC]netip.Addr{},
		reserved: map[MAC]netip.Addr{}, reservedBy: map[netip.Addr]MAC{}, freshNext: c.pool[0].From(),
	}, nil
}

// Restore loads what was stored before a restart. Records and reservations that the present configuration does not
// allow are left out and returned; the stored copies can stay.
func (a *Allocator) Restore(records []Record, reservations []Reservation) (strayRecords []Record, strayReservations []Reservation) {
	for _, r := range reservations {
		_, twice := a.reserved[r.MAC]
		if !a.c.hosts.Contains(r.Address) || a.reservedBy[r.Address] != "" || twice {
			strayReservations = append(strayReservations, r)
			continue
		}
		a.setReservation(r)
	}
	for _, r := range records {
		if !a.c.hosts.Contains(r.Address) {
			strayRecords = append(strayRecords, r)
			continue
		}
		s := a.touch(r.Address)
		s.Record = r
		a.requeue(s)
		if r.MAC == "" {
			continue
		}
		if before, ok := a.last[r.MAC]; !ok || a.touched[before].Started.Before(r.Started) {
			a.last[r.MAC] = r.Address
		}
	}
	return strayRecords, strayReservations
}

// LeaseTime is the length of a lease in a phase.
func (a *Allocator) LeaseTime(p Phase) time.Duration { return a.c.Times.Of(p) }

// Subnet is the subnet, masked.
func (a *Allocator) Subnet() netip.Prefix { return a.c.Subnet }

// Offer chooses an address for a client and holds it for a short while. In order: its reservation, the address it has,
// the one already offered, the one it had last, the one it wants (want; may be invalid), the lowest fresh one, the one
// that has been free for longest. It fails with *ExhaustedError, or with *RefusedError if the client's reservation is quarantined.
func (a *Allocator) Offer(mac MAC, want netip.Addr, now time.Time) (netip.Addr, error) {
	address, err := a.choose(mac, want, now)
	if err != nil {
		return netip.Addr{}, err
	}
	if before, ok := a.holds[mac]; ok && before != address {
		a.dropHold(a.touched[before])
	}
	s := a.touch(address)
	if s.heldBy != mac {
		delete(a.holds, s.heldBy)
	}
	s.heldBy, s.heldUntil = mac, now.Add(a.c.Hold)
	a.holds[mac] = address
	a.requeue(s)
	return address, nil
}

func (a *Allocator) choose(mac MAC, want netip.Addr, now time.Time) (netip.Addr, error) {
	if address, ok := a.reserved[mac]; ok {
		if reason, holder := a.barred(mac, address, now); reason != "" {
			return netip.Addr{}, &RefusedError{MAC: mac, Address: address, Reason: reason, Holder: holder}
		}
		return address, nil
	}
	last, had := a.last[mac]
	held, offered := a.holds[mac]
	usable := func(address netip.Addr) bool {
		reason, _ := a.barred(mac, address, now)
		return reason == ""
	}
	switch {
	case had && a.touched[last].Active(now) && usable(last):
		return last, nil
	case offered && a.touched[held].heldUntil.After(now) && usable(held):
		return held, nil
	case had && usable(last):
		return last, nil
	case want.IsValid() && usable(want) && !a.missed(mac, want):
		return want, nil
	}
	if address, ok := a.fresh(); ok {
		return address, nil
	}
	if len(a.queue) > 0 && !a.queue[0].freeAt().After(now) {
		return a.queue[0].Address, nil
	}
	e := &ExhaustedError{Subnet: a.c.Subnet, Usage: a.Usage(now)}
	if !e.Usage.NextFree.IsZero() {
		e.In = e.Usage.NextFree.Sub(now)
	}
	return netip.Addr{}, e
}

// missed reports whether another client had the address last and would like it back.
func (a *Allocator) missed(mac MAC, address netip.Addr) bool {
	s, ok := a.touched[address]
	return ok && s.MAC != "" && s.MAC != mac && a.last[s.MAC] == address
}

// barred says why a client may not have an address now; an empty reason means that it may.
func (a *Allocator) barred(mac MAC, address netip.Addr, now time.Time) (Reason, MAC) {
	if !a.c.Subnet.Contains(address) {
		return WrongSubnet, ""
	}
	own, has := a.reserved[mac]
	if has && own != address {
		return Elsewhere, ""
	}
	if holder := a.reservedBy[address]; holder != "" && holder != mac {
		return Reserved, holder
	}
	if !has && !a.c.set.Contains(address) {
		return OutsidePool, ""
	}
	s, ok := a.touched[address]
	switch {
	case !ok:
		return "", ""
	case s.Quarantined.After(now):
		return Quarantined, ""
	case s.Active(now) && s.MAC != mac:
		return Taken, s.MAC
	case s.heldUntil.After(now) && s.heldBy != mac:
		return Taken, s.heldBy
	}
	return "", ""
}

// Bind leases an address to a client, or renews its lease: from now for the length of its phase. The caller stores the
// Record before it acknowledges. It fails with *RefusedError.
func (a *Allocator) Bind(mac MAC, address netip.Addr, phase Phase, now time.Time) (Record, error) {
	if reason, holder := a.barred(mac, address, now); reason != "" {
		return Record{}, &RefusedError{MAC: mac, Address: address, Reason: reason, Holder: holder}
	}
	s := a.touch(address)
	if s.MAC != mac && s.MAC != "" && a.last[s.MAC] == address {
		delete(a.last, s.MAC)
	}
	if s.MAC != mac || !s.Active(now) {
		s.Started = now
	}
	a.dropHold(s)
	if held, ok := a.holds[mac]; ok {
		a.dropHold(a.touched[held])
	}
	s.MAC, s.Phase, s.Expires, s.Quarantined = mac, phase, now.Add(a.c.Times.Of(phase)), time.Time{}
	a.last[mac] = address
	a.requeue(s)
	return s.Record, nil
}

// Recalls reports whether the client is the last that had the address, whether or not its lease has ended.
func (a *Allocator) Recalls(mac MAC, address netip.Addr) bool {
	s, ok := a.touched[address]
	return ok && s.MAC == mac
}

// Knows reports whether anything is remembered of a client: a lease, an ended one, an offer or a reservation.
func (a *Allocator) Knows(mac MAC) bool {
	_, had := a.last[mac]
	_, offered := a.holds[mac]
	_, kept := a.reserved[mac]
	return had || offered || kept
}

// Release ends a client's lease of an address; the client gets it back later while it is free. It reports false, and
// changes nothing, if the client has no active lease of it.
func (a *Allocator) Release(mac MAC, address netip.Addr, now time.Time) (Record, bool) {
	s, ok := a.touched[address]
	if !ok || s.MAC != mac || !s.Active(now) {
		return Record{}, false
	}
	s.Expires = now
	a.requeue(s)
	return s.Record, true
}

// Decline quarantines an address that a client found in use by somebody else. Only the client that has the address, or
// was offered it, is believed; otherwise it reports false and changes nothing.
func (a *Allocator) Decline(mac MAC, address netip.Addr, now time.Time) (Record, bool) {
	s, ok := a.touched[address]
	if !ok || !(s.MAC == mac && s.Active(now)) && !(s.heldBy == mac && s.heldUntil.After(now)) {
		return Record{}, false
	}
	a.dropHold(s)
	if s.MAC != "" && a.last[s.MAC] == address {
		delete(a.last, s.MAC)
	}
	s.MAC, s.Phase, s.Started, s.Expires = "", "", time.Time{}, time.Time{}
	s.Quarantined = now.Add(a.c.Quarantine)
	a.requeue(s)
	return s.Record, true
}

// touch returns the state of an address, which is fresh no longer.
func (a *Allocator) touch(address netip.Addr) *state {
	s, ok := a.touched[address]
	if !ok {
		s = &state{Record: Record{Address: address}, index: -1}
		a.touched[address] = s
	}
	return s
}

func (a *Allocator) dropHold(s *state) {
	if s.heldBy == "" {
		return
	}
	delete(a.holds, s.heldBy)
	s.heldBy, s.heldUntil = "", time.Time{}
	a.requeue(s)
}

// fresh is the lowest address of the pool that was never touched and is not reserved. Addresses are touched and stay
// so; those reserved are passed over for good, and join the queue when their reservation ends.
func (a *Allocator) fresh() (netip.Addr, bool) {
	for a.freshNext.IsValid() {
		if _, used := a.touched[a.freshNext]; !used && a.reservedBy[a.freshNext] == "" {
			return a.freshNext, true
		}
		if a.freshNext != a.c.pool[a.freshRange].To() {
			a.freshNext = a.freshNext.Next()
			continue
		}
		a.freshRange++
		a.freshNext = netip.Addr{}
		if a.freshRange < len(a.c.pool) {
			a.freshNext = a.c.pool[a.freshRange].From()
		}
	}
	return netip.Addr{}, false
}

// Records are all addresses that were leased or quarantined and not forgotten since, by address.
func (a *Allocator) Records() []Record {
	list := make([]Record, 0, len(a.touched))
	for _, s := range a.touched {
		if s.MAC != "" || !s.Quarantined.IsZero() {
			list = append(list, s.Record)
		}
	}
	slices.SortFunc(list, func(x, y Record) int { return x.Address.Compare(y.Address) })
	return list
}

// Usage counts the pool's addresses at now.
func (a *Allocator) Usage(now time.Time) Usage {
	u := Usage{Size: a.c.size()}
	for address := range a.reservedBy {
		if a.c.set.Contains(address) {
			u.Reserved++
		}
	}
	taken := 0
	for _, s := range a.queue {
		switch {
		case s.Quarantined.After(now):
			u.Quarantined++
		case s.Active(now):
			u.Leased++
		case s.heldUntil.After(now):
			u.Held++
		default:
			continue
		}
		taken++
	}
	u.Free = u.Size - u.Reserved - taken
	if u.Free == 0 && len(a.queue) > 0 {
		u.NextFree = a.queue[0].freeAt()
	}
	return u
}

// requeue puts an address where the time at which it comes free says, or takes it out if it is not in the common pool.
func (a *Allocator) requeue(s *state) {
	common := a.reservedBy[s.Address] == "" && a.c.set.Contains(s.Address)
	switch {
	case common && s.index >= 0:
		heap.Fix(&a.queue, s.index)
	case common:
		heap.Push(&a.queue, s)
	case s.index >= 0:
		heap.Remove(&a.queue, s.index)
	}
}
