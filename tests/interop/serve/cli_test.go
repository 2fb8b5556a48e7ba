package serve_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "joist/services/api/v1"
)

// TestNoEngine: what the command line says where no engine answers, or one that goes away.
func TestNoEngine(t *testing.T) {
	segment(t)
	socket := filepath.Join(t.TempDir(), "s")
	refused(t, 5, "cannot reach the engine at "+socket, "status", "--socket", socket)
	refused(t, 5, "is joist serve running, and is --socket (or JOIST_SOCKET) its socket?", "node", "list", "--socket", socket)

	// A listener that takes the request and hangs up, as an engine does that is killed.
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var some [16]byte
			_, _ = conn.Read(some[:]) // the beginning of a request
			_ = conn.Close()
		}
	}()
	refused(t, 5, "lost the engine at "+socket+" before it had answered", "node", "power", "n1", "on", "--socket", socket)
	refused(t, 5, "what was asked may have been done: see joist status", "node", "approve", "n1", "00000000", "--socket", socket)
}

const zone = `cluster "demo" {
  workflow = lab.cluster
  packs    = { lab = { source = "./lab", version = "~> 0.1" } }
  nodes    = { member = select(true, 1) }
}
`

// pack is a workflow whose one task waits for its node.
func pack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"demo.hcl":     zone,
		"lab/pack.hcl": "pack \"lab\" {\n  version = \"0.1.0\"\n  summary = \"For a test.\"\n}\n",
		"lab/lab.hcl": `step "touch" {
  scope        = "node"
  doc          = "Does nothing."
  irreversible = "nothing was done"
  apply { script = "files/run.sh" }
}

workflow "cluster" {
  role "member" { min = 1 }
  task "touch" {
    step = touch
    each = role.member
  }
}
`,
		"lab/files/run.sh": "#!/bin/sh\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return filepath.Join(dir, "demo.hcl")
}

// TestCommandLine: an interrupted apply, wrong names, and an engine that is killed while it is followed.
func TestCommandLine(t *testing.T) {
	data := t.TempDir()
	e := start(t, data)
	file := pack(t)
	e.want(1, "there are no other machines", "apply", file)
	e.push()
	e.boots(mac1, uuid1)
	e.want(0, "touch[m-525400990001]", "plan", file)

	apply := func(more ...string) (*exec.Cmd, *buffer) {
		out := &buffer{}
		cmd := exec.Command(os.Getenv(programEnv), append([]string{"apply", file, "--socket", e.socket}, more...)...)
		cmd.Stdout, cmd.Stderr = out, out
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
		return cmd, out
	}
	cmd, out := apply()
	e.eventually("the cluster is there", func() bool { s := e.status(); return len(s.Clusters) == 1 && s.Clusters[0].Outcome == "converging" })
	e.eventually("apply follows", func() bool { return out.String() != "" })
	must(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait() // the state is looked at
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(out.String(), "joist: interrupted: the engine goes on by itself; joist watch demo follows it again, joist cancel demo stops it") {
		t.Errorf("an interrupted apply: exit code %d\n%s", code, out)
	}
	e.want(0, "converging", "status", "demo")

	e.want(1, `did you mean "demo"?`, "status", "dmo")
	e.want(1, `did you mean "touch[m-525400990001]"?`, "why", "demo/touch[m-525400990010]")
	e.want(1, `did you mean "touch[m-525400990001]"?`, "force", "demo/tuch[m-525400990001]")
	e.want(1, "this cluster has no rollout", "breaker", "close", "members", "--cluster", "demo")

	cmd, out = apply()
	e.eventually("apply follows", func() bool { return out.String() != "" })
	e.kill()
	e.eventually("apply misses the engine", func() bool { return strings.Contains(out.String(), "lost the engine") })
	again := start(t, data, "--socket", e.socket)
	e.log = again.log
	e.eventually("apply finds it again", func() bool { return strings.Contains(out.String(), "the engine answers again") })
	must(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait() // said above
	again.want(0, "cancel", "cancel", "demo")
	again.want(0, "cancelled", "status", "demo")
	again.stop()
}

// TestJSON runs every command with -o json: what it writes is JSON, whether it works or not, and a failure is a problem.
func TestJSON(t *testing.T) {
	e := start(t, t.TempDir())
	e.push()
	file := pack(t)
	dir := filepath.Join(filepath.Dir(file), "lab")
	broken := t.TempDir()
	must(t, os.WriteFile(filepath.Join(broken, "pack.hcl"), []byte("pack \"p\" {\n"), 0o600))
	ugly := filepath.Join(t.TempDir(), "ugly.hcl")
	must(t, os.WriteFile(ugly, []byte("a=1\n"), 0o600))
	e.boots(mac1, uuid1)
	for _, c := range []struct {
		code int
		args string
	}{
		{0, "status"}, {1, "status nobody"}, {0, "plan " + file}, {1, "plan"}, {1, "plan /no/file"}, {1, "plan " + filepath.Join(broken, "pack.hcl")},
		{0, "apply " + file + " --no-wait"}, {1, "apply /no/file"}, {0, "plan"}, {3, "plan --detailed-exitcode"}, {0, "status demo"}, {2, "status a b"},
		{1, "watch nobody"}, {0, "why demo/touch[m-525400990001]"}, {1, "why demo/nothing"}, {0, "show touch[m-525400990001]"}, {1, "show touch[x]"},
		{0, "outputs demo"}, {1, "outputs nobody"}, {0, "retry demo --no-wait"}, {1, "retry nobody"}, {0, "force touch[m-525400990001]"}, {1, "force nothing"},
		{1, "breaker close nothing"}, {2, "breaker close"}, {0, "breaker list demo"}, {1, "skip demo/nothing --reason x"}, {0, "cancel demo"}, {1, "cancel nobody"}, {0, "cert --cluster demo --dir " + filepath.Join(t.TempDir(), "pki")}, {1, "cert --cluster nobody"},
		{0, "node list"}, {0, "node show m-525400990001"}, {1, "node show nobody"}, {1, "node approve m-525400990001 00000000"}, {2, "node approve"},
		{2, "node power m-525400990001 explode"}, {1, "node power m-525400990001 on"}, {1, "node console m-525400990001"}, {2, "node nothing"},
		{0, "events"}, {2, "events --since yesterday"}, {0, "pack check " + dir}, {1, "pack check " + broken}, {1, "pack check /no/folder"},
		{0, "fmt " + dir}, {1, "fmt --check " + ugly}, {0, "fmt " + ugly}, {1, "fmt /no/file"}, {0, "bootset list"}, {1, "bootset show /no/folder"}, {1, "bootset push /no/folder"},
		{2, "bootset build"}, {2, "lab up"}, {1, "destroy demo"}, {1, "forget demo"}, {0, "destroy demo --yes --no-wait"}, {1, "destroy nobody --yes"}, {1, "forget nobody"}, {2, "forget"}, {0, "forget --all"}, {0, "status --all"},
		{0, "version"}, {2, "serve"}, {2, "nothing"}, {2, "status --nothing"},
	} {
		code, out, errs := joist(t, append(strings.Fields(c.args), "-o", "json", "--socket", e.socket)...)
		if code != c.code {
			t.Errorf("joist %s: exit code %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
		documents(t, c.args, out)
		switch code {
		case 0, 3, 4:
			if strings.TrimSpace(out) == "" && c.args != "events" {
				t.Errorf("joist %s writes nothing", c.args)
			}
			continue
		}
		var p v1.Problem
		if err := json.Unmarshal([]byte(errs), &p); err != nil || !strings.HasPrefix(p.Type, v1.ProblemPrefix) || p.Detail == "" {
			t.Errorf("joist %s: the error output is no problem object: %v\n%s", c.args, err, errs)
		}
	}
	var p v1.Problem
	_, _, errs := joist(t, "status", "-o", "json", "--socket", filepath.Join(t.TempDir(), "s"))
	if err := json.Unmarshal([]byte(errs), &p); err != nil || !p.Of("unreachable") {
		t.Errorf("no engine: %v\n%s", err, errs)
	}
	cmd := exec.Command(os.Getenv(programEnv), "events", "--follow", "-o", "json", "--socket", e.socket)
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, json.NewDecoder(stdout).Decode(&v1.Event{})) // it follows
	must(t, cmd.Process.Signal(syscall.SIGINT))
	_, _ = io.Copy(io.Discard, stdout) // to its end
	_ = cmd.Wait()                     // the state is looked at
	if err := json.Unmarshal(stderr.Bytes(), &p); err != nil || !p.Of("interrupted") || cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("an interrupted command: exit code %d, %v\n%s", cmd.ProcessState.ExitCode(), err, stderr)
	}
}

// documents wants nothing but JSON documents.
func documents(t *testing.T, what, text string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Errorf("joist %s: the output is not JSON: %v\n%s", what, err, text)
			return
		}
	}
}
