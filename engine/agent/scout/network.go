package scout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Times of the search for the network.
const (
	// carrierGrace is how long the boot interface may take to get a carrier before others are tried: switches that run
	// spanning tree or LACP take half a minute.
	carrierGrace = 35 * time.Second
	// networkPatience is how long the search goes on before it is a failure.
	networkPatience = time.Minute
	poll            = 250 * time.Millisecond
)

// Link is one physical interface as the search sees it.
type link struct {
	name    string
	mac     net.HardwareAddr
	carrier bool
}

// Network finds the boot network: it raises every interface, waits for a carrier and asks DHCP, first on the interface
// with the given hardware address (nil where the command line named none), then on every other that has a carrier. It
// configures the address and returns the lease. more, called while waiting, may load drivers.
func Network(ctx context.Context, boot net.HardwareAddr, more func(), log *slog.Logger) (*Lease, error) {
	deadline := bootClock() + networkPatience
	start := bootClock()
	var last error
	for first := true; ; first = false {
		links, err := raiseAll()
		if err != nil {
			return nil, err
		}
		for _, l := range candidates(links, boot, bootClock()-start >= carrierGrace) {
			lease, err := Discover(ctx, l.name, l.mac, ScoutClass)
			if err != nil {
				last = err
				log.Warn("no lease", "interface", l.name, "error", err)
				continue
			}
			if err := lease.Apply("/"); err != nil {
				return nil, err
			}
			return lease, nil
		}
		if bootClock() >= deadline {
			return nil, noNetwork(links, boot, last)
		}
		if first || bootClock()%(2*time.Second) < poll {
			more()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// candidates lists the interfaces to try now, the boot interface first. Others have their turn when the boot interface
// is unknown or has had its grace.
func candidates(links []link, boot net.HardwareAddr, grace bool) []link {
	var out []link
	known := false
	for _, l := range links {
		if boot != nil && bytes.Equal(l.mac, boot) {
			known = true
			if l.carrier {
				out = append(out, l)
			}
		}
	}
	if boot != nil && !grace && (known || len(links) == 0) {
		return out
	}
	if boot != nil && !known && !grace {
		return nil // its driver may still be loading
	}
	for _, l := range links {
		if l.carrier && !slices.ContainsFunc(out, func(o link) bool { return o.name == l.name }) {
			out = append(out, l)
		}
	}
	return out
}

// noNetwork says in one sentence what the operator should look at.
func noNetwork(links []link, boot net.HardwareAddr, last error) error {
	var names, live []string
	for _, l := range links {
		names = append(names, fmt.Sprintf("%s (%s)", l.name, l.mac))
		if l.carrier {
			live = append(live, l.name)
		}
	}
	switch {
	case len(links) == 0:
		return errors.New("no network interface: this boot set has no driver for the machine's network card, or the card lacks its firmware")
	case len(live) == 0:
		return fmt.Errorf("no network interface has a carrier; check the cables of %s", strings.Join(names, ", "))
	case last != nil:
		return fmt.Errorf("no address by DHCP; interfaces with carrier: %s: %w", strings.Join(live, ", "), last)
	}
	return fmt.Errorf("the boot interface %s is not among %s", boot, strings.Join(names, ", "))
}

// raiseAll sets every physical interface up and lists them with their carriers.
func raiseAll() ([]link, error) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo) // nothing of scout's needs it
	}
	all, err := listLinks()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	var out []link
	for _, l := range all {
		a := l.Attrs()
		if !physical(a.Name) {
			continue
		}
		if a.Flags&net.FlagUp == 0 {
			if err := netlink.LinkSetUp(l); err != nil {
				continue // one dead card must not hide the others
			}
		}
		out = append(out, link{name: a.Name, mac: a.HardwareAddr, carrier: attribute("/sys/class/net", a.Name, "carrier") == "1"})
	}
	return out, nil
}

// listLinks repeats a dump that the kernel interrupted.
func listLinks() ([]netlink.Link, error) {
	for range 5 {
		links, err := netlink.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return links, err
		}
	}
	return netlink.LinkList()
}

func physical(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "device"))
	return err == nil
}

// linkByMAC finds an interface by hardware address, physical ones first: a bond or a bridge may carry the same.
func linkByMAC(mac net.HardwareAddr) (netlink.Link, error) {
	links, err := listLinks()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	var found netlink.Link
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, mac) && (found == nil || physical(l.Attrs().Name)) {
			found = l
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no network interface has the address %s", mac)
	}
	return found, nil
}

// BootInterface is the name of the interface with a hardware address; empty where there is none.
func BootInterface(mac string) string {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return ""
	}
	nic, err := linkByMAC(hw)
	if err != nil {
		return ""
	}
	return nic.Attrs().Name
}

// Apply gives the boot interface the lease's address and routes, removes addresses that an earlier lease gave it, and
// writes etc/resolv.conf below root. Addresses are set without a lifetime: a node whose DHCP server is down keeps its own, since
// nobody else could be given it, and a cluster outlives its engine's absence.
func (l *Lease) Apply(root string) error {
	nic, err := linkByMAC(l.MAC)
	if err != nil {
		return err
	}
	name := nic.Attrs().Name
	if l.MTU != 0 && nic.Attrs().MTU != l.MTU {
		if err := netlink.LinkSetMTU(nic, l.MTU); err != nil {
			return fmt.Errorf("cannot set the MTU of %s: %w", name, err)
		}
	}
	want := &netlink.Addr{IPNet: ipNet(l.Address)}
	if err := netlink.AddrReplace(nic, want); err != nil {
		return fmt.Errorf("cannot give %s the address %s: %w", name, l.Address, err)
	}
	for _, r := range l.routes() {
		route := &netlink.Route{LinkIndex: nic.Attrs().Index, Dst: ipNet(r.To), Protocol: protoDHCP}
		if r.Via.IsValid() {
			route.Gw = r.Via.AsSlice()
			route.Flags = int(netlink.FLAG_ONLINK) // a /32 address has its router off the link
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("cannot add the route to %s on %s: %w", r.To, name, err)
		}
	}
	return l.writeResolver(root)
}

// protoDHCP marks our routes (RTPROT_DHCP of rtnetlink(7)).
const protoDHCP = 16

// withdraw takes an address away that a later lease has replaced.
func (l *Lease) withdraw() error {
	nic, err := linkByMAC(l.MAC)
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(nic, &netlink.Addr{IPNet: ipNet(l.Address)}); err != nil {
		return fmt.Errorf("cannot take the address %s away: %w", l.Address, err)
	}
	return nil
}

// routes are the lease's routes; the default route stands for Router where no classless ones were given.
func (l *Lease) routes() []Route {
	if len(l.Routes) > 0 {
		// Routes on the link first: the others' gateways are reached through them.
		sorted := slices.Clone(l.Routes)
		slices.SortStableFunc(sorted, func(a, b Route) int {
			switch {
			case a.Via.IsValid() == b.Via.IsValid():
				return 0
			case b.Via.IsValid():
				return -1
			}
			return 1
		})
		return sorted
	}
	if l.Router.IsValid() {
		return []Route{{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: l.Router}}
	}
	return nil
}

// resolver is the lease's /etc/resolv.conf.
func (l *Lease) resolver() string {
	var b strings.Builder
	if l.Domain != "" && !strings.ContainsAny(l.Domain, "\n\r") {
		b.WriteString("search " + l.Domain + "\n")
	}
	for _, d := range l.DNS {
		b.WriteString("nameserver " + d.String() + "\n")
	}
	return b.String()
}

func (l *Lease) writeResolver(root string) error {
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		return fmt.Errorf("cannot write resolv.conf: %w", err)
	}
	path := filepath.Join(root, "etc/resolv.conf")
	if text, err := os.ReadFile(path); err == nil && string(text) == l.resolver() {
		return nil
	}
	// Whoever resolves a name meanwhile must not find half a file.
	if err := os.WriteFile(path+".joist", []byte(l.resolver()), 0o644); err != nil {
		return fmt.Errorf("cannot write resolv.conf: %w", err)
	}
	if err := os.Rename(path+".joist", path); err != nil {
		return fmt.Errorf("cannot write resolv.conf: %w", err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
