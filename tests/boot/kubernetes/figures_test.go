package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"joist/tests/bench/figure"
	"joist/tests/boot/lab"
)

// readyStep is the task that is done when Kubernetes says that a node is ready.
const readyStep = "kube.member"

// measured brings up so many control-plane machines and two workers, prints the figures, and destroys them.
func (l *own) measured(control string) {
	l.Helper()
	n, err := strconv.Atoi(control)
	if err != nil || n < 1 {
		l.Fatalf("JOIST_BENCH_CONTROL is %q, want a number of machines", control)
	}
	var g goal
	for i := range n + 2 {
		name := fmt.Sprintf("n%d", i+1)
		if i < n {
			l.machine(name, controlMemory)
			g.control = append(g.control, name)
		} else {
			l.machine(name, workerMemory)
			g.worker = append(g.worker, name)
		}
	}
	l.Pursue("converged", "apply", l.file(g))
	l.retries()
	l.Logf("\n%s", l.Must("path", "demo"))
	l.figures(n, g.worker...)
	l.Pursue("destroyed", "destroy", "demo", "--yes")
}

// figures prints what tests/bench prints of a cluster that has just come up, one JSON line for each figure.
func (l *own) figures(control int, workers ...string) {
	l.Helper()
	l.Await("the cluster at rest", time.Minute, func(e *lab.Event) bool { return e.Journal == "cluster/demo" && e.Kind == "rested" })
	b := figure.Bringup{Ready: readyStep, Nodes: workers, Served: map[string]uint64{}}
	l.Each(func(e *lab.Event) {
		if e.Journal == "cluster/demo" {
			b.Events = append(b.Events, figure.Event{Kind: e.Kind, Time: e.Time, Task: e.Task, Node: e.Node, Action: e.Action, Outcome: e.Outcome})
		}
	})
	l.JSON(&b.Path, "path", "demo")
	var machines []struct {
		Name   string
		Served uint64 `json:"served_bytes"`
	}
	l.JSON(&machines, "node", "list")
	for _, m := range machines {
		b.Served[m.Name] = m.Served
	}
	f, err := b.Compute()
	if err != nil {
		l.Errorf("the figures of the bring-up: %v", err)
		return
	}
	if f.Bytes == 0 {
		l.Error("machines booted from the network, and the engine served nothing")
	}
	l.Logf("load %s", lab.Load())
	for _, line := range f.Lines(control) {
		text, err := json.Marshal(line)
		if err != nil {
			l.Fatal(err)
		}
		fmt.Printf("%s\n", text)
	}
}
