package addresses_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/lease"
	"joist/services/addresses"

	"github.com/glebarez/sqlite"
	"go.uber.org/goleak"
	"go4.org/netipx"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

var (
	server = netip.MustParseAddr("10.77.0.1")
	first  = netip.MustParseAddr("10.77.0.10")
	second = netip.MustParseAddr("10.77.0.11")
)

const (
	one = "52:54:00:00:00:01"
	two = "52:54:00:00:00:02"
)

// bench is a service on a database of its own, with a clock that the test moves.
type bench struct {
	*addresses.Service
	db   *gorm.DB
	conf addresses.Config

	mu     sync.Mutex
	now    time.Time
	boot   addresses.Boot
	asked  []dhcp.Firmware
	events []addresses.Event
}

func (b *bench) Boot(_ context.Context, f dhcp.Firmware) (addresses.Boot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, f)
	return b.boot, nil
}

func (b *bench) kinds() []addresses.EventKind {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []addresses.EventKind
	for _, e := range b.events {
		list = append(list, e.Kind)
	}
	return list
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// postgresDSN, if set, makes the tests use that PostgreSQL database, emptied before each, instead of SQLite.
const postgresDSN = "JOIST_TEST_POSTGRES"

func database(t testing.TB) *gorm.DB {
	t.Helper()
	config := &gorm.Config{Logger: logger.Discard, TranslateError: true}
	if dsn := os.Getenv(postgresDSN); dsn != "" {
		db, err := gorm.Open(postgres.Open(dsn), config)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Exec("DROP TABLE IF EXISTS address_leases, address_reservations, address_migrations").Error; err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, db)
		return db
	}
	return reopen(t, filepath.Join(t.TempDir(), "leases.db"))
}

func reopen(t testing.TB, path string) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(sqlite.Open(path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_txlock=immediate"),
		&gorm.Config{Logger: logger.Discard, TranslateError: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, db)
	return db
}

func closeAtEnd(t testing.TB, db *gorm.DB) {
	t.Helper()
	sql, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sql.Close() })
}

// open starts a service; pool is such as "10.77.0.10-10.77.0.11".
func open(t testing.TB, pool string, change func(*addresses.Config)) *bench {
	t.Helper()
	b := &bench{db: database(t), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), boot: addresses.Boot{Phase: lease.Scout, Domain: "demo.lab"}}
	b.conf = addresses.Config{
		DB: b.db, Server: server, Booter: b, Log: slog.New(slog.DiscardHandler),
		Lease: lease.Config{Subnet: netip.MustParsePrefix("10.77.0.0/24"), Ranges: []netipx.IPRange{netipx.MustParseIPRange(pool)}},
		Now: func() time.Time {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.now
		},
		Observe: func(e addresses.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		},
	}
	if change != nil {
		change(&b.conf)
	}
	b.start(t)
	return b
}

func (b *bench) start(t testing.TB) {
	t.Helper()
	s, err := addresses.Open(context.Background(), b.conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	b.Service = s
}

// restart is what a kill -9 leaves: a new service on the same tables, the old one never told.
func (b *bench) restart(t testing.TB) { b.start(t) }

func question(kind dhcp.Kind, mac string, address netip.Addr) dhcp.Query {
	return dhcp.Query{Kind: kind, Address: address, Firmware: dhcp.Firmware{MAC: mac}}
}

// exchange is the four packets: DISCOVER, OFFER, REQUEST, ACK.
func (b *bench) exchange(t testing.TB, mac string) netip.Addr {
	t.Helper()
	offer, err := b.Offer(t.Context(), question(dhcp.Discover, mac, netip.Addr{}))
	if err != nil || offer.Verdict != dhcp.Give {
		t.Fatalf("%s: offered %+v, %v", mac, offer, err)
	}
	a := b.request(t, dhcp.Selecting, mac, offer.Address)
	if a.Verdict != dhcp.Give || a.Address != offer.Address {
		t.Fatalf("%s: offered %v, then got %+v", mac, offer.Address, a)
	}
	return a.Address
}

func (b *bench) request(t testing.TB, kind dhcp.Kind, mac string, address netip.Addr) dhcp.Answer {
	t.Helper()
	a, err := b.Lease(t.Context(), question(kind, mac, address))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnswerHasAllParts(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.19", nil)
	b.boot = addresses.Boot{Phase: lease.Firmware, Filename: "x.efi", Domain: "demo.lab", Hostname: "n1"}
	a, err := b.Offer(t.Context(), question(dhcp.Discover, one, netip.Addr{}))
	want := dhcp.Answer{Verdict: dhcp.Give, Address: first, Lease: 2 * time.Minute, Subnet: netip.MustParsePrefix("10.77.0.0/24"),
		DNS: []netip.Addr{server}, Domain: "demo.lab", Hostname: "n1", Boot: dhcp.Boot{Filename: "x.efi", NextServer: server}}
	if err != nil || fmt.Sprint(a) != fmt.Sprint(want) {
		t.Errorf("got  %+v, %v\nwant %+v", a, err, want)
	}
	for phase, length := range map[lease.Phase]time.Duration{lease.Firmware: 2 * time.Minute, lease.Scout: 10 * time.Minute, lease.Enrolled: 24 * time.Hour, "": 10 * time.Minute} {
		b.boot.Phase = phase
		a := b.request(t, dhcp.Selecting, one, first)
		if got := b.List()[0]; a.Lease != length || !got.Expires.Equal(b.now.Add(length)) {
			t.Errorf("%q: promised %v, stored %v", phase, a.Lease, got.Expires.Sub(b.now))
		}
	}
	c, err := b.Configure(t.Context(), question(dhcp.Inform, two, second))
	if err != nil || c.Verdict != dhcp.Give || c.Domain != "demo.lab" || len(b.List()) != 1 {
		t.Errorf("INFORM: got %+v, %v; leases %v", c, err, b.List())
	}
}

// TestLeasesSurviveKill restarts without warning after every acknowledgement.
func TestLeasesSurviveKill(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.19", nil)
	given := map[string]netip.Addr{}
	for i := range 10 {
		mac := fmt.Sprintf("52:54:00:00:00:%02x", i)
		given[mac] = b.exchange(t, mac)
		b.restart(t)
	}
	for mac, address := range given {
		if got, ok := b.Lookup(lease.MAC(mac)); !ok || got != address {
			t.Errorf("%s had %v, has %v", mac, address, got)
		}
		if a := b.request(t, dhcp.Renewing, mac, address); a.Verdict != dhcp.Give {
			t.Errorf("%s may not renew %v: %s", mac, address, a.Reason)
		}
	}
	if _, err := b.Offer(t.Context(), question(dhcp.Discover, two+"9", netip.Addr{})); err == nil {
		t.Error("an eleventh client got one of ten addresses")
	}
	b.pass(11 * time.Minute)
	if got := b.exchange(t, "52:54:00:00:00:05"); got != given["52:54:00:00:00:05"] {
		t.Errorf("after its lease ended a client got %v, not %v again", got, given["52:54:00:00:00:05"])
	}
}

func TestNoAnswerWithoutStore(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.10", nil)
	if _, err := b.Offer(t.Context(), question(dhcp.Discover, one, netip.Addr{})); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk full")
	fail := true
	if err := b.db.Callback().Create().Before("gorm:create").Register("fail", func(tx *gorm.DB) {
		if fail {
			_ = tx.AddError(broken)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if a, err := b.Lease(t.Context(), question(dhcp.Selecting, one, first)); !errors.Is(err, broken) || a.Verdict != dhcp.Silent {
		t.Fatalf("got %+v, %v", a, err)
	}
	if _, err := b.Reserve(t.Context(), two, netip.MustParseAddr("10.77.0.50")); !errors.Is(err, broken) {
		t.Fatalf("reserve: %v", err)
	}
	if got, ok := b.Lookup(two); ok {
		t.Errorf("a reservation that was not stored counts: %v", got)
	}
	if kinds := b.kinds(); len(kinds) > 0 {
		t.Errorf("events %v of things that did not happen", kinds)
	}
	fail = false
	if a := b.request(t, dhcp.Selecting, one, first); a.Verdict != dhcp.Give {
		t.Errorf("after the disk has room: %+v", a)
	}
}

func TestRequestStates(t *testing.T) {
	elsewhere := netip.MustParseAddr("192.168.1.5")
	for _, c := range []struct {
		name       string
		kind       dhcp.Kind
		mac        string
		address    netip.Addr
		sole       dhcp.Verdict // the only server on the segment
		asGuest    dhcp.Verdict
		afterLapse bool
	}{
		{name: "reboot with its lease", kind: dhcp.InitReboot, mac: one, address: first, sole: dhcp.Give, asGuest: dhcp.Give},
		{name: "reboot after its lease", kind: dhcp.InitReboot, mac: one, address: first, sole: dhcp.Give, asGuest: dhcp.Give, afterLapse: true},
		{name: "reboot with another address", kind: dhcp.InitReboot, mac: one, address: second, sole: dhcp.Give, asGuest: dhcp.Refuse},
		{name: "reboot of a stranger, free address", kind: dhcp.InitReboot, mac: two, address: second, sole: dhcp.Give, asGuest: dhcp.Silent},
		{name: "reboot of a stranger, taken address", kind: dhcp.InitReboot, mac: two, address: first, sole: dhcp.Refuse, asGuest: dhcp.Silent},
		{name: "reboot from another network", kind: dhcp.InitReboot, mac: two, address: elsewhere, sole: dhcp.Refuse, asGuest: dhcp.Silent},
		{name: "renew", kind: dhcp.Renewing, mac: one, address: first, sole: dhcp.Give, asGuest: dhcp.Give},
		{name: "renew of a stranger", kind: dhcp.Renewing, mac: two, address: first, sole: dhcp.Refuse, asGuest: dhcp.Refuse},
		{name: "rebind", kind: dhcp.Rebinding, mac: one, address: first, sole: dhcp.Give, asGuest: dhcp.Give},
		{name: "rebind of a stranger", kind: dhcp.Rebinding, mac: two, address: first, sole: dhcp.Refuse, asGuest: dhcp.Silent},
		{name: "select what was not offered", kind: dhcp.Selecting, mac: two, address: first, sole: dhcp.Refuse, asGuest: dhcp.Refuse},
	} {
		for guest, want := range map[bool]dhcp.Verdict{false: c.sole, true: c.asGuest} {
			t.Run(fmt.Sprintf("%s, guest %v", c.name, guest), func(t *testing.T) {
				b := open(t, "10.77.0.10-10.77.0.12", func(c *addresses.Config) { c.Guest = guest })
				b.exchange(t, one)
				if c.afterLapse {
					b.pass(time.Hour)
				}
				if a := b.request(t, c.kind, c.mac, c.address); a.Verdict != want {
					t.Errorf("got %q (%s), want %q", a.Verdict, a.Reason, want)
				}
			})
		}
	}
}

func TestReservations(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.12", nil)
	outside := netip.MustParseAddr("10.77.0.100")
	had := b.exchange(t, one)
	if got, err := b.Reserve(t.Context(), one, netip.Addr{}); err != nil || got != had {
		t.Fatalf("reserved %v (%v), has %v", got, err, had)
	}
	if got, err := b.Reserve(t.Context(), two, outside); err != nil || got != outside {
		t.Fatalf("reserved %v, %v", got, err)
	}
	var refused *lease.RefusedError
	if _, err := b.Reserve(t.Context(), two, had); !errors.As(err, &refused) || refused.Holder != one {
		t.Errorf("another's address: %v", err)
	}
	if _, err := b.Reserve(t.Context(), two, server); err == nil {
		t.Error("the engine's own address was reserved")
	}
	b.pass(48 * time.Hour)
	b.restart(t)
	for range 2 { // the reserved address is not given away although its lease is over
		if got := b.exchange(t, "52:54:00:00:00:09"); got == had {
			t.Fatalf("%v was given away", got)
		}
	}
	if got := b.exchange(t, two); got != outside {
		t.Errorf("got %v, reserved %v", got, outside)
	}
	if got, ok := b.Lookup(one); !ok || got != had {
		t.Errorf("lookup: %v, %v", got, ok)
	}
	moved := netip.MustParseAddr("10.77.0.101")
	if _, err := b.Reserve(t.Context(), two, moved); err != nil {
		t.Fatal(err)
	}
	if a := b.request(t, dhcp.Renewing, two, outside); a.Verdict != dhcp.Refuse {
		t.Errorf("a client stays at %v although %v is reserved for it", outside, moved)
	}
	if err := b.Unreserve(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	if got, ok := b.Lookup(one); ok {
		t.Errorf("still has %v", got)
	}
	if got, ok := b.Lookup(two); !ok || got != moved {
		t.Errorf("lookup after restart: %v, %v", got, ok)
	}
	list := b.List()
	if i := slices.IndexFunc(list, func(e addresses.Entry) bool { return e.Address == moved }); i < 0 || list[i].Reserved != two || list[i].Active {
		t.Errorf("listing %+v", list)
	}
}

// TestVacate: of a machine that is off and nobody's nothing is kept, but that it had the address.
func TestVacate(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.12", nil)
	had := b.exchange(t, one)
	if _, err := b.Reserve(t.Context(), one, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	other := b.exchange(t, two)
	for range 2 { // again is no error
		if err := errors.Join(b.Unreserve(t.Context(), one), b.Vacate(t.Context(), one)); err != nil {
			t.Fatal(err)
		}
		if got, ok := b.Lookup(one); ok {
			t.Errorf("still has %v", got)
		}
		b.restart(t)
	}
	for _, e := range b.List() {
		if e.Reserved != "" || e.Active != (e.Address == other) {
			t.Errorf("listing %+v", e)
		}
	}
	if got := b.exchange(t, one); got != had {
		t.Errorf("got %v, had %v", got, had)
	}
}

func TestDeclineAndRelease(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.11", nil)
	got := b.exchange(t, one)
	b.pass(time.Second)
	if err := b.Decline(t.Context(), question(dhcp.Decline, two, got)); err != nil || b.request(t, dhcp.Renewing, one, got).Verdict != dhcp.Give {
		t.Fatalf("another client's word took the address away: %v", err)
	}
	if err := b.Decline(t.Context(), question(dhcp.Decline, one, got)); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	if next := b.exchange(t, one); next == got {
		t.Errorf("the declined %v was given again", got)
	}
	if err := b.Release(t.Context(), question(dhcp.Release, one, second)); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	if got, ok := b.Lookup(one); ok {
		t.Errorf("released, and has %v", got)
	}
	if u := b.Usage(); u.Quarantined != 1 || u.Free != 1 {
		t.Errorf("usage %+v", u)
	}
	want := []addresses.EventKind{addresses.Leased, addresses.Renewed, addresses.Declined, addresses.Leased, addresses.Released}
	if !slices.Equal(b.kinds(), want) {
		t.Errorf("events %v, want %v", b.kinds(), want)
	}
}

func TestSilenceAndStrangers(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.10", nil)
	b.boot.Silent = true
	if a, err := b.Offer(t.Context(), question(dhcp.Discover, one, netip.Addr{})); err != nil || a.Verdict != dhcp.Silent {
		t.Fatalf("got %+v, %v", a, err)
	}
	if u := b.Usage(); u.Free != 1 {
		t.Errorf("silence holds an address: %+v", u)
	}
	b.boot.Silent = false
	q := question(dhcp.Discover, one, netip.Addr{})
	q.Link, q.Via = netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("10.88.0.1")
	if _, err := b.Offer(t.Context(), q); err == nil || !strings.Contains(err.Error(), "there is no pool for its network") {
		t.Errorf("a foreign relay: %v", err)
	}
	b.exchange(t, one)
	var exhausted *lease.ExhaustedError
	if _, err := b.Offer(t.Context(), question(dhcp.Discover, two, netip.Addr{})); !errors.As(err, &exhausted) {
		t.Errorf("got %v", err)
	}
	if kinds := b.kinds(); !slices.Equal(kinds, []addresses.EventKind{addresses.Leased, addresses.Exhausted}) {
		t.Errorf("events %v", kinds)
	}
	b.Close()
	if _, err := b.Lease(t.Context(), question(dhcp.Renewing, one, first)); err == nil {
		t.Error("a lease after Close")
	}
}

func TestConcurrentClientsGetDistinctAddresses(t *testing.T) {
	b := open(t, "10.77.0.10-10.77.0.209", nil)
	var clients sync.WaitGroup
	got := make([]netip.Addr, 200)
	for i := range got {
		clients.Go(func() { got[i] = b.exchange(t, fmt.Sprintf("52:54:00:00:01:%02x", i)) })
	}
	clients.Wait()
	b.restart(t)
	seen := map[netip.Addr]bool{}
	for i, address := range got {
		if seen[address] {
			t.Errorf("%v was given twice", address)
		}
		seen[address] = true
		if stored, ok := b.Lookup(lease.MAC(fmt.Sprintf("52:54:00:00:01:%02x", i))); !ok || stored != address {
			t.Errorf("client %d has %v, stored is %v", i, address, stored)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	db := database(t)
	log := slog.New(slog.DiscardHandler)
	subnet := lease.Config{Subnet: netip.MustParsePrefix("10.77.0.0/24")}
	for name, c := range map[string]addresses.Config{
		"no database":      {Server: server, Booter: &bench{}, Log: log, Lease: subnet},
		"no booter":        {DB: db, Server: server, Log: log, Lease: subnet},
		"server elsewhere": {DB: db, Server: netip.MustParseAddr("10.0.0.1"), Booter: &bench{}, Log: log, Lease: subnet},
		"no subnet":        {DB: db, Server: server, Booter: &bench{}, Log: log},
	} {
		if s, err := addresses.Open(t.Context(), c); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
