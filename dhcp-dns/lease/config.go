package lease

import (
	"fmt"
	"net/netip"
	"time"

	"go4.org/netipx"
)

// Config describes one subnet's pool.
type Config struct {
	Subnet     netip.Prefix     // the IPv4 subnet; required
	Ranges     []netipx.IPRange // addresses that may be given out; default: all hosts of the subnet
	Exclude    []netip.Addr     // never given out nor reserved: the engine itself, routers
	Times      Times            // lease lengths
	Hold       time.Duration    // how long an offered address waits for its REQUEST; default 30 s
	Quarantine time.Duration    // how long a declined address rests; default 1 hour
}

// compiled is a validated Config with its defaults filled in.
type compiled struct {
	Config
	pool  []netipx.IPRange // disjoint, ascending, without exclusions
	set   *netipx.IPSet    // the same as a set
	hosts *netipx.IPSet    // what may be reserved
}

func compile(c Config) (compiled, error) {
	if !c.Subnet.IsValid() || !c.Subnet.Addr().Is4() {
		return compiled{}, fmt.Errorf("cannot set up leases: %v is not an IPv4 subnet", c.Subnet)
	}
	if c.Subnet.Bits() > 30 {
		return compiled{}, fmt.Errorf("cannot set up leases: %v has no room for a server and clients; use /30 or larger", c.Subnet)
	}
	c.Subnet = c.Subnet.Masked()
	c.Hold = orDefault(c.Hold, 30*time.Second)
	c.Quarantine = orDefault(c.Quarantine, time.Hour)
	for _, d := range []time.Duration{c.Hold, c.Quarantine, c.Times.Of(Firmware), c.Times.Of(Scout), c.Times.Of(Enrolled)} {
		if d < 0 {
			return compiled{}, fmt.Errorf("cannot set up leases: a time of %v is negative", d)
		}
	}
	all := netipx.RangeOfPrefix(c.Subnet)
	var hosts netipx.IPSetBuilder
	hosts.AddRange(all)
	hosts.Remove(all.From()) // the network's own address
	hosts.Remove(all.To())   // the broadcast address
	for _, a := range c.Exclude {
		hosts.Remove(a)
	}
	hostSet, err := hosts.IPSet()
	if err != nil {
		return compiled{}, fmt.Errorf("cannot set up leases in %v: %w", c.Subnet, err)
	}
	pool := netipx.IPSetBuilder{}
	if len(c.Ranges) == 0 {
		pool.AddRange(all)
	}
	for _, r := range c.Ranges {
		if !r.IsValid() || !c.Subnet.Contains(r.From()) || !c.Subnet.Contains(r.To()) {
			return compiled{}, fmt.Errorf("cannot set up leases: the range %v does not lie in %v", r, c.Subnet)
		}
		pool.AddRange(r)
	}
	pool.Intersect(hostSet)
	set, err := pool.IPSet()
	if err != nil {
		return compiled{}, fmt.Errorf("cannot set up leases in %v: %w", c.Subnet, err)
	}
	if len(set.Ranges()) == 0 {
		return compiled{}, fmt.Errorf("cannot set up leases: the pool in %v is empty once exclusions are taken out", c.Subnet)
	}
	return compiled{Config: c, pool: set.Ranges(), set: set, hosts: hostSet}, nil
}

// size is the number of addresses in the pool.
func (c compiled) size() int {
	n := 0
	for _, r := range c.pool {
		from, to := r.From().As4(), r.To().As4()
		n += int(be(to)-be(from)) + 1
	}
	return n
}

func be(b [4]byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
