package addresses

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"joist/dhcp-dns/lease"
)

// Reserve ties an address to a machine until Unreserve, durably. An invalid address means the one it has, or had, or
// else a free one. Reserving again is no error and, without an address, keeps what is reserved. It fails with
// *lease.RefusedError if the address is somebody else's, with *lease.ExhaustedError if there is none to choose.
func (s *Service) Reserve(ctx context.Context, mac lease.MAC, address netip.Addr) (netip.Addr, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return netip.Addr{}, errClosed
	}
	now := s.config.Now()
	before, had := s.leases.Reserved(mac)
	r, err := s.leases.Reserve(mac, address, now)
	if err == nil && !(had && before == r.Address) {
		// The lock is kept through the write: reservations are few, and none may be seen before it is durable.
		if err = s.store.reserve(ctx, r); err != nil {
			s.leases.Unreserve(mac)
			if had {
				s.leases.Restore(nil, []lease.Reservation{{MAC: mac, Address: before}})
			}
		}
	}
	s.mu.Unlock()
	if err != nil {
		return netip.Addr{}, err
	}
	if !had || before != r.Address {
		s.emit(Event{Kind: Reserved, MAC: mac, Address: r.Address})
	}
	return r.Address, nil
}

// Unreserve ends a machine's reservation, durably; a running lease goes on to its end. It is no error if there is none.
func (s *Service) Unreserve(ctx context.Context, mac lease.MAC) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	address, had := s.leases.Reserved(mac)
	if !had {
		s.mu.Unlock()
		return nil
	}
	err := s.store.unreserve(ctx, mac)
	if err == nil {
		s.leases.Unreserve(mac)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.emit(Event{Kind: Unreserved, MAC: mac, Address: address})
	return nil
}

// Vacate ends a machine's lease, durably: of one that is known to be off, and nobody's any more. It is no error if it has none. The
// machine gets its address back later while that is free.
func (s *Service) Vacate(ctx context.Context, mac lease.MAC) error {
	now := s.config.Now()
	s.mu.Lock()
	address, ok := s.leases.Leased(mac, now)
	if !ok {
		s.mu.Unlock()
		return nil
	}
	record, _ := s.leases.Release(mac, address, now)
	done, err := s.enqueue(record)
	s.mu.Unlock()
	if err == nil {
		err = done.wait(ctx)
	}
	if err != nil {
		return err
	}
	s.emit(Event{Kind: Released, MAC: mac, Address: address, Expires: record.Expires})
	return nil
}

// Lookup is the address that a machine has or will have: its reservation, else its active lease.
func (s *Service) Lookup(mac lease.MAC) (netip.Addr, bool) {
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases.Lookup(mac, now)
}

// Entry is one line of a listing: an address that is leased, was leased, is quarantined or is reserved.
type Entry struct {
	lease.Record
	Active   bool      // the lease runs
	Reserved lease.MAC // who has it for good; empty for nobody
}

// List is every address with something to say about it, by address.
func (s *Service) List() []Entry {
	now := s.config.Now()
	s.mu.Lock()
	records, reservations := s.leases.Records(), s.leases.Reservations()
	s.mu.Unlock()
	keepers := make(map[netip.Addr]lease.MAC, len(reservations))
	for _, r := range reservations {
		keepers[r.Address] = r.MAC
	}
	list := make([]Entry, 0, len(records)+len(reservations))
	for _, r := range records {
		list = append(list, Entry{Record: r, Active: r.Active(now), Reserved: keepers[r.Address]})
		delete(keepers, r.Address)
	}
	for address, mac := range keepers {
		list = append(list, Entry{Record: lease.Record{Address: address}, Reserved: mac})
	}
	slices.SortFunc(list, func(a, b Entry) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.MAC, b.MAC))
	})
	return list
}

// Usage counts the pool's addresses by state.
func (s *Service) Usage() lease.Usage {
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases.Usage(now)
}
