// Package serve_test runs the real program, joist serve and its command line, where an operator's first hour may lead.
// The tests need root: they run in a network, mount and process namespace of their own, with a second network namespace
// at the other end of a cable, and fail where a tool (iproute2, util-linux, dnsmasq) is missing.
package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "joist/services/api/v1"
)

// The segment: the engine's interface is here, the machines are in the namespace "far".
const (
	here    = "lan0"
	subnet  = "10.99.0.0/24"
	address = "10.99.0.1"
	there   = "10.99.0.2"
	far     = "far"
)

// programEnv names, for the process within the namespaces, the program under test.
const programEnv = "JOIST_TEST_PROGRAM"

func TestMain(m *testing.M) {
	code, err := inside(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// inside runs the tests in namespaces of their own; whatever they leave there ends with them.
func inside(m *testing.M) (int, error) {
	if os.Getenv(programEnv) != "" {
		return m.Run(), nil
	}
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests need root, to make network namespaces")
	}
	dir, err := os.MkdirTemp("", "joist-serve-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "joist")
	build := exec.Command("go", "build", "-o", program, "joist/cmd/joist")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("cannot build joist: %w\n%s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // others run the program, too
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), programEnv+"="+program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

var laid sync.Once

// segment lays the cable. Each test that needs it asks for it.
func segment(t *testing.T) {
	t.Helper()
	laid.Do(func() {
		must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		must(t, syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
		must(t, syscall.Mount("proc", "/proc", "proc", 0, ""))
		for _, line := range []string{
			"ip link set lo up",
			"ip netns add " + far,
			"ip link add " + here + " type veth peer name far0 netns " + far,
			"ip address add " + address + "/24 dev " + here,
			"ip link set " + here + " up",
			"ip -n " + far + " address add " + there + "/24 dev far0",
			"ip -n " + far + " link set far0 up",
			"ip -n " + far + " link set lo up",
			"ip link add down0 type bridge",
			"ip address add 10.98.0.1/24 dev down0",
		} {
			run(t, strings.Fields(line)...)
		}
	})
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// buffer may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// patience bounds everything that is waited for.
const patience = 30 * time.Second

// joist runs the command line to its end.
func joist(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs buffer
	cmd := exec.CommandContext(ctx, os.Getenv(programEnv), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("joist %s did not end within %s\n%s%s", strings.Join(args, " "), patience, out.String(), errs.String())
	case err != nil && !errors.As(err, &exit):
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// serveArgs are those of an engine that can serve, then more.
func serveArgs(data string, more ...string) []string {
	return append([]string{"serve", "--data", data, "--interface", here, "--subnet", subnet}, more...)
}

// engine is a running joist serve.
type engine struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    *buffer
	ended  chan struct{}
}

// start starts an engine and waits until it answers.
func start(t *testing.T, data string, more ...string) *engine {
	t.Helper()
	segment(t)
	e := &engine{t: t, socket: filepath.Join(t.TempDir(), "s"), log: &buffer{}, ended: make(chan struct{})}
	if i := slices.Index(more, "--socket"); i >= 0 {
		e.socket = more[i+1]
	}
	e.cmd = exec.Command(os.Getenv(programEnv), serveArgs(data, append([]string{"--socket", e.socket}, more...)...)...)
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	must(t, e.cmd.Start())
	go func() {
		_ = e.cmd.Wait() // the state is looked at
		close(e.ended)
	}()
	t.Cleanup(e.kill)
	e.eventually("it answers", func() bool {
		select {
		case <-e.ended:
			t.Fatalf("the engine ended with %d\n%s", e.cmd.ProcessState.ExitCode(), e.log)
		default:
		}
		code, _, _ := joist(t, "status", "--socket", e.socket)
		return code == 0
	})
	return e
}

func (e *engine) kill() {
	_ = e.cmd.Process.Kill() // it may have ended
	<-e.ended
}

// stop asks the engine to end and wants it to end well.
func (e *engine) stop() {
	e.t.Helper()
	must(e.t, e.cmd.Process.Signal(syscall.SIGTERM))
	if code := e.wait(); code != 0 {
		e.t.Errorf("the engine ended with %d\n%s", code, e.log)
	}
}

// wait waits for the engine to end by itself and gives its exit code.
func (e *engine) wait() int {
	e.t.Helper()
	select {
	case <-e.ended:
	case <-time.After(patience):
		e.t.Fatalf("the engine did not end within %s\n%s", patience, e.log)
	}
	return e.cmd.ProcessState.ExitCode()
}

func (e *engine) eventually(what string, ok func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("not within %s: %s\n%s", patience, what, e.log)
		}
	}
}

// want runs a command against the engine and checks its exit code and what it says.
func (e *engine) want(code int, says string, args ...string) string {
	e.t.Helper()
	got, out, errs := joist(e.t, append(args, "--socket", e.socket)...)
	if got != code || !strings.Contains(out+errs, says) {
		e.t.Fatalf("joist %s: exit code %d, want %d and %q\n%s%s\n%s", strings.Join(args, " "), got, code, says, out, errs, e.log)
	}
	return out + errs
}

func (e *engine) status() v1.Status {
	e.t.Helper()
	var s v1.Status
	must(e.t, json.Unmarshal([]byte(e.want(0, "", "status", "-o", "json")), &s))
	return s
}

// noticed waits until a notice says something, and gives it.
func (e *engine) noticed(says string) string {
	e.t.Helper()
	found := ""
	e.eventually("a notice says "+says, func() bool {
		for _, n := range e.status().Notices {
			if strings.Contains(n, says) {
				found = n
			}
		}
		return found != ""
	})
	return found
}

// refused wants joist serve to end with a sentence.
func refused(t *testing.T, code int, says string, args ...string) {
	t.Helper()
	got, out, errs := joist(t, args...)
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if got != code || out != "" || len(lines) != 1 || !strings.HasPrefix(errs, "joist: ") || !strings.Contains(errs, says) {
		t.Errorf("joist %s: exit code %d, want %d and one line with %q\n%s%s", strings.Join(args, " "), got, code, says, out, errs)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
