package dhcp_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// lab is a server's network namespace (interface "srv", 10.77.0.1/24) wired to a client's (interface "cli", no address).
type lab struct {
	t        *testing.T
	dir      string // for databases, leases and scripts
	srv, cli string // names of the namespaces
}

// newLab makes the namespaces and removes them when the test ends. It fails, rather than skips, without root or a tool.
func newLab(t *testing.T, tools ...string) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s (Debian: iproute2, isc-dhcp-client, busybox, dnsmasq-base): %v", tool, err)
		}
	}
	id := fmt.Sprintf("jd%d-%d", os.Getpid(), time.Now().UnixNano()%1_000_000)
	l := &lab{t: t, dir: t.TempDir(), srv: id + "s", cli: id + "c"}
	for _, ns := range []string{l.srv, l.cli} {
		l.run("ip", "netns", "add", ns)
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "delete", ns).CombinedOutput(); err != nil {
				t.Errorf("cannot delete namespace %s: %v: %s", ns, err, out)
			}
		})
		l.run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	l.run("ip", "-n", l.srv, "link", "add", "srv", "type", "veth", "peer", "name", "cli", "netns", l.cli)
	l.run("ip", "-n", l.cli, "link", "set", "cli", "address", clientMAC)
	l.run("ip", "-n", l.srv, "address", "add", "10.77.0.1/24", "dev", "srv")
	l.run("ip", "-n", l.srv, "link", "set", "srv", "up")
	l.run("ip", "-n", l.cli, "link", "set", "cli", "up")
	return l
}

const clientMAC = "52:54:00:77:00:01"

// run runs a command to its end and returns what it printed.
func (l *lab) run(command string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in runs a command in a namespace.
func (l *lab) in(ns, command string, args ...string) string {
	l.t.Helper()
	return l.run("ip", append([]string{"netns", "exec", ns, command}, args...)...)
}

// role is this test binary as another program in a namespace.
func (l *lab) role(ns, role string) *exec.Cmd {
	c := exec.Command("ip", "netns", "exec", ns, os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"="+role)
	return c
}

// process is a running program, with its output as lines.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.WriteCloser
	mu    sync.Mutex
	lines []string
	more  chan struct{} // a line arrived
	ended chan struct{}
}

// start runs a program until the test ends; `ip netns exec` replaces itself, so that the process is the program's own.
func (l *lab) start(c *exec.Cmd) *process {
	l.t.Helper()
	p := &process{t: l.t, cmd: c, more: make(chan struct{}, 1), ended: make(chan struct{})}
	out, err := c.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if p.input, err = c.StdinPipe(); err != nil {
		l.t.Fatal(err)
	}
	var complaints bytes.Buffer
	c.Stderr = &complaints
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
		_ = c.Wait() // killed, as a rule
	}()
	l.t.Cleanup(func() {
		p.kill()
		if l.t.Failed() {
			l.t.Logf("%s printed:\n%s\n%s", strings.Join(c.Args, " "), strings.Join(p.output(), "\n"), complaints.String())
		}
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

func (p *process) output() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// await waits until a line has all the parts, and returns it. How long it waits is no statement about speed.
func (p *process) await(parts ...string) string {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for {
	lines:
		for _, line := range p.output() {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue lines
				}
			}
			return line
		}
		select {
		case <-p.more:
		case <-p.ended:
			p.t.Fatalf("the program ended without a line with %q", parts)
		case <-deadline:
			p.t.Fatalf("no line with %q", parts)
		}
	}
}

// serve starts a DHCP server on the database of the lab and waits until it listens.
func (l *lab) serve() *process {
	l.t.Helper()
	p := l.start(l.role(l.srv, "serve srv "+filepath.Join(l.dir, "leases.db")))
	p.await("ready")
	return p
}

// script writes an executable for a DHCP client to call; it appends its environment to a file, which it returns.
func (l *lab) script(name, body string) (path, record string) {
	l.t.Helper()
	path, record = filepath.Join(l.dir, name), filepath.Join(l.dir, name+".out")
	text := "#!/bin/sh\nexec >>" + record + " 2>&1\n" + body
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		l.t.Fatal(err)
	}
	return path, record
}

// eventually waits until a file that another program writes has a text.
func (l *lab) eventually(file, text string) {
	l.t.Helper()
	for tries := 0; ; tries++ {
		got, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(got), text) {
			return
		}
		if tries == 600 {
			l.t.Fatalf("%s never had %q (%v):\n%s", file, text, err, got)
		}
		time.Sleep(100 * time.Millisecond) // files of other programs cannot be waited for in another way
	}
}

// contains fails the test unless a file has all the parts.
func (l *lab) contains(file string, parts ...string) {
	l.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, part := range parts {
		if !strings.Contains(string(text), part) {
			l.t.Errorf("%s lacks %q:\n%s", file, part, text)
		}
	}
}

// dnsmasq is another DHCP server, at the client's end of the wire.
func dnsmasq(l *lab) *exec.Cmd {
	return exec.Command("ip", "netns", "exec", l.cli, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=/dev/stdout",
		"--interface=cli", "--bind-interfaces", "--dhcp-range=10.77.0.50,10.77.0.60", "--dhcp-leasefile="+filepath.Join(l.dir, "rival.leases"),
		"--pid-file="+filepath.Join(l.dir, "rival.pid"), "--user=root")
}
