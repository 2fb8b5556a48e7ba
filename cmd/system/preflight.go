package system

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"joist/engine/journal"
)

// Preflight looks for what keeps an engine from serving before anything is opened, made or bound. Its error is one
// sentence that says what is wrong, where, and what to do.
func Preflight(cfg Config) error {
	for _, check := range []func(Config) error{checkRights, checkSubnet, checkInterface, checkData} {
		err := check(cfg)
		var full *journal.DiskFullError
		switch {
		case errors.As(err, &full):
			return err
		case err != nil:
			return fmt.Errorf("cannot serve: %w", err)
		}
	}
	return nil
}

// advised adds what to do where a port is taken; the error itself says which and by whom.
func advised(err error) error {
	if !errors.Is(err, unix.EADDRINUSE) || strings.Contains(err.Error(), "stop that program") {
		return err
	}
	return fmt.Errorf("%w; stop that program first", err)
}

// checkRights looks for the capabilities that the servers use, whoever has them.
func checkRights(Config) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData // one for each 32 capabilities
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("this process's rights cannot be read: %w", err)
	}
	var missing []string
	for _, need := range []struct {
		bit  uint
		name string
	}{
		{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE (ports 53, 67 and 69)"},
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN (the balancers' addresses)"},
		{unix.CAP_NET_RAW, "CAP_NET_RAW (DHCP to machines without an address)"},
	} {
		if have[need.bit/32].Effective&(1<<(need.bit%32)) == 0 {
			missing = append(missing, need.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("it needs the rights %s; run it as root", strings.Join(missing, ", "))
	}
	return nil
}

// smallest is the longest prefix of a subnet: 32 addresses, of which machines get 14 and balancers 8.
const smallest = 27

func checkSubnet(cfg Config) error {
	s, a := cfg.Subnet, cfg.Address
	switch {
	case !s.Addr().Is4() || s.Bits() == 0 || s.Bits() > smallest:
		return fmt.Errorf("the subnet %s is not an IPv4 network of at least %d addresses; choose another with --subnet", s, 1<<(32-smallest))
	case s != s.Masked():
		return fmt.Errorf("the subnet %s has bits beside its prefix; write --subnet %s", s, s.Masked())
	case !s.Contains(a):
		return fmt.Errorf("the engine's address %s is not in the subnet %s; correct --address or --subnet", a, s)
	case a == s.Addr():
		return fmt.Errorf("the engine's address %s is that of the subnet itself; choose another with --address", a)
	case frontsOf(s).Contains(a):
		return fmt.Errorf("the engine's address %s lies in %s, which is for balancers; choose a lower one with --address", a, frontsOf(s))
	}
	return nil
}

// checkInterface compares the interface with what is said about it.
func checkInterface(cfg Config) error {
	iface, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return fmt.Errorf("there is no network interface %q; this machine has %s", cfg.Interface, interfaces())
	}
	if iface.Flags&net.FlagLoopback != 0 {
		return fmt.Errorf("the interface %s is the loopback, and no machine boots from it; name the one towards the machines with --interface", iface.Name)
	}
	if iface.Flags&net.FlagUp == 0 {
		return fmt.Errorf("the interface %s is down; set it up with: ip link set %s up", iface.Name, iface.Name)
	}
	list, err := iface.Addrs()
	if err != nil {
		return fmt.Errorf("the addresses of %s cannot be read: %w", iface.Name, err)
	}
	var has []netip.Prefix
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			has = append(has, p)
		}
	}
	want := netip.PrefixFrom(cfg.Address, cfg.Subnet.Bits())
	if slices.Contains(has, want) {
		return nil
	}
	for _, p := range has {
		if p.Addr() == cfg.Address {
			return fmt.Errorf("the interface %s has the address %s, which is not in the subnet %s; correct --subnet, or the address's prefix length", iface.Name, p, cfg.Subnet)
		}
	}
	return fmt.Errorf("the interface %s does not have the address %s (it has %s); give it one with: ip address add %s dev %s; or name one that it has with --subnet and --address",
		iface.Name, cfg.Address, orNone(has), want, iface.Name)
}

func orNone(list []netip.Prefix) string {
	if len(list) == 0 {
		return "no IPv4 address"
	}
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

// interfaces names those that machines could be at.
func interfaces() string {
	list, err := net.Interfaces()
	var names []string
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	if err != nil || len(names) == 0 {
		return "none but the loopback"
	}
	return strings.Join(names, ", ")
}

// checkData makes the data folder if need be, and writes to it.
func checkData(cfg Config) error {
	say := func(err error) error {
		switch {
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			return &journal.DiskFullError{Path: cfg.Data, Err: err}
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
			return fmt.Errorf("the data folder %s is no folder; name another one with --data", cfg.Data)
		case errors.Is(err, unix.EROFS):
			return fmt.Errorf("the data folder %s is on a read-only file system; name another one with --data", cfg.Data)
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("the data folder %s cannot be written: no permission; run as its owner, or name another one with --data", cfg.Data)
		}
		return fmt.Errorf("the data folder cannot be used: %w", err)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return say(err)
	}
	f, err := os.CreateTemp(cfg.Data, ".probe-*")
	if err != nil {
		return say(err)
	}
	_, err = f.Write(make([]byte, 4096))
	if err = errors.Join(err, f.Close(), os.Remove(filepath.Clean(f.Name()))); err != nil {
		return say(err)
	}
	return nil
}
