package run

import (
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// asking is a task on each node that goes on after a person's approval of x.
func asking(x string) *model.Model {
	m := mod("ok: input.x", "a each=m: input.y after=ok")
	m.Inputs["x"], m.Inputs["y"] = value.Text(x), value.Text(x)
	s := m.Tasks[0].Step
	ask := arg("approve", model.Ref{Kind: model.RefStep, Name: "i0"})
	s.Scope, s.Remove, s.Outputs = model.Cluster, nil, nil
	s.Apply = model.Action{Approve: &ask, Valid: time.Hour}
	return m
}

// given is the approval of what is asked for now.
func (w *world) given() history.Approved {
	t := history.Target{Task: "ok"}
	return history.Approved{Target: t, Step: w.m.Plan().Task("ok").Step.Digest, Input: w.m.Plan().Cell(t).Digests().Input, By: "test", Reason: "looked at"}
}

// TestApproval: nothing goes on before a person has approved it; what changes asks anew, and an approval of what was shown
// before is none; one that is over is asked for again when something is to start, and not before.
func TestApproval(t *testing.T) {
	w := newWorld(t)
	w.goal(asking("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.expect()
	w.outcome("stopped")
	if d := w.m.State().Detail; d != "3 of 3 instances are blocked or stopped; 1 waiting for approval" {
		t.Errorf("it rests with %q", d)
	}
	old := w.given()
	w.goal(asking("2"), "n1", "n2")
	w.do(old)
	w.expect()
	if w.m.State().Row(old.Target) != nil && w.m.State().Row(old.Target).Approval != nil {
		t.Error("what was approved is not what is asked for, and that was taken")
	}
	w.do(w.given())
	w.expect("a[n1]", "a[n2]")
	w.outcome("converged")
	w.now = w.now.Add(2 * time.Hour)
	w.do()
	w.outcome("converged") // all have run that waited for it
	w.do(history.Forced{Target: history.Target{Task: "a", Node: "n1"}, By: "test"})
	w.expect()
	w.outcome("stopped")
	w.do(w.given())
	w.expect("a[n1]")
	w.outcome("converged")
}
