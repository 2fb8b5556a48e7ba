// Package lab_test compares the host's network before, during and after labs. It needs root, iproute2, nftables and
// util-linux, and fails where one is missing.
package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"joist/providers/qemu/lab"
	"joist/tests/hostnet"
)

// hostEnv tells a process of this test that its network namespace is a stand-in for a host.
const hostEnv = "JOIST_TEST_HOST"

// TestHostUntouched does it twice: on this host, and in a namespace that stands in for a host with more to disturb than
// most have, and that nothing else can change meanwhile.
func TestHostUntouched(t *testing.T) {
	if os.Getenv(hostEnv) != "" {
		furnish(t)
		if d := disturbance(t); d != "" {
			t.Error(d)
		}
		return
	}
	t.Run("a host with everything", func(t *testing.T) {
		cmd := exec.Command("unshare", "--net", os.Args[0], "-test.run=^TestHostUntouched$", "-test.v")
		cmd.Env = append(os.Environ(), hostEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("this host", func(t *testing.T) {
		var d string
		for range 5 { // other programs may change the host's network meanwhile; a lab's doing would show every time
			if d = disturbance(t); d == "" {
				return
			}
		}
		t.Error(d)
	})
}

// TestSnapshotSees: the comparison is worth something only if it sees changes.
func TestSnapshotSees(t *testing.T) {
	if os.Getenv(hostEnv) == "" {
		cmd := exec.Command("unshare", "--net", os.Args[0], "-test.run=^TestSnapshotSees$", "-test.v")
		cmd.Env = append(os.Environ(), hostEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	furnish(t)
	for _, change := range [][]string{
		{"ip", "link", "add", "x0", "type", "bridge"},
		{"ip", "address", "add", "192.0.2.9/32", "dev", "host0"},
		{"ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.3"},
		{"ip", "rule", "add", "from", "192.0.2.9", "table", "101"},
		{"nft", "add rule ip keep c drop"},
		{"sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"},
		{"sh", "-c", "echo 2 >/proc/sys/net/ipv4/conf/host0/rp_filter"},
	} {
		before := hostnet.Look(t)
		run(t, change...)
		if before.Changed(hostnet.Look(t)) == "" {
			t.Errorf("%q was not seen", change)
		}
	}
}

// furnish gives the stand-in a link, addresses, routes, rules, a firewall and settings that a lab might inherit or upset.
func furnish(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "add", "host0", "type", "bridge"},
		{"ip", "address", "add", "192.0.2.2/24", "dev", "host0"},
		{"ip", "address", "add", "10.77.0.1/24", "dev", "host0"}, // the lab's own network: of no importance outside
		{"ip", "link", "set", "host0", "up"},
		{"ip", "route", "add", "default", "via", "192.0.2.1"},
		{"ip", "rule", "add", "from", "192.0.2.2", "table", "100"},
		{"ip", "link", "add", lab.Bridge, "type", "bridge"}, // nor is its bridge's name
		{"nft", "add table ip keep"},
		{"nft", "add chain ip keep c { type filter hook forward priority 0; policy accept; }"},
		{"sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
	} {
		run(t, args...)
	}
}

// disturbance makes two labs side by side, uses them, takes them down, and tells what changed outside.
func disturbance(t *testing.T) string {
	t.Helper()
	ctx := context.Background()
	before := hostnet.Look(t)
	var labs []*lab.Lab
	for range 2 {
		l, err := lab.Open(lab.Config{Data: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Up(ctx); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Down(ctx) }()
		use(t, l)
		labs = append(labs, l)
	}
	if labs[0].Name() == labs[1].Name() {
		t.Fatal("two data folders have the same lab")
	}
	if d := before.Changed(hostnet.Look(t)); d != "" {
		return "during: " + d
	}
	for _, l := range labs {
		if err := l.Down(ctx); err != nil {
			t.Fatal(err)
		}
		for _, left := range []string{"/run/netns/" + l.Name(), l.RunDir(), l.RunDir() + ".lock"} {
			if _, err := os.Stat(left); err == nil {
				t.Errorf("%s is left", left)
			}
		}
	}
	if d := before.Changed(hostnet.Look(t)); d != "" {
		return "after: " + d
	}
	return ""
}

// use checks the inside of a lab: the bridge with its address, nothing else but loopback, no way out, no forwarding.
func use(t *testing.T, l *lab.Lab) {
	t.Helper()
	inside := func(argv ...string) string {
		t.Helper()
		cmd, err := l.Command(t.Context(), argv...)
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q inside the lab: %v", argv, err)
		}
		return string(out)
	}
	var links []struct {
		Name string `json:"ifname"`
		Addr []struct {
			Local string `json:"local"`
			Len   int    `json:"prefixlen"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(inside("ip", "-j", "address")), &links); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range links {
		names = append(names, k.Name)
		if k.Name == lab.Bridge && (len(k.Addr) != 1 || netip.MustParseAddr(k.Addr[0].Local) != l.Address() || k.Addr[0].Len != 24) {
			t.Errorf("addresses of the bridge: %+v", k.Addr)
		}
	}
	slices.Sort(names)
	for _, n := range names { // a kernel may put tunnel devices of its own into every namespace
		if n != lab.Bridge && n != "lo" && !regexp.MustCompile(`^(tunl|sit|ip6tnl|gre|gretap|erspan|ip_vti|ip6_vti|ip6gre|ifb)\d`).MatchString(n) {
			t.Errorf("link %s in the lab", n)
		}
	}
	if out := inside("ip", "route", "show", "default"); out != "" {
		t.Errorf("a default route in the lab: %s", out)
	}
	if out := inside("cat", "/proc/sys/net/ipv4/ip_forward"); out != "0\n" {
		t.Errorf("forwarding in the lab: %q", out)
	}
	if out := inside("nft", "list", "ruleset"); out != "" {
		t.Errorf("firewall rules in the lab: %s", out)
	}
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		var said string
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			said = string(e.Stderr)
		}
		t.Fatalf("%q: %v %s", argv, err, said)
	}
	return string(out)
}

func TestRefusals(t *testing.T) {
	for want, cfg := range map[string]lab.Config{
		"no data folder":     {},
		"8 addresses":        {Data: "/d", Subnet: netip.MustParsePrefix("10.0.0.0/30")},
		"no IPv4 network":    {Data: "/d", Subnet: netip.MustParsePrefix("fd00::/64")},
		"is no IPv4 network": {Data: "/d", Subnet: netip.MustParsePrefix("10.0.0.1/24")},
		"longer than":        {Data: "/d", Root: "/run/" + strings.Repeat("x", 40)},
	} {
		if _, err := lab.Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
	ctx := context.Background()
	l, err := lab.Open(lab.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Command(ctx, "true"); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("a command in a lab that is not up: %v", err)
	}
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
	}()
	// Another data folder with the same eight digits: the marker tells.
	raw, err := os.ReadFile(filepath.Join(l.RunDir(), "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.RunDir(), "lab.json"), []byte(`{"data":"/other","subnet":"10.77.0.0/24"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func(context.Context) error{l.Up, l.Down} {
		if err := do(ctx); err == nil || !strings.Contains(err.Error(), "belongs to the data folder /other") {
			t.Errorf("a lab of another data folder: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(l.RunDir(), "lab.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nowhere")
	if err := l.Up(ctx); err == nil || !strings.Contains(err.Error(), "install the Debian package iproute2") {
		t.Errorf("without iproute2: %v", err)
	}
	t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}
