package serve_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/glebarez/go-sqlite"
)

// TestRefusals: where an engine cannot serve it says so in one sentence, does nothing, and ends with a code.
func TestRefusals(t *testing.T) {
	segment(t)
	data := filepath.Join(t.TempDir(), "data")
	socket := filepath.Join(t.TempDir(), "s")
	serve := func(iface, subnet string, more ...string) []string {
		return append([]string{"serve", "--data", data, "--socket", socket, "--interface", iface, "--subnet", subnet}, more...)
	}
	for _, c := range []struct {
		name string
		code int
		says string
		args []string
	}{
		{"no data folder", 2, "cannot serve: no data folder is named; add --data DIR", []string{"serve"}},
		{"no interface", 2, "name the interface towards the machines and its network: --interface NAME --subnet", []string{"serve", "--data", data}},
		{"unreadable subnet", 2, `cannot read --subnet "10.99"`, serve(here, "10.99")},
		{"unreadable address", 2, `cannot read --address "x"`, serve(here, subnet, "--address", "x")},
		{"unknown log level", 2, `cannot use --log-level "loud"`, serve(here, subnet, "--log-level", "loud")},
		{"no such interface", 1, `there is no network interface "eth9"; this machine has ` + here, serve("eth9", subnet)},
		{"loopback", 1, "the interface lo is the loopback", serve("lo", "127.0.0.0/8")},
		{"interface down", 1, "the interface down0 is down; set it up with: ip link set down0 up", serve("down0", "10.98.0.0/24")},
		{"other subnet", 1, "does not have the address 10.98.0.1 (it has 10.99.0.1/24); give it one with: ip address add 10.98.0.1/24 dev lan0", serve(here, "10.98.0.0/24")},
		{"other prefix length", 1, "has the address 10.99.0.1/24, which is not in the subnet 10.99.0.0/25", serve(here, "10.99.0.0/25")},
		{"bits beside the prefix", 1, "write --subnet 10.99.0.0/24", serve(here, "10.99.0.5/24")},
		{"too small", 1, "is not an IPv4 network of at least 32 addresses", serve(here, "10.99.0.0/28")},
		{"IPv6", 1, "is not an IPv4 network", serve(here, "fd00::/64")},
		{"address elsewhere", 1, "the engine's address 10.98.0.1 is not in the subnet", serve(here, subnet, "--address", "10.98.0.1")},
		{"address not there", 1, "does not have the address 10.99.0.7", serve(here, subnet, "--address", "10.99.0.7")},
		{"address of a balancer", 1, "lies in 10.99.0.192/26, which is for balancers", serve(here, subnet, "--address", "10.99.0.250")},
		{"long socket", 1, "a socket's path has at most 107 bytes, this one has 121; choose a shorter one with --socket", serveArgs(data, "--socket", "/"+strings.Repeat("s", 120))},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, c.code, c.says, c.args...) })
	}
	if _, err := os.Stat(filepath.Join(data, "joist.db")); err == nil {
		t.Error("a refused engine made a database")
	}
}

// TestRights runs the program as somebody else.
func TestRights(t *testing.T) {
	segment(t)
	dir := t.TempDir()
	cmd := exec.Command(os.Getenv(programEnv), serveArgs(filepath.Join(dir, "d"), "--socket", filepath.Join(dir, "s"))...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "it needs the rights CAP_NET_BIND_SERVICE") || !strings.Contains(string(out), "run it as root") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPorts has each of the engine's ports taken, and the sentence names who has it.
func TestPorts(t *testing.T) {
	segment(t)
	data := t.TempDir()
	for _, c := range []struct{ network, addr string }{
		{"udp", address + ":53"}, {"tcp", address + ":53"}, {"udp", "0.0.0.0:67"}, {"udp", "0.0.0.0:69"},
		{"udp", "0.0.0.0:4011"}, {"tcp", address + ":8080"}, {"tcp", "0.0.0.0:8443"},
	} {
		t.Run(c.network+" "+c.addr, func(t *testing.T) {
			var closer interface{ Close() error }
			var err error
			if c.network == "udp" {
				closer, err = net.ListenPacket("udp4", c.addr)
			} else {
				closer, err = net.Listen("tcp4", c.addr)
			}
			must(t, err)
			defer closer.Close()
			_, port, _ := net.SplitHostPort(c.addr)
			code, _, errs := joist(t, serveArgs(data, "--socket", filepath.Join(t.TempDir(), "s"))...)
			holder := fmt.Sprintf("is in use: it is held by serve.test (pid %d)", os.Getpid())
			if code != 1 || !strings.Contains(errs, holder) || !strings.Contains(errs, port) || !strings.Contains(errs, "stop that program") || strings.Count(errs, "\n") != 1 {
				t.Errorf("exit code %d\n%s", code, errs)
			}
		})
	}
	start(t, data).stop() // nothing was lost by it
}

// TestSecondEngine: one socket, and one data folder, has one engine.
func TestSecondEngine(t *testing.T) {
	data := t.TempDir()
	e := start(t, data)
	refused(t, 1, "another joist serves there; stop it first, or choose another socket with --socket", serveArgs(data, "--socket", e.socket)...)
	refused(t, 1, fmt.Sprintf("cannot use %s: process %d (joist serve) holds it since ", data, e.cmd.Process.Pid), serveArgs(data, "--socket", filepath.Join(t.TempDir(), "s"))...)
	e.want(0, "no clusters yet", "status")
	e.kill()
	start(t, data, "--socket", e.socket).stop() // the socket of a dead engine is in nobody's way
}

// TestData: folders that cannot be used, and data that is not ours to read.
func TestData(t *testing.T) {
	segment(t)
	dir := t.TempDir()
	sock := []string{"--socket", filepath.Join(dir, "s")}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	refused(t, 1, "the data folder "+file+" is no folder", serveArgs(file, sock...)...)
	frozen := filepath.Join(dir, "frozen")
	must(t, os.Mkdir(frozen, 0o700))
	must(t, syscall.Mount("tmpfs", frozen, "tmpfs", syscall.MS_RDONLY, ""))
	defer func() { must(t, syscall.Unmount(frozen, 0)) }()
	refused(t, 1, "the data folder "+frozen+" is on a read-only file system", serveArgs(frozen, sock...)...)

	// Somebody with the rights to serve, but not to write there.
	alien := filepath.Join(dir, "alien")
	must(t, os.Mkdir(alien, 0o700))
	cmd := exec.Command("setpriv", append([]string{"--reuid", "65534", "--clear-groups", "--inh-caps", "+net_admin,+net_raw,+net_bind_service",
		"--ambient-caps", "+net_admin,+net_raw,+net_bind_service", "--bounding-set", "-dac_override,-dac_read_search", os.Getenv(programEnv)}, serveArgs(alien, sock...)...)...)
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the data folder "+alien+" cannot be written: no permission") {
		t.Errorf("%v\n%s", err, out)
	}

	data := filepath.Join(dir, "data")
	start(t, data).stop()
	t.Run("newer schema", func(t *testing.T) {
		db, err := sql.Open("sqlite", filepath.Join(data, "joist.db"))
		must(t, err)
		_, err = db.Exec(`INSERT INTO schema_migrations (id) VALUES ('9999-future')`)
		must(t, err)
		refused(t, 1, "its schema is newer than this program; start the newer program again, or restore a copy from before the upgrade", serveArgs(data, sock...)...)
		_, err = db.Exec(`DELETE FROM schema_migrations WHERE id = '9999-future'`)
		must(t, err)
		must(t, db.Close())
		start(t, data).stop()
	})
	t.Run("no database", func(t *testing.T) {
		other := t.TempDir()
		must(t, os.WriteFile(filepath.Join(other, "joist.db"), []byte("these are no tables\n"), 0o600))
		refused(t, 1, "it is not a SQLite database; move it away, or use another data folder", serveArgs(other, sock...)...)
	})
	for name, c := range map[string]struct {
		damage func(ca string) error
		says   string
	}{
		"identity lost":    {func(ca string) error { return os.Remove(filepath.Join(ca, "identity")) }, "is missing; bring it back"},
		"identity damaged": {func(ca string) error { return os.WriteFile(filepath.Join(ca, "identity"), []byte("x\n"), 0o600) }, "holds no age identity"},
		"identity open":    {func(ca string) error { return os.Chmod(filepath.Join(ca, "identity"), 0o644) }, "set it to 0600"},
		"key damaged":      {func(ca string) error { return truncateOne(ca, "*.age") }, "cannot decrypt"},
		"ledger damaged": {func(ca string) error {
			return os.WriteFile(filepath.Join(ca, "ledger.jsonl"), []byte("{\n{}\n"), 0o600)
		}, "ledger.jsonl"},
		"ledger lost": {func(ca string) error { return os.Remove(filepath.Join(ca, "ledger.jsonl")) }, "ca/ledger.jsonl is missing; bring the whole folder back"},
		"root lost":   {func(ca string) error { return os.Remove(filepath.Join(ca, "root.age")) }, "ca/root.age is missing; bring the whole folder back"},
		"a cluster's key lost": {func(ca string) error {
			keys := filepath.Join(ca, "..", "secrets")
			db, err := sql.Open("sqlite", filepath.Join(ca, "..", "joist.db"))
			if err == nil {
				_, err = db.Exec(`INSERT INTO secret_keys (cluster) VALUES ('demo')`)
				err = errors.Join(err, db.Close())
			}
			return errors.Join(err, os.RemoveAll(keys))
		}, "missing there is demo.key, without which nothing that was sealed with it can be opened; bring the whole data folder back"},
		"keys lost": {os.RemoveAll, "ca/root.age is missing; bring the whole folder back"},
		"database lost": {func(ca string) error { return os.Remove(filepath.Join(ca, "..", "joist.db")) },
			"the contents of its database, joist.db with its -wal, are missing; bring the whole folder back"},
		"database empty": {func(ca string) error { return os.Truncate(filepath.Join(ca, "..", "joist.db"), 0) },
			"the contents of its database, joist.db with its -wal, are missing; bring the whole folder back"},
	} {
		t.Run(name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "data")
			run(t, "cp", "-a", data, copied)
			must(t, c.damage(filepath.Join(copied, "ca")))
			refused(t, 1, c.says, serveArgs(copied, sock...)...)
			refused(t, 1, c.says, serveArgs(copied, sock...)...) // a refusal mends nothing
		})
	}
}

func truncateOne(dir, pattern string) error {
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no %s in %s: %w", pattern, dir, err)
	}
	info, err := os.Stat(files[0])
	if err != nil {
		return err
	}
	return os.Truncate(files[0], info.Size()/2)
}

// TestLoaders hides Debian's loaders in this mount namespace.
func TestLoaders(t *testing.T) {
	segment(t)
	must(t, syscall.Mount("tmpfs", "/usr/lib/ipxe", "tmpfs", 0, ""))
	defer func() { must(t, syscall.Unmount("/usr/lib/ipxe", 0)) }()
	refused(t, 1, "(is the package ipxe installed?): cannot serve", serveArgs(t.TempDir(), "--socket", filepath.Join(t.TempDir(), "s"))...)
}

// TestLabEngine: an engine that cannot start in a lab is not waited for, and its reason is told.
func TestLabEngine(t *testing.T) {
	segment(t)
	data := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() { run(t, os.Getenv(programEnv), "lab", "down", "--data", data) }) // with the usual PATH again
	tools := t.TempDir()
	for _, name := range []string{"ip", "sh"} { // all that a lab without machines uses
		tool, err := exec.LookPath(name)
		must(t, err)
		must(t, os.Symlink(tool, filepath.Join(tools, name)))
	}
	usual := os.Getenv("PATH")
	t.Setenv("PATH", tools)
	begun := time.Now()
	refused(t, 1, "the engine has ended: qemu-system-x86_64 is missing: install the Debian package qemu-system-x86", "lab", "up", "--data", data)
	if d := time.Since(begun); d > 30*time.Second {
		t.Errorf("it took %s", d)
	}
	t.Setenv("PATH", usual)
	out := run(t, os.Getenv(programEnv), "lab", "up", "--data", data)
	if _, socket, found := strings.Cut(out, "  export JOIST_DATA="+data+" JOIST_SOCKET="); !found {
		t.Errorf("how it is reached is not told:\n%s", out)
	} else {
		run(t, os.Getenv(programEnv), "status", "--socket", strings.TrimSpace(socket))
	}
}
