package system

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"joist/dhcp-dns/dhcp"
)

func TestNoticesAreBoundedAndTellOnce(t *testing.T) {
	var n notices
	start := time.Unix(1e9, 0)
	for i := range 3 * noticesKept {
		n.add(start.Add(time.Duration(i)*time.Second), fmt.Sprint("notice ", i%(2*noticesKept)))
	}
	all := n.all()
	if len(all) != noticesKept {
		t.Fatalf("%d notices are kept, want %d", len(all), noticesKept)
	}
	seen := map[string]bool{}
	for _, one := range all {
		if seen[one.text] {
			t.Errorf("%q is kept twice", one.text)
		}
		seen[one.text] = true
	}
	n.add(start, "notice 99")
	n.add(start.Add(time.Hour), "notice 99")
	if last := n.all()[noticesKept-1]; last.text != "notice 99" || !last.at.Equal(start.Add(time.Hour)) {
		t.Errorf("what was said last is %v", last)
	}
}

// TestWatchRivals: a rival is told of when it appears, stays among the notices while it answers, and goes when it does not.
// A look that fails changes nothing.
func TestWatchRivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := &System{now: time.Now}
		s.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		rival := dhcp.Rival{Server: netip.MustParseAddr("10.99.0.2"), Hardware: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Offered: netip.MustParseAddr("10.99.0.9")}
		answers := [][]dhcp.Rival{nil, {rival}, {rival}, nil, nil}
		var looks atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.watchRivals(ctx, func(context.Context) ([]dhcp.Rival, error) {
				look := looks.Add(1)
				if look == 3 {
					return nil, errors.New("no packet socket")
				}
				return answers[look-1], nil
			})
		}()
		for i, want := range []int{0, 1, 1, 0} {
			synctest.Wait()
			if got := len(s.notices.all()); int(looks.Load()) != i+1 || got != want {
				t.Errorf("after look %d (want %d): %d notices, want %d", looks.Load(), i+1, got, want)
			}
			time.Sleep(rivalEvery)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "another DHCP server"); n != 1 {
			t.Errorf("the log tells of it %d times:\n%s", n, log.String())
		}
	})
}

func TestSubnets(t *testing.T) {
	for _, c := range []struct{ subnet, address, says string }{
		{"10.0.0.0/24", "10.0.0.1", ""},
		{"10.0.0.0/27", "10.0.0.1", ""},
		{"10.0.0.0/8", "10.191.255.255", ""},
		{"10.0.0.0/24", "10.0.0.0", "is that of the subnet itself"},
		{"10.0.0.0/24", "10.0.0.192", "which is for balancers"},
		{"10.0.0.0/24", "10.0.1.1", "is not in the subnet"},
		{"10.0.0.0/28", "10.0.0.1", "at least 32 addresses"},
		{"0.0.0.0/0", "10.0.0.1", "at least 32 addresses"},
		{"10.0.0.1/24", "10.0.0.1", "write --subnet 10.0.0.0/24"},
		{"fd00::/64", "fd00::1", "is not an IPv4 network"},
	} {
		err := checkSubnet(Config{Subnet: netip.MustParsePrefix(c.subnet), Address: netip.MustParseAddr(c.address)})
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s in %s: %v, want %q", c.address, c.subnet, err, c.says)
		}
	}
}
