// Package kubernetes_test holds joist to what it says of Kubernetes, through its programs alone: machines that know nothing
// but to boot from the network become a cluster, grow, change, break and recover. docs/kubernetes-tests.md says what was
// seen last. A test brings up one cluster and puts one question after another to it; each has a log line with its time.
package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/tests/boot/lab"
)

// own adds to a lab what the tests of Kubernetes ask of it.
type own struct {
	*lab.Lab
	made       string // folder of what was built
	kubeconfig string
}

// Sizes of machines in bytes, as in the demo.
const (
	controlMemory = 3 << 30
	workerMemory  = 2 << 30
	disk          = 6 << 30
)

// newLab makes an engine that has all that Kubernetes is made of, and no machine yet.
func newLab(t *testing.T) *own {
	t.Helper()
	l := &own{Lab: lab.New(t, lab.Machines{})}
	l.made = os.Getenv("JOIST_ARTIFACTS")
	if l.made == "" {
		l.made = filepath.Join(l.Root, "build/artifacts/current")
	}
	if _, err := os.Stat(filepath.Join(l.made, "manifest.json")); err != nil {
		cmd := exec.Command("go", "run", "./tests/artifacts/build")
		cmd.Dir = l.Root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building what Kubernetes is made of: %v\n%s", err, out)
		}
	}
	l.add()
	l.kubeconfig = filepath.Join(l.Data, "..", "kubeconfig")
	return l
}

// add enters what was built into the engine's mirror.
func (l *own) add() {
	l.Helper()
	if out, err := l.Ask(10*time.Minute, "mirror", "add", "--manifest", filepath.Join(l.made, "manifest.json")); err != nil {
		l.Fatalf("%v\n%s", err, out)
	}
}

// sub is a part of the test.
func (l *own) sub(name string, f func(l *own)) bool {
	l.Helper()
	return l.Sub(name, func(inner *lab.Lab) {
		part := *l
		part.Lab = inner
		f(&part)
	})
}

// first is a part without which there is nothing to ask.
func (l *own) first(name string, f func(l *own)) {
	l.Helper()
	if !l.sub(name, f) {
		l.FailNow()
	}
}

// machine racks a machine, which is off.
func (l *own) machine(name string, memory int) {
	l.Helper()
	l.Must("lab", "machine", "add", name, "--data", l.Data, "--memory", fmt.Sprint(memory), "--disk", fmt.Sprint(disk), "--cpus", "1")
}

// goal is what a cluster file says.
type goal struct {
	control, worker []string
	storage         string // memory if empty
	more            string // further lines
	sourceless      bool   // the pack's folder is named, and not there
}

// file writes a cluster file.
func (l *own) file(g goal) string {
	l.Helper()
	if g.storage == "" {
		g.storage = "memory"
	}
	list := func(names []string) string { return strings.ReplaceAll(fmt.Sprintf("%q", names), " ", ", ") }
	path := filepath.Join(l.Data, "..", "demo.hcl")
	source := filepath.Join(l.Root, "tests/boot/kubernetes/testdata/proof")
	if g.sourceless {
		source = "/nonexistent"
	}
	text := fmt.Sprintf(`cluster "demo" {
  workflow = proof.cluster
  packs = {
    base       = { source = "builtin" }
    etcd       = { source = "builtin" }
    kubernetes = { source = "builtin" }
    proof      = { source = %q }
  }
%s
  nodes   = { control = %s, worker = %s }
  with    = { domain = "demo.lab" }
  storage = %q
}
`, source, g.more, list(g.control), list(g.worker), g.storage)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
	return path
}

// address is that of a member.
func (l *own) address(name string) string {
	l.Helper()
	for _, m := range l.Status("demo").Members {
		if m.Name == name {
			return m.Address
		}
	}
	l.Fatalf("%s is no member", name)
	return ""
}

// on runs a command on a node, past engine and agent.
func (l *own) on(name, command string) string {
	l.Helper()
	return l.Probe(l.address(name), command)
}

// client gets a kubeconfig for somebody outside of the machines.
func (l *own) client() {
	l.Helper()
	l.Must("kubeconfig", "demo", "--file", l.kubeconfig, "--ttl", "2h")
}

// kubectl runs it in the lab's network, outside of the machines.
func (l *own) kubectl(args ...string) (string, error) {
	return l.Inside(append([]string{filepath.Join(l.made, "bin/kubectl"), "--kubeconfig", l.kubeconfig, "--request-timeout=30s"}, args...)...)
}

func (l *own) k(args ...string) string {
	l.Helper()
	out, err := l.kubectl(args...)
	if err != nil {
		l.Fatalf("kubectl %q: %v\n%s", args, err, out)
	}
	return out
}

// nodes wants exactly these nodes in the cluster, all of them ready.
func (l *own) nodes(names ...string) {
	l.Helper()
	out := l.k("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{.spec.unschedulable}{"\n"}{end}`)
	if want := strings.Join(names, "=True\n") + "=True"; out != want {
		l.Errorf("nodes:\n%s\nwant:\n%s", out, want)
	}
}

// smoke has the cluster try itself, and wants that it looked at all that it should. That changes nothing else.
func (l *own) smoke() {
	l.Helper()
	mark := l.Last("demo")
	out, err := l.Ask(lab.Patience, "force", "demo/kube.smoke", "--wait", "--reason", "a test asks")
	if err != nil {
		l.Fatalf("the smoke test: %v\n%s", err, out)
	}
	l.Logf("%s", out)
	log := l.Must("show", "demo/kube.smoke.test")
	for _, part := range []string{"exec, and pod to pod: 2 nodes", "a Service by its name", "a name outside of the cluster", "a Service by a port of every node", "smoke: logs", "a secret in a pod", "port-forward", "a secret that etcd does not know"} {
		if !strings.Contains(log, part) {
			l.Errorf("the smoke test did not say %q:\n%s", part, log)
		}
	}
	l.Pursue("converged", "watch", "demo")
	l.Unchanged("demo")
	l.Last("demo")
	for instance := range l.Starts("demo", mark) {
		if !strings.HasPrefix(instance, "kube.smoke.") {
			l.Errorf("%s ran because the smoke test was asked for", instance)
		}
	}
}

// verdicts gives what a cluster file would do, by instance, without what stays as it is.
func (l *own) verdicts(file string) map[string]string {
	l.Helper()
	var p struct {
		Items []struct{ Instance, Verdict string }
	}
	l.JSON(&p, "plan", file, "--all")
	all := map[string]string{}
	for _, it := range p.Items {
		switch it.Verdict {
		case "unchanged", "kept", "absent":
		default:
			all[it.Instance] = it.Verdict
		}
	}
	if len(p.Items) == 0 {
		l.Fatal("the plan has no instance")
	}
	return all
}

// api asks the engine's own API.
func (l *own) api(path string) []byte {
	l.Helper()
	out, err := exec.Command("curl", "-g", "-sSf", "--max-time", "60", "--unix-socket", l.Socket, "http://joist"+path).Output()
	if err != nil {
		l.Fatalf("GET %s: %v\n%s", path, err, out)
	}
	return out
}

// instances are the addresses of everything in the cluster's plan.
func (l *own) instances() []string {
	l.Helper()
	var p struct{ Items []struct{ Instance string } }
	if err := json.Unmarshal(l.api("/v1/clusters/demo/plan"), &p); err != nil || len(p.Items) < 90 {
		l.Fatalf("the plan has %d instances: %v", len(p.Items), err)
	}
	var all []string
	for _, it := range p.Items {
		all = append(all, it.Instance)
	}
	return all
}
