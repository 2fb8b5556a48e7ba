package addresses

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/lease"
)

// EventKind is what happened to a lease.
type EventKind string

// The kinds of events.
const (
	Leased     EventKind = "leased"     // a client got an address
	Renewed    EventKind = "renewed"    // and keeps it
	Released   EventKind = "released"   // a client gave its address up
	Declined   EventKind = "declined"   // a client found its address in use: somebody has it by other means
	Refused    EventKind = "refused"    // a client asked for an address that it may not have
	Exhausted  EventKind = "exhausted"  // the pool has no free address
	Reserved   EventKind = "reserved"   // an address was tied to a machine
	Unreserved EventKind = "unreserved" // and is free again
)

// Event is one change of a lease, for the log and for whoever observes.
type Event struct {
	Kind     EventKind
	MAC      lease.MAC
	Address  netip.Addr  // invalid for Exhausted
	Phase    lease.Phase // for Leased and Renewed
	Expires  time.Time   // end of the lease, or of a declined address's quarantine
	Hostname string      // as the client says
	Detail   string      // for Refused and Exhausted: why
}

func (s *Service) emit(e Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case Renewed:
		level = slog.LevelDebug
	case Declined, Exhausted:
		level = slog.LevelWarn
	}
	if ctx := context.Background(); s.config.Log.Enabled(ctx, level) {
		s.config.Log.LogAttrs(ctx, level, "address "+string(e.Kind), e.attributes()...)
	}
	s.config.Observe(e)
}

// attributes are the event's fields that say something, for the log.
func (e Event) attributes() []slog.Attr {
	attributes := []slog.Attr{slog.String("mac", string(e.MAC))}
	if e.Address.IsValid() {
		attributes = append(attributes, slog.Any("address", e.Address))
	}
	for _, a := range []slog.Attr{slog.String("phase", string(e.Phase)), slog.String("hostname", e.Hostname), slog.String("detail", e.Detail)} {
		if a.Value.String() != "" {
			attributes = append(attributes, a)
		}
	}
	if !e.Expires.IsZero() {
		attributes = append(attributes, slog.Time("until", e.Expires))
	}
	return attributes
}

// refused emits the event for an error of the allocator.
func (s *Service) refused(q dhcp.Query, err error) {
	kind := Refused
	var exhausted *lease.ExhaustedError
	if errors.As(err, &exhausted) {
		kind = Exhausted
	}
	s.emit(Event{Kind: kind, MAC: lease.MAC(q.Firmware.MAC), Address: q.Address, Hostname: q.Firmware.Hostname, Detail: err.Error()})
}
