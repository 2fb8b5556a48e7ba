package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"joist/cmd/joist/cli"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// joist runs the command line against the engine.
func (e *engine) joist(args ...string) (code int, stdout, stderr string) {
	e.t.Helper()
	return e.joistIn(e.t.Context(), "", args...)
}

func (e *engine) joistIn(ctx context.Context, in string, args ...string) (code int, stdout, stderr string) {
	var out, errs buffer
	code = cli.Run(ctx, cli.Env{
		Args: args, In: strings.NewReader(in), Out: &out, Err: &errs, Version: "test",
		Getenv: func(name string) string { return map[string]string{"JOIST_SOCKET": e.socket}[name] },
		Local:  cli.Local{Replay: replayFolder},
	})
	return code, out.String(), errs.String()
}

// want runs a command and checks its code and what it says.
func (e *engine) want(code int, says []string, args ...string) string {
	e.t.Helper()
	got, out, errs := e.joist(args...)
	if got != code {
		e.t.Fatalf("joist %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	for _, text := range says {
		if !strings.Contains(out+errs, text) {
			e.t.Fatalf("joist %s does not say %q:\n%s%s", strings.Join(args, " "), text, out, errs)
		}
	}
	return out
}

const demo = `cluster demo
nodes n1 n2
task name each service
task member each : task.name
output names name
`

func (e *engine) file(text string) string {
	e.t.Helper()
	path := filepath.Join(e.t.TempDir(), "demo.hcl")
	must(e.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// TestPathAfterFailure: the way does not end where something was tried again, and says how long that took.
func TestPathAfterFailure(t *testing.T) {
	e := newEngine(t)
	e.set(func() { e.fail["member[n1]"] = "no luck" })
	e.want(cli.Stopped, []string{"no luck"}, "apply", e.file(demo))
	e.set(func() { delete(e.fail, "member[n1]") })
	e.want(cli.OK, []string{"converged"}, "retry", "demo")
	e.want(cli.OK, []string{"name[n1]", "member[n1]", "until attempt 2)", "in all"}, "path", "demo")
	e.want(cli.OK, []string{"and at first because", "name[n1]", "set goal"}, "why", "demo/member[n1]")
	var way []struct {
		Instance string  `json:"instance"`
		Attempts int     `json:"attempts"`
		Failed   float64 `json:"failed_seconds"`
		Took     float64 `json:"took_seconds"`
	}
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "path", "demo", "-o", "json")), &way))
	if n := len(way); n < 2 || way[n-1].Attempts != 2 || way[n-1].Failed <= 0 || way[n-1].Failed > way[n-1].Took || way[n-2].Attempts != 0 {
		t.Errorf("%+v", way)
	}
}

// TestWholeLife goes the whole way on real SQLite: plan, apply, converge, plan unchanged, why, force, destroy.
func TestWholeLife(t *testing.T) {
	e := newEngine(t)
	file := e.file(demo)
	e.want(cli.OK, []string{"no clusters yet", "n3"}, "status")
	e.want(cli.HasChanges, []string{"member[n2]", "4 run"}, "plan", file, "--detailed-exitcode")
	e.want(cli.OK, []string{"cluster demo converged", "member[n1] done", "names = ", "last step done"}, "apply", file)
	e.want(cli.OK, []string{"nothing to do: 4 unchanged"}, "plan", "--detailed-exitcode")
	e.want(cli.OK, []string{"nothing to do: 4 unchanged"}, "plan", file, "--detailed-exitcode")
	e.want(cli.OK, []string{"WAITED", "TOOK", "in all"}, "path", "demo")
	e.want(cli.OK, []string{"member[n1] is unchanged", "it had never run", "set goal"}, "why", "demo/member[n1]")
	e.want(cli.OK, []string{"converged", "2/2 online"}, "status")
	e.want(cli.OK, []string{"n1", "4 in place"}, "status", "demo")
	if out := e.want(cli.OK, []string{"names", "(secret)"}, "outputs"); strings.Contains(out, "hush") {
		t.Errorf("outputs tells a secret:\n%s", out)
	}
	show := e.want(cli.OK, []string{"the last words of member[n1]", `"token":"(secret)"`}, "show", "member[n1]")
	if strings.Contains(show, "hush") {
		t.Errorf("show tells a secret:\n%s", show)
	}
	before := e.did("member[n1]")
	e.want(cli.OK, nil, "force", "demo/member[n1]", "--reason", "test")
	e.want(cli.OK, []string{"converged"}, "watch")
	if got := e.did("member[n1]"); got != before+1 {
		t.Errorf("member[n1] ran %d times after it was forced, want %d", got, before+1)
	}
	e.want(cli.OK, nil, "cancel", "demo", "--reason", "wrong rack")
	e.want(cli.OK, []string{"cancelled", ": wrong rack"}, "status", "demo")
	e.want(cli.OK, []string{"converged"}, "retry", "demo", "--reason", "it was the right one")
	e.want(cli.OK, []string{`"reason":"test"`, `"reason":"wrong rack"`, `"reason":"it was the right one"`}, "events", "--cluster", "demo", "-o", "json")
	e.want(cli.Failed, []string{"nothing was changed", "--yes"}, "destroy", "demo")
	e.want(cli.OK, []string{"cluster demo destroyed"}, "destroy", "demo", "--yes")
	e.want(cli.OK, []string{"destroyed"}, "status")
	var list []v1.Machine
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "node", "list", "-o", "json")), &list))
	for _, m := range list {
		if m.Cluster != "" {
			t.Errorf("machine %s still belongs to %s", m.Name, m.Cluster)
		}
	}
	e.want(cli.OK, []string{"cluster/demo:1 ", "rested"}, "events", "--cluster", "demo")
}

// TestWhoAndWhy: whatever a person says of a cluster stands in its journal with who said it, and why.
func TestWhoAndWhy(t *testing.T) {
	e := newEngine(t)
	me, err := user.Current()
	must(t, err)
	e.set(func() { e.fail["member[n2]"] = "no disk" })
	e.want(cli.Stopped, nil, "apply", e.file("cluster demo\nnodes n1 n2\nrollout member\ntask name each service\ntask ok approve after.name\ntask member each after.ok\n"))
	e.want(cli.OK, nil, "approve", "demo/ok", "--reason", "why approved")
	e.want(cli.Stopped, nil, "watch", "demo")
	e.want(cli.OK, nil, "skip", "demo/member[n2]", "--reason", "why skipped")
	e.want(cli.OK, nil, "node", "aside", "n2", "--reason", "why node.aside")
	e.want(cli.OK, nil, "node", "return", "n2", "--reason", "why node.returned")
	e.want(cli.OK, nil, "force", "demo/name[n1]", "--reason", "why forced")
	e.want(cli.OK, nil, "breaker", "close", "r", "--reason", "why breaker.closed")
	e.want(cli.OK, nil, "cancel", "demo", "--reason", "why cancelled")
	e.set(func() { clear(e.fail) })
	e.want(cli.OK, nil, "retry", "demo", "--reason", "why goal")
	said := map[string]bool{}
	for line := range strings.Lines(e.want(cli.OK, nil, "events", "--cluster", "demo", "-o", "json")) {
		var v struct {
			Kind string
			Data struct{ By, Reason string }
		}
		must(t, json.Unmarshal([]byte(line), &v))
		said[v.Kind] = said[v.Kind] || v.Data.By == me.Username && v.Data.Reason == "why "+v.Kind
	}
	for _, kind := range []string{"approved", "skipped", "node.aside", "node.returned", "forced", "breaker.closed", "cancelled", "goal"} {
		if !said[kind] {
			t.Errorf("no event of kind %s says that %s said it, and why", kind, me.Username)
		}
	}
}

func TestFailureAndRetry(t *testing.T) {
	e := newEngine(t)
	e.set(func() { e.fail["member[n2]"] = "no disk\x1b[2J\nmore" })
	file := e.file("rollout member\n" + demo)
	out := e.want(cli.Stopped, []string{"member[n2] FAILED after 1 attempts: no disk\ufffd[2J", "| the last words of member[n2]\ufffd", "cluster demo stopped", "joist retry demo", "breaker close r"}, "apply", file)
	out += e.want(cli.OK, []string{"no disk\ufffd"}, "status", "demo") + e.want(cli.OK, []string{"words of member[n2]\ufffd"}, "show", "member[n2]") + e.want(cli.OK, []string{"no disk\ufffd"}, "why", "member[n2]")
	if strings.Contains(out, "\x1b") {
		t.Errorf("colours outside a terminal, or what a node said is obeyed:\n%q", out)
	}
	e.want(cli.OK, []string{"blocked", "no disk"}, "plan")
	var r struct {
		Outcome  string
		Breakers []v1.Breaker
	}
	must(t, json.Unmarshal([]byte(e.want(cli.Stopped, nil, "retry", "demo", "-o", "json")), &r))
	if r.Outcome != "stopped" || len(r.Breakers) != 1 || r.Breakers[0].Rollout != "r" {
		t.Errorf("retry says %+v", r)
	}
	e.set(func() { clear(e.fail) })
	e.want(cli.OK, []string{"converged"}, "breaker", "close", "r", "--cluster", "demo", "--reason", "disk added")
}

// TestRoots: status names what is at the bottom of everything that waits, in different words, and breakers are seen, closed
// and kept across runs; a skip needs a reason and is journalled.
func TestRoots(t *testing.T) {
	e := newEngine(t)
	e.set(func() { e.fail["member[n1]"] = "no disk" })
	file := e.file("cluster demo\nnodes n1 n2\nrollout member\ntask name each service\ntask member each\ntask late each : task.member\ntask last each : task.late\n")
	e.want(cli.Stopped, nil, "apply", file)
	e.want(cli.OK, []string{
		"blocked by failure: member[n1] failed (no disk)", "3 instances: member[n1], late[n1], last[n1]",
		"blocked by budget: rollout r was stopped by failures of member[n1]", "3 instances: member[n2], late[n2], last[n2]",
	}, "status", "demo")
	e.want(cli.OK, []string{"ROLLOUT", "open", "1 of 1", "n1", "member[n1]"}, "breaker", "list", "demo")
	var list []v1.Rollout
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "breaker", "list", "-o", "json")), &list))
	if len(list) != 1 || !list[0].Stopped || list[0].Broke != "member[n1]" || list[0].Limit != 1 || len(list[0].Places) != 1 {
		t.Errorf("rollouts %+v", list)
	}
	e.end()
	e.start()
	e.want(cli.OK, []string{"open"}, "breaker", "list", "demo")
	e.want(cli.Usage, []string{"reason"}, "skip", "demo/member[n1]")
	e.want(cli.Failed, []string{"it is unchanged"}, "skip", "demo/name[n1]", "--reason", "x")
	e.want(cli.Failed, []string{"has no instance nothing"}, "skip", "demo/nothing", "--reason", "x")
	e.want(cli.OK, nil, "skip", "demo/member[n1]", "--reason", "no spare disk")
	e.want(cli.Stopped, nil, "breaker", "close", "r", "--cluster", "demo", "--reason", "skipped")
	e.want(cli.OK, []string{"skipped:\n  member[n1]", "no spare disk", "blocked by failure: member[n1] was skipped, whose outputs it reads", "2 instances: late[n1], last[n1]"}, "status", "demo")
	e.want(cli.OK, []string{`"reason":"no spare disk"`, `"skipped"`}, "events", "--cluster", "demo", "-o", "json")
	e.set(func() { clear(e.fail) })
	e.want(cli.OK, nil, "force", "member[n1]", "--reason", "disk found")
	e.want(cli.OK, []string{"converged"}, "watch")
}

// TestRootsOfPeople: what waits for a person's approval, and for a node to prove more than that, are said in words of their own, also of
// what is far behind them.
func TestRootsOfPeople(t *testing.T) {
	e := newEngine(t)
	file := e.file("cluster demo\nnodes n1 n2\ntask disk each\ntask ok approve after.disk\ntask late each after.ok\ntask last each : task.late\n")
	e.want(cli.Stopped, nil, "apply", file)
	e.want(cli.OK, []string{"waiting for approval: ok: waiting for approval (are the disks the right ones?)", "5 instances: ok, late[n1], late[n2], last[n1], last[n2]"}, "status", "demo")
	e.want(cli.OK, []string{"ok is approved"}, "approve", "demo/ok", "--reason", "looked at")
	e.want(cli.OK, []string{"converged"}, "watch", "demo")
	e.want(cli.OK, nil, "destroy", "demo", "--yes")
	e.want(cli.OK, nil, "apply", "--no-wait", e.file("cluster proud\nnodes n3\ntrust vouched\ntask disk each\ntask late each : task.disk\n"))
	e.want(cli.OK, []string{`blocked by trust: node n3 is not trusted enough (its trust is "approved", the packs need "vouched"`, "2 instances: disk[n3], late[n3]"}, "status", "proud")
}

// TestUndecidable: what was never tried has no error; why it is not tried is said all the same.
func TestUndecidable(t *testing.T) {
	e := newEngine(t)
	e.want(cli.Stopped, []string{"failed  x  not tried  undecidable (no such thing)"}, "apply", e.file("cluster demo\nnodes n1\ntask x undecidable\n"))
	e.want(cli.OK, []string{"failed  x  not tried  undecidable (no such thing)"}, "status", "demo")
}

func TestRefusals(t *testing.T) {
	e := newEngine(t)
	e.want(cli.Failed, []string{`demo.hcl: there is no "nonsense"`}, "apply", e.file("nonsense\n"))
	e.want(cli.Failed, []string{"cannot read the cluster file"}, "apply", "/no/such/file")
	e.want(cli.Failed, []string{`there is no cluster "x"`, "joist status lists them all"}, "status", "x")
	e.want(cli.Failed, []string{"there is no cluster yet"}, "plan")
	e.want(cli.Failed, []string{"no machine", "joist node list"}, "node", "show", "nobody")
	e.want(cli.Usage, []string{"there is no power action"}, "node", "power", "n1", "explode")
	e.want(cli.Failed, []string{"switches no machines"}, "node", "power", "n1", "off")
	e.want(cli.Failed, []string{"cannot approve a key of n1"}, "node", "approve", "n1", "ABCD-EFGH")
	e.want(cli.OK, []string{"console of n1"}, "node", "console", "n1")
	e.want(cli.OK, nil, "apply", e.file(demo))
	e.want(cli.Failed, []string{"has no instance member[n9]"}, "why", "demo/member[n9]")
	for _, verb := range []string{"why", "show", "force"} {
		for _, bad := range []string{"demo/a b", "/", "", "demo/", "../x", "/x", "demo/a/b"} {
			e.want(cli.Usage, []string{"is no instance: write cluster/task[node]"}, verb, bad)
		}
		e.want(cli.Failed, []string{`has no instance volume["data"]`}, verb, `demo/volume["data"]`)
		e.want(cli.Failed, []string{`has no instance volume[n1][data.1]`}, verb, `demo/volume[n1][data.1]`)
	}
	for _, bad := range []string{"..", ".", "", "a/b", "?", "Demo"} {
		e.want(cli.Usage, []string{"cannot be the name of a cluster"}, "status", bad)
		e.want(cli.Usage, []string{"cannot be the name of a machine"}, "node", "show", bad)
	}
	e.want(cli.Failed, []string{"no rollout"}, "breaker", "close", "nothing")
	code, out, _ := e.joist("status", "x", "-o", "json")
	if code != cli.Failed || out != "" {
		t.Errorf("status of an unknown cluster as JSON: code %d, output %q", code, out)
	}
	e.end()
	e.want(cli.Unreachable, []string{"cannot reach the engine at", "joist serve"}, "status")
}

// TestStuck: a machine that does not reach its next phase says so, and what to look at; notices come newest first.
func TestStuck(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, []string{"kernel fetched 3 min ago, scout silent: look at its console"}, "status")
	e.want(cli.OK, []string{"kernel fetched 3 min ago, scout silent", "look at its console"}, "node", "show", "n3")
	e.want(cli.OK, []string{"  ! the second thing (just now)\n  ! the first thing (3 min ago)\n"}, "status")
}

func TestCertificate(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file(demo))
	dir := filepath.Join(t.TempDir(), "pki")
	e.want(cli.OK, []string{"key.pem"}, "cert", "--dir", dir)
	info, err := os.Stat(filepath.Join(dir, "key.pem"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %o", info.Mode().Perm())
	}
	cert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	must(t, err)
	if string(cert) != "leaf of demo\nchain\n" {
		t.Errorf("the certificate is %q", cert)
	}
	e.want(cli.Failed, []string{"at most 8h"}, "cert", "--dir", dir, "--ttl", "9h")
	e.want(cli.Failed, []string{"does not say how people reach it"}, "kubeconfig", "demo", "--file", filepath.Join(dir, "config"))
}

// TestInterrupt ends the following, not the pursuit.
func TestInterrupt(t *testing.T) {
	e := newEngine(t)
	e.set(func() { e.hold["member[n1]"] = true })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var code int
	var errs string
	go func() {
		defer close(done)
		code, _, errs = e.joistIn(ctx, "", "apply", e.file(demo))
	}()
	c := client.New(e.socket)
	defer c.Close()
	eventually(t, func() bool {
		d, err := c.Cluster(t.Context(), "demo")
		return err == nil && len(d.Running) == 1
	})
	cancel()
	<-done
	if code != cli.Interrupted || !strings.Contains(errs, "the engine goes on by itself") {
		t.Errorf("interrupted: code %d, %q", code, errs)
	}
	e.want(cli.OK, []string{"member[n1]"}, "status", "demo")
	e.want(cli.OK, nil, "cancel", "demo")
	e.want(cli.OK, []string{"cancelled"}, "status")
}

// TestWatchStirred: a cluster that had come to rest and is busy again is followed until it rests again.
func TestWatchStirred(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file(demo))
	e.set(func() { e.hold["member[n1]"] = true })
	e.want(cli.OK, nil, "force", "demo/member[n1]")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	var out, errs buffer
	go func() {
		done <- cli.Run(ctx, cli.Env{Args: []string{"watch", "demo", "--socket", e.socket}, In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
	}()
	eventually(t, func() bool { return strings.Contains(out.String(), "forces member[n1] to run again") })
	cancel()
	if code := <-done; code != cli.Interrupted {
		t.Errorf("watch of a busy cluster ended with %d\n%s%s", code, out.String(), errs.String())
	}
	e.want(cli.OK, nil, "cancel", "demo")
}

// TestRestart has the engine go away and come back while apply follows.
func TestRestart(t *testing.T) {
	e := newEngine(t)
	e.set(func() { e.hold["member[n1]"] = true })
	var out, errs buffer
	done := make(chan int)
	file := e.file(demo)
	go func() {
		done <- cli.Run(t.Context(), cli.Env{Args: []string{"apply", file, "--socket", e.socket}, In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
	}()
	for _, text := range []string{"member[n1] started", "member[n2] done"} {
		eventually(t, func() bool { return strings.Contains(out.String(), text) })
	}
	e.end()
	eventually(t, func() bool { return strings.Contains(out.String(), "lost the engine") })
	e.set(func() { clear(e.hold) })
	e.start()
	if code := <-done; code != cli.OK {
		t.Fatalf("apply ended with %d\n%s%s", code, out.String(), errs.String())
	}
	for _, text := range []string{"the engine answers again", "cluster demo converged"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("apply does not say %q:\n%s", text, out.String())
		}
	}
	if n := strings.Count(out.String(), "member[n2] done"); n != 1 {
		t.Errorf("member[n2] is told done %d times:\n%s", n, out.String())
	}
}

func TestCompletion(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file(demo))
	e.want(cli.OK, []string{"demo\tconverged"}, "__complete", "status", "")
	e.want(cli.OK, []string{"n1", "n3"}, "__complete", "node", "show", "")
	e.want(cli.OK, []string{"member[n1]\tin place"}, "__complete", "why", "")
	e.want(cli.OK, []string{"demo/member[n1]"}, "__complete", "why", "demo/")
	e.want(cli.OK, []string{"demo"}, "__complete", "plan", "--cluster", "")
	e.want(cli.OK, []string{"cycle"}, "__complete", "node", "power", "n1", "")
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 20 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
