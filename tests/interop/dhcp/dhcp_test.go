// Package dhcp_test puts real DHCP clients and servers beside ours, each in a network namespace of its own.
package dhcp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dhclientScript does what Debian's does to the interface, and nothing to the host's files.
const dhclientScript = `
echo "reason=$reason"; env | grep -E '^(new|old)_' | sort
case "$reason" in
PREINIT) ip link set "$interface" up ;;
BOUND|RENEW|REBIND|REBOOT)
	ip address replace "$new_ip_address/24" dev "$interface"
	if [ -n "$old_ip_address" ] && [ "$old_ip_address" != "$new_ip_address" ]; then ip address del "$old_ip_address/24" dev "$interface"; fi ;;
EXPIRE|FAIL|RELEASE|STOP) ip address flush dev "$interface" ;;
esac
exit 0
`

// dhclient runs ISC dhclient until it has (or has given up) its lease. It keeps its leases between calls.
func (l *lab) dhclient(args ...string) (record string) {
	l.t.Helper()
	script, record := l.script("dhclient-script", dhclientScript)
	config := filepath.Join(l.dir, "dhclient.conf")
	if err := os.WriteFile(config, []byte("timeout 30;\nretry 5;\nrequest subnet-mask, domain-name, domain-name-servers, host-name, routers;\n"), 0o644); err != nil {
		l.t.Fatal(err)
	}
	_ = os.Remove(record)
	l.in(l.cli, "dhclient", append([]string{"-4", "-1", "-v", "-sf", script, "-cf", config,
		"-lf", filepath.Join(l.dir, "dhclient.leases"), "-pf", filepath.Join(l.dir, "dhclient.pid")}, append(args, "cli")...)...)
	return record
}

// stopDhclient ends the daemon without a RELEASE.
func (l *lab) stopDhclient() {
	l.t.Helper()
	l.dhclient("-x")
	l.in(l.cli, "ip", "address", "flush", "dev", "cli")
}

func TestDhclient(t *testing.T) {
	l := newLab(t, "dhclient")
	server := l.serve()
	defer l.stopDhclient()
	record := l.dhclient()
	l.contains(record, "reason=BOUND", "new_ip_address=10.77.0.10", "new_subnet_mask=255.255.255.0", "new_domain_name=demo.lab",
		"new_domain_name_servers=10.77.0.1", "new_dhcp_lease_time=86400", "new_dhcp_renewal_time=43200", "new_host_name=n1")
	server.await("address leased", "mac="+clientMAC, "phase=enrolled")

	// A reboot: the client asks for the address it had, naming no server (INIT-REBOOT).
	l.stopDhclient()
	l.contains(l.dhclient(), "reason=REBOOT", "new_ip_address=10.77.0.10")
	server.await("address renewed", "address=10.77.0.10")

	// It gives the address up, and gets the same one again while it is free.
	l.dhclient("-r")
	server.await("address released", "address=10.77.0.10")
	l.contains(l.dhclient(), "new_ip_address=10.77.0.10")

	// Its reservation moves: at the next reboot it is refused (NAK) and comes to the new one by itself.
	if _, err := server.input.Write([]byte("reserve " + clientMAC + " 10.77.0.99\n")); err != nil {
		t.Fatal(err)
	}
	server.await("reserve: 10.77.0.99 <nil>")
	l.stopDhclient()
	l.contains(l.dhclient(), "reason=BOUND", "new_ip_address=10.77.0.99")
	server.await("address refused", "another address is reserved for this client")
}

func TestLeaseSurvivesKill(t *testing.T) {
	l := newLab(t, "dhclient", "busybox")
	server := l.serve()
	// Another client first, so that the address is not the one a forgetful server would start with.
	l.in(l.cli, "ip", "link", "set", "cli", "address", "52:54:00:77:00:09")
	l.udhcpc("lease")
	l.in(l.cli, "ip", "link", "set", "cli", "address", clientMAC)
	defer l.stopDhclient()
	l.contains(l.dhclient(), "new_ip_address=10.77.0.11")
	server.kill()
	l.stopDhclient()
	if err := os.Remove(filepath.Join(l.dir, "dhclient.leases")); err != nil { // so that only the server can know the address
		t.Fatal(err)
	}
	again := l.serve()
	l.contains(l.dhclient(), "reason=BOUND", "new_ip_address=10.77.0.11")
	if err := again.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	again.await("stopped: <nil>") // asked to stop, it ends without an error
}

const udhcpcScript = `
echo "reason=$1"; env | sort
case "$1" in
bound|renew) ip address replace "$ip/24" dev "$interface" ;;
deconfig) ip address flush dev "$interface"; ip link set "$interface" up ;;
esac
exit 0
`

// udhcpc runs busybox's client until it has a lease.
func (l *lab) udhcpc(name string, args ...string) (record string) {
	l.t.Helper()
	script, record := l.script(name, udhcpcScript)
	l.in(l.cli, "busybox", append([]string{"udhcpc", "-i", "cli", "-f", "-q", "-n", "-t", "10", "-T", "2", "-A", "1", "-s", script}, args...)...)
	return record
}

func TestUdhcpc(t *testing.T) {
	l := newLab(t, "busybox")
	server := l.serve()
	l.contains(l.udhcpc("unicast"), "reason=bound", "ip=10.77.0.10", "mask=24", "dns=10.77.0.1", "domain=demo.lab", "serverid=10.77.0.1", "lease=86400")
	l.contains(l.udhcpc("broadcast", "-B", "-r", "10.77.0.10"), "reason=bound", "ip=10.77.0.10")
	l.contains(l.udhcpc("pxe", "-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007", "-O", "bootfile", "-O", "tftp"),
		"boot_file=snponly.efi", "bootfile=snponly.efi", "siaddr=10.77.0.1", "lease=120")
	server.await("address leased", "phase=enrolled")

	// Asked to renew, it sends a unicast from its address and takes the answer there.
	script, renewed := l.script("renew", udhcpcScript)
	daemon := l.start(exec.Command("ip", "netns", "exec", l.cli, "busybox", "udhcpc", "-i", "cli", "-f", "-s", script))
	server.await("question=selecting", "to=10.77.0.10:68")
	l.eventually(renewed, "reason=bound")
	if err := daemon.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	server.await("question=renewing", "to=10.77.0.10:68")
	l.eventually(renewed, "reason=renew")
	daemon.kill()

	// Somebody else answers for the address: the client declines it, and gets another.
	l.in(l.cli, "ip", "link", "set", "cli", "address", "52:54:00:77:00:02")
	l.in(l.srv, "ip", "address", "add", "10.77.0.11/24", "dev", "srv")
	record := l.udhcpc("declined", "-a")
	server.await("address declined", "address=10.77.0.11")
	l.contains(record, "ip=10.77.0.12")
}

// TestReplyNeedsNoARP checks that a client without an address that did not ask for a broadcast gets a frame of its own.
func TestReplyNeedsNoARP(t *testing.T) {
	l := newLab(t)
	l.serve()
	out, err := l.role(l.cli, "frame cli").CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != clientMAC+" OFFER 10.77.0.10" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSecondServer(t *testing.T) {
	l := newLab(t, "dnsmasq")
	l.serve()
	// On the same interface: the holder of the port is named.
	out, err := l.role(l.srv, "serve srv "+filepath.Join(l.dir, "other.db")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "UDP port 67 is in use: it is held by dhcp.test (pid ") {
		t.Errorf("a second server on the interface: %v: %s", err, out)
	}
	// On another interface: both serve, for each is bound to its own.
	l.run("ip", "-n", l.srv, "link", "add", "spare", "type", "veth", "peer", "name", "end")
	l.run("ip", "-n", l.srv, "address", "add", "10.77.0.1/24", "dev", "spare")
	l.run("ip", "-n", l.srv, "link", "set", "spare", "up")
	l.start(l.role(l.srv, "serve spare "+filepath.Join(l.dir, "spare.db"))).await("ready")
	l.run("ip", "-n", l.srv, "link", "delete", "spare")
	// Nobody else on the segment.
	if out, err := l.role(l.srv, "probe srv").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("the probe found %q, %v", out, err)
	}
	// Another server, seen from ours; and ours, seen from there.
	l.in(l.cli, "ip", "address", "add", "10.77.0.2/24", "dev", "cli")
	rival := l.start(dnsmasq(l))
	rival.await("DHCP, IP range 10.77.0.50")
	for ns, want := range map[string]string{"srv": "10.77.0.2", "cli": "10.77.0.1"} {
		name := map[string]string{"srv": l.srv, "cli": l.cli}[ns]
		out, err := l.role(name, "probe "+ns).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "another DHCP server, "+want+" (") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("from %s: %v: %s", ns, err, out)
		}
	}
}
