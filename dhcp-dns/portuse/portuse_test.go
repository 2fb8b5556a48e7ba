package portuse_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"joist/dhcp-dns/portuse"
)

func TestTheHolderIsNamed(t *testing.T) {
	held, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	port := held.LocalAddr().(*net.UDPAddr).Port
	_, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	err = portuse.Explain(err, "udp", port)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	self := filepath.Base(os.Args[0])
	if p, ok := portuse.Holder("udp", port); !ok || p.PID != os.Getpid() {
		t.Fatalf("got %+v, %v; want this process", p, ok)
	}
	if !strings.Contains(err.Error(), self[:min(len(self), 15)]) { // comm has at most 15 bytes
		t.Errorf("%v does not name %s", err, self)
	}
}

func TestTCPCountsListenersOnly(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, ok := portuse.Holder("tcp", l.Addr().(*net.TCPAddr).Port); !ok || p.PID != os.Getpid() {
		t.Errorf("got %+v, %v", p, ok)
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p, ok := portuse.Holder("tcp", c.LocalAddr().(*net.TCPAddr).Port); ok {
		t.Errorf("a connection counts as a listener: %+v", p)
	}
}

func TestOtherErrors(t *testing.T) {
	if err := portuse.Explain(nil, "udp", 67); err != nil {
		t.Error(err)
	}
	if err := portuse.Explain(syscall.EACCES, "udp", 67); !strings.Contains(err.Error(), "run as root") {
		t.Error(err)
	}
}
