package boot

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/engine/agent/scout"
)

// leaseDir tells the test binary that it is the client within the namespace, and where it may write.
const leaseDir = "JOIST_TEST_LEASE_DIR"

// The agent keeps its lease with a DHCP server that is not ours: it renews at once and at T1, and takes another address
// when the server refuses the old one.
func TestKeeperRenews(t *testing.T) {
	if dir := os.Getenv(leaseDir); dir != "" {
		keepLease(t, dir)
		return
	}
	t.Parallel()
	requireTools(t, map[string]string{"dnsmasq": "dnsmasq-base", "ip": "iproute2"})
	dir := t.TempDir()
	server, client := fmt.Sprintf("joist-ts%d", os.Getpid()), fmt.Sprintf("joist-tc%d", os.Getpid())
	t.Cleanup(func() {
		for _, ns := range []string{server, client} {
			_ = exec.Command("ip", "netns", "del", ns).Run() // it may not have been made
		}
	})
	shell(t, fmt.Sprintf(`ip netns add %[1]s; ip netns add %[2]s
ip -n %[1]s link add srv0 type veth peer name boot0 netns %[2]s
ip -n %[1]s addr add 10.77.0.1/16 dev srv0; ip -n %[1]s link set srv0 up; ip -n %[1]s link set lo up
ip -n %[2]s link set boot0 up; ip -n %[2]s link set lo up`, server, client))

	first := startDNSMasq(t, server, dir, "10.77.1.10,10.77.1.20")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", client, self, "-test.run=^TestKeeperRenews$", "-test.v")
	cmd.Env = append(os.Environ(), leaseDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("client: %v: %s", err, said.String())
		}
		if t.Failed() {
			t.Logf("client:\n%s\ndnsmasq:\n%s", said.String(), tailOf(filepath.Join(dir, "dnsmasq.log")))
		}
	}()

	addresses := func() string {
		out, _ := exec.Command("ip", "-n", client, "-br", "-4", "addr", "show", "boot0").Output() // nothing is not the address
		return string(out)
	}
	// One ACK for the new lease, one for the renewal at once, one at T1.
	waitFor(t, "three ACKs", func() bool { return count(t, dir, `DHCPACK\(srv0\) 10\.77\.1\.`) >= 3 })
	if n := count(t, dir, `DHCPDISCOVER\(`); n != 1 {
		t.Errorf("%d discoveries instead of renewals", n)
	}
	if a := addresses(); !strings.Contains(a, "10.77.1.") {
		t.Errorf("addresses are %s", a)
	}
	resolv, err := os.ReadFile(filepath.Join(dir, "etc/resolv.conf"))
	if err != nil || string(resolv) != "search demo.lab\nnameserver 10.77.0.53\n" {
		t.Errorf("resolv.conf is %q (%v)", resolv, err)
	}

	stop(first)
	startDNSMasq(t, server, dir, "10.77.2.10,10.77.2.20")
	waitFor(t, "another address alone", func() bool {
		a := addresses()
		return strings.Contains(a, "10.77.2.") && !strings.Contains(a, "10.77.1.")
	})
	kept, err := scout.ReadLease(dir)
	if err != nil || !strings.HasPrefix(kept.Address.String(), "10.77.2.") {
		t.Errorf("the kept lease is %+v (%v)", kept, err)
	}
}

// keepLease is the client: it keeps a lease until its standard input ends.
func keepLease(t *testing.T, dir string) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin)); cancel() }() // ends with the parent
	nic, err := net.InterfaceByName("boot0")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := scout.Discover(ctx, nic.Name, nic.HardwareAddr, scout.ScoutClass)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Apply(dir); err != nil {
		t.Fatal(err)
	}
	scout.NewKeeper(scout.KeeperConfig{Lease: lease, Dir: dir, Root: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}).Run(ctx, true)
}

func startDNSMasq(t *testing.T, ns, dir, addresses string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", ns, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=srv0", "--bind-interfaces",
		"--dhcp-range="+addresses+",255.255.0.0,2m", "--dhcp-authoritative", "--dhcp-option=58,5", "--dhcp-option=59,100", "--dhcp-option=option:dns-server,10.77.0.53",
		"--dhcp-option=option:domain-name,demo.lab", "--dhcp-leasefile="+filepath.Join(dir, "leases"+addresses[:7]), "--log-dhcp", "--no-ping", "--user=root")
	log, err := os.OpenFile(filepath.Join(dir, "dnsmasq.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(cmd); _ = log.Close() })
	waitFor(t, "dnsmasq", func() bool { return count(t, dir, "DHCP, IP range "+strings.Split(addresses, ",")[0]) > 0 })
	return cmd
}

func stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
	}
}

// count counts what dnsmasq has logged.
func count(t *testing.T, dir, pattern string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "dnsmasq.log"))
	if err != nil {
		t.Fatal(err)
	}
	return len(regexp.MustCompile(pattern).FindAll(b, -1))
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 90 s", what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
