package dhcp_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/lease"
	"joist/services/addresses"

	"github.com/glebarez/sqlite"
	"go4.org/netipx"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// The test binary is also the server and the other programs that have to run inside a network namespace: it is started
// again under `ip netns exec` with this variable set to the program's name and arguments.
const roleVariable = "JOIST_INTEROP_DHCP"

func TestMain(m *testing.M) {
	role := strings.Fields(os.Getenv(roleVariable))
	if len(role) == 0 {
		os.Exit(m.Run())
	}
	programs := map[string]func(args []string) error{"serve": serve, "probe": probe, "frame": frame}
	if err := programs[role[0]](role[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// booter boots PXE firmware and iPXE, and treats everything else as an enrolled node.
type booter struct{}

func (booter) Boot(_ context.Context, f dhcp.Firmware) (addresses.Boot, error) {
	switch {
	case f.IPXE:
		return addresses.Boot{Phase: lease.Firmware, Filename: "http://10.77.0.1/boot/" + f.MAC}, nil
	case f.PXE() && len(f.Arch) > 0 && f.Arch[0] != 0:
		return addresses.Boot{Phase: lease.Firmware, Filename: "snponly.efi"}, nil
	case f.PXE():
		return addresses.Boot{Phase: lease.Firmware, Filename: "undionly.kpxe"}, nil
	}
	return addresses.Boot{Phase: lease.Enrolled, Domain: "demo.lab", Hostname: "n1"}, nil
}

// serve runs a DHCP server: INTERFACE DATABASE. It prints "ready" when it listens, and its log; on a line "reserve MAC
// ADDRESS" of its input it reserves.
func serve(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	db, err := gorm.Open(sqlite.Open(args[1]+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"),
		&gorm.Config{Logger: logger.Discard})
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", args[1], err)
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
	service, err := addresses.Open(ctx, addresses.Config{
		DB: db, Server: netip.MustParseAddr("10.77.0.1"), Booter: booter{}, Log: log,
		Lease: lease.Config{Subnet: netip.MustParsePrefix("10.77.0.0/24"), Ranges: []netipx.IPRange{netipx.MustParseIPRange("10.77.0.10-10.77.0.19")}},
	})
	if err != nil {
		return err
	}
	defer service.Close()
	server, err := dhcp.Listen(dhcp.Config{Interface: args[0], Handler: service, Log: log})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			var mac, address string
			if _, err := fmt.Sscanf(lines.Text(), "reserve %s %s", &mac, &address); err != nil {
				continue
			}
			got, err := service.Reserve(ctx, lease.MAC(mac), netip.MustParseAddr(address))
			fmt.Println("reserve:", got, err)
		}
	}()
	err = server.Serve(ctx)
	fmt.Println("stopped:", err)
	return err
}
