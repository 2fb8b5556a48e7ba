package run

import (
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// scouting is a world whose task bios runs in scout; reader, on the node, reads what it yields.
func scouting(t *testing.T, nodes ...string) *world {
	t.Helper()
	w := newWorld(t)
	w.goal(bios("1"), nodes...)
	return w
}

func bios(x string) *model.Model {
	m := mod("bios each=m: input.x", "reader each=m: task.bios")
	m.Tasks[0].Step.Scout, m.Tasks[0].Step.Irreversible = true, "it stays"
	m.Inputs["x"] = value.Text(x)
	return m
}

// scout is a machine that speaks from the discovery image of a boot.
func (w *world) scout(node, boot, machine string) {
	w.do(history.NodeSeen{Node: node, Scout: node + boot, Machine: machine, Address: "10.0.0.1", Level: "vouched"})
}

// comeUp is a machine that boots, is in scout, and then is a node.
func (w *world) comeUp(node, incarnation, boot string) {
	w.do(history.NodeSeen{Node: node})
	w.scout(node, boot, "board")
	w.do(history.NodeSeen{Node: node, Incarnation: node + incarnation, Boot: node + boot, Machine: "board", Address: "10.0.0.1", Level: "vouched", Online: true})
}

func (w *world) wait(task, node string) history.Cause {
	w.t.Helper()
	cell := w.m.Plan().Cell(history.Target{Task: task, Node: node})
	if cell == nil {
		w.t.Fatalf("the plan has no %s[%s]", task, node)
	}
	return cell.Wait
}

// TestScoutFirst: a machine is kept in scout until what is to be done there is, is handed over then, and what was done outlasts
// its boots and incarnations, and not the machine itself.
func TestScoutFirst(t *testing.T) {
	w := scouting(t, "n1")
	w.expect()
	w.hold = true
	w.scout("n1", "a", "board")
	d := w.takeout("bios[n1]")
	if d == nil || d.Boot != "n1a" || d.Incarnation != "" || len(w.pending) != 0 {
		t.Fatalf("asked for %+v, and %v", d, w.pending)
	}
	w.says(d, "")
	if len(w.pending) != 1 || w.pending[0] != (HandOver{"n1", "n1a"}) {
		t.Fatalf("asked for %v, want the hand-over", w.pending)
	}
	w.hold = false
	w.perform(Outcome{})
	w.log = nil
	w.do(history.NodeSeen{Node: "n1", Incarnation: "n1a", Boot: "n1a", Machine: "board", Address: "10.0.0.1", Level: "vouched", Online: true})
	w.expect("reader[n1]")
	w.outcome("converged")
	w.comeUp("n1", "b", "b") // nothing of the node is left
	w.expect("hand over n1 n1b", "discharge reader[n1]", "reader[n1]")
	w.outcome("converged")
	w.do(history.NodeEnded{Node: "n1", Incarnation: "n1b", Why: "wiped"})
	w.comeUp("n1", "c", "c")
	w.expect("discharge reader[n1]", "hand over n1 n1c", "reader[n1]")

	w.do(history.NodeSeen{Node: "n1"})
	w.scout("n1", "d", "another board") // under the same name
	w.expect("bios[n1]", "hand over n1 n1d")
}

// TestScoutChanged: on a node that was handed over, what changed waits for its next boot and says so; what reads it waits with it, and
// nothing else.
func TestScoutChanged(t *testing.T) {
	w := scouting(t, "n1")
	w.comeUp("n1", "a", "a")
	w.log = nil
	w.goal(bios("2"), "n1")
	w.expect()
	w.outcome("stopped")
	if wait := w.wait("bios", "n1"); wait.Kind != history.InScout || wait.Because() != "waits for the node to be in scout: node n1 has to boot once more" {
		t.Errorf("it waits: %s", wait.Because())
	}
	if !strings.Contains(w.m.State().Detail, "1 wait for their node's next boot") {
		t.Errorf("at rest: %s", w.m.State().Detail)
	}
	w.comeUp("n1", "b", "b")
	w.expect("bios[n1]", "hand over n1 n1b", "discharge reader[n1]", "reader[n1]")
	w.outcome("converged")
	w.goal(bios("2"), "n1") // again
	w.expect()
	w.outcome("converged")
}

// TestScoutFails: a machine whose step in scout failed for good stays there, and nobody waits for it; trying again goes on.
func TestScoutFails(t *testing.T) {
	w := scouting(t, "n1")
	w.hold = true
	w.scout("n1", "a", "board")
	w.says(w.takeout("bios[n1]"), "no such board")
	if len(w.pending) != 0 {
		t.Errorf("after the failure: %v", w.pending)
	}
	w.outcome("stopped")
	w.goal(bios("1"), "n1")
	w.says(w.takeout("bios[n1]"), "")
	if len(w.pending) != 1 || w.pending[0] != (HandOver{"n1", "n1a"}) {
		t.Errorf("after it went well: %v", w.pending)
	}
}

// TestScoutLost: an attempt outlasts a lost connection, and neither another boot nor the machine's leaving scout.
func TestScoutLost(t *testing.T) {
	for what, test := range map[string]struct {
		do    func(w *world)
		again bool
	}{
		"it does not answer for a while": {func(w *world) { w.do(history.NodeSeen{Node: "n1"}); w.scout("n1", "a", "board") }, false},
		"it boots anew":                  {func(w *world) { w.scout("n1", "b", "board") }, true},
		"it was handed over": {func(w *world) {
			w.do(history.NodeSeen{Node: "n1", Incarnation: "n1a", Boot: "n1a", Level: "vouched", Online: true})
		}, false},
	} {
		t.Run(what, func(t *testing.T) {
			w := scouting(t, "n1")
			w.hold = true
			w.scout("n1", "a", "board")
			first := w.takeout("bios[n1]")
			test.do(w)
			again := w.takeout("bios[n1]")
			if (again != nil) != test.again || again != nil && again.ID == first.ID {
				t.Errorf("asked for again: %+v", again)
			}
			row := w.m.State().Row(first.Target)
			if flies := row.Flight != nil; flies != (what != "it was handed over") {
				t.Errorf("in flight: %v", flies)
			}
			if what == "it was handed over" && w.wait("bios", "n1").Kind != history.InScout {
				t.Errorf("it waits: %+v", w.wait("bios", "n1"))
			}
		})
	}
}

// TestScoutCancelled: a cancel begins nothing in scout, and hands over what has nothing to be done there.
func TestScoutCancelled(t *testing.T) {
	w := scouting(t, "n1", "n2")
	w.comeUp("n1", "a", "a")
	w.do(history.Cancelled{By: "ada"})
	w.log = nil
	w.scout("n2", "a", "board")
	w.expect()
	w.do(history.NodeSeen{Node: "n1"})
	w.scout("n1", "b", "board")
	w.expect("hand over n1 n1b")
}

// TestScoutLeaves: what was done in scout goes from the books with the machine, and is done again when it comes back.
func TestScoutLeaves(t *testing.T) {
	w := scouting(t, "n1", "n2")
	w.comeUp("n1", "a", "a")
	w.comeUp("n2", "a", "a")
	w.log = nil
	w.goal(bios("1"), "n1")
	w.expect("remove reader[n2]", "discharge bios[n2]", "release n2")
	w.outcome("converged")
	w.goal(bios("1"), "n1", "n2")
	w.scout("n2", "b", "board")
	w.expect("bios[n2]", "hand over n2 n2b")
}

// TestScoutResumed: what is in flight in scout is asked for again by the next engine, under the same number, and a hand-over too.
func TestScoutResumed(t *testing.T) {
	w := scouting(t, "n1")
	w.hold = true
	w.scout("n1", "a", "board")
	first := w.takeout("bios[n1]")
	w.m, w.pending = New(w.m.State(), w), nil
	w.perform(w.m.Resume(w.now))
	again := w.takeout("bios[n1]")
	if again == nil || again.ID != first.ID || again.Boot != first.Boot || again.Incarnation != "" {
		t.Fatalf("asked again for %+v", again)
	}
	w.says(again, "")
	w.m, w.pending = New(w.m.State(), w), nil
	w.now = w.now.Add(time.Minute)
	w.perform(w.m.Resume(w.now))
	if len(w.pending) != 1 || w.pending[0] != (HandOver{"n1", "n1a"}) {
		t.Errorf("asked for %v", w.pending)
	}
}
