package scout

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Vendor classes (option 60) by which a DHCP server can tell the agent's stages from firmware.
const (
	ScoutClass = "joist-scout"
	NodeClass  = "joist-node"
)

// minLease is the shortest lease honoured; a server that gives less would be asked without end.
const minLease = 10 * time.Second

// Lease is an address lease of the boot interface. Times are on the clock that counts from the kernel's start, which
// nobody sets and which survives the hand-over.
type Lease struct {
	MAC      net.HardwareAddr
	Address  netip.Prefix
	Router   netip.Addr // zero for none
	Routes   []Route    // option 121, which replaces Router (RFC 3442)
	DNS      []netip.Addr
	Domain   string
	Hostname string
	MTU      int // 0: leave the interface's
	Server   netip.Addr
	Obtained time.Duration
	Renew    time.Duration // T1, after Obtained
	Rebind   time.Duration // T2
	Expire   time.Duration
	ack      *dhcpv4.DHCPv4
}

// Route is one classless static route.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // zero: on the link
}

// newLease reads an ACK.
func newLease(ack *dhcpv4.DHCPv4, mac net.HardwareAddr, now time.Duration) (*Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() {
		return nil, errors.New("the DHCP server gave no address")
	}
	bits := 32
	if mask := ack.SubnetMask(); mask != nil {
		if ones, size := mask.Size(); size == 32 {
			bits = ones
		}
	}
	l := &Lease{
		MAC: mac, Address: netip.PrefixFrom(addr, bits), Domain: ack.DomainName(), Hostname: ack.HostName(), Obtained: now, ack: ack,
		Expire: max(minLease, ack.IPAddressLeaseTime(time.Hour)),
	}
	l.Renew = clampTo(ack.IPAddressRenewalTime(l.Expire/2), l.Expire/2, l.Expire)
	l.Rebind = clampTo(ack.IPAddressRebindingTime(l.Expire*7/8), l.Expire*7/8, l.Expire)
	l.Rebind = max(l.Rebind, l.Renew)
	for _, ip := range ack.Router() {
		if l.Router, ok = netip.AddrFromSlice(ip.To4()); ok {
			break
		}
	}
	for _, r := range ack.ClasslessStaticRoute() {
		if route, ok := classless(r); ok {
			l.Routes = append(l.Routes, route)
		}
	}
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok {
			l.DNS = append(l.DNS, a)
		}
	}
	if ip := ack.ServerIdentifier(); ip != nil {
		l.Server, _ = netip.AddrFromSlice(ip.To4())
	}
	if b := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if mtu := int(b[0])<<8 | int(b[1]); mtu >= 576 {
			l.MTU = mtu
		}
	}
	return l, nil
}

// clampTo keeps a server's timer if it lies within the lease, or takes the RFC's default.
func clampTo(v, fallback, limit time.Duration) time.Duration {
	if v <= 0 || v >= limit {
		return fallback
	}
	return v
}

func classless(r *dhcpv4.Route) (Route, bool) {
	if r == nil || r.Dest == nil {
		return Route{}, false
	}
	to, ok := netip.AddrFromSlice(r.Dest.IP.To4())
	ones, size := r.Dest.Mask.Size()
	if !ok || size != 32 {
		return Route{}, false
	}
	via, _ := netip.AddrFromSlice(r.Router.To4())
	if via.IsUnspecified() {
		via = netip.Addr{}
	}
	return Route{To: netip.PrefixFrom(to, ones).Masked(), Via: via}, true
}

// leaseState is what to do about a lease next.
type leaseState int

const (
	leaseHeld   leaseState = iota
	leaseRenew             // ask the server that gave it
	leaseRebind            // ask any server
	leaseLost              // start anew
)

// next decides from the clock what to do about the lease and, if it is held, when to look again. After a failed
// attempt the wait is half of what is left until the next state, but at least a minute (RFC 2131 § 4.4.5), or a
// quarter of the lease where that is shorter.
func (l *Lease) next(now time.Duration, lastTry time.Duration) (leaseState, time.Duration) {
	age := now - l.Obtained
	floor := min(time.Minute, l.Expire/4)
	var state leaseState
	var limit time.Duration
	switch {
	case age >= l.Expire:
		state, limit = leaseLost, l.Expire
	case age >= l.Rebind:
		state, limit = leaseRebind, l.Expire
	case age >= l.Renew:
		state, limit = leaseRenew, l.Rebind
	default:
		return leaseHeld, l.Renew - age
	}
	if lastTry < l.Obtained+l.Renew {
		return state, 0 // not tried yet
	}
	left := l.Obtained + limit - lastTry
	wait := max(floor, left/2)
	if due := lastTry + wait; due > now {
		return leaseHeld, due - now
	}
	return state, 0
}

// storedLease is a lease in a file: the ACK as it came, and when.
type storedLease struct {
	MAC      string        `json:"mac"`
	ACK      string        `json:"ack"` // base64
	Obtained time.Duration `json:"obtained_ns"`
	Address  string        `json:"address"` // for people
}

// write leaves the lease in dir.
func (l *Lease) write(dir string) error {
	return writeJSON(filepath.Join(dir, leaseName), storedLease{
		MAC: l.MAC.String(), ACK: base64.StdEncoding.EncodeToString(l.ack.ToBytes()), Obtained: l.Obtained, Address: l.Address.String(),
	})
}

// ReadLease reads the lease that scout left in dir.
func ReadLease(dir string) (*Lease, error) {
	var s storedLease
	if err := readJSON(filepath.Join(dir, leaseName), &s); err != nil {
		return nil, fmt.Errorf("cannot read the lease: %w", err)
	}
	mac, err := net.ParseMAC(s.MAC)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lease: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(s.ACK)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lease: %w", err)
	}
	ack, err := dhcpv4.FromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lease: %w", err)
	}
	return newLease(ack, mac, s.Obtained)
}
