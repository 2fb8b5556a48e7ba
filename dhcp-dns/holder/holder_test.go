package holder

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOfLiveSockets(t *testing.T) {
	t.Parallel()
	us := fmt.Sprintf("holder.test (pid %d)", os.Getpid())
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nothing was written
	tcp := l.Addr().(*net.TCPAddr).AddrPort()
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close() // nothing was written
	udp := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, c := range []struct {
		network string
		addr    netip.AddrPort
		want    string
	}{
		{"tcp", tcp, us},
		{"tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), tcp.Port()), us},
		{"tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), tcp.Port()), ""},
		{"udp", udp, us},
		{"udp", netip.AddrPortFrom(netip.IPv6Unspecified(), udp.Port()), us},
	} {
		if got := Of(c.network, c.addr); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.network, c.addr, got, c.want)
		}
	}
	if got := Reason("tcp", tcp); got != "it is held by "+us {
		t.Error(got)
	}
	if got := Reason("tcp", netip.MustParseAddrPort("127.0.0.2:1")); !strings.Contains(got, "ss -lnp") {
		t.Error(got)
	}
}

// TestFind reads a made-up /proc: two processes share a socket, a third has another, and a connection is no listener.
func TestFind(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	row := func(local, state, inode string) string {
		return "0: " + local + " 00000000:0000 " + state + " 0:0 0:0 0 0 0 " + inode + " 1\n"
	}
	write("self/net/tcp", "header\n"+row("0100000A:0035", "0A", "11")+row("0100000A:0035", "01", "13")+"short\n"+row("xx:yy", "0A", "14"))
	write("self/net/tcp6", "header\n"+row("00000000000000000000000000000000:0045", "0A", "12"))
	for pid, c := range map[string]struct{ name, inode string }{"7": {"dnsmasq", "11"}, "8": {"named", "11"}, "9": {"other", "12"}, "10": {"client", "13"}} {
		write(pid+"/comm", c.name+"\n")
		for _, fd := range []string{"3", "4"} {
			link := filepath.Join(proc, pid, "fd", fd)
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("socket:["+c.inode+"]", link); err != nil {
				t.Fatal(err)
			}
		}
	}
	for addr, want := range map[string]string{
		"10.0.0.1:53": "dnsmasq (pid 7), named (pid 8)",
		"0.0.0.0:53":  "dnsmasq (pid 7), named (pid 8)",
		"10.0.0.2:53": "",
		"10.0.0.1:69": "other (pid 9)",
		"10.0.0.1:54": "",
	} {
		if got := find(proc, "tcp", netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	if got := find(filepath.Join(proc, "none"), "udp", netip.MustParseAddrPort("10.0.0.1:53")); got != "" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0100007F:0035", "00000000000000000000000001000000:0045", "", ":", "0100007F:", "01:0035"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if addr, ok := parse(text); ok && !addr.IsValid() {
			t.Errorf("%q gives the invalid %v", text, addr)
		}
	})
}
