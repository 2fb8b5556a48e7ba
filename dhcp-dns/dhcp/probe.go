//go:build linux

package dhcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Rival is a DHCP server that answered a Probe.
type Rival struct {
	Server   netip.Addr       // its server identifier (option 54), else the packet's source
	Hardware net.HardwareAddr // source of its frame
	Offered  netip.Addr       // what it offered; invalid for a proxy DHCP server, which offers a boot file only
	BootFile string
}

// String is one sentence for an operator.
func (r Rival) String() string {
	does := "offers addresses"
	if !r.Offered.IsValid() {
		does = "answers network boot"
	}
	return fmt.Sprintf("another DHCP server, %v (%v), %s on this segment; stop it, or give joist a network of its own", r.Server, r.Hardware, does)
}

// Probe sends DISCOVERs from an invented hardware address on an interface and returns the servers that answer within
// wait (default 3 s; two packets are sent), or until ctx ends. It uses a packet socket: it disturbs no client or server
// on this host, and does not hear a server on this very interface. Servers in ignore are left out.
func Probe(ctx context.Context, ifname string, wait time.Duration, ignore ...netip.Addr) ([]Rival, error) {
	if wait <= 0 {
		wait = 3 * time.Second
	}
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("cannot look for DHCP servers on %q: %w", ifname, err)
	}
	conn, err := packet.Listen(iface, packet.Raw, unix.ETH_P_IP, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot look for DHCP servers on %s (run as root, or with CAP_NET_RAW): %w", ifname, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	question, xid, err := probePacket()
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]Rival{}
	for range 2 {
		if _, err := conn.WriteTo(question, &packet.Addr{HardwareAddr: everybody()}); err != nil {
			return nil, fmt.Errorf("cannot send a DHCP probe on %s: %w", ifname, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(wait / 2)); err != nil {
			return nil, fmt.Errorf("cannot look for DHCP servers on %s: %w", ifname, err)
		}
		if err := listenForRivals(conn, xid, found); err != nil {
			return nil, fmt.Errorf("cannot look for DHCP servers on %s: %w", ifname, errors.Join(err, ctx.Err()))
		}
	}
	for _, a := range ignore {
		delete(found, a)
	}
	list := make([]Rival, 0, len(found))
	for _, r := range found {
		list = append(list, r)
	}
	return list, nil
}

func everybody() net.HardwareAddr { return net.HardwareAddr{255, 255, 255, 255, 255, 255} }

// probePacket is a frame with a DISCOVER as PXE firmware would send it, so that proxy DHCP servers answer, too.
func probePacket() ([]byte, dhcpv4.TransactionID, error) {
	hw := make(net.HardwareAddr, 6)
	if _, err := rand.Read(hw); err != nil {
		return nil, dhcpv4.TransactionID{}, fmt.Errorf("cannot invent a hardware address: %w", err)
	}
	hw[0] = hw[0]&^1 | 2 // one station, locally administered
	p, err := dhcpv4.NewDiscovery(hw, dhcpv4.WithBroadcast(true),
		dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
		dhcpv4.WithGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 2, 1}))
	if err != nil {
		return nil, dhcpv4.TransactionID{}, fmt.Errorf("cannot make a DHCP probe: %w", err)
	}
	from := endpoint{hardware: hw, addr: netip.AddrPortFrom(netip.IPv4Unspecified(), ClientPort)}
	to := endpoint{hardware: everybody(), addr: netip.AddrPortFrom(broadcast(), ServerPort)}
	return frame(from, to, p.ToBytes()), p.TransactionID, nil
}

// listenForRivals collects answers until the deadline.
func listenForRivals(conn net.PacketConn, xid dhcpv4.TransactionID, found map[netip.Addr]Rival) error {
	buffer := make([]byte, 4096)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
		if r, ok := rivalIn(buffer[:n], xid); ok {
			found[r.Server] = r
		}
	}
}

// rivalIn reads a frame that may be an OFFER to the probe.
func rivalIn(raw []byte, xid dhcpv4.TransactionID) (Rival, bool) {
	from, payload, ok := unframe(raw, ClientPort)
	if !ok {
		return Rival{}, false
	}
	p, err := dhcpv4.FromBytes(payload)
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != xid {
		return Rival{}, false
	}
	r := Rival{Server: address(p.ServerIdentifier()), Hardware: from.hardware, Offered: address(p.YourIPAddr), BootFile: p.BootFileName}
	if !r.Server.IsValid() {
		r.Server = from.addr.Addr()
	}
	if r.BootFile == "" {
		r.BootFile = p.BootFileNameOption()
	}
	return r, true
}
