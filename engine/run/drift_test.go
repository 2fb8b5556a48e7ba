package run

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/upkeep"
	"joist/engine/step"
)

// drifting is two tasks with a verify each, looked at every ten minutes; readers read the first.
func drifting(waits bool) *model.Model {
	m := mod("a each=m: input.x", "b each=m:", "readers each=m: task.a")
	for i := range 2 {
		m.Tasks[i].Step.Verify = &model.Action{Script: &model.Script{}, Timeout: 10 * time.Second, Attempts: 1}
	}
	m.Drift = model.Drift{Every: 10 * time.Minute, Waits: waits}
	return m
}

// gone answers that the verify of an instance fails, until that is applied again.
func (w *world) gone(instance string) {
	bad := true
	w.answer = func(what string) (string, string) {
		switch {
		case what == instance:
			bad = false
		case bad && what == "verify "+instance:
			return "", "the step's script ended with exit code 1\nlooking\nit is not running"
		}
		return "", ""
	}
}

func (w *world) ran(what string) int {
	n := 0
	for _, line := range w.log {
		if line == what {
			n++
		}
	}
	return n
}

// TestDrift: every instance is verified once in each turn. What a verify finds gone, twice, is drift: it is applied again, and
// nothing else is.
func TestDrift(t *testing.T) {
	w := newWorld(t)
	w.goal(drifting(false), "n1", "n2")
	w.up("a", "n1", "n2")
	w.outcome("converged")
	w.log = nil
	seq := w.m.State().Seq
	w.pass(time.Hour)
	for _, what := range []string{"verify a[n1]", "verify a[n2]", "verify b[n1]", "verify b[n2]"} {
		if n := w.ran(what); n != 6 {
			t.Errorf("%s ran %d times in an hour", what, n)
		}
	}
	if got := w.m.State().Seq; got != seq {
		t.Errorf("verifies that found nothing made %d events", got-seq)
	}
	w.log = nil
	w.gone("a[n1]")
	w.pass(11 * time.Minute)
	w.log = slices.DeleteFunc(w.log, func(line string) bool {
		return strings.HasPrefix(line, "verify") && line != "verify a[n1]"
	})
	if len(w.log) < 3 || !slices.Equal(w.log[:3], []string{"verify a[n1]", "verify a[n1]", "a[n1]"}) || slices.Contains(w.log, "readers[n1]") {
		t.Errorf("ran %v", w.log)
	}
	w.outcome("converged")
	row := w.m.State().Row(history.Target{Task: "a", Node: "n1"})
	if row.Cause.Kind != history.Drift || row.Cause.Text != "the step's script ended with exit code 1: it is not running" || row.Drifted != "" {
		t.Errorf("a[n1] ran because of %+v, drifted is %q", row.Cause, row.Drifted)
	}
}

// TestDriftWaits: where drift waits for a person it is said, and stays until somebody sets the goal again or forces it, or the
// next verify finds it mended.
func TestDriftWaits(t *testing.T) {
	at := history.Target{Task: "a", Node: "n1"}
	found := func(t *testing.T) *world {
		w := newWorld(t)
		w.goal(drifting(true), "n1", "n2")
		w.up("a", "n1", "n2")
		w.gone("a[n1]")
		w.pass(11 * time.Minute)
		w.outcome("stopped")
		if n := w.ran("a[n1]"); n != 1 {
			t.Fatalf("a[n1] ran %d times without a person", n)
		}
		if cell := w.m.Plan().Cell(at); cell.Verdict != plan.Kept || cell.Cause.Kind != history.Drift {
			t.Fatalf("a[n1] is %s because of %+v", cell.Verdict, cell.Cause)
		}
		seq := w.m.State().Seq
		w.pass(30 * time.Minute)
		if got := w.m.State().Seq; got != seq {
			t.Errorf("finding it again made %d events", got-seq)
		}
		w.log = nil
		return w
	}
	w := found(t)
	w.do(history.Forced{Target: at, By: "ada"})
	w.expect("a[n1]")
	w.outcome("converged")

	w = found(t)
	g := *w.m.State().Goal()
	g.Changed = false
	w.do(g)
	w.expect("a[n1]")
	w.outcome("converged")

	w = found(t)
	w.answer = nil // somebody mended it by hand
	w.pass(11 * time.Minute)
	w.outcome("converged")
	if n := w.ran("a[n1]"); n != 0 {
		t.Errorf("a[n1] ran %d times", n)
	}
}

// TestDriftOnce: what is only being restarted when it is looked at has not drifted.
func TestDriftOnce(t *testing.T) {
	w := newWorld(t)
	w.goal(drifting(false), "n1")
	w.up("a", "n1")
	first := true
	w.answer = func(what string) (string, string) {
		if what == "verify a[n1]" && first {
			first = false
			return "", "starting"
		}
		return "", ""
	}
	seq := w.m.State().Seq
	w.pass(11 * time.Minute)
	if got := w.m.State().Seq; got != seq || first {
		t.Errorf("a second look that found nothing: %d events; looked: %v", got-seq, !first)
	}
}

// TestDriftForgets: what a first look saw says nothing of what was applied since.
func TestDriftForgets(t *testing.T) {
	w := newWorld(t)
	at := history.Target{Task: "a", Node: "n1"}
	w.goal(drifting(false), "n1")
	w.up("a", "n1")
	w.answer = func(what string) (string, string) {
		if what == "verify a[n1]" {
			return "", "gone"
		}
		return "", ""
	}
	id, err := w.m.Inquire(w.now, "ada", []history.Target{at})
	if err != nil {
		t.Fatal(err)
	}
	w.do()
	w.do(history.Forced{Target: at, By: "ada"})
	seq := w.m.State().Seq
	w.pass(20 * time.Second)
	if got := w.m.State().Seq; got != seq {
		t.Errorf("%d events of what was seen before it was applied again", got-seq)
	}
	if q, err := w.m.Inquiry(id, 0, 10); err != nil || len(q.Ended) != 1 || q.Ended[0].State != upkeep.LookLeftOut {
		t.Errorf("the inquiry: %+v %v", q, err)
	}
}

// TestVerifyKeepsAway: a verify does not start beside an attempt, is given up for one, and nodes that leave, are silent or not
// trusted are left out.
func TestVerifyKeepsAway(t *testing.T) {
	w := newWorld(t)
	w.goal(drifting(false), "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.hold, w.log = true, nil
	id, err := w.m.Inquire(w.now, "ada", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.do()
	if len(w.pending) != 3 {
		t.Fatalf("%d verifies under way on three nodes: one each", len(w.pending))
	}
	of := w.pending[0].(Dispatch)
	if of.Action != step.Verify || !IsLook(of.ID) {
		t.Fatalf("%+v", of)
	}
	w.pending = nil
	w.do(history.Forced{Target: of.Target, By: "ada"})
	var what []string
	for _, e := range w.pending {
		switch e := e.(type) {
		case Abort:
			what = append(what, fmt.Sprintf("abort %v", e.ID == of.ID))
		case Dispatch:
			what = append(what, string(e.Action)+" "+name(e.Target))
		}
	}
	if want := []string{"abort true", "apply a[n1]", "verify b[n1]"}; !slices.Equal(what, want) {
		t.Errorf("got %v, want %v", what, want)
	}
	if e, ok := w.m.Conclude(w.now, of.Target, Report{ID: of.ID, Error: "gone"}); ok {
		t.Errorf("the report of a verify that was given up became %T", e)
	}
	w.do(history.NodeSeen{Node: "n2", Online: false})
	w.do(history.NodeSeen{Node: "n3", Incarnation: "n3a", Boot: "n3a", Level: "", Online: true})
	again, err := w.m.Inquire(w.now, "ada", []history.Target{of.Target, {Task: "a", Node: "n2"}, {Task: "readers", Node: "n2"}, {Task: "zz", Node: "n1"}, {Task: "b", Node: "n3"}})
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.m.Inquiry(again, 0, 100)
	if err != nil || len(q.Ended) != 4 || q.Open[upkeep.LookWaiting] != 1 {
		t.Fatalf("%+v %v", q, err)
	}
	for i, want := range []string{"it is not in place", "its node does not answer", "its step has no verify", "the goal has no such instance"} {
		if q.Ended[i].Observed != want {
			t.Errorf("%s is left out because %q, want %q", q.Ended[i].Target, q.Ended[i].Observed, want)
		}
	}
	w.now = w.now.Add(time.Hour) // nobody answers
	w.do()
	for range 10 {
		w.now = w.now.Add(time.Hour)
		w.do()
	}
	q, _ = w.m.Inquiry(id, 0, 100)
	if len(q.Open) != 0 || q.Asked != 6 || len(q.Ended) != 6 {
		t.Errorf("the first inquiry: %+v", q)
	}
	if _, err := w.m.Inquiry(77, 0, 1); err == nil {
		t.Error("an inquiry that nobody made is known")
	}
}

// TestDriftBudget: in the cluster no more are verified at once than there may be.
func TestDriftBudget(t *testing.T) {
	w := newWorld(t)
	m := drifting(false)
	m.Drift.AtOnce = 2
	w.goal(m, "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.hold = true
	if _, err := w.m.Inquire(w.now, "ada", nil); err != nil {
		t.Fatal(err)
	}
	for answered := 0; ; answered++ {
		w.do()
		if len(w.pending) == 0 {
			if answered != 6 {
				t.Errorf("%d verifies", answered)
			}
			return
		}
		if len(w.pending) > 2 {
			t.Fatalf("%d verifies at once", len(w.pending))
		}
		e := w.pending[0].(Dispatch)
		w.pending = w.pending[1:]
		if _, ok := w.m.Conclude(w.now, e.Target, Report{ID: e.ID}); ok {
			t.Error("a verify that found nothing is an event")
		}
	}
}

// TestDriftBreaker: converging on drift takes places of a rollout, and its failures open the breaker.
func TestDriftBreaker(t *testing.T) {
	w := newWorld(t)
	m := drifting(false)
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a"}, Roles: []string{"m"}}}
	w.goal(m, "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.outcome("converged")
	broken := false
	w.answer = func(what string) (string, string) {
		if strings.HasPrefix(what, "verify a") || broken && strings.HasPrefix(what, "a[") {
			return "", "gone"
		}
		return "", ""
	}
	broken, w.log = true, nil
	w.pass(25 * time.Minute)
	n := w.ran("a[n1]") + w.ran("a[n2]") + w.ran("a[n3]")
	if b := w.m.State().Budgets["r"]; n != 1 || b.Failures != 1 || len(b.Places) != 1 {
		t.Errorf("%d applies for drift with one place and a breaker of one; %+v", n, b)
	}
	w.outcome("stopped")
}

// TestDriftElsewhere: what services have, and what scripts did in the cluster, drifts like anything else, single instances too:
// a service is asked, and a script runs on a node that can execute it.
func TestDriftElsewhere(t *testing.T) {
	w := newWorld(t)
	m := mod("entry each=m service=1:", "front service=1:", "seat each=m on=m:", "whole on=m:")
	for i := range m.Tasks {
		s := m.Tasks[i].Step
		if s.Verify = (&model.Action{Script: &model.Script{}, Timeout: 10 * time.Second, Attempts: 1}); s.Scope == model.Service {
			s.Verify = &model.Action{Call: "x.look", Timeout: 10 * time.Second, Attempts: 1}
		}
	}
	m.Drift = model.Drift{Every: 10 * time.Minute}
	w.goal(m, "n1", "n2")
	w.up("a", "n1", "n2")
	w.outcome("converged")
	for _, what := range []string{"entry[n1]", "front", "seat[n2]", "whole"} {
		w.log = nil
		w.gone(what)
		w.pass(11 * time.Minute)
		if looked, ran := w.ran("verify "+what), w.ran(what); looked < 2 || ran != 1 {
			t.Errorf("%s was looked at %d times and applied %d times", what, looked, ran)
		}
		w.outcome("converged")
	}
	w.answer, w.hold, w.pending = nil, true, nil
	w.do(history.NodeSeen{Node: "n2"})
	if _, err := w.m.Inquire(w.now, "ada", nil); err != nil {
		t.Fatal(err)
	}
	w.do()
	var got []string
	for _, e := range w.pending {
		switch e := e.(type) {
		case Call:
			got = append(got, name(e.Target)+" "+e.Name)
		case Dispatch:
			got = append(got, name(e.Target)+" on "+e.Agent)
		}
	}
	slices.Sort(got)
	if want := []string{"entry[n1] x.look", "entry[n2] x.look", "front x.look", "seat[n1] on n1", "seat[n2] on n1", "whole on n1"}; !slices.Equal(got, want) {
		t.Errorf("asked %v, want %v", got, want)
	}
}
