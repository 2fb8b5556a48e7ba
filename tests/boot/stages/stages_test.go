// Package stages_test shows on machines what is bound to them rather than to a boot: steps in scout, whose success outlasts
// the node, and steps that reboot their node.
package stages_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joist/tests/boot/lab"
)

// memory of a machine in bytes: enough for the image and what scripts write.
const memory = 1 << 30

type own struct{ *lab.Lab }

// report is what a node says of the boots that did things to it.
type report struct {
	Scout struct {
		Level      int
		Boot, Init string
	}
	Boot, Init, Loader string
}

// reports decodes what a cluster yields of n1.
func (l own) reports(o lab.Outcome) report {
	l.Helper()
	var all map[string]report
	if err := json.Unmarshal(o.Outputs["reports"], &all); err != nil || len(all) != 1 {
		l.Fatalf("reports %s: %v", o.Outputs["reports"], err)
	}
	return all["n1"]
}

// settled wants a plan in which nothing is to be done.
func (l own) settled() {
	l.Helper()
	var p struct{ Changes bool }
	if l.JSON(&p, "plan", "--cluster", "board"); p.Changes {
		l.Errorf("a plan after converging has changes:\n%s", l.Must("plan", "--cluster", "board"))
	}
}

// file writes a cluster file with one machine.
func (l own) file(workflow, more string) string {
	l.Helper()
	path := filepath.Join(l.Data, "..", "board.hcl")
	text := fmt.Sprintf(`cluster "board" {
  workflow = board.%s
  packs = {
    base  = { source = "builtin" }
    board = { source = %q }
  }
  nodes = { board = ["n1"] }
  %s
}
`, workflow, filepath.Join(l.Root, "tests/boot/stages/testdata/board"), more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
	return path
}

// cycle takes the machine's power, and waits until a step has gone well again.
func (l own) cycle(instance string) lab.Outcome {
	l.Helper()
	before := l.Last("board")
	l.Must("node", "power", "n1", "cycle")
	l.Await(instance+" after the power cut", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/board" && e.Seq > before && e.Kind == "succeeded" && e.Instance() == instance
	})
	return l.Pursue("converged", "watch", "board")
}

// TestScout: what is done to a machine in scout is read by its node, is not done again after a power cut, and waits for the next
// boot when it is to be something else.
func TestScout(t *testing.T) {
	l := own{lab.New(t, lab.Machines{Count: 1, Memory: memory})}
	first := l.reports(l.Pursue("converged", "apply", l.file("cluster", "")))
	if first.Init != "systemd" || first.Scout.Init == "systemd" || first.Scout.Level != 1 || first.Boot == "" || first.Scout.Boot != first.Boot {
		t.Errorf("a step in scout, and one in the node of the same boot: %+v", first)
	}
	l.settled()

	mark := l.Last("board")
	second := l.reports(l.cycle("report[n1]"))
	if second.Boot == first.Boot || second.Scout != first.Scout {
		t.Errorf("after the power cut %+v, before %+v", second, first)
	}
	l.Last("board")
	if again := l.Starts("board", mark); again["firmware[n1]"] != 0 || again["report[n1]"] != 1 {
		t.Errorf("after the power cut these were started: %v", again)
	}

	o := l.Pursue("stopped", "apply", l.file("cluster", "with = { level = 2 }"))
	if !strings.Contains(o.Detail, "next boot") {
		t.Errorf("a changed input of a step in scout: %s", o.Detail)
	}
	var p struct {
		Items []struct{ Instance, Verdict, Danger, Waits string }
	}
	l.JSON(&p, "plan", "--cluster", "board")
	seen := false
	for _, it := range p.Items {
		if it.Instance == "firmware[n1]" {
			seen = it.Verdict == "run" && it.Danger == "reboot" && strings.Contains(it.Waits, "waits for the node to be in scout")
		}
	}
	if !seen {
		t.Errorf("the plan of it: %+v", p.Items)
	}
	third := l.reports(l.cycle("report[n1]"))
	if third.Scout.Level != 2 || third.Scout.Boot != third.Boot || third.Boot == second.Boot {
		t.Errorf("at the next boot: %+v", third)
	}
	l.settled()
	l.Pursue("destroyed", "destroy", "board", "--yes")
	l.Free("board", 1)
}

// TestReboots: a step that reboots its node is in place once the node is back as the same incarnation, and is not run again by a boot
// that somebody else brought about; what is bound to the machine is done once for all of them.
func TestReboots(t *testing.T) {
	l := own{lab.New(t, lab.Machines{})}
	l.Must("lab", "machine", "add", "n1", "--data", l.Data, "--memory", fmt.Sprint(memory), "--disk", fmt.Sprint(2<<30))
	first := l.reports(l.Pursue("converged", "apply", l.file("rebooted", `storage = "disk"`)))
	if first.Loader == "" || first.Boot == "" || first.Loader == first.Boot {
		t.Errorf("the step that reboots ran in one boot, and what follows in another: %+v", first)
	}
	one := l.incarnations()
	if len(one) != 1 {
		t.Errorf("the node had the incarnations %v", one)
	}
	l.Last("board")
	if began := l.Starts("board", 0); began["firmware[n1]"] != 1 || began["loader[n1]"] != 1 || began["disk[n1]"] != 2 {
		t.Errorf("started: %v", began)
	}
	mark := l.Last("board")
	second := l.reports(l.cycle("report[n1]"))
	if second.Loader != first.Loader || second.Boot == first.Boot {
		t.Errorf("after the power cut %+v, before %+v", second, first)
	}
	l.Last("board")
	if again := l.Starts("board", mark); again["firmware[n1]"] != 0 || again["loader[n1]"] != 0 || again["disk[n1]"] != 1 {
		t.Errorf("after the power cut these were started: %v", again)
	}
	l.settled()
	l.Pursue("destroyed", "destroy", "board", "--yes")
	l.Free("board", 1)
}

// incarnations gives those that n1 came up with.
func (l own) incarnations() map[string]bool {
	l.Last("board")
	all := map[string]bool{}
	l.Each(func(e *lab.Event) {
		if e.Journal == "cluster/board" && e.Kind == "node.seen" && e.Node == "n1" && e.Incarnation != "" {
			all[e.Incarnation] = true
		}
	})
	return all
}
