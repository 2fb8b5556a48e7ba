package run

import (
	"testing"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// balanced is a cluster of servers, each behind a balancer that it is in except while it is changed.
func balanced(x string) *model.Model {
	m := mod("server each=m: input.x", "backend each=m service: task.server except=server")
	m.Inputs["x"] = value.Text(x)
	return m
}

func TestMakesWay(t *testing.T) {
	w := newWorld(t)
	w.goal(balanced("1"), "n1")
	w.up("a", "n1")
	w.expect("server[n1]", "backend[n1]")
	w.goal(balanced("1"), "n1")
	w.expect()
	w.goal(balanced("2"), "n1")
	w.expect("remove backend[n1]", "server[n1]", "backend[n1]")
	w.outcome("converged")
	w.up("a2", "n1") // another incarnation: the order of removals is the usual one
	w.expect("remove backend[n1]", "discharge server[n1]", "server[n1]", "backend[n1]")
	w.goal(balanced("2"), "n1", "n2")
	w.up("a", "n2")
	w.expect("server[n2]", "backend[n2]")
	w.goal(balanced("2"), "n1")
	w.expect("remove backend[n2]", "remove server[n2]", "release n2")
	w.outcome("converged")
}

func TestStaysOutAfterAFailure(t *testing.T) {
	w := newWorld(t)
	w.goal(balanced("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.log = nil
	bad := true
	w.answer = func(what string) (string, string) {
		if bad && what == "server[n1]" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(balanced("2"), "n1", "n2")
	w.expect("remove backend[n1]", "remove backend[n2]", "server[n1]", "server[n2]", "backend[n2]")
	w.outcome("stopped")
	backend := history.Target{Task: "backend", Node: "n1"}
	if c := w.m.Plan().Cell(backend); c.Cause.Of != (history.Target{Task: "server", Node: "n1"}) {
		t.Errorf("root cause of backend[n1] is %+v", c.Cause)
	}
	bad = false
	w.goal(balanced("2"), "n1", "n2")
	w.expect("server[n1]", "backend[n1]")
	w.outcome("converged")
}

func TestCannotComeOut(t *testing.T) {
	w := newWorld(t)
	w.goal(balanced("1"), "n1")
	w.up("a", "n1")
	w.log = nil
	w.answer = func(what string) (string, string) {
		if what == "remove backend[n1]" {
			return "", "still serving"
		}
		return "", ""
	}
	w.goal(balanced("2"), "n1")
	w.expect("remove backend[n1]") // and the server is left alone
	w.outcome("stopped")
	if c := w.m.Plan().Cell(history.Target{Task: "server", Node: "n1"}); c.Cause.Of != (history.Target{Task: "backend", Node: "n1"}) {
		t.Errorf("root cause of server[n1] is %+v", c.Cause)
	}
	w.answer = nil
	w.goal(balanced("2"), "n1")
	w.expect("remove backend[n1]", "server[n1]", "backend[n1]")
	w.outcome("converged")
}

// TestComesOutOnlyIfNeeded: what may run, and then does not, disturbs nobody.
func TestComesOutOnlyIfNeeded(t *testing.T) {
	build := func(x string) *model.Model {
		m := mod("config each=m: input.x", "server each=m: task.config", "backend each=m service: task.server except=server")
		m.Inputs["x"] = value.Text(x)
		return m
	}
	w := newWorld(t)
	w.answer = func(string) (string, string) { return "same", "" }
	w.goal(build("1"), "n1")
	w.up("a", "n1")
	w.log = nil
	w.goal(build("2"), "n1")
	w.expect("config[n1]")
	w.outcome("converged")
}

// TestTakesTurns: in a rollout nodes make way one after another, and a place is held until its node is back in service.
func TestTakesTurns(t *testing.T) {
	build := func(x string) *model.Model {
		m := balanced(x)
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"server", "backend"}, Roles: []string{"m"}, MaxInFlight: model.Count{N: 1}, StopAfter: model.Count{N: 1}, Together: true}}
		return m
	}
	w := newWorld(t)
	w.goal(build("1"), "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.log = nil
	w.goal(build("2"), "n1", "n2", "n3")
	w.expect("remove backend[n1]", "server[n1]", "backend[n1]", "remove backend[n2]", "server[n2]", "backend[n2]", "remove backend[n3]", "server[n3]", "backend[n3]")
	w.outcome("converged")
	w.answer = func(what string) (string, string) {
		if what == "server[n1]" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(build("3"), "n1", "n2", "n3")
	w.expect("remove backend[n1]", "server[n1]") // the others stay in service
	w.outcome("stopped")
}

// TestMakesWayForARemoval: a task that goes for good, while what makes way for it stays.
func TestMakesWayForARemoval(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("server each=m:", "backend each=m service: except=server"), "n1")
	w.up("a", "n1")
	w.log = nil
	w.goal(mod("backend each=m service:"), "n1")
	w.expect("remove backend[n1]", "remove server[n1]", "backend[n1]")
	w.outcome("converged")
}
