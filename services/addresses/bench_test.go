package addresses_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/lease"
	"joist/services/addresses"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// BenchmarkExchange measures whole exchanges of four packets, from bytes to bytes, with durable leases (SQLite, fsync at
// every commit): many clients at once, each with a hardware address of its own, as at the power-on of a hall.
func BenchmarkExchange(b *testing.B) {
	s := open(b, "10.77.0.10-10.77.0.19", func(c *addresses.Config) {
		c.Lease = lease.Config{Subnet: netip.MustParsePrefix("10.76.0.0/15")}
		c.Observe = func(addresses.Event) {}
		c.Booter = always{}
	})
	r, err := dhcp.NewResponder(server, s, s.conf.Log)
	if err != nil {
		b.Fatal(err)
	}
	var clients atomic.Uint32
	b.SetParallelism(128) // times GOMAXPROCS, as many as the server has workers
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := clients.Add(1) % 100_000 // fewer than addresses: later rounds find known clients
			if err := fourPackets(b.Context(), r, []byte{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}

type always struct{}

func (always) Boot(context.Context, dhcp.Firmware) (addresses.Boot, error) {
	return addresses.Boot{Phase: lease.Scout, Filename: "snponly.efi"}, nil
}

func fourPackets(ctx context.Context, r *dhcp.Responder, hw []byte) error {
	discover, err := dhcpv4.NewDiscovery(hw, dhcpv4.WithBroadcast(true))
	if err != nil {
		return err
	}
	offer, err := r.Respond(ctx, dhcp.Datagram{Payload: discover.ToBytes(), Port: dhcp.ServerPort})
	if err != nil || offer == nil {
		return fmt.Errorf("no offer: %w", err)
	}
	offered, err := dhcpv4.FromBytes(offer.Payload)
	if err != nil {
		return err
	}
	request, err := dhcpv4.NewRequestFromOffer(offered)
	if err != nil {
		return err
	}
	ack, err := r.Respond(ctx, dhcp.Datagram{Payload: request.ToBytes(), Port: dhcp.ServerPort})
	if err != nil || ack == nil {
		return fmt.Errorf("no acknowledgement: %w", err)
	}
	acknowledged, err := dhcpv4.FromBytes(ack.Payload)
	if err != nil || acknowledged.MessageType() != dhcpv4.MessageTypeAck {
		return fmt.Errorf("not acknowledged: %v, %w", acknowledged, err)
	}
	return nil
}
