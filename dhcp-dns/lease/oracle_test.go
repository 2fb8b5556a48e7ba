package lease_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"joist/dhcp-dns/lease"

	"go4.org/netipx"
	"pgregory.net/rapid"
)

// oracle is the allocator again, written as plainly as possible: one row for each address, every question a scan.
type oracle struct {
	rows                   []*row
	last                   map[lease.MAC]netip.Addr
	times                  lease.Times
	holdFor, quarantineFor time.Duration
	subnet                 netip.Prefix
	pool, hosts            func(netip.Addr) bool
}

type row struct {
	addr              netip.Addr
	touched           bool
	mac, held, keeper lease.MAC // has or had it, was offered it, it is reserved for
	expires, heldTill time.Time
	quarantined       time.Time
}

func (r *row) leasedTo(mac lease.MAC, now time.Time) bool {
	return r.mac == mac && mac != "" && r.expires.After(now)
}
func (r *row) heldFor(mac lease.MAC, now time.Time) bool {
	return r.held == mac && mac != "" && r.heldTill.After(now)
}

func (r *row) freeAt() time.Time {
	at := r.quarantined
	if r.mac != "" && r.expires.After(at) {
		at = r.expires
	}
	if r.held != "" && r.heldTill.After(at) {
		at = r.heldTill
	}
	return at
}

func (o *oracle) row(addr netip.Addr) *row {
	for _, r := range o.rows {
		if r.addr == addr {
			return r
		}
	}
	return nil
}

func (o *oracle) reservation(mac lease.MAC) *row {
	for _, r := range o.rows {
		if r.keeper == mac {
			return r
		}
	}
	return nil
}

func (o *oracle) may(mac lease.MAC, addr netip.Addr, now time.Time) bool {
	r := o.row(addr)
	if r == nil || r.keeper != "" && r.keeper != mac {
		return false
	}
	if own := o.reservation(mac); own != nil && own != r || own == nil && !o.pool(addr) {
		return false
	}
	others := r.mac != mac && r.mac != "" && r.expires.After(now) || r.held != mac && r.held != "" && r.heldTill.After(now)
	return !others && !r.quarantined.After(now)
}

func (o *oracle) choose(mac lease.MAC, want netip.Addr, now time.Time) netip.Addr {
	if own := o.reservation(mac); own != nil {
		if o.may(mac, own.addr, now) {
			return own.addr
		}
		return netip.Addr{}
	}
	last := o.last[mac]
	if last.IsValid() && o.row(last).leasedTo(mac, now) && o.may(mac, last, now) {
		return last
	}
	for _, r := range o.rows {
		if r.heldFor(mac, now) && o.may(mac, r.addr, now) {
			return r.addr
		}
	}
	if last.IsValid() && o.may(mac, last, now) {
		return last
	}
	if want.IsValid() && o.may(mac, want, now) {
		r := o.row(want)
		if r.mac == "" || r.mac == mac || o.last[r.mac] != want {
			return want
		}
	}
	var best *row
	for _, r := range o.rows {
		if !o.pool(r.addr) || r.keeper != "" {
			continue
		}
		if !r.touched {
			return r.addr
		}
		if !r.freeAt().After(now) && (best == nil || r.freeAt().Before(best.freeAt())) {
			best = r
		}
	}
	if best == nil {
		return netip.Addr{}
	}
	return best.addr
}

func (o *oracle) offer(mac lease.MAC, want netip.Addr, now time.Time) netip.Addr {
	addr := o.choose(mac, want, now)
	if !addr.IsValid() {
		return addr
	}
	for _, r := range o.rows {
		if r.held == mac && r.addr != addr {
			r.held, r.heldTill = "", time.Time{}
		}
	}
	r := o.row(addr)
	r.touched, r.held, r.heldTill = true, mac, now.Add(o.holdFor)
	return addr
}

func (o *oracle) bind(mac lease.MAC, addr netip.Addr, phase lease.Phase, now time.Time) bool {
	if !o.may(mac, addr, now) {
		return false
	}
	for _, r := range o.rows {
		if r.held == mac || r.addr == addr {
			r.held, r.heldTill = "", time.Time{}
		}
	}
	r := o.row(addr)
	if r.mac != mac && o.last[r.mac] == addr {
		delete(o.last, r.mac)
	}
	r.touched, r.mac, r.expires, r.quarantined = true, mac, now.Add(o.times.Of(phase)), time.Time{}
	o.last[mac] = addr
	return true
}

func (o *oracle) decline(mac lease.MAC, addr netip.Addr, now time.Time) bool {
	r := o.row(addr)
	if r == nil || !r.leasedTo(mac, now) && !r.heldFor(mac, now) {
		return false
	}
	if o.last[r.mac] == addr {
		delete(o.last, r.mac)
	}
	r.mac, r.held, r.expires, r.heldTill = "", "", time.Time{}, time.Time{}
	r.quarantined = now.Add(o.quarantineFor)
	return true
}

func (o *oracle) release(mac lease.MAC, addr netip.Addr, now time.Time) bool {
	r := o.row(addr)
	if r == nil || !r.leasedTo(mac, now) {
		return false
	}
	r.expires = now
	return true
}

func (o *oracle) reserve(mac lease.MAC, addr netip.Addr, now time.Time) netip.Addr {
	if !addr.IsValid() {
		if own := o.reservation(mac); own != nil {
			return own.addr
		}
		addr = o.choose(mac, netip.Addr{}, now)
	}
	r := o.row(addr)
	if r == nil || !o.hosts(addr) || r.keeper != "" && r.keeper != mac || r.quarantined.After(now) {
		return netip.Addr{}
	}
	if r.mac != mac && r.mac != "" && r.expires.After(now) || r.held != mac && r.held != "" && r.heldTill.After(now) {
		return netip.Addr{}
	}
	o.unreserve(mac)
	r.keeper = mac
	return addr
}

func (o *oracle) unreserve(mac lease.MAC) bool {
	r := o.reservation(mac)
	if r != nil {
		r.keeper, r.touched = "", true
	}
	return r != nil
}

func newPair(t interface{ Fatal(...any) }) (*lease.Allocator, *oracle, lease.Config) {
	subnet := netip.MustParsePrefix("10.9.0.0/28")
	config := lease.Config{
		Subnet:  subnet,
		Ranges:  []netipx.IPRange{netipx.MustParseIPRange("10.9.0.2-10.9.0.5"), netipx.MustParseIPRange("10.9.0.8-10.9.0.9")},
		Exclude: []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.4")},
		Times:   lease.Times{Firmware: 2 * time.Minute, Scout: 10 * time.Minute, Enrolled: time.Hour},
		Hold:    30 * time.Second, Quarantine: 20 * time.Minute,
	}
	a, err := lease.New(config)
	if err != nil {
		t.Fatal(err)
	}
	pool := []string{"10.9.0.2", "10.9.0.3", "10.9.0.5", "10.9.0.8", "10.9.0.9"}
	o := &oracle{
		last: map[lease.MAC]netip.Addr{}, times: config.Times, holdFor: config.Hold, quarantineFor: config.Quarantine, subnet: subnet,
		pool: func(x netip.Addr) bool { return slices.Contains(pool, x.String()) },
		hosts: func(x netip.Addr) bool {
			return !slices.Contains([]string{"10.9.0.0", "10.9.0.1", "10.9.0.4", "10.9.0.15"}, x.String())
		},
	}
	for x := subnet.Addr(); subnet.Contains(x); x = x.Next() {
		o.rows = append(o.rows, &row{addr: x})
	}
	return a, o, config
}

// TestAllocatorAgreesWithOracle drives both with the same random calls, restarts included, and compares every answer.
func TestAllocatorAgreesWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, o, config := newPair(t)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		macs := rapid.Custom(func(t *rapid.T) lease.MAC {
			return lease.MAC(fmt.Sprintf("52:54:00:00:00:%02x", rapid.IntRange(1, 8).Draw(t, "mac")))
		})
		addrs := rapid.Custom(func(t *rapid.T) netip.Addr {
			n := rapid.IntRange(-1, 17).Draw(t, "addr")
			if n < 0 {
				return netip.Addr{}
			}
			return netip.AddrFrom4([4]byte{10, 9, 0, byte(n)})
		})
		phases := rapid.SampledFrom([]lease.Phase{lease.Firmware, lease.Scout, lease.Enrolled})
		tick := func(t *rapid.T) {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second)
		}
		t.Repeat(map[string]func(*rapid.T){
			"offer": func(t *rapid.T) {
				mac, want := macs.Draw(t, "m"), addrs.Draw(t, "want")
				got, err := a.Offer(mac, want, now)
				if expect := o.offer(mac, want, now); got != expect || (err == nil) != expect.IsValid() {
					t.Fatalf("Offer(%s, %v) = %v, %v; the oracle says %v", mac, want, got, err, expect)
				}
				tick(t)
			},
			"exchange": func(t *rapid.T) {
				mac, phase := macs.Draw(t, "m"), phases.Draw(t, "phase")
				got, _ := a.Offer(mac, netip.Addr{}, now)
				if expect := o.offer(mac, netip.Addr{}, now); got != expect {
					t.Fatalf("Offer(%s) = %v; the oracle says %v", mac, got, expect)
				}
				if got.IsValid() {
					if _, err := a.Bind(mac, got, phase, now); err != nil || !o.bind(mac, got, phase, now) {
						t.Fatalf("an offered address was refused: %v", err)
					}
				}
			},
			"bind": func(t *rapid.T) {
				mac, addr, phase := macs.Draw(t, "m"), addrs.Draw(t, "a"), phases.Draw(t, "phase")
				r, err := a.Bind(mac, addr, phase, now)
				if expect := o.bind(mac, addr, phase, now); expect != (err == nil) {
					t.Fatalf("Bind(%s, %v) = %v; the oracle says %v", mac, addr, err, expect)
				}
				if err == nil && !r.Expires.Equal(now.Add(config.Times.Of(phase))) {
					t.Fatalf("Bind gave a lease until %v", r.Expires)
				}
				tick(t)
			},
			"release": func(t *rapid.T) {
				mac, addr := macs.Draw(t, "m"), addrs.Draw(t, "a")
				if _, ok := a.Release(mac, addr, now); ok != o.release(mac, addr, now) {
					t.Fatalf("Release(%s, %v) = %v", mac, addr, ok)
				}
			},
			"decline": func(t *rapid.T) {
				mac, addr := macs.Draw(t, "m"), addrs.Draw(t, "a")
				if last, ok := a.Lookup(mac, now); ok && rapid.Bool().Draw(t, "own") {
					addr = last
				}
				if _, ok := a.Decline(mac, addr, now); ok != o.decline(mac, addr, now) {
					t.Fatalf("Decline(%s, %v) = %v", mac, addr, ok)
				}
			},
			"reserve": func(t *rapid.T) {
				mac, addr := macs.Draw(t, "m"), addrs.Draw(t, "a")
				r, err := a.Reserve(mac, addr, now)
				if expect := o.reserve(mac, addr, now); r.Address != expect || (err == nil) != expect.IsValid() {
					t.Fatalf("Reserve(%s, %v) = %v, %v; the oracle says %v", mac, addr, r.Address, err, expect)
				}
			},
			"unreserve": func(t *rapid.T) {
				mac := macs.Draw(t, "m")
				if ok := a.Unreserve(mac); ok != o.unreserve(mac) {
					t.Fatalf("Unreserve(%s) = %v", mac, ok)
				}
			},
			"sleep": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "seconds")) * time.Second)
			},
			"": func(t *rapid.T) { checkInvariants(t, a, o, now) },
		})
	})
}

func checkInvariants(t *rapid.T, a *lease.Allocator, o *oracle, now time.Time) {
	for _, r := range a.Records() {
		if r.Active(now) && !o.row(r.Address).leasedTo(r.MAC, now) {
			t.Fatalf("%v is leased to %s, which the oracle denies", r.Address, r.MAC)
		}
		if r.Active(now) && r.Quarantined.After(now) {
			t.Fatalf("%v is leased and quarantined", r.Address)
		}
	}
	u := a.Usage(now)
	if u.Free+u.Leased+u.Held+u.Quarantined+u.Reserved != u.Size || u.Free < 0 || u.Size != 5 {
		t.Fatalf("usage does not add up: %+v", u)
	}
}

// TestRestoreKeepsEveryPromise checks that an allocator loaded from Records gives no active lease to anybody else and
// gives every client what it has.
func TestRestoreKeepsEveryPromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _, config := newPair(t)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		store := map[netip.Addr]lease.Record{}
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			mac := lease.MAC(fmt.Sprintf("52:54:00:00:00:%02x", rapid.IntRange(1, 6).Draw(t, "mac")))
			now = now.Add(time.Duration(rapid.IntRange(0, 500).Draw(t, "seconds")) * time.Second)
			address, err := a.Offer(mac, netip.Addr{}, now)
			if err != nil {
				continue
			}
			var r lease.Record
			switch {
			case i%7 == 6:
				r, _ = a.Decline(mac, address, now)
			default:
				if r, err = a.Bind(mac, address, lease.Scout, now); err != nil {
					t.Fatal(err)
				}
			}
			store[r.Address] = r
		}
		var records []lease.Record
		for _, r := range store {
			records = append(records, r)
		}
		b, err := lease.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if stray, _ := b.Restore(records, nil); len(stray) > 0 {
			t.Fatalf("left out %v", stray)
		}
		if !slices.Equal(a.Records(), b.Records()) {
			t.Fatalf("restored %v, want %v", b.Records(), a.Records())
		}
		for _, r := range records {
			if _, err := b.Bind("52:54:00:00:00:ff", r.Address, lease.Scout, now); (r.Active(now) || r.Quarantined.After(now)) && err == nil {
				t.Fatalf("%v was given away", r.Address)
			}
			if got, err := b.Offer(r.MAC, netip.Addr{}, now); r.Active(now) && (err != nil || got != r.Address) {
				t.Fatalf("%s was offered %v (%v), has %v", r.MAC, got, err, r.Address)
			}
		}
	})
}

func TestErrorsSayWhatToDo(t *testing.T) {
	a, err := lease.New(lease.Config{Subnet: netip.MustParsePrefix("10.0.0.0/30"), Exclude: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	got, err := a.Offer("52:54:00:00:00:01", netip.Addr{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Bind("52:54:00:00:00:01", got, lease.Firmware, now); err != nil {
		t.Fatal(err)
	}
	_, err = a.Offer("52:54:00:00:00:02", netip.Addr{}, now)
	var exhausted *lease.ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.In != 2*time.Minute {
		t.Fatalf("got %v", err)
	}
	const want = "cannot give an address in 10.0.0.0/30: all 1 of the pool are taken (1 leased, 0 offered, 0 reserved, 0 quarantined), and the next comes free in 2m0s; " +
		"widen the pool, remove reservations of machines that are gone, or look for a client that asks under many hardware addresses"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	_, err = a.Bind("52:54:00:00:00:02", got, lease.Scout, now)
	if err == nil || err.Error() != "cannot give 10.0.0.2 to 52:54:00:00:00:02: another client has it (52:54:00:00:00:01)" {
		t.Errorf("got %v", err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	for name, c := range map[string]lease.Config{
		"no subnet":          {},
		"IPv6":               {Subnet: netip.MustParsePrefix("fd00::/64")},
		"too small":          {Subnet: netip.MustParsePrefix("10.0.0.0/31")},
		"range elsewhere":    {Subnet: subnet, Ranges: []netipx.IPRange{netipx.MustParseIPRange("10.0.1.1-10.0.1.9")}},
		"range sticks out":   {Subnet: subnet, Ranges: []netipx.IPRange{netipx.MustParseIPRange("10.0.0.250-10.0.1.9")}},
		"nothing left":       {Subnet: subnet, Ranges: []netipx.IPRange{netipx.MustParseIPRange("10.0.0.1-10.0.0.1")}, Exclude: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		"negative hold":      {Subnet: subnet, Hold: -1},
		"negative lease":     {Subnet: subnet, Times: lease.Times{Scout: -1}},
		"upside-down range ": {Subnet: subnet, Ranges: []netipx.IPRange{netipx.IPRangeFrom(netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.1"))}},
	} {
		if _, err := lease.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := lease.New(lease.Config{Subnet: subnet}); err != nil {
		t.Errorf("a bare subnet was refused: %v", err)
	}
}

func TestParseMAC(t *testing.T) {
	if mac, err := lease.ParseMAC("52-54-00-AB-CD-EF"); err != nil || mac != "52:54:00:ab:cd:ef" {
		t.Errorf("got %q, %v", mac, err)
	}
	if _, err := lease.ParseMAC("nonsense"); err == nil {
		t.Error("nonsense was accepted")
	}
}
