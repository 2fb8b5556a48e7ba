package serve_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const triedPack = `pack "p" {
  version  = "1.0.0"
  summary  = "A name with a balancer, and a gate."
  requires = { base = ">= 0.1.0" }
}

step "gate" {
  scope = "cluster"
  doc   = "Fails at once if it is closed."
  input "open" { type = bool }
  apply { when = input.open }
}

workflow "cluster" {
  role "m" {}
  input "domain" { type = fqdn }
  input "open" {
    type    = bool
    default = true
  }
  input "smoke" {
    type    = bool
    default = true
  }
  input "ready" {
    type    = bool
    default = true
  }
  task "front" {
    step = base.balancer
    with = { name = "www.${input.domain}", port = 443 }
  }
  task "ready" {
    step  = base.wait
    with  = { until = input.ready }
    after = [task.front]
  }
  task "gate" {
    step  = gate
    with  = { open = input.open }
    after = [task.ready]
  }
  task "smoke" {
    step      = gate
    with      = { open = input.smoke }
    after     = [task.gate]
    on_demand = true
  }
  task "later" {
    step      = proof
    after     = [task.gate]
    on_demand = true
  }
  task "never" {
    step      = gate
    with      = { open = false }
    when      = !input.ready
    on_demand = true
  }
}

workflow "proof" {
  task "one" {
    step = gate
    with = { open = true }
  }
  task "two" {
    step  = gate
    with  = { open = true }
    after = [task.one]
  }
}
`

// tried is a JUnit report as far as it is looked at.
type tried struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Suites   []struct {
		Cases []struct {
			Class   string    `xml:"classname,attr"`
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// read gives the cases of a report, each with what became of it.
func readJUnit(t *testing.T, file string) (cases []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	var r tried
	must(t, xml.Unmarshal(data, &r))
	failed := 0
	for _, c := range r.Suites[0].Cases {
		word := "passed"
		switch {
		case c.Failure != nil:
			word = "failed"
			failed++
		case c.Skipped != nil:
			word = "skipped"
		}
		cases = append(cases, c.Name+" "+word)
	}
	if failed != r.Failures || len(cases) != r.Tests {
		t.Errorf("the report counts %d of %d, and has %d of %d", r.Failures, r.Tests, failed, len(cases))
	}
	slices.Sort(cases)
	return cases
}

// gone waits until a cluster is destroyed, and wants nothing left of it.
func (e *engine) gone(cluster string) {
	e.t.Helper()
	e.eventually("cluster "+cluster+" is destroyed", func() bool {
		var d struct {
			Outcome string            `json:"outcome"`
			Digests map[string]string `json:"digests"`
			Members []any             `json:"members"`
		}
		must(e.t, json.Unmarshal([]byte(e.want(0, "", "status", cluster, "-o", "json")), &d))
		if d.Outcome == "destroyed" && len(d.Digests)+len(d.Members) > 0 {
			e.t.Fatalf("left of %s: %v %v", cluster, d.Digests, d.Members)
		}
		return d.Outcome == "destroyed"
	})
}

// TestCI: throw-away clusters on a real engine go whatever becomes of them and of those who asked for them.
func TestCI(t *testing.T) {
	whole, dir := t, t.TempDir()
	data := filepath.Join(t.TempDir(), "data")
	e := start(t, data)
	writeFile(t, filepath.Join(dir, "p/pack.hcl"), []byte(triedPack))
	file := filepath.Join(dir, "demo.hcl")
	writeFile(t, file, []byte("cluster \"demo\" {\n  workflow = p.cluster\n  packs    = { base = { source = \"builtin\" }, p = { source = \"./p\" } }\n  nodes    = { m = [] }\n  with     = { domain = \"demo.lab\" }\n}\n"))
	run := func(name string, more ...string) []string {
		return append([]string{"ci", "run", file, "--name", name, "--with", "domain=" + name + ".lab", "--plain", "--junit", filepath.Join(dir, name+".xml")}, more...)
	}

	t.Run("two at once", func(t *testing.T) {
		var all sync.WaitGroup
		for _, name := range []string{"one", "two"} {
			all.Go(func() {
				code, out, errs := joist(t, append(run(name, "--check", "gate"), "--socket", e.socket)...)
				if code != 0 || !strings.Contains(out, "nothing is left of it") {
					t.Errorf("%s: exit code %d\n%s%s", name, code, out, errs)
				}
			})
		}
		all.Wait()
		for _, name := range []string{"one", "two"} {
			want := "converge passed, front passed, gate passed, gate passed, nothing is left passed, ready passed, teardown passed"
			if got := strings.Join(readJUnit(t, filepath.Join(dir, name+".xml")), ", "); got != want {
				t.Errorf("%s: %s", name, got)
			}
			e.gone(name)
		}
	})
	t.Run("a failure", func(t *testing.T) {
		var r struct {
			Outcome, Teardown string
			Left              []string
		}
		text := e.want(4, "", run("bad", "--with", "open=false", "-o", "json")...)
		must(t, json.Unmarshal([]byte(text), &r))
		if r.Outcome != "stopped" || r.Teardown != "destroyed" || len(r.Left) > 0 {
			t.Errorf("%+v", r)
		}
		if got := strings.Join(readJUnit(t, filepath.Join(dir, "bad.xml")), ", "); !strings.Contains(got, "gate failed") || !strings.Contains(got, "front passed") {
			t.Error(got)
		}
		e.gone("bad")
	})
	t.Run("on demand", func(t *testing.T) {
		e.want(0, "nothing is left of it", run("tried")...)
		want := "converge passed, front passed, gate passed, later passed, later.one passed, later.two passed, nothing is left passed, ready passed, smoke passed, smoke passed, teardown passed"
		if got := strings.Join(readJUnit(t, filepath.Join(dir, "tried.xml")), ", "); got != want {
			t.Error(got)
		}
		e.gone("tried")
		e.want(4, "check smoke", run("shut", "--with", "smoke=false")...)
		if got := strings.Join(readJUnit(t, filepath.Join(dir, "shut.xml")), ", "); !strings.Contains(got, "gate passed") || strings.Count(got, "smoke failed") != 2 || strings.Contains(got, "never") {
			t.Error(got)
		}
		e.gone("shut")
	})
	t.Run("its time is over", func(t *testing.T) {
		e.want(4, "expired", run("late", "--with", "ready=false", "--ttl", "2s")...)
		if got := strings.Join(readJUnit(t, filepath.Join(dir, "late.xml")), ", "); !strings.Contains(got, "converge failed") || !strings.Contains(got, "gate skipped") {
			t.Error(got)
		}
		e.gone("late")
	})
	begin := func(name string, ttl string) *exec.Cmd {
		cmd := exec.Command(os.Getenv(programEnv), append(run(name, "--with", "ready=false", "--ttl", ttl), "--socket", e.socket)...)
		var out buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		e.eventually(name+" is under way", func() bool { return strings.Contains(out.String(), "front") })
		return cmd
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			name := fmt.Sprintf("signal-%d", signal)
			cmd := begin(name, "10m")
			must(t, cmd.Process.Signal(signal))
			_ = cmd.Wait() // the code is looked at
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d", code)
			}
			readJUnit(t, filepath.Join(dir, name+".xml"))
			e.gone(name)
		})
	}
	t.Run("kill -9 of both", func(t *testing.T) {
		cmd := begin("killed", "3s")
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		e.kill()
		e = start(whole, data)
		e.gone("killed")
	})
	t.Run("refused", func(t *testing.T) {
		e.want(1, "workflow p.cluster has no input", run("wrong", "--with", "port=1")...)
		if got := strings.Join(readJUnit(t, filepath.Join(dir, "wrong.xml")), ", "); got != "begin failed" {
			t.Error(got)
		}
		e.want(0, "", "apply", file)
		e.want(1, "there is a cluster demo already", "ci", "run", file)
		e.want(2, "is not KEY=VALUE", "ci", "run", file, "--with", "x")
		e.want(2, "--ttl", "ci", "run", file, "--ttl", "0s")
		e.want(4, "no instance", "ci", "run", file, "--name", "asks", "--with", "domain=asks.lab", "--plain", "--check", "nothing")
		e.gone("asks")
		e.want(0, "destroyed", "destroy", "demo", "--yes")
	})
}
