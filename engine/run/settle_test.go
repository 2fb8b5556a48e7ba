package run

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// settling is a rollout one node at a time, watched for a minute; b has a verify.
func settling(x string) *model.Model {
	m := mod("a each=m: input.x", "b each=m: task.a")
	m.Inputs["x"] = value.Text(x)
	m.Tasks[1].Step.Verify = &model.Action{Script: &model.Script{}, Timeout: 10 * time.Second, Attempts: 1}
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a", "b"}, Roles: []string{"m"}, Settle: time.Minute}}
	return m
}

// pass lets time pass in steps of a second, and gives what ran.
func (w *world) pass(d time.Duration) {
	for range int(d / time.Second) {
		w.now = w.now.Add(time.Second)
		w.do()
	}
}

// TestSettle: a place is given back once the watch is over and every verify of the group has found it in place.
func TestSettle(t *testing.T) {
	w := newWorld(t)
	w.goal(settling("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.expect("a[n1]", "b[n1]")
	w.outcome("")
	w.pass(59 * time.Second)
	w.expect()
	w.pass(time.Second)
	w.expect("verify b[n1]", "a[n2]", "b[n2]")
	w.outcome("")
	w.pass(time.Minute)
	w.expect("verify b[n2]")
	w.outcome("converged")
	if b := w.m.State().Budgets["r"]; len(b.Places) != 0 || len(b.Settling) != 0 || len(b.Proven) != 2 {
		t.Errorf("budget at the end: %+v", b)
	}
}

// TestSettleFails: what a verify finds gone at the end of a watch is a failure of the rollout, and drift: nobody else
// starts, and the place is kept.
func TestSettleFails(t *testing.T) {
	w := newWorld(t)
	w.answer = func(what string) (string, string) {
		if what == "verify b[n1]" {
			return "", "it is not healthy"
		}
		return "", ""
	}
	w.goal(settling("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.pass(time.Minute)
	w.expect("a[n1]", "b[n1]", "verify b[n1]")
	w.outcome("stopped")
	b := w.m.State().Budgets["r"]
	if b.Failures != 1 || !b.Places["n1"] || len(b.Settling) != 0 {
		t.Errorf("budget after the failure: %+v", b)
	}
	if cell := w.m.Plan().Cell(history.Target{Task: "b", Node: "n1"}); cell.Cause.Kind != history.Drift || cell.Cause.Text != "it is not healthy" {
		t.Errorf("b[n1] %s because %s", cell.Verdict, cell.Cause.Because())
	}
	w.answer = nil
	w.do(history.BreakerClosed{Rollout: "r", By: "ada"})
	w.expect("b[n1]")
	w.pass(2 * time.Minute)
	w.expect("verify b[n1]", "a[n2]", "b[n2]", "verify b[n2]")
	w.outcome("converged")
}

// TestSettleResumes: the watch, its place and the breaker are in the journal: an engine that is started again goes on.
func TestSettleResumes(t *testing.T) {
	w := newWorld(t)
	w.goal(settling("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.pass(30 * time.Second)
	w.expect("a[n1]", "b[n1]")
	version, data, err := w.m.State().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	state, err := history.Restore(version, data)
	if err != nil {
		t.Fatal(err)
	}
	w.m = New(state, w)
	w.perform(w.m.Resume(w.now))
	w.pass(29 * time.Second)
	w.expect()
	w.pass(time.Second)
	w.expect("verify b[n1]", "a[n2]", "b[n2]")
}

// TestSettleSilent: a node that does not answer its verify within the time has failed; one that is away is awaited.
func TestSettleSilent(t *testing.T) {
	w := newWorld(t)
	w.goal(settling("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.do(history.NodeSeen{Node: "n1"})
	w.pass(5 * time.Minute)
	w.expect("a[n1]", "b[n1]")
	w.hold = true
	w.up("a", "n1")
	w.pass(20 * time.Second)
	if len(w.pending) == 0 {
		t.Fatal("nothing was asked of a node that came back")
	}
	if d, ok := w.pending[len(w.pending)-1].(Dispatch); !ok || d.Action != step.Verify || d.Task != "b" {
		t.Fatalf("asked %+v", w.pending)
	}
	w.pass(2 * time.Minute)
	if f := w.m.State().Budgets["r"].Failures; f != 1 {
		t.Errorf("%d failures after a verify without an answer", f)
	}
	w.expect()
}

// TestSettleKeepsReaders: what a watch finds gone at its end is gone for who reads it, in that very step.
func TestSettleKeepsReaders(t *testing.T) {
	w := newWorld(t)
	m := settling("1")
	m.Tasks = append(m.Tasks, mod("a each=m:", "b each=m:", "c each=m: task.b").Tasks[2])
	w.goal(m, "n1")
	w.up("a", "n1")
	w.pass(59 * time.Second)
	w.expect("a[n1]", "b[n1]", "c[n1]")
	w.hold = true
	w.pass(time.Second)
	w.now = w.now.Add(time.Hour)
	w.do(history.Forced{Target: history.Target{Task: "c", Node: "n1"}, By: "ada"})
	if cell := w.m.Plan().Cell(history.Target{Task: "b", Node: "n1"}); cell.Settled() {
		t.Fatal("a verify that nobody answered found it in place")
	}
	if row := w.m.State().Row(history.Target{Task: "c", Node: "n1"}); row.Flight != nil {
		t.Error("c[n1] began although what it reads is not in place")
	}
}

// TestSettleChanged: a new goal in the middle of a watch starts that anew once the group is in place again.
func TestSettleChanged(t *testing.T) {
	w := newWorld(t)
	w.goal(settling("1"), "n1")
	w.up("a", "n1")
	w.pass(30 * time.Second)
	w.answer = func(what string) (string, string) { return what + "2", "" }
	w.goal(settling("2"), "n1")
	w.expect("a[n1]", "b[n1]", "a[n1]", "b[n1]")
	w.pass(59 * time.Second)
	w.expect()
	w.pass(time.Second)
	w.expect("verify b[n1]")
	w.outcome("converged")
}

// TestSpread: places are spread evenly over failure domains, and a domain that has its share does not keep the others.
func TestSpread(t *testing.T) {
	w := newWorld(t)
	m := mod("a each=m: input.x")
	rack := arg("spread", model.Ref{Kind: model.RefNode, Attr: model.NodeFacts})
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a"}, Roles: []string{"m"}, MaxInFlight: model.Count{N: 4}, Spread: &rack}}
	var nodes []string
	for i := range 8 {
		name := fmt.Sprintf("n%d", i)
		nodes = append(nodes, name)
		rack := "r1" // n0 to n5
		if i > 5 {
			rack = "r2"
		}
		w.do(history.NodeSeen{Node: name, Incarnation: name + "a", Boot: "b", Level: "vouched", Online: true, Facts: json.RawMessage(`{"rack":"` + rack + `"}`)})
	}
	w.hold = true
	w.goal(m, nodes...)
	want := map[string]bool{"n0": true, "n1": true, "n6": true, "n7": true}
	if got := w.m.State().Budgets["r"].Places; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("places %v, want %v", got, want)
	}
	if held := w.m.Held(history.Target{Task: "a", Node: "n2"}); held.Kind != history.NoPlace {
		t.Errorf("n2 is held: %+v", held)
	}
	w.hold = false
	w.do()
	w.outcome("converged")
}
