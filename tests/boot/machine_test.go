package boot

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joist/engine/agent/scout"
	"joist/services/boot/bootset"
)

// patience is how long one boot may take on a slow machine without hardware virtualisation.
const patience = 4 * time.Minute

// scratch keeps boot sets, caches and the consoles of the last runs, outside version control.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../../build/boot-tests")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// requireTools fails clearly where a test cannot run.
func requireTools(t testing.TB, tools map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests build a node image and need root")
	}
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("install the Debian package %s: %v", pkg, err)
		}
	}
}

// buildProgram builds a static program.
func buildProgram(name, folder string) (string, error) {
	path, err := filepath.Abs("../../build/boot-tests/" + name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", path, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w: %s", name, err, out)
	}
	return path, nil
}

var buildAgent = sync.OnceValues(func() (string, error) { return buildProgram("testagent-bin", "./testagent") })

// buildSet builds, or finds, the profile's boot set with the test agent in it.
func buildSet(t testing.TB, profile bootset.Profile) *bootset.Set {
	t.Helper()
	agent, err := buildAgent()
	if err != nil {
		t.Fatal(err)
	}
	return buildSetWith(t, profile, agent)
}

func buildSetWith(t testing.TB, profile bootset.Profile, agent string) *bootset.Set {
	t.Helper()
	dir := scratch(t)
	start := time.Now()
	set, err := bootset.Build(t.Context(), bootset.Config{
		Profile: profile, Out: filepath.Join(dir, "sets"), Cache: filepath.Join(dir, "cache"), Agent: agent,
	}, func(stage, detail string) { t.Logf("%5.1fs %s: %s", time.Since(start).Seconds(), stage, detail) })
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// engine is the engine's side of the test agent.
type engine struct {
	url   string // as the machine sees it
	port  string
	facts chan map[string]json.RawMessage
	nodes chan map[string]string
	log   *requestLog
}

type requestLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *requestLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *requestLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// image serves the image at /image; it may be changed to serve a bad one.
func startEngine(t *testing.T, assigned scout.Image, image http.HandlerFunc) *engine {
	t.Helper()
	e := &engine{url: "http://10.0.2.100", facts: make(chan map[string]json.RawMessage, 16), nodes: make(chan map[string]string, 4), log: &requestLog{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /facts", func(w http.ResponseWriter, r *http.Request) {
		var f map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case e.facts <- f:
		default: // the test has seen enough
		}
		_ = json.NewEncoder(w).Encode(assigned) // the machine asks again
	})
	mux.HandleFunc("POST /node", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a short body does not decode
		var n map[string]string
		if err := json.Unmarshal(body, &n); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e.nodes <- n
	})
	mux.HandleFunc("GET /image", func(w http.ResponseWriter, r *http.Request) {
		e.log.add(r.Method + " " + r.Header.Get("Range"))
		image(w, r)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	e.port = server.URL[strings.LastIndex(server.URL, ":")+1:]
	return e
}

// machine is one virtual machine.
type machine struct {
	name    string
	set     *bootset.Set
	engine  *engine
	memory  int      // MiB; 2048 where zero
	nics    []string // -device arguments beyond the first
	args    []string // further QEMU arguments
	append  string   // further kernel words
	mac     string   // joist.mac; bootMAC where empty
	before  string   // monitor commands before the machine starts
	console string   // set by start: the file of the first serial port
	agent   string   // and of the second
}

const bootMAC = "52:54:00:6a:00:01"

// start runs the machine until the test ends. Its network ends at the engine: QEMU's user network is restricted, and
// one address in it forwards to the engine's port.
func (m *machine) start(t *testing.T) {
	t.Helper()
	dir := filepath.Join(scratch(t), "run", m.name)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.console, m.agent = filepath.Join(dir, "console.log"), filepath.Join(dir, "agent.log")
	if m.memory == 0 {
		m.memory = 2048
	}
	if m.mac == "" {
		m.mac = bootMAC
	}
	network := "user,id=n0,restrict=on,guestfwd=tcp:10.0.2.100:80-cmd:socat STDIO TCP:127.0.0.1:" + m.engine.port
	line := strings.Join([]string{
		"console=tty0 console=ttyS0,115200 panic=60", "joist.url=" + m.engine.url, "joist.mac=" + m.mac, "joist.log=ttyS1",
		"joist.boot=00112233445566778899aabbccddeeff", fmt.Sprintf("joist.time=%d", time.Now().Unix()), m.append,
	}, " ")
	args := []string{
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", fmt.Sprint(m.memory), "-smp", "2",
		"-nodefaults", "-display", "none", "-no-reboot", "-kernel", m.set.Path(m.set.Kernel), "-initrd", m.set.Path(m.set.Initrd), "-append", line,
		"-serial", "file:" + m.console, "-serial", "file:" + m.agent, "-monitor", "stdio", "-netdev", network,
		"-smbios", "type=1,uuid=6a6f6973-7400-4000-8000-000000000001,serial=S1", "-smbios", "type=11,value=joist:voucher:test",
	}
	if len(m.nics) == 0 {
		m.nics = []string{"virtio-net-pci,id=nic0,netdev=n0,mac=" + bootMAC}
	}
	for _, n := range m.nics {
		args = append(args, "-device", n)
	}
	args = append(args, m.args...)
	if m.before != "" {
		args = append(args, "-S")
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(dir, "qemu.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // killed
		_ = said.Close()       // a log
		if t.Failed() {
			t.Logf("console of %s (kept in %s):\n%s\n--- agent:\n%s\n--- qemu:\n%s", m.name, dir, tailOf(m.console), tailOf(m.agent), tailOf(said.Name()))
		}
	})
	if m.before != "" {
		if _, err := io.WriteString(stdin, m.before+"\ncont\n"); err != nil {
			t.Fatal(err)
		}
	}
}

func tailOf(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > 6000 {
		b = b[len(b)-6000:]
	}
	return string(b)
}

// see waits until a file of the machine's shows a text.
func (m *machine) see(t *testing.T, path, text string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not show %q within %s", filepath.Base(path), text, patience)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// receive waits for a machine's message.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}
