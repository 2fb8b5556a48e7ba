package run

import (
	"testing"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
)

// checked is a cluster that can be checked on demand: on every node, then as a whole.
func checked(x string, upstream ...string) *model.Model {
	if upstream == nil {
		upstream = []string{"a each=m: input.x", "look each=m asked=check: task.a"}
	}
	m := mod(append(upstream, "check on=m asked=check: all.look")...)
	m.Inputs["x"] = value.Text(x)
	return m
}

// ask is a person's word that what runs on demand is to run.
func (w *world) ask(nodes ...string) {
	w.t.Helper()
	events := []history.Event{history.Forced{Target: history.Target{Task: "check"}, By: "ada"}}
	for _, n := range nodes {
		events = append(events, history.Forced{Target: history.Target{Task: "look", Node: n}, By: "ada"})
	}
	w.do(events...)
}

// TestOnDemand: what runs on demand runs when it is asked for and at no other time, and is no part of what a cluster has to come to.
func TestOnDemand(t *testing.T) {
	w := newWorld(t)
	w.goal(checked("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.expect("a[n1]", "a[n2]")
	w.outcome("converged")
	w.ask("n1", "n2")
	w.expect("look[n1]", "look[n2]", "check")
	w.outcome("converged")
	w.goal(checked("2"), "n1", "n2")
	w.expect("a[n1]", "a[n2]")
	w.outcome("converged")
	if cell := w.m.Plan().Cell(history.Target{Task: "check"}); cell.Verdict != plan.Kept || cell.Cause.Kind != history.Unasked {
		t.Errorf("after a change of what it looks at: %v, %v", cell.Verdict, cell.Cause)
	}
	w.goal(checked("2"), "n1", "n2", "n3")
	w.up("a", "n3")
	w.expect("a[n3]")
	w.ask("n1", "n2", "n3")
	w.expect("look[n1]", "look[n2]", "look[n3]", "check")
	w.goal(checked("2"), "n1", "n2")
	w.expect("remove look[n3]", "remove a[n3]", "release n3")
	w.outcome("converged")

	// It stands in nobody's way: what it used goes.
	w.goal(checked("2", "b each=m: input.x", "look each=m asked=check: task.b"), "n1", "n2")
	w.expect("remove a[n1]", "remove a[n2]", "b[n1]", "b[n2]")
	w.outcome("converged")

	// What it was done to has ended.
	w.up("b", "n1", "n2")
	w.outcome("converged")
	if cell := w.m.Plan().Cell(history.Target{Task: "check"}); cell.Verdict != plan.Absent {
		t.Errorf("after the end of all that it was done to: %v, %v", cell.Verdict, cell.Cause)
	}
	w.log = nil
	w.ask("n1", "n2")
	w.expect("look[n1]", "look[n2]", "check")
	without := mod("b each=m: input.x")
	without.Inputs["x"] = value.Text("2")
	w.goal(without, "n1", "n2")
	w.expect("remove check", "remove look[n1]", "remove look[n2]")
	w.outcome("converged")
}

// TestOnDemandFails: what fails is told of as any failure is, until it goes well or is skipped.
func TestOnDemandFails(t *testing.T) {
	w := newWorld(t)
	bad := true
	w.answer = func(what string) (string, string) {
		if bad && what == "check" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(checked("1"), "n1")
	w.up("a", "n1")
	w.expect("a[n1]")
	w.ask("n1")
	w.expect("look[n1]", "check")
	w.outcome("stopped")
	bad = false
	w.ask()
	w.expect("check")
	w.outcome("converged")
}

// TestOnDemandInFlight: what an attempt runs with stays until it has ended; and who asks meanwhile is not answered by what began before.
func TestOnDemandInFlight(t *testing.T) {
	w := newWorld(t)
	w.goal(checked("1"), "n1")
	w.up("a", "n1")
	w.expect("a[n1]")
	w.hold = true
	w.ask("n1")
	w.goal(checked("2", "b each=m: input.x", "look each=m asked=check: task.b"), "n1")
	w.do(history.Forced{Target: history.Target{Task: "look", Node: "n1"}, By: "ada"})
	if r := w.m.Plan().Removal(history.Target{Task: "a", Node: "n1"}); r == nil || r.Wait.Kind != history.Consumer {
		t.Errorf("while what reads it runs, the removal of a[n1] is %+v", r)
	}
	w.hold = false
	w.do()
	w.expect("look[n1]", "b[n1]", "look[n1]", "remove a[n1]", "check")
	w.outcome("converged")
}

// TestOnDemandForgotten: what was asked for and never done is not done later, when nobody means it any more.
func TestOnDemandForgotten(t *testing.T) {
	for name, end := range map[string]func(*world){
		"destroyed": func(w *world) { w.goal(checked("1")) },
		"skipped": func(w *world) {
			w.do(history.Skipped{Target: history.Target{Task: "check"}, By: "ada", Reason: "later"})
		},
		"dropped": func(w *world) {
			without := mod("a each=m: input.x")
			without.Inputs["x"] = value.Text("1")
			w.goal(without, "n1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.answer = func(what string) (string, string) {
				if what == "check" {
					return "", "broken"
				}
				return "", ""
			}
			w.goal(checked("1"), "n1")
			w.up("a", "n1")
			w.ask("n1")
			w.outcome("stopped")
			end(w)
			w.answer, w.log = nil, nil
			w.goal(checked("2"), "n1")
			w.up("a", "n1")
			for _, what := range w.log {
				if what == "check" {
					t.Errorf("ran %v", w.log)
				}
			}
			w.outcome("converged")
		})
	}
}
