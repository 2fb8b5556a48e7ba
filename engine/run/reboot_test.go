package run

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// rebooting is a world whose task kernel reboots its node; reader reads what it yields, other stands beside it.
func rebooting(t *testing.T, change func(*model.Model), nodes ...string) *world {
	t.Helper()
	m := mod("kernel each=m: input.x", "reader each=m: task.kernel", "other each=m: input.x")
	m.Tasks[0].Step.Reboots = true
	if change != nil {
		change(m)
	}
	w := newWorld(t)
	w.hold = true
	w.goal(m, nodes...)
	w.up("a", nodes...)
	return w
}

// boot is a node that speaks to the engine in another boot of the same incarnation, or of another one.
func (w *world) boot(node, incarnation, boot string) {
	w.do(history.NodeSeen{Node: node, Online: false})
	w.do(history.NodeSeen{Node: node, Incarnation: node + incarnation, Boot: node + boot, Address: "10.0.0.1", Level: "vouched", Online: true})
}

// takeout takes the pending dispatch of an instance; the last one, since what is asked for may be asked for again.
func (w *world) takeout(what string) *Dispatch {
	var found *Dispatch
	kept := w.pending[:0:0]
	for _, e := range w.pending {
		d, ok := e.(Dispatch)
		if label := name(d.Target); ok {
			switch {
			case d.Step.Apply.Builtin == "reboot" && d.Action == step.Apply:
				label = "reboot " + label
			case d.Action != step.Apply:
				label = string(d.Action) + " " + label
			}
			if label == what {
				found = &d
				continue
			}
		}
		kept = append(kept, e)
	}
	w.pending = kept
	return found
}

// says reports what became of a dispatch.
func (w *world) says(d *Dispatch, err string) {
	w.t.Helper()
	r := Report{ID: d.ID, Error: err}
	if d.Action == step.Apply && d.Step.Apply.Builtin == "" && err == "" {
		r.Outputs = json.RawMessage(`{"out":"` + name(d.Target) + `"}`)
	}
	if e, ok := w.m.Conclude(w.now, d.Target, r); ok {
		w.do(e)
		return
	}
	w.do()
}

func (w *world) phase(task, node string) history.Phase {
	if row := w.m.State().Row(history.Target{Task: task, Node: node}); row != nil {
		return row.Phase
	}
	return history.Absent
}

// TestReboots: an apply that went well is in place only when its node is back with another boot; what else is under way there
// ends first, nothing new starts meanwhile, and nobody reads its outputs before.
func TestReboots(t *testing.T) {
	w := rebooting(t, nil, "n1")
	kernel, other := w.takeout("kernel[n1]"), w.takeout("other[n1]")
	w.says(kernel, "")
	if w.takeout("reboot kernel[n1]") != nil {
		t.Fatal("the node reboots while something else is under way there")
	}
	w.says(kernel, "") // the same again
	w.do(history.Forced{Target: history.Target{Task: "other", Node: "n1"}, By: "ada"})
	w.says(other, "")
	reboot := w.takeout("reboot kernel[n1]")
	if reboot == nil || reboot.Boot != "n1a" || reboot.ID == kernel.ID || w.takeout("other[n1]") != nil || w.takeout("reader[n1]") != nil {
		t.Fatalf("asked for %+v, and for %v", reboot, w.pending)
	}
	w.now = w.now.Add(askAgain)
	w.do()
	if again := w.takeout("reboot kernel[n1]"); again == nil || again.ID != reboot.ID {
		t.Errorf("it is not asked again: %+v", again)
	}
	w.says(reboot, "") // it goes down
	if w.phase("kernel", "n1") == history.InPlace || w.takeout("other[n1]") != nil {
		t.Error("it is in place before its node is back")
	}
	w.m = New(w.m.State(), w) // the engine is started anew meanwhile
	w.pending = nil
	w.perform(w.m.Resume(w.now))
	w.boot("n1", "a", "b")
	if w.phase("kernel", "n1") != history.InPlace {
		t.Fatalf("back, and not in place: %+v", w.m.State().Row(history.Target{Task: "kernel", Node: "n1"}))
	}
	if w.takeout("reader[n1]") == nil || w.takeout("other[n1]") == nil {
		t.Errorf("what waited does not go on: %v", w.pending)
	}
	// Another boot takes what is on the root, and not what was made to outlast it.
	w.hold, w.pending, w.log = false, nil, nil
	w.boot("n1", "a", "c")
	w.expect("reader[n1]", "other[n1]")
	w.outcome("converged")
}

// TestRebootsTogether: one reboot does for two steps that want one.
func TestRebootsTogether(t *testing.T) {
	w := rebooting(t, func(m *model.Model) { m.Tasks[2].Step.Reboots = true }, "n1")
	w.says(w.takeout("kernel[n1]"), "")
	w.says(w.takeout("other[n1]"), "")
	if w.takeout("reboot kernel[n1]") == nil {
		t.Fatal("it does not reboot")
	}
	w.boot("n1", "a", "b")
	if w.phase("kernel", "n1") != history.InPlace || w.phase("other", "n1") != history.InPlace {
		t.Error("not both are in place")
	}
}

// TestRebootVerified: its verify looks once the node is back, and its failure fails the attempt.
func TestRebootVerified(t *testing.T) {
	for _, failure := range []string{"", "still the old kernel"} {
		w := rebooting(t, func(m *model.Model) {
			m.Tasks[0].Step.Verify = &model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1}
		}, "n1")
		w.says(w.takeout("other[n1]"), "")
		w.says(w.takeout("kernel[n1]"), "")
		w.boot("n1", "a", "b")
		verify := w.takeout("verify kernel[n1]")
		if verify == nil || verify.Boot != "n1b" || w.phase("kernel", "n1") == history.InPlace {
			t.Fatalf("asked for %+v", verify)
		}
		w.boot("n1", "a", "c") // once more meanwhile: that one says nothing
		w.says(verify, "cancelled")
		verify = w.takeout("verify kernel[n1]")
		w.says(verify, failure)
		if in := w.phase("kernel", "n1") == history.InPlace; in != (failure == "") {
			t.Errorf("verified with %q, in place: %v", failure, in)
		}
		if row := w.m.State().Row(history.Target{Task: "kernel", Node: "n1"}); failure != "" && (row.Failure == nil || !row.Failure.Final) {
			t.Errorf("failure %+v", row.Failure)
		}
	}
}

// TestRebootFails: a node that does not come back in time, does not go, or comes back as another one has failed.
func TestRebootFails(t *testing.T) {
	for what, test := range map[string]struct {
		do   func(w *world, reboot *Dispatch)
		want string
	}{
		"it stays away": {func(w *world, _ *Dispatch) {
			w.do(history.NodeSeen{Node: "n1", Online: false})
			w.now = w.now.Add(RebootTime + time.Second)
			w.do()
		}, NotBack},
		"it does not go": {func(w *world, reboot *Dispatch) { w.says(reboot, "no such command") }, "its node does not reboot: no such command"},
		"it is reborn":   {func(w *world, _ *Dispatch) { w.boot("n1", "b", "b") }, history.Reborn},
	} {
		t.Run(what, func(t *testing.T) {
			w := rebooting(t, nil, "n1")
			w.says(w.takeout("other[n1]"), "")
			w.says(w.takeout("kernel[n1]"), "")
			test.do(w, w.takeout("reboot kernel[n1]"))
			row := w.m.State().Row(history.Target{Task: "kernel", Node: "n1"})
			if row.Failure == nil || row.Failure.Error != test.want || !row.Failure.Final || row.Flight != nil {
				t.Fatalf("failure %+v", row.Failure)
			}
			w.hold = false
			w.perform(Outcome{})
			w.outcome("stopped")
			if row.Phase == history.InPlace || slices.Contains(w.log, "kernel[n1]") && what == "it is reborn" {
				t.Errorf("it goes round in circles: %v", w.log)
			}
		})
	}
}

// TestRebootBudget: a reboot keeps its node's place until the node is back, and a policy lets so many pass in a run.
func TestRebootBudget(t *testing.T) {
	w := rebooting(t, func(m *model.Model) {
		m.Rollouts = []model.Rollout{{Name: "nodes", Tasks: []string{"kernel"}, Roles: []string{"m"}}}
		m.Policies = []model.Policy{{Name: "limit", Refuse: model.Rebooting, Bounded: true, Beyond: 1, Roles: []string{"m"}}}
	}, "n1", "n2")
	w.says(w.takeout("other[n1]"), "")
	w.says(w.takeout("other[n2]"), "")
	if len(w.m.Refused()) != 1 {
		t.Errorf("the plan is not refused: %+v", w.m.Refused())
	}
	w.says(w.takeout("kernel[n1]"), "")
	if w.takeout("kernel[n2]") != nil {
		t.Fatal("the second began before the first was back")
	}
	w.boot("n1", "a", "b")
	if w.phase("kernel", "n1") != history.InPlace || w.takeout("kernel[n2]") != nil {
		t.Fatal("the second began beyond the limit of its policy")
	}
	w.hold = false
	w.perform(Outcome{})
	w.outcome("stopped")
	if held := w.m.Held(history.Target{Task: "kernel", Node: "n2"}); held.Kind != history.PolicyHeld {
		t.Errorf("held by %+v", held)
	}
}

// TestRebootReplaced: what is made anew in the place of another thing reboots its node as well, which the plan says.
func TestRebootReplaced(t *testing.T) {
	w := newWorld(t)
	m := mod("kernel each=m: input.x")
	w.goal(m, "n1")
	w.up("a", "n1")
	m = mod("kernel each=m: input.x")
	m.Tasks[0].Step.Name, m.Tasks[0].Step.Reboots = "p.newer", true
	m.Policies = []model.Policy{{Name: "limit", Refuse: model.Rebooting}, {Name: "stay", Refuse: model.Replacement}}
	w.goal(m, "n1")
	refused := w.m.Refused()
	if len(refused) != 2 || refused[0].Policy.Name != "limit" {
		t.Errorf("refused %+v", refused)
	}
}

// TestRebootCancelled: nothing reboots after a cancel.
func TestRebootCancelled(t *testing.T) {
	w := rebooting(t, nil, "n1")
	kernel := w.takeout("kernel[n1]")
	w.do(history.Cancelled{By: "ada"})
	w.says(kernel, "")
	if w.takeout("reboot kernel[n1]") != nil || w.m.State().Row(kernel.Target).Flight != nil {
		t.Errorf("after a cancel: %v", w.pending)
	}
}

// TestRebootKeepsScriptsAway: a node that is about to reboot executes nothing for others either; another one does, or it waits.
func TestRebootKeepsScriptsAway(t *testing.T) {
	w := rebooting(t, func(m *model.Model) { m.Tasks = append(m.Tasks, task("ask on=m: input.x")) }, "n1", "n2")
	force := func() {
		w.says(w.takeout("ask"), "")
		w.do(history.Forced{Target: history.Target{Task: "ask"}, By: "ada"})
	}
	w.says(w.takeout("other[n1]"), "")
	w.says(w.takeout("other[n2]"), "")
	w.says(w.takeout("kernel[n1]"), "")
	force()
	if row := w.m.State().Row(history.Target{Task: "ask"}); row.Flight == nil || row.Flight.Agent != "n2" {
		t.Fatalf("executed by %+v", row.Flight)
	}
	w.says(w.takeout("kernel[n2]"), "")
	force()
	if w.takeout("ask") != nil {
		t.Fatal("executed on a node that is about to reboot")
	}
	w.boot("n1", "a", "b")
	if ask := w.takeout("ask"); ask == nil || ask.Agent != "n1" {
		t.Errorf("it does not go on: %+v", ask)
	}
}

// TestRebootRemoved: what outlasts a boot is not gone with it, and is removed.
func TestRebootRemoved(t *testing.T) {
	w := rebooting(t, nil, "n1")
	w.says(w.takeout("other[n1]"), "")
	w.says(w.takeout("kernel[n1]"), "")
	w.boot("n1", "a", "b")
	w.hold, w.pending = false, nil
	w.boot("n1", "a", "c")
	w.goal(mod("other each=m: input.x"), "n1")
	if !slices.Contains(w.log, "remove kernel[n1]") {
		t.Errorf("it is not removed: %v", w.log)
	}
	w.outcome("converged")
}
