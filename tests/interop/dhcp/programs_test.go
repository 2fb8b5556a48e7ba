package dhcp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"joist/dhcp-dns/dhcp"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// probe prints the other DHCP servers on an interface: INTERFACE.
func probe(args []string) error {
	rivals, err := dhcp.Probe(context.Background(), args[0], 4*time.Second)
	for _, r := range rivals {
		fmt.Println(r)
	}
	return err
}

// frame sends a DISCOVER from 0.0.0.0 without the broadcast flag and prints the Ethernet destination of the reply:
// INTERFACE. The interface keeps no address, so that only a server that needs no ARP can answer.
func frame(args []string) error {
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	conn, err := packet.Listen(iface, packet.Raw, unix.ETH_P_IP, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	discover, err := dhcpv4.NewDiscovery(iface.HardwareAddr, dhcpv4.WithBroadcast(false))
	if err != nil {
		return err
	}
	if err := broadcastFrom(iface.Name, discover.ToBytes()); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("no reply")
		} else if err != nil {
			return err
		}
		const headers = 14 + 20 + 8
		if n < headers || buffer[36] != 0 || buffer[37] != dhcp.ClientPort {
			continue
		}
		reply, err := dhcpv4.FromBytes(buffer[headers:n])
		if err != nil || reply.TransactionID != discover.TransactionID {
			continue
		}
		fmt.Println(net.HardwareAddr(buffer[:6]), reply.MessageType(), reply.YourIPAddr)
		return nil
	}
}

// broadcastFrom sends a payload from port 68 of an interface that may have no address.
func broadcastFrom(ifname string, payload []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, option := range []int{unix.SO_BROADCAST, unix.SO_REUSEADDR} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return err
		}
	}
	if err := unix.BindToDevice(fd, ifname); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: dhcp.ClientPort}); err != nil {
		return err
	}
	return unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Port: dhcp.ServerPort, Addr: [4]byte{255, 255, 255, 255}})
}
