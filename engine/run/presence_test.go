package run

import (
	"strings"
	"testing"
	"time"

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

// TestNothingStartsByWayOfWhatComesOut: what reads something that is about to make way is in place until that is out, and nothing
// starts with it meanwhile.
func TestNothingStartsByWayOfWhatComesOut(t *testing.T) {
	build := func(x string, more ...string) *model.Model {
		m := mod(append([]string{"server each=m: input.x", "backend each=m service: task.server except=server", "named each=m service: task.backend"}, more...)...)
		m.Inputs["x"] = value.Text(x)
		return m
	}
	w := newWorld(t)
	w.answer = func(string) (string, string) { return "same", "" }
	w.goal(build("1"), "n1")
	w.up("a", "n1")
	w.expect("server[n1]", "backend[n1]", "named[n1]")
	w.goal(build("2", "late each=m: after=named"), "n1")
	w.expect("remove backend[n1]", "server[n1]", "backend[n1]", "late[n1]")
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

// rebootAll has nodes come up in another boot, none before all are down.
func (w *world) rebootAll(boot string, nodes ...string) {
	for _, n := range nodes {
		w.do(history.NodeSeen{Node: n, Online: false})
	}
	w.log = nil
	for _, n := range nodes {
		w.do(history.NodeSeen{Node: n, Incarnation: n + "a", Boot: n + boot, Address: "10.0.0.1", Level: "vouched", Online: true})
	}
}

// TestComesOutAfterEveryBoot: what a service did for a node outlasts the node's boot, and a remove may use it.
func TestComesOutAfterEveryBoot(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("key each=m service:", "server each=m:", "member each=m on=m: host.key except=server"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.rebootAll("b", "n1", "n2")
	w.expect("remove member[n1]", "server[n1]", "member[n1]", "remove member[n2]", "server[n2]", "member[n2]")
	w.outcome("converged")
}

// TestNeverComesOut: a remove that needs, where it executes, what waits until that remove has run. Another node may have it; when
// all have lost it at once that is said. It is refused in packs: see model.Circles.
func TestNeverComesOut(t *testing.T) {
	w := newWorld(t)
	m := mod("server each=m:", "after each=m: after=server", "member each=m on=m: host.after except=server")
	if c := model.Circles(m.Tasks); len(c) != 1 || !c[0].Sure {
		t.Errorf("circles %+v", c)
	}
	w.goal(m, "n1", "n2")
	w.up("a", "n1", "n2")
	w.log = nil
	w.boot("n1", "a", "b")
	w.expect("remove member[n1]", "server[n1]", "after[n1]", "member[n1]")
	w.outcome("converged")
	w.rebootAll("c", "n1", "n2")
	w.expect()
	w.outcome("stopped")
	want := "member[n1] can never come out: who executes its remove needs after[n1], and that waits until it is out"
	if got := w.m.State().Detail; !strings.Contains(got, want) {
		t.Errorf("it says %q, and not %q", got, want)
	}
}

// TestWatchMends: a first success holds whatever a verify said of it; what the next one finds in place waits for nobody.
func TestWatchMends(t *testing.T) {
	m := mod("token each=m once: input.x")
	m.Tasks[0].Step.Verify = &model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1}
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"token"}, Roles: []string{"m"}, StopAfter: model.Count{N: 5}, Settle: time.Minute}}
	w := newWorld(t)
	w.hold = true
	w.goal(m, "n1")
	w.up("a", "n1")
	w.says(w.takeout("token[n1]"), "")
	token := history.Target{Task: "token", Node: "n1"}
	for _, found := range []string{"no answer", ""} {
		w.now = w.now.Add(time.Minute)
		w.do()
		w.says(w.takeout("verify token[n1]"), found)
		if row := w.m.State().Row(token); (row.Drifted != "") != (found != "") {
			t.Errorf("found %q, and it has drifted: %q", found, row.Drifted)
		}
	}
	w.outcome("converged")
}
