package run

import (
	"strings"
	"testing"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// TestTolerate: nodes that fail for good are set aside while tolerance lasts, stop no rollout and hold up nobody who gathers;
// the first that is not tolerated does.
func TestTolerate(t *testing.T) {
	w := newWorld(t)
	broken := map[string]bool{"a[n2]": true}
	w.answer = func(what string) (string, string) {
		if broken[what] {
			return "", "no disk"
		}
		return "", ""
	}
	of := func(x string) *model.Model {
		m := mod("a each=m: input.x", "all: all.a")
		m.Inputs["x"], m.Digest = value.Text(x), value.Sum([]byte(x))
		m.Roles = []model.Role{{Name: "m", Tolerate: model.Count{N: 25, Percent: true}}}
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a"}, Roles: []string{"m"}}}
		return m
	}
	w.goal(of("1"), "n1", "n2", "n3", "n4")
	w.up("a", "n1", "n2", "n3", "n4")
	w.expect("a[n1]", "a[n2]", "a[n3]", "a[n4]", "all")
	w.outcome("converged")
	if s := w.m.State(); s.Detail != "node n2 is set aside" || s.Budgets["r"].Failures != 0 || len(s.Budgets["r"].Places) != 0 {
		t.Errorf("detail %q, budget %+v", s.Detail, s.Budgets["r"])
	}
	if in := string(w.m.State().Row(history.Target{Task: "all"}).Inputs); strings.Contains(in, "n2") || !strings.Contains(in, "n3") {
		t.Errorf("what gathers has %s", in)
	}
	broken["a[n3]"] = true
	w.goal(of("2"), "n1", "n2", "n3", "n4")
	w.expect("a[n1]", "a[n2]", "a[n3]") // n2 is tried again, and n3 is one too many
	w.outcome("stopped")
	delete(broken, "a[n2]")
	w.do(history.NodeReturned{Node: "n2", By: "test"}) // there is room for n3 now
	w.expect("a[n2]", "a[n4]", "all")
	w.outcome("converged")
	if s := w.m.State(); s.Node("n3").Aside == nil || s.Node("n2").Aside != nil {
		t.Errorf("set aside: n2 %v, n3 %v", s.Node("n2").Aside, s.Node("n3").Aside)
	}
	if in := string(w.m.State().Row(history.Target{Task: "all"}).Inputs); !strings.Contains(in, "n3") {
		t.Errorf("what n3 had yielded is not there: %s", in)
	}
}

// TestTolerateLeavesEnough: a role keeps as many nodes as it needs, whatever it tolerates.
func TestTolerateLeavesEnough(t *testing.T) {
	w := newWorld(t)
	w.answer = func(what string) (string, string) {
		if what == "a[n2]" || what == "a[n3]" {
			return "", "no disk"
		}
		return "", ""
	}
	m := mod("a each=m:")
	m.Roles = []model.Role{{Name: "m", Min: 2, Tolerate: model.Count{N: 2}}}
	w.goal(m, "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.outcome("stopped")
	if s := w.m.State(); s.Node("n2").Aside == nil || s.Node("n3").Aside != nil {
		t.Errorf("set aside: n2 %v, n3 %v", s.Node("n2").Aside, s.Node("n3").Aside)
	}
}
