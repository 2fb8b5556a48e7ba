// Package lab is what tests of whole clusters on virtual machines have in common: an engine in a network of its own, driven
// through its programs alone, and everything that its journals say. It needs root and the packages that
// tests/demo/packages.sh lists, and fails where one is missing. What it builds it keeps in build/.
package lab

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

	"joist/tests/hostnet"
)

// Built is what the tests of a package run.
type Built struct {
	Root  string // of the repository
	Joist string // the program
	sets  string // folder of boot sets
	err   error
}

// build works in packages three folders below the repository's own.
var build = sync.OnceValue(func() Built {
	root, err := filepath.Abs("../../..")
	if err != nil {
		return Built{err: err}
	}
	b := Built{Root: root, Joist: filepath.Join(root, "build/tests/joist"), sets: filepath.Join(root, "build/bootsets")}
	for _, argv := range [][]string{
		{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", "build/tests/", "./cmd/..."},
		{b.Joist, "bootset", "build", "--out", "build/bootsets", "--cache", "build/bootset-cache", "--agent", "build/tests/joist-agent"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("%q: %w\n%s", argv, err, out)
			return b
		}
	}
	return b
})

// Patience is for a machine that is shared with others; what things take on a quiet one is logged.
const Patience = 15 * time.Minute

// Lab is a lab with an engine in it, as one test or subtest sees it.
type Lab struct {
	*testing.T
	*state
}

// state is what all subtests of a test share.
type state struct {
	Built
	Data      string // the engine's data folder
	Socket    string
	namespace string
	host      hostnet.Net // before
	begun     time.Time
	bare      bool // the engine is given no boot sets when it starts

	mu     sync.Mutex
	events []Event
	news   chan struct{} // closed and replaced with each event
}

// Machines says how many machines a lab has from the start, and of what kind.
type Machines struct {
	Count  int   // n1, n2, …
	Memory int64 // bytes
}

// New starts an engine with machines, all off. Whatever the test does, nothing is left of it.
func New(t *testing.T, m Machines) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes a network namespace and starts virtual machines")
	}
	b := build()
	if b.err != nil {
		t.Fatal(b.err)
	}
	l := &Lab{T: t, state: &state{Built: b, Data: t.TempDir(), host: hostnet.Look(t), begun: time.Now(), news: make(chan struct{})}}
	t.Cleanup(l.down)
	l.Up(m)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() { defer close(done); l.listen(ctx) }()
	return l
}

// Sub runs a part of the test, and says how long it took and whether it was well.
func (l *Lab) Sub(name string, f func(l *Lab)) bool {
	l.Helper()
	begun := time.Now()
	ok := l.Run(name, func(t *testing.T) { f(&Lab{T: t, state: l.state}) })
	l.Logf("== %s: ok %t after %.0f s, %.0f s from the test's begin, load %s", name, ok, time.Since(begun).Seconds(), time.Since(l.begun).Seconds(), Load())
	return ok
}

// Up makes lab, engine and machines, or what is missing of them.
func (l *Lab) Up(m Machines) {
	l.Helper()
	args := []string{"lab", "up", "--data", l.Data}
	if !l.bare {
		args = append(args, "--bootsets", l.sets)
	}
	if m.Count > 0 {
		args = append(args, "--machines", fmt.Sprint(m.Count), "--memory", fmt.Sprint(m.Memory))
	}
	var up struct{ Socket, Namespace string }
	l.JSON(&up, args...)
	l.Socket, l.namespace = up.Socket, up.Namespace
}

// Sourceless takes everything from the engine that clusters could be made of but for what frozen sets hold: the mirror's
// entries, the boot sets, and where those came from. The engine is stopped for it, and starts again.
func (l *Lab) Sourceless() {
	l.Helper()
	l.End("engine", syscall.SIGTERM)
	catalogue := filepath.Join(l.Data, "mirror", "catalogue.json")
	raw, err := os.ReadFile(catalogue)
	var all map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil || all["entries"] == nil {
		l.Fatalf("the mirror's catalogue: %v %s", err, raw)
	}
	all["entries"] = json.RawMessage("[]")
	if raw, err = json.Marshal(all); err == nil {
		err = os.WriteFile(catalogue, raw, 0o600)
	}
	if err != nil {
		l.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(l.Data, "bootsets", "*.json"))
	if err != nil || len(paths) == 0 {
		l.Fatalf("no boot set is registered: %v", err)
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			l.Fatal(err)
		}
	}
	l.bare = true
	l.Up(Machines{})
}

func (l *Lab) down() {
	if l.Failed() {
		l.keep()
	}
	if out, err := l.Ask(time.Minute, "lab", "down", "--data", l.Data); err != nil {
		l.Errorf("lab down: %v\n%s", err, out)
	}
	for _, path := range []string{"/run/netns/" + l.namespace, filepath.Dir(l.Socket), "/etc/netns/" + l.namespace} {
		if _, err := os.Lstat(path); err == nil && l.namespace != "" {
			l.Errorf("lab down left %s", path)
		}
	}
	if out, err := exec.Command("pgrep", "-af", l.Data).Output(); err == nil {
		l.Errorf("lab down left processes:\n%s", out)
	}
	l.SameHost("after")
	l.replayed()
}

// SameHost compares the host's network with what it was before the lab. Other programs may change it for a moment.
func (l *Lab) SameHost(when string) {
	l.Helper()
	var changed string
	for range 5 {
		if changed = l.host.Changed(hostnet.Look(l)); changed == "" {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	l.Errorf("the host's network is another one %s: %s", when, changed)
}

// replayed wants that every decision of every cluster that the test had is made again from its journal, and is the same. It reads
// what the engine left, whatever ended it.
func (l *Lab) replayed() {
	for _, name := range l.clusters() {
		out, err := l.Ask(5*time.Minute, "replay", name, "--data", l.Data)
		if err != nil {
			l.Errorf("%v\n%s", err, out)
			continue
		}
		l.Logf("replay of %s: %s", name, out)
	}
}

// clusters are those that events spoke of, in order of their first.
func (l *Lab) clusters() []string {
	var names []string
	l.Each(func(e *Event) {
		if name, ok := strings.CutPrefix(e.Journal, "cluster/"); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	})
	return names
}

// keep saves what explains a failure.
func (l *Lab) keep() {
	dir := filepath.Join(l.Root, "build/failed", strings.ReplaceAll(l.Name(), "/", "-"))
	_ = os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.Log(err)
		return
	}
	ask := map[string][]string{"events.json": {"events", "-o", "json"}, "status.txt": {"status"}, "machines.json": {"node", "list", "-o", "json"}}
	clusters := l.clusters()
	for _, name := range clusters {
		ask["status-"+name+".txt"] = []string{"status", name}
		ask["plan-"+name+".txt"] = []string{"plan", "--cluster", name}
	}
	for name, args := range ask {
		out, _ := l.Ask(20*time.Second, args...)
		_ = os.WriteFile(filepath.Join(dir, name), out, 0o644)
	}
	for _, name := range clusters {
		l.logsOf(name, dir)
		l.lastEvents(name, 12)
	}
	if out, err := l.Ask(20*time.Second, "node", "list"); err == nil { // how far each boot came
		l.Logf("%s", out)
	}
	logs, _ := filepath.Glob(filepath.Join(l.Data, "machines/machines/*/*.log"))
	for _, path := range append(logs, filepath.Join(l.Data, "engine.log")) {
		if raw, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(filepath.Join(dir, filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path)), raw, 0o644)
		}
	}
	l.Logf("events, logs and consoles are in %s", dir)
}

// lastEvents says what happened last to a cluster: where the folder of a failure is out of reach, this has to do.
func (l *Lab) lastEvents(cluster string, count int) {
	out, err := l.Ask(20*time.Second, "events", "--cluster", cluster)
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, line := range lines[max(0, len(lines)-count):] {
		l.Logf("%.170s", line)
	}
}

// logsOf keeps what the steps that failed said last.
func (l *Lab) logsOf(cluster, dir string) {
	failed := map[string]bool{}
	l.Each(func(e *Event) {
		if e.Journal == "cluster/"+cluster && e.Kind == "failed" {
			failed[e.Instance()] = true
		}
	})
	for instance := range failed {
		if out, err := l.Ask(20*time.Second, "show", cluster+"/"+instance); err == nil {
			_ = os.WriteFile(filepath.Join(dir, "step-"+strings.NewReplacer("/", "_", "[", "-", "]", "").Replace(instance)+".txt"), out, 0o644)
		}
	}
}

// Ask runs joist and gives its standard output; the error has the other one.
func (l *Lab) Ask(limit time.Duration, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.Joist, args...)
	cmd.Env = append(os.Environ(), "JOIST_DATA="+l.Data, "JOIST_SOCKET="+l.Socket)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %s", limit)
	}
	if err != nil {
		err = fmt.Errorf("joist %s: %w\n%s", strings.Join(args, " "), err, said.Bytes())
	}
	return out.Bytes(), err
}

// Must runs joist, which must succeed, and gives what it says.
func (l *Lab) Must(args ...string) string {
	l.Helper()
	out, err := l.Ask(time.Minute, args...)
	if err != nil {
		l.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// JSON runs joist and decodes its answer.
func (l *Lab) JSON(v any, args ...string) {
	l.Helper()
	l.Decode(v, time.Minute, args...)
}

// Decode runs joist for as long as limit says and decodes its answer, which may be that converging stopped.
func (l *Lab) Decode(v any, limit time.Duration, args ...string) {
	l.Helper()
	out, err := l.Ask(limit, append(args, "-o", "json")...)
	if len(out) > 0 {
		if bad := json.Unmarshal(out, v); bad != nil {
			l.Fatalf("joist %s does not yield JSON: %v\n%s", strings.Join(args, " "), bad, out)
		}
	}
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 4) { // what stopped is in the answer
		l.Fatal(err)
	}
}

// Inside runs a command in the lab's network and gives all that it says.
func (l *Lab) Inside(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.Joist, append([]string{"lab", "exec", "--data", l.Data, "--"}, argv...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// MustInside is Inside for what must succeed.
func (l *Lab) MustInside(argv ...string) string {
	l.Helper()
	out, err := l.Inside(argv...)
	if err != nil {
		l.Fatalf("%q in the lab: %v\n%s", argv, err, out)
	}
	return out
}

// Probe asks a node's probe (the pack proof in testdata), past engine and agent: one line in, an answer out.
func (l *Lab) Probe(address, line string) string {
	l.Helper()
	return l.MustInside("timeout", "110", "bash", "-c", `exec 3<>"/dev/tcp/$1/9900"; printf '%s\n' "$2" >&3; cat <&3`, "probe", address, line)
}

// PID is that of a process that the lab recorded: engine, vm-n1, …
func (l *Lab) PID(name string) int {
	l.Helper()
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(l.Socket), "pids", name+".json"))
	if err != nil {
		l.Fatal(err)
	}
	var record struct {
		Process struct{ PID int }
	}
	if err := json.Unmarshal(raw, &record); err != nil || record.Process.PID <= 1 {
		l.Fatalf("the record of %s: %s", name, raw)
	}
	return record.Process.PID
}

// End signals a recorded process and waits until it is gone.
func (l *Lab) End(name string, signal syscall.Signal) {
	l.Helper()
	pid := l.PID(name)
	if err := syscall.Kill(pid, signal); err != nil {
		l.Fatalf("%s: %v", name, err)
	}
	for range 600 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	l.Fatalf("%s (process %d) is alive 30 s after %s", name, pid, signal)
}

// Load is how busy this computer is.
func Load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(raw))
}
