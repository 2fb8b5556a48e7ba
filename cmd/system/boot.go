package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/lease"
	"joist/services/addresses"
	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
	"joist/services/boot/decide"
	"joist/services/boot/phase"
	"joist/services/site"
)

var noAddress netip.Addr // asks for whichever address suits

func parseMAC(text string) (lease.MAC, error) { return lease.ParseMAC(text) }

func (s *System) httpURL() string {
	return "http://" + netip.AddrPortFrom(s.cfg.Address, httpPort).String()
}

// routeFronts makes the balancers' addresses the engine's own, in the network namespace it runs in.
func routeFronts(prefix netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("cannot find the loopback interface: %w", err)
	}
	err = netlink.RouteReplace(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_HOST, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		Dst: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())},
	})
	if err != nil {
		return fmt.Errorf("cannot take the balancers' addresses %s: %w; the engine needs the right to change routes", prefix, err)
	}
	return nil
}

// booter implements addresses.Booter: the DHCP part of the boot decision.
type booter struct{ s *System }

func (b booter) Boot(ctx context.Context, f dhcp.Firmware) (addresses.Boot, error) {
	mac, err := decide.ParseMAC(f.MAC)
	if err != nil {
		return addresses.Boot{}, err
	}
	uuid, err := decide.ParseUUID(f.UUID)
	if err != nil {
		uuid = "" // public and unproven anyhow; the MAC tells machines apart
	}
	if b.s.Boot == nil {
		return addresses.Boot{Silent: true}, nil
	}
	o := b.s.Boot.DHCP(ctx, boot.Ask{Server: b.s.cfg.Address, Firmware: decide.Firmware{
		MAC: mac, UUID: uuid, Archs: f.Arch, VendorClass: f.VendorClass, IPXE: f.IPXE, HTTP: f.HTTP(),
	}})
	answer := addresses.Boot{Silent: o.Kind == decide.Silence, Filename: o.BootFile, NextServer: o.NextServer}
	switch o.Lease {
	case decide.LeaseFirmware:
		answer.Phase = lease.Firmware
	case decide.LeaseEnrolled:
		answer.Phase = lease.Enrolled
	default:
		answer.Phase = lease.Scout
	}
	if m, ok := b.s.Site.Find(string(mac), string(uuid)); ok {
		answer.Hostname = m.Name
	}
	return answer, nil
}

// bootInventory implements boot.Inventory.
type bootInventory struct{ s *System }

func (b bootInventory) Machine(_ context.Context, mac decide.MAC, uuid decide.UUID) (boot.Record, bool) {
	m, ok := b.s.Site.Find(string(mac), string(uuid))
	if !ok {
		return boot.Record{}, false
	}
	r := boot.Record{Machine: decide.Machine{Known: true, Name: m.Name, Enrolled: m.Enrol.Current != ""}}
	if m.Wipe != nil {
		r.Target = decide.TargetWipe
	}
	if m.Enrol.Quarantine != "" {
		r.Quarantined = string(m.Enrol.Quarantine)
	}
	return r, true
}

// bootIssuer implements boot.Issuer.
type bootIssuer struct{ s *System }

func (b bootIssuer) Issue(ctx context.Context, r boot.BootRequest) (string, error) {
	if m, ok := b.s.Site.Find(string(r.MAC), string(r.UUID)); ok {
		b.s.suspect(m, string(r.MAC), string(r.UUID))
		b.s.booted.set(m.Name, r.Set)
	}
	id, err := b.s.Site.Issue(ctx, site.Boot{MAC: string(r.MAC), UUID: string(r.UUID), Address: r.Addr.String()})
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// bootSets implements boot.Sets: that of the machine's cluster.
type bootSets struct{ s *System }

func (b bootSets) BootSet(ctx context.Context, r boot.Record) (boot.Set, error) {
	cluster := ""
	if known, ok := b.s.Site.Lookup(r.Name); ok {
		cluster = known.Cluster
	}
	m, err := b.s.bootSetOf(ctx, cluster)
	if err != nil {
		return boot.Set{}, err
	}
	if m == nil {
		return boot.Set{}, errors.New("the engine has no boot set; build one with joist bootset build")
	}
	digest := func(f bootset.File) artifacts.Digest {
		d, _ := artifacts.ParseDigest("sha256:" + f.SHA256) // checked when the set was stored
		return d
	}
	set := boot.Set{Digest: m.Digest, Kernel: digest(m.Kernel), Initrd: digest(m.Initrd), Image: digest(m.Image)}
	if b.s.Lab != nil {
		// All processors of a virtual machine count the host's one time stamp counter. Linux does not know that of an
		// emulated one and would read a slow timer instead, each time a program asks what time it is.
		set.Args = []string{"joist.log=ttyS1", "tsc=reliable"}
	}
	return set, nil
}

// bootObserver implements boot.Observer.
type bootObserver struct{ s *System }

func (b bootObserver) Reached(mac decide.MAC, m phase.Mark) {
	b.s.cfg.Log.Debug("a machine came to a phase of its boot", "mac", string(mac), "phase", m.Phase)
}

func (b bootObserver) Notice(mac decide.MAC, text string) {
	name := string(mac)
	if m, ok := b.s.Site.Find(string(mac), ""); ok {
		name = m.Name
	}
	b.s.tell("machine " + name + ": " + text)
}

// recallBoot tells the boot service how far a machine had come that was booting when the engine ended.
func (s *System) recallBoot(m site.Machine) {
	mac, ok := bootMAC(m)
	if !ok || m.Switched.IsZero() {
		return
	}
	s.Boot.Recall(mac, phase.Mark{Phase: phase.Power, At: m.Switched})
	for _, b := range m.Enrol.Boots {
		if b.Issued.After(m.Switched) {
			s.Boot.Recall(mac, phase.Mark{Phase: phase.Script, At: b.Issued})
		}
	}
}

func (s *System) bootReached(m site.Machine, p phase.Phase) {
	if mac, ok := bootMAC(m); ok && s.Boot != nil {
		s.Boot.Reached(mac, p)
	}
}

// bootMAC is the address of the card that a machine boots from.
func bootMAC(m site.Machine) (decide.MAC, bool) {
	if len(m.MACs) == 0 {
		return "", false
	}
	mac, err := decide.ParseMAC(m.MACs[0])
	return mac, err == nil
}
