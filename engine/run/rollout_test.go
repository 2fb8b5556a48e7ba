package run

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// done lets what is under way of an instance end well, while all else goes on.
func (w *world) done(what string) {
	w.t.Helper()
	for i, e := range w.pending {
		if d, ok := e.(Dispatch); ok && name(d.Target) == what {
			w.pending = slices.Delete(w.pending, i, i+1)
			w.finish(d.Target, d.ID, d.Action)
			return
		}
	}
	w.t.Fatalf("nothing is under way of %s", what)
}

// placed lists the nodes that hold places of a rollout.
func (w *world) placed(rollout string) []string {
	if b := w.m.State().Budgets[rollout]; b != nil {
		return slices.Sorted(maps.Keys(b.Places))
	}
	return nil
}

// A place is lent only while somebody asks for it. Who waited for one and is silent now asks for none, and a machine that took the
// journal up, which has never heard that it did, decides the same.
func TestLentOnlyToWhoAsks(t *testing.T) {
	w := newWorld(t)
	m := mod("c each=m", "a each=m", "b each=m: all.c")
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a", "b"}, Roles: []string{"m"}}}
	w.hold = true
	w.goal(m, "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	for _, what := range []string{"a[n1]", "c[n1]", "c[n2]"} {
		w.done(what)
	}
	w.do(history.NodeSeen{Node: "n2", Incarnation: "n2a", Boot: "n2a", Level: "vouched"})
	w.do(history.NodeSeen{Node: "n3", Incarnation: "n3a", Boot: "another", Level: "vouched"})
	if got := w.placed("r"); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("while nobody asks for a place these have one: %v, want n1", got)
	}
	w.up("a", "n2")
	if got := w.placed("r"); !slices.Equal(got, []string{"n2"}) {
		t.Errorf("once n2 asks for a place these have one: %v, want n2", got)
	}
}

// never is a condition that does not hold.
type never struct{}

func (never) Refs() []model.Ref                     { return nil }
func (never) Eval(model.Scope) (value.Value, error) { return value.Truth(false), nil }

// What has founded a group together once goes by its places from then on, also if its nodes left for a while, and only the plan of
// the goal that has them again says that there is nothing more to complete on them.
func TestFoundedOnce(t *testing.T) {
	w := newWorld(t)
	m := mod("a each=m", "b each=m")
	m.Tasks[1].When = &model.Argument{Name: "when", Expr: never{}, Shared: true}
	m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a", "b"}, Roles: []string{"m"}, Together: true}}
	seen := func(online bool, nodes ...string) {
		for _, n := range nodes {
			w.do(history.NodeSeen{Node: n, Incarnation: n, Boot: n, Address: "10.0.0.1", Facts: json.RawMessage(`{}`), Level: "vouched", Online: online})
		}
	}
	w.goal(m, "n1", "n2")
	seen(true, "n1", "n2")
	w.outcome("converged")
	w.hold = true
	seen(false, "n1", "n2")
	w.goal(m, "n4")
	w.goal(m, "n1", "n2")
	for _, n := range []string{"n1", "n2"} {
		w.do(history.Forced{Target: history.Target{Task: "a", Node: n}, By: "test"})
	}
	seen(true, "n1", "n2")
	if got := w.placed("r"); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("these began at once: %v, want n1 alone", got)
	}
}

// A watch ends only with the whole group in place. What the group reads being done again, it holds up nobody: the place is lent, and
// what comes to nothing by itself is said to have stopped.
func TestWatchOfWhatWaits(t *testing.T) {
	begin := func(nodes ...string) *world {
		w := newWorld(t)
		m := mod("c each=m", "a each=m: task.c")
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a"}, Roles: []string{"m"}, Settle: time.Minute}}
		w.goal(m, nodes...)
		w.up("a", nodes...)
		w.log = nil
		return w
	}
	force := history.Forced{Target: history.Target{Task: "c", Node: "n1"}, By: "test"}
	w := begin("n1", "n2")
	w.do(history.NodeSeen{Node: "n1", Incarnation: "n1a", Boot: "n1a", Level: "vouched"})
	w.expect()
	w.do(force)
	w.expect("a[n2]")

	w = begin("n1")
	w.outcome("")
	w.answer = func(string) (string, string) { return "", "broken" }
	w.do(force)
	w.outcome("stopped")
}
