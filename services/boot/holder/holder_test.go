package holder

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestFindSelf(t *testing.T) {
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := Find("udp", u.LocalAddr().(*net.UDPAddr).AddrPort().Port()); got != "this program itself" {
		t.Errorf("UDP: got %q", got)
	}
	a := l.Addr().(*net.TCPAddr).AddrPort()
	if got := InUse("tcp", a); !strings.Contains(got, "is taken by this program itself") {
		t.Errorf("TCP: got %q", got)
	}
	if got := InUse("tcp", netip.MustParseAddrPort("127.0.0.1:1")); got != "TCP port 1 is taken by another program; stop it, or choose another address" {
		t.Errorf("nobody: got %q", got)
	}
}

func TestParse(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: broken
   3: 0100007F:zz90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1
`
	if got := parse(strings.NewReader(table), "tcp", 8080); len(got) != 1 || got[0] != "111" {
		t.Errorf("got %v", got)
	}
	if got := parse(strings.NewReader(table), "udp", 8080); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
