// Package addresses gives machines their IPv4 addresses: it answers the DHCP server's questions with the lease allocator
// and makes every lease durable before it is acknowledged. What to boot it asks a Booter.
package addresses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/lease"

	"gorm.io/gorm"
)

// Booter says what a machine boots. It is asked at every DISCOVER, REQUEST and INFORM, from many goroutines at once, so
// it decides from what it knows and changes nothing.
type Booter interface {
	// Boot returns the boot part for a machine with these facts. An error leaves the machine without an answer.
	Boot(ctx context.Context, firmware dhcp.Firmware) (Boot, error)
}

// Boot is what a Booter says.
type Boot struct {
	Silent     bool        // the machine gets no answer at all
	Phase      lease.Phase // decides how long the lease lasts; empty means lease.Scout
	Filename   string      // TFTP path or URL; empty for a machine that boots nothing from here
	NextServer netip.Addr  // TFTP server; invalid means the engine
	Domain     string      // DNS domain of the machine's cluster; may be empty
	Hostname   string      // may be empty
}

// Config sets the service up.
type Config struct {
	DB      *gorm.DB     // where leases are kept, in tables address_*; required. Durable means what its settings make of a commit
	Lease   lease.Config // subnet and pool; Server is excluded in addition
	Server  netip.Addr   // the engine's address in the subnet; required
	DNS     []netip.Addr // default: Server
	Routers []netip.Addr // default: none, as in a lab without a way out
	Booter  Booter       // required
	Log     *slog.Logger // required

	// Guest says that other DHCP servers share the segment by design: a client that the service knows nothing of then gets
	// silence where it would get a refusal, and no address it merely claims to have had (RFC 2131 §4.3.2).
	Guest bool

	Now     func() time.Time // default: time.Now
	Observe func(Event)      // called for every event, besides the log; must not block; default: nothing
}

// Service implements dhcp.Handler. Close it when the DHCP servers that call it have ended.
type Service struct {
	config Config
	store  *store

	mu     sync.Mutex // guards leases, and with it the order of durable writes
	leases *lease.Allocator
	closed bool
}

// Open creates or migrates the tables, loads the leases, and starts the writer.
func Open(ctx context.Context, c Config) (*Service, error) {
	if c.DB == nil || c.Booter == nil || c.Log == nil {
		return nil, errors.New("cannot give out addresses: a database, a Booter and a log are required")
	}
	if !c.Lease.Subnet.Contains(c.Server) {
		return nil, fmt.Errorf("cannot give out addresses: the server's own address %v is not in %v", c.Server, c.Lease.Subnet)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(Event) {}
	}
	if c.DNS == nil {
		c.DNS = []netip.Addr{c.Server}
	}
	pool := c.Lease
	pool.Exclude = append([]netip.Addr{c.Server}, pool.Exclude...)
	pool.Exclude = append(pool.Exclude, c.Routers...)
	allocator, err := lease.New(pool)
	if err != nil {
		return nil, err
	}
	if err := migrate(c.DB.WithContext(ctx)); err != nil {
		return nil, err
	}
	records, reservations, err := load(c.DB.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	strays, lost := allocator.Restore(records, reservations)
	if len(strays)+len(lost) > 0 {
		c.Log.Warn("some stored leases and reservations lie outside the present pool and are not honoured; they stay stored",
			"leases", len(strays), "reservations", len(lost), "subnet", allocator.Subnet())
	}
	return &Service{config: c, leases: allocator, store: startStore(c.DB)}, nil
}

// Close waits until what was accepted is written, and stops. Later questions fail.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.store.close()
	}
}

// errClosed is what questions after Close get.
var errClosed = errors.New("cannot give out addresses: the service is stopping")

// Offer implements dhcp.Handler.
func (s *Service) Offer(ctx context.Context, q dhcp.Query) (dhcp.Answer, error) {
	boot, err := s.boot(ctx, q)
	if err != nil || boot.Silent {
		return dhcp.Answer{}, err
	}
	now := s.config.Now()
	s.mu.Lock()
	address, err := s.leases.Offer(lease.MAC(q.Firmware.MAC), q.Address, now)
	s.mu.Unlock()
	if err != nil {
		s.refused(q, err)
		return dhcp.Answer{}, err
	}
	return s.answer(address, boot), nil
}

// Lease implements dhcp.Handler.
func (s *Service) Lease(ctx context.Context, q dhcp.Query) (dhcp.Answer, error) {
	boot, err := s.boot(ctx, q)
	if err != nil || boot.Silent {
		return dhcp.Answer{}, err
	}
	mac, now := lease.MAC(q.Firmware.MAC), s.config.Now()
	s.mu.Lock()
	if s.config.Guest && q.Kind != dhcp.Selecting && !s.leases.Recalls(mac, q.Address) {
		known := s.leases.Knows(mac)
		s.mu.Unlock()
		if q.Kind == dhcp.Renewing || q.Kind == dhcp.InitReboot && known {
			return dhcp.Answer{Verdict: dhcp.Refuse, Reason: "no such lease"}, nil
		}
		return dhcp.Answer{}, nil
	}
	record, err := s.leases.Bind(mac, q.Address, boot.Phase, now)
	if err != nil {
		s.mu.Unlock()
		var no *lease.RefusedError
		if errors.As(err, &no) {
			s.refused(q, err)
			return dhcp.Answer{Verdict: dhcp.Refuse, Reason: string(no.Reason)}, nil
		}
		return dhcp.Answer{}, err
	}
	done, err := s.enqueue(record)
	s.mu.Unlock()
	if err == nil {
		err = done.wait(ctx)
	}
	if err != nil {
		return dhcp.Answer{}, err // the lease stays in memory: it was not promised, and nobody else gets it meanwhile
	}
	kind := Renewed
	if record.Started.Equal(now) {
		kind = Leased
	}
	s.emit(Event{Kind: kind, MAC: mac, Address: record.Address, Phase: record.Phase, Expires: record.Expires, Hostname: q.Firmware.Hostname})
	return s.answer(record.Address, boot), nil
}

// Configure implements dhcp.Handler.
func (s *Service) Configure(ctx context.Context, q dhcp.Query) (dhcp.Answer, error) {
	boot, err := s.boot(ctx, q)
	if err != nil || boot.Silent {
		return dhcp.Answer{}, err
	}
	return s.answer(netip.Addr{}, boot), nil
}

// Decline implements dhcp.Handler.
func (s *Service) Decline(ctx context.Context, q dhcp.Query) error {
	return s.end(ctx, q, Declined, s.leases.Decline)
}

// Release implements dhcp.Handler.
func (s *Service) Release(ctx context.Context, q dhcp.Query) error {
	return s.end(ctx, q, Released, s.leases.Release)
}

// end takes an address from a client by its own word.
func (s *Service) end(ctx context.Context, q dhcp.Query, kind EventKind, take func(lease.MAC, netip.Addr, time.Time) (lease.Record, bool)) error {
	mac := lease.MAC(q.Firmware.MAC)
	s.mu.Lock()
	record, changed := take(mac, q.Address, s.config.Now())
	if !changed {
		s.mu.Unlock()
		return nil // not its address: nothing to say, and no way for one client to take another's
	}
	done, err := s.enqueue(record)
	s.mu.Unlock()
	if err == nil {
		err = done.wait(ctx)
	}
	if err != nil {
		return err
	}
	s.emit(Event{Kind: kind, MAC: mac, Address: q.Address, Expires: record.Quarantined, Hostname: q.Firmware.Hostname})
	return nil
}

// enqueue hands a record to the writer; s.mu is held, so that the last record of an address is the last one written.
func (s *Service) enqueue(r lease.Record) (pending, error) {
	if s.closed {
		return nil, errClosed
	}
	return s.store.put(r), nil
}

func (s *Service) boot(ctx context.Context, q dhcp.Query) (Boot, error) {
	if q.Link.IsValid() && !s.config.Lease.Subnet.Contains(q.Link) {
		return Boot{}, fmt.Errorf("cannot serve %s behind relay %v: there is no pool for its network, only for %v", q.Firmware.MAC, q.Via, s.config.Lease.Subnet)
	}
	boot, err := s.config.Booter.Boot(ctx, q.Firmware)
	if err != nil {
		return Boot{}, fmt.Errorf("cannot decide what %s boots: %w", q.Firmware.MAC, err)
	}
	if boot.Phase == "" {
		boot.Phase = lease.Scout
	}
	return boot, nil
}

func (s *Service) answer(address netip.Addr, boot Boot) dhcp.Answer {
	next := boot.NextServer
	if !next.IsValid() {
		next = s.config.Server
	}
	return dhcp.Answer{
		Verdict: dhcp.Give, Address: address, Lease: s.config.Lease.Times.Of(boot.Phase), Subnet: s.config.Lease.Subnet.Masked(),
		Routers: s.config.Routers, DNS: s.config.DNS, Domain: boot.Domain, Hostname: boot.Hostname,
		Boot: dhcp.Boot{Filename: boot.Filename, NextServer: next},
	}
}
