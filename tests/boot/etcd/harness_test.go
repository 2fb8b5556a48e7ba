// Package etcd_test holds joist to its first promise, through its programs alone: machines that know nothing but to boot
// from the network become an etcd cluster, grow, shrink, break and recover. It needs root and the packages that
// tests/demo/packages.sh lists, and fails where one is missing. What it builds it keeps in build/.
package etcd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joist/tests/hostnet"
)

// built is what all tests of this package run.
type built struct {
	root  string // of the repository
	joist string
	sets  string // folder of boot sets
	err   error
}

var build = sync.OnceValue(func() built {
	root, err := filepath.Abs("../../..")
	if err != nil {
		return built{err: err}
	}
	b := built{root: root, joist: filepath.Join(root, "build/tests/joist"), sets: filepath.Join(root, "build/bootsets")}
	for _, argv := range [][]string{
		{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", "build/tests/", "./cmd/..."},
		{b.joist, "bootset", "build", "--out", "build/bootsets", "--cache", "build/bootset-cache", "--agent", "build/tests/joist-agent"},
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

// lab is a lab with an engine in it, and everything that its journals say.
type lab struct {
	*testing.T
	built
	data, socket, namespace string
	host                    hostnet.Net // before

	mu     sync.Mutex
	events []event
	news   chan struct{} // closed and replaced with each event
}

// event is what a test looks at in an event of a journal.
type event struct {
	Journal string
	Seq     uint64
	Time    time.Time
	Kind    string `json:"kind"` // of the event, not what its data call so
	fact
}

type fact struct {
	Task        string `json:"task"`
	Node        string `json:"node"`
	Action      string `json:"action"`
	Attempt     int    `json:"attempt"`
	Final       bool   `json:"final"`
	Error       string `json:"error"`
	Incarnation string `json:"incarnation"`
	Online      bool   `json:"online"`
	Outcome     string `json:"outcome"`
	Why         string `json:"why"`
	Kind        string `json:"kind"` // of an enrolment
	Machine     string `json:"machine"`
	Silent      *struct {
		Incarnation string `json:"incarnation"`
	} `json:"silent"`
}

func (e *event) instance() string {
	if e.Node == "" {
		return e.Task
	}
	return e.Task + "[" + e.Node + "]"
}

// memory of a machine in bytes: enough for image and etcd, and small enough for four beside a compiler.
const memory = 1536 << 20

// newLab starts an engine with machines n1, n2, …, all off. Whatever the test does, nothing is left of it.
func newLab(t *testing.T, machines int) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes a network namespace and starts virtual machines")
	}
	b := build()
	if b.err != nil {
		t.Fatal(b.err)
	}
	l := &lab{T: t, built: b, data: t.TempDir(), host: hostnet.Look(t), news: make(chan struct{})}
	t.Cleanup(l.down)
	l.up(machines)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() { defer close(done); l.listen(ctx) }()
	return l
}

// up makes lab, engine and machines, or what is missing of them.
func (l *lab) up(machines int) {
	l.Helper()
	var up struct{ Socket, Namespace string }
	l.json(&up, "lab", "up", "--data", l.data, "--bootsets", l.sets, "--machines", fmt.Sprint(machines), "--memory", fmt.Sprint(memory))
	l.socket, l.namespace = up.Socket, up.Namespace
}

func (l *lab) down() {
	if l.Failed() {
		l.keep()
	}
	if out, err := l.run(time.Minute, "lab", "down", "--data", l.data); err != nil {
		l.Errorf("lab down: %v\n%s", err, out)
	}
	for _, path := range []string{"/run/netns/" + l.namespace, filepath.Dir(l.socket), "/etc/netns/" + l.namespace} {
		if _, err := os.Lstat(path); err == nil && l.namespace != "" {
			l.Errorf("lab down left %s", path)
		}
	}
	if out, err := exec.Command("pgrep", "-af", l.data).Output(); err == nil {
		l.Errorf("lab down left processes:\n%s", out)
	}
	l.sameHost("after")
}

// sameHost compares the host's network with what it was before the lab. Other programs may change it for a moment.
func (l *lab) sameHost(when string) {
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

// keep saves what explains a failure.
func (l *lab) keep() {
	dir := filepath.Join(l.root, "build/failed", l.Name())
	_ = os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.Log(err)
		return
	}
	for name, args := range map[string][]string{"events.json": {"events", "-o", "json"}, "status.txt": {"status"}, "machines.json": {"node", "list", "-o", "json"}} {
		out, _ := l.run(20*time.Second, args...)
		_ = os.WriteFile(filepath.Join(dir, name), out, 0o644)
	}
	var clusters []string
	seen := map[string]bool{}
	l.each(func(e *event) {
		if name, ok := strings.CutPrefix(e.Journal, "cluster/"); ok && !seen[name] {
			seen[name] = true
			clusters = append(clusters, name)
		}
	})
	for _, name := range clusters {
		out, _ := l.run(20*time.Second, "status", name)
		l.Logf("%s", out)
		out, _ = l.run(20*time.Second, "plan", "--cluster", name)
		l.Logf("%s", out)
	}
	logs, _ := filepath.Glob(filepath.Join(l.data, "machines/machines/*/*.log"))
	for _, path := range append(logs, filepath.Join(l.data, "engine.log")) {
		if raw, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(filepath.Join(dir, filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path)), raw, 0o644)
		}
	}
	l.Logf("events, logs and consoles are in %s", dir)
}

// run runs joist and gives its standard output; the error has the other one.
func (l *lab) run(limit time.Duration, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.joist, args...)
	cmd.Env = append(os.Environ(), "JOIST_DATA="+l.data, "JOIST_SOCKET="+l.socket)
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

func (l *lab) must(args ...string) string {
	l.Helper()
	out, err := l.run(time.Minute, args...)
	if err != nil {
		l.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func (l *lab) json(v any, args ...string) {
	l.Helper()
	l.decode(v, time.Minute, args...)
}

func (l *lab) decode(v any, limit time.Duration, args ...string) {
	l.Helper()
	out, err := l.run(limit, append(args, "-o", "json")...)
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

// inside runs a command in the lab's network and gives all that it says.
func (l *lab) inside(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.joist, append([]string{"lab", "exec", "--data", l.data, "--"}, argv...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (l *lab) mustInside(argv ...string) string {
	l.Helper()
	out, err := l.inside(argv...)
	if err != nil {
		l.Fatalf("%q in the lab: %v\n%s", argv, err, out)
	}
	return out
}

// probe asks a node's probe (testdata/proof), past engine and agent.
func (l *lab) probe(address, word string) string {
	l.Helper()
	return l.mustInside("timeout", "30", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/9900; echo %s >&3; cat <&3", address, word))
}

// listen takes in every event, through restarts of the engine, until ctx ends.
func (l *lab) listen(ctx context.Context) {
	after := ""
	for ctx.Err() == nil {
		args := []string{"events", "--follow", "-o", "json"}
		if after != "" {
			args = append(args, "--after", after)
		}
		cmd := exec.CommandContext(ctx, l.joist, args...)
		cmd.Env = append(os.Environ(), "JOIST_SOCKET="+l.socket)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var e struct {
				event
				Cursor string
				Data   json.RawMessage
			}
			if json.Unmarshal(lines.Bytes(), &e) != nil || json.Unmarshal(e.Data, &e.fact) != nil {
				continue
			}
			after = e.Cursor
			l.mu.Lock()
			l.events = append(l.events, e.event)
			close(l.news)
			l.news = make(chan struct{})
			l.mu.Unlock()
		}
		_ = cmd.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond): // the engine is down
		}
	}
}

func (l *lab) each(f func(*event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.events {
		f(&l.events[i])
	}
}

// await waits for an event that has happened or will.
func (l *lab) await(what string, limit time.Duration, is func(*event) bool) event {
	l.Helper()
	deadline := time.After(limit)
	for next := 0; ; {
		l.mu.Lock()
		for ; next < len(l.events); next++ {
			if is(&l.events[next]) {
				e := l.events[next]
				l.mu.Unlock()
				return e
			}
		}
		news := l.news
		l.mu.Unlock()
		select {
		case <-news:
		case <-deadline:
			l.Fatalf("%s has not happened within %s", what, limit)
		}
	}
}

// starts counts the starts of a cluster's actions after an event, by instance, removals with a minus before it.
func (l *lab) starts(cluster string, after uint64) map[string]int {
	count := map[string]int{}
	l.each(func(e *event) {
		if e.Journal != "cluster/"+cluster || e.Seq <= after || e.Kind != "started" {
			return
		}
		if e.Action == "remove" {
			count["-"+e.instance()]++
		} else {
			count[e.instance()]++
		}
	})
	return count
}

// last is the newest event of a cluster that the engine has; the listener has it too when last returns.
func (l *lab) last(cluster string) uint64 {
	l.Helper()
	var c struct{ Events uint64 }
	l.json(&c, "status", cluster)
	l.await(fmt.Sprintf("event %d of %s", c.Events, cluster), 30*time.Second, func(e *event) bool {
		return e.Journal == "cluster/"+cluster && e.Seq >= c.Events
	})
	return c.Events
}

// pid is that of a process that the lab recorded: engine, vm-n1, …
func (l *lab) pid(name string) int {
	l.Helper()
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(l.socket), "pids", name+".json"))
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

// end signals a recorded process and waits until it is gone.
func (l *lab) end(name string, signal syscall.Signal) {
	l.Helper()
	pid := l.pid(name)
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

// outcome is what apply, watch and destroy yield.
type outcome struct {
	Outcome  string
	Detail   string
	Seconds  float64
	Done     int
	Failures int
	Phases   []struct {
		Name  string
		Nodes int
		First float64 `json:"first_seconds"`
		Last  float64 `json:"last_seconds"`
	}
	Failed  []struct{ Instance, State, Error string }
	Outputs map[string]json.RawMessage
}

// patience is for a machine that is shared with others; what it takes on a quiet one is logged.
const patience = 15 * time.Minute

// pursue runs apply, watch or destroy and wants an outcome.
func (l *lab) pursue(want string, args ...string) outcome {
	l.Helper()
	begun := time.Now()
	var o outcome
	l.decode(&o, patience, args...)
	l.Logf("joist %s: %s after %.1f s, load %s", strings.Join(args, " "), o.Outcome, time.Since(begun).Seconds(), load())
	for _, p := range o.Phases {
		l.Logf("  %-24s %d nodes, %.1f to %.1f s", p.Name, p.Nodes, p.First, p.Last)
	}
	if o.Outcome != want {
		l.Fatalf("%s: %s, want %s: %+v", o.Outcome, o.Detail, want, o.Failed)
	}
	return o
}

func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(raw))
}

// file writes a cluster file.
func (l *lab) file(name, workflow string, nodes int, with string) string {
	l.Helper()
	path := filepath.Join(l.data, "..", name+".hcl")
	text := fmt.Sprintf(`cluster %q {
  workflow = %s
  packs = {
    base  = { source = "builtin" }
    etcd  = { source = "builtin" }
    proof = { source = %q }
  }
  nodes   = { member = select(facts.memory >= gib(1), %d) }
  with    = { domain = "%s.lab"%s }
  storage = "memory"
}
`, name, workflow, filepath.Join(l.root, "tests/boot/etcd/testdata/proof"), nodes, name, with)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
	return path
}
