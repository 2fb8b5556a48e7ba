package run

import (
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// joining is a cluster whose nodes join with a token that stands only while they do.
func joining(x string) *model.Model {
	m := mod("token each=m service: during=join", "join each=m attempts: input.x guard.token", "after each=m: task.join")
	m.Inputs["x"] = value.Text(x)
	return m
}

func TestDuring(t *testing.T) {
	w := newWorld(t)
	w.goal(joining("1"), "n1")
	w.up("a", "n1")
	w.expect("token[n1]", "join[n1]", "remove token[n1]", "after[n1]")
	w.outcome("converged")
	w.goal(joining("1"), "n1")
	w.expect()
	w.goal(joining("2"), "n1")
	w.expect("token[n1]", "join[n1]", "remove token[n1]")
	w.outcome("converged")
	w.goal(joining("2"), "n1", "n2")
	w.up("a", "n2")
	w.expect("token[n2]", "join[n2]", "remove token[n2]", "after[n2]")
	w.goal(joining("2"), "n1")
	w.expect("remove after[n2]", "remove join[n2]", "release n2")
	w.up("b", "n1")
	w.outcome("converged")
}

// TestDuringRetries: what an attempt ran with is gone before the next one, which has its own.
func TestDuringRetries(t *testing.T) {
	w := newWorld(t)
	bad := 2
	w.answer = func(what string) (string, string) {
		if what == "join[n1]" && bad > 0 {
			bad--
			return "", "broken"
		}
		return "", ""
	}
	w.goal(joining("1"), "n1")
	w.up("a", "n1")
	w.expect("token[n1]", "join[n1]", "remove token[n1]")
	w.now = w.now.Add(time.Hour)
	w.do()
	w.expect("token[n1]", "join[n1]", "remove token[n1]")
	w.now = w.now.Add(time.Hour)
	w.do()
	w.expect("token[n1]", "join[n1]", "remove token[n1]", "after[n1]")
	w.outcome("converged")
}

func TestDuringFails(t *testing.T) {
	w := newWorld(t)
	bad := true
	w.answer = func(what string) (string, string) {
		if bad && what == "token[n1]" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(joining("1"), "n1")
	w.up("a", "n1")
	w.expect("token[n1]")
	w.outcome("stopped")
	token := history.Target{Task: "token", Node: "n1"}
	if c := w.m.Plan().Cell(history.Target{Task: "after", Node: "n1"}); c.Cause.Of != token {
		t.Errorf("root cause of after[n1] is %+v", c.Cause)
	}
	bad = false
	w.goal(joining("1"), "n1")
	w.expect("token[n1]", "join[n1]", "remove token[n1]", "after[n1]")
	w.outcome("converged")
}

// TestDuringCancelled: a cancel lets what stands for an aborted attempt go, and nothing else.
func TestDuringCancelled(t *testing.T) {
	w := newWorld(t)
	w.goal(joining("1"), "n1")
	w.hold = true
	w.up("a", "n1")
	step := func() Effect {
		e := w.pending[0]
		w.pending = w.pending[1:]
		return e
	}
	finish := func(e Effect, r Report) {
		switch e := e.(type) {
		case Dispatch:
			r.ID = e.ID
			if ev, ok := w.m.Conclude(w.now, e.Target, r); ok {
				w.do(ev)
			}
		case Call:
			w.finish(e.Target, e.ID, e.Action)
		}
	}
	for len(w.pending) > 0 {
		if _, is := w.pending[0].(Dispatch); is {
			break
		}
		finish(step(), Report{})
	}
	join := step().(Dispatch)
	if join.Inputs["i1"].Null() {
		t.Error("join has no token")
	}
	w.do(history.Cancelled{By: "me"})
	w.expect("token[n1]")
	finish(join, Report{Error: "aborted", Excused: true})
	for len(w.pending) > 0 {
		finish(step(), Report{})
	}
	w.expect("remove token[n1]")
	w.hold = false
	w.goal(joining("1"), "n1")
	w.expect("token[n1]", "join[n1]", "remove token[n1]", "after[n1]")
	w.outcome("converged")
}

// TestDuringSeveral: one stands for several that run together, and nothing that was applied before the last end of one
// serves it again.
func TestDuringSeveral(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("lock each=m service: during=one during=two", "one each=m:", "two each=m: task.one"), "n1")
	w.up("a", "n1")
	w.expect("lock[n1]", "one[n1]", "two[n1]", "remove lock[n1]")
	w.outcome("converged")
}

// TestDuringTakesTurns: in a rollout it takes its node's place, and goes also when the rollout was stopped.
func TestDuringTakesTurns(t *testing.T) {
	build := func(x string) *model.Model {
		m := joining(x)
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"join", "token"}, Roles: []string{"m"}, MaxInFlight: model.Count{N: 1}, StopAfter: model.Count{N: 1}, Together: true}}
		m.Task("join").Step.Apply.Attempts = 1
		return m
	}
	w := newWorld(t)
	w.goal(build("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.outcome("converged")
	w.log = nil
	w.goal(build("2"), "n1", "n2")
	w.expect("token[n1]", "join[n1]", "remove token[n1]", "token[n2]", "join[n2]", "remove token[n2]")
	w.answer = func(what string) (string, string) {
		if what == "join[n1]" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(build("3"), "n1", "n2")
	w.expect("token[n1]", "join[n1]", "remove token[n1]")
	w.outcome("stopped")
}
