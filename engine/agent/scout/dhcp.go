package scout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"
)

// requested are the options that the agent makes use of.
var requested = []dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU,
	dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
}

// errNak is a server's refusal of an address: the lease is over.
var errNak = errors.New("the DHCP server refused the address")

// Discover gets a new lease on an interface, by raw frames: the interface has no address yet. vendor is the class by
// which the server tells what asks.
func Discover(ctx context.Context, name string, mac net.HardwareAddr, vendor string) (*Lease, error) {
	c, err := nclient4.New(name, nclient4.WithHWAddr(mac), nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, fmt.Errorf("cannot speak DHCP on %s: %w", name, err)
	}
	defer c.Close()
	l, err := c.Request(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(vendor)), dhcpv4.WithRequestedOptions(requested...))
	var nak *nclient4.ErrNak
	switch {
	case errors.As(err, &nak):
		return nil, fmt.Errorf("on %s: %w", name, errNak)
	case err != nil:
		return nil, fmt.Errorf("no DHCP answer on %s: %w", name, err)
	}
	return newLease(l.ACK, mac, bootClock())
}

// extend asks for more time: the server that gave the lease, by unicast, or any server, by broadcast (RFC 2131 § 4.3.2,
// states RENEWING and REBINDING: the address in ciaddr, neither option 50 nor 54).
func extend(ctx context.Context, name string, l *Lease, state leaseState) (*Lease, error) {
	opts := []nclient4.ClientOpt{nclient4.WithHWAddr(l.MAC), nclient4.WithTimeout(2 * time.Second), nclient4.WithRetry(2)}
	server := &net.UDPAddr{IP: net.IPv4bcast, Port: nclient4.ServerPort}
	var c *nclient4.Client
	var err error
	if state == leaseRenew && l.Server.IsValid() {
		server = &net.UDPAddr{IP: l.Server.AsSlice(), Port: nclient4.ServerPort}
		var conn net.PacketConn
		if conn, err = listenUnicast(ctx, name); err != nil {
			return nil, err
		}
		c, err = nclient4.NewWithConn(conn, l.MAC, opts...)
	} else {
		c, err = nclient4.New(name, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot speak DHCP on %s: %w", name, err)
	}
	defer c.Close()
	request, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(l.MAC), dhcpv4.WithClientIP(l.Address.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(NodeClass)), dhcpv4.WithRequestedOptions(requested...))
	if err != nil {
		return nil, fmt.Errorf("cannot make a DHCP request: %w", err)
	}
	answer, err := c.SendAndRead(ctx, server, request, nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err != nil {
		return nil, fmt.Errorf("no DHCP answer on %s: %w", name, err)
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return nil, fmt.Errorf("on %s: %w", name, errNak)
	}
	return newLease(answer, l.MAC, bootClock())
}

// listenUnicast opens the client's port on the boot interface only. It is not bound to the leased address: some servers
// broadcast their answer even so.
func listenUnicast(ctx context.Context, name string) (net.PacketConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.BindToDevice(int(fd), name),
			)
		})
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", nclient4.ClientPort))
	if err != nil {
		return nil, fmt.Errorf("cannot listen for DHCP answers on %s: %w", name, err)
	}
	return conn, nil
}
