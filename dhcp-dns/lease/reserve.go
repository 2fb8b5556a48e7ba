package lease

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Reserve ties an address to a client until Unreserve. An invalid address lets the allocator choose, as Offer would: the
// one the client has, or had. It moves an older reservation of the same client. It fails with *RefusedError if somebody
// else has the address, or it may never be given out, and with *ExhaustedError if there is none to choose.
func (a *Allocator) Reserve(mac MAC, address netip.Addr, now time.Time) (Reservation, error) {
	if !address.IsValid() {
		if held, ok := a.reserved[mac]; ok {
			return Reservation{MAC: mac, Address: held}, nil
		}
		var err error
		if address, err = a.choose(mac, netip.Addr{}, now); err != nil {
			return Reservation{}, err
		}
	}
	refuse := func(reason Reason, holder MAC) (Reservation, error) {
		return Reservation{}, &RefusedError{MAC: mac, Address: address, Reason: reason, Holder: holder}
	}
	if !a.c.Subnet.Contains(address) {
		return refuse(WrongSubnet, "")
	}
	if !a.c.hosts.Contains(address) {
		return refuse(OutsidePool, "")
	}
	if holder := a.reservedBy[address]; holder != "" && holder != mac {
		return refuse(Reserved, holder)
	}
	if s, ok := a.touched[address]; ok {
		switch {
		case s.Quarantined.After(now):
			return refuse(Quarantined, "")
		case s.Active(now) && s.MAC != mac:
			return refuse(Taken, s.MAC)
		case s.heldUntil.After(now) && s.heldBy != mac:
			return refuse(Taken, s.heldBy)
		}
	}
	a.Unreserve(mac)
	r := Reservation{MAC: mac, Address: address}
	a.setReservation(r)
	return r, nil
}

func (a *Allocator) setReservation(r Reservation) {
	a.reserved[r.MAC] = r.Address
	a.reservedBy[r.Address] = r.MAC
	if s, ok := a.touched[r.Address]; ok {
		a.requeue(s)
	}
}

// Unreserve ends a client's reservation; a running lease of the address stays as it is. It reports false if there was none.
func (a *Allocator) Unreserve(mac MAC) bool {
	address, ok := a.reserved[mac]
	if !ok {
		return false
	}
	delete(a.reserved, mac)
	delete(a.reservedBy, address)
	// The cursor over fresh addresses may have passed this one, so from here on it is the queue's.
	a.requeue(a.touch(address))
	return true
}

// Lookup is the address that a client has or will have: its reservation, else its active lease.
func (a *Allocator) Lookup(mac MAC, now time.Time) (netip.Addr, bool) {
	if address, ok := a.reserved[mac]; ok {
		return address, true
	}
	return a.Leased(mac, now)
}

// Leased is the address that a client has an active lease of, whatever is reserved for it.
func (a *Allocator) Leased(mac MAC, now time.Time) (netip.Addr, bool) {
	address, ok := a.last[mac]
	return address, ok && a.touched[address].Active(now)
}

// Reservations are all reservations, by address.
func (a *Allocator) Reservations() []Reservation {
	list := make([]Reservation, 0, len(a.reserved))
	for mac, address := range a.reserved {
		list = append(list, Reservation{MAC: mac, Address: address})
	}
	slices.SortFunc(list, func(x, y Reservation) int {
		return cmp.Or(x.Address.Compare(y.Address), cmp.Compare(x.MAC, y.MAC))
	})
	return list
}

// Reserved is the address reserved for a client.
func (a *Allocator) Reserved(mac MAC) (netip.Addr, bool) {
	address, ok := a.reserved[mac]
	return address, ok
}
