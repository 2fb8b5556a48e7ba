package run

import (
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/policy"
	"joist/engine/value"
)

// policedModel has a front for each node, which is removed when the node leaves; x makes it another model.
func policedModel(x string, p model.Policy) *model.Model {
	m := mod("front each=m service: input.x", "agent each=m:")
	m.Inputs["x"] = value.Text(x)
	p.Name, p.Roles = "limit", []string{"m"}
	m.Policies = []model.Policy{p}
	return m
}

func window(t *testing.T, s string) []model.Window {
	t.Helper()
	w, err := model.ParseWindow(s)
	if err != nil {
		t.Fatal(err)
	}
	return []model.Window{w}
}

// TestPolicyHoldsBeyond: one node's removal passes in a run, the next is held until another run.
func TestPolicyHoldsBeyond(t *testing.T) {
	p := model.Policy{Refuse: model.Removal, Bounded: true, Beyond: 1}
	w := newWorld(t)
	w.goal(policedModel("1", p), "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.log = nil
	w.goal(policedModel("1", p), "n1")
	w.expect("remove agent[n2]", "remove front[n2]", "release n2")
	w.outcome("stopped")
	held := w.m.Held(history.Target{Task: "front", Node: "n3"})
	if held.Kind != history.PolicyHeld || !strings.Contains(held.Because(), "held by policy limit") {
		t.Errorf("held by %+v", held)
	}
	w.do(history.Goal{Model: w.m.State().Goal().Model, Roles: w.m.State().Goal().Roles}) // tried again: the same run
	w.expect()
	again := New(w.m.State(), w) // an engine that takes the journal up counts the same
	w.m = again
	w.perform(again.Resume(w.now))
	w.expect()
	w.goal(policedModel("1", p), "n1") // a person's change begins a run
	w.expect("remove agent[n3]", "remove front[n3]", "release n3")
	w.outcome("converged")
}

// TestPolicyHoldsOutside: what is not within the window waits for it, and is woken for it.
func TestPolicyHoldsOutside(t *testing.T) {
	p := model.Policy{Refuse: model.Removal, Outside: window(t, "Sat 02:00-06:00")}
	w := newWorld(t)
	w.now = time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC) // a Friday
	w.goal(policedModel("1", p), "n1", "n2")
	w.up("a", "n1", "n2")
	w.log = nil
	w.goal(policedModel("1", p), "n1")
	w.expect()
	w.outcome("stopped")
	opens := time.Date(2026, 1, 10, 2, 0, 0, 0, time.UTC)
	out := w.m.Advance(w.now)
	if out.Wake.IsZero() || out.Wake.After(opens) {
		t.Errorf("wakes at %s, want %s at the latest", out.Wake, opens)
	}
	w.now = opens
	w.do()
	w.expect("remove agent[n2]", "remove front[n2]", "release n2")
	w.outcome("converged")
}

// TestPolicyHoldsReplacement lets removals pass, and none of what is made anew.
func TestPolicyHoldsReplacement(t *testing.T) {
	p := model.Policy{Refuse: model.Replacement}
	w := newWorld(t)
	w.goal(policedModel("1", p), "n1", "n2")
	w.up("a", "n1", "n2")
	w.log = nil
	w.up("b", "n2") // what the service has is of an incarnation that has ended
	w.expect("discharge agent[n2]", "agent[n2]")
	w.outcome("stopped")
	w.goal(policedModel("1", p), "n1")
	w.expect("remove agent[n2]", "remove front[n2]", "release n2")
	w.outcome("converged")
}

// TestPolicyHoldsWipes: a cluster whose nodes may not be wiped is not destroyed, and not said to be.
func TestPolicyHoldsWipes(t *testing.T) {
	p := model.Policy{Refuse: model.Wiping, Outside: window(t, "Sat 02:00-06:00"), Bounded: true, Beyond: 9}
	w := newWorld(t)
	w.now = time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
	w.goal(policedModel("1", p), "n1")
	w.up("a", "n1")
	w.log = nil
	w.goal(policedModel("1", p))
	w.expect("remove front[n1]")
	w.outcome("stopped")
	if refused := w.m.Refused(); len(refused) != 1 || refused[0].Opens.IsZero() {
		t.Errorf("refused %+v", refused)
	}
	w.now = time.Date(2026, 1, 10, 2, 0, 0, 0, time.UTC)
	w.do()
	if !w.m.State().Begun["limit"]["n1"] {
		t.Errorf("begun %v", w.m.State().Begun)
	}
	w.outcome("destroyed")
}

// TestOverride: a person's word holds for the goal that it was given with, where the policy lets it.
func TestOverride(t *testing.T) {
	for _, may := range []bool{true, false} {
		p := model.Policy{Refuse: model.Removal, Override: may}
		w := newWorld(t)
		w.goal(policedModel("1", p), "n1", "n2")
		w.up("a", "n1", "n2")
		w.log = nil
		w.goal(policedModel("1", p), "n1")
		w.expect()
		g := *w.m.State().Goal()
		g.Overrides = []history.Override{{Policy: "limit", Reason: "it burns"}}
		w.do(g)
		if may {
			w.expect("remove agent[n2]", "remove front[n2]", "release n2")
		} else {
			w.expect()
		}
		if err := policy.CheckOverrides(w.m.Plan().Model(), g.Overrides); (err == nil) != may {
			t.Errorf("override = %v: %v", may, err)
		}
	}
}

// TestPolicyFence: a silent node that leaves is not fenced while a policy holds what would be removed from it: to fence it would
// end that too.
func TestPolicyFence(t *testing.T) {
	w, p := newWorld(t), model.Policy{Name: "limit", Refuse: model.Removal, Roles: []string{"m"}}
	m := mod("agent each=m:")
	m.Policies = []model.Policy{p}
	w.goal(m, "n1", "n2")
	w.up("a", "n1", "n2")
	w.log = nil
	w.goal(m, "n1")
	w.do(history.NodeSeen{Node: "n2", Incarnation: "n2a", Boot: "n2a", Address: "10.0.0.1", Level: "vouched", Online: false})
	w.now = w.now.Add(2 * time.Minute)
	w.do()
	if len(w.log) > 0 {
		t.Errorf("held, and all the same: %q", w.log)
	}
}

// TestPolicyInFlight: what is being removed counts in the run that a goal begins meanwhile.
func TestPolicyInFlight(t *testing.T) {
	w, p := newWorld(t), model.Policy{Name: "limit", Refuse: model.Removal, Roles: []string{"m"}, Bounded: true, Beyond: 1}
	m := mod("agent each=m:")
	m.Policies = []model.Policy{p}
	w.goal(m, "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.hold = true
	w.goal(m, "n1", "n2")
	w.goal(m, "n1")
	if len(w.m.Refused()) != 1 || w.m.flying != 1 {
		t.Errorf("%d are in flight, and refused is %+v", w.m.flying, w.m.Refused())
	}
}

// TestPolicyFenceWaits: what keeps a silent node from being fenced passes by itself once the hours come, and counts.
func TestPolicyFenceWaits(t *testing.T) {
	w := newWorld(t)
	p := model.Policy{Name: "limit", Refuse: model.Removal, Outside: window(t, "Sat 02:00-06:00"), Bounded: true, Beyond: 1}
	w.now = time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC) // a Friday
	m := mod("agent each=m:")
	m.Policies = []model.Policy{p}
	w.goal(m, "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.log = nil
	w.goal(m, "n1")
	for _, n := range []string{"n2", "n3"} {
		w.do(history.NodeSeen{Node: n, Incarnation: n + "a", Boot: n + "a", Address: "10.0.0.1", Level: "vouched"})
	}
	w.now = w.now.Add(2 * time.Minute)
	w.do()
	w.expect()
	opens := time.Date(2026, 1, 10, 2, 0, 0, 0, time.UTC)
	if out := w.m.Advance(w.now); out.Wake.IsZero() || out.Wake.After(opens) {
		t.Errorf("wakes at %s, want %s at the latest", out.Wake, opens)
	}
	w.now = opens
	w.do()
	if n2, n3 := w.m.State().Node("n2"), w.m.State().Node("n3"); !n2.Released || n3.Ended || n3.Released {
		t.Errorf("n2 %+v\nn3 %+v: one of them was to be fenced", n2, n3)
	}
}

// TestPolicyHoldsRelease: a machine that leaves is not erased while a policy holds its wipe, also if it is silent.
func TestPolicyHoldsRelease(t *testing.T) {
	p := model.Policy{Refuse: model.Wiping, Outside: window(t, "Sat 02:00-06:00")}
	for _, silent := range []bool{false, true} {
		w := newWorld(t)
		w.now = time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
		w.goal(policedModel("1", p), "n1", "n2")
		w.up("a", "n1", "n2")
		w.log = nil
		if silent {
			w.do(history.NodeSeen{Node: "n2", Incarnation: "n2a", Boot: "n2a", Address: "10.0.0.1", Level: "vouched"})
		}
		w.goal(policedModel("1", p), "n1")
		w.now = w.now.Add(2 * time.Minute)
		w.do()
		w.outcome("stopped")
		if n := w.m.State().Node("n2"); n.Released || !n.Holds() {
			t.Errorf("silent %v: %+v", silent, n)
		}
		if held := w.m.Policed(history.Target{Node: "n2"}); held.Kind != history.PolicyHeld {
			t.Errorf("silent %v: held by %+v", silent, held)
		}
		w.now = time.Date(2026, 1, 10, 2, 0, 0, 0, time.UTC)
		w.do()
		w.outcome("converged")
		if n := w.m.State().Node("n2"); !n.Released {
			t.Errorf("silent %v, in its hours: %+v", silent, n)
		}
	}
}

// TestPolicyEndsWithWipe: to destroy a cluster ends what is on its nodes, which policies about removals hold as well.
func TestPolicyEndsWithWipe(t *testing.T) {
	p := model.Policy{Refuse: model.Removal, Outside: window(t, "Sat 02:00-06:00")}
	w := newWorld(t)
	w.now = time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
	m := mod("agent each=m:")
	p.Name, m.Policies = "limit", []model.Policy{p}
	w.goal(m, "n1")
	w.up("a", "n1")
	w.goal(m)
	if !w.m.State().Node("n1").Alive() {
		t.Error("it was wiped outside the hours of what was on it")
	}
	w.outcome("stopped")
	w.now = time.Date(2026, 1, 10, 2, 0, 0, 0, time.UTC)
	w.do()
	w.outcome("destroyed")
}

// TestPolicyRepeats: a removal that began in its hours and failed goes on at any time, for whatever goal, also after a person's
// retry; one that began only to make way does not count as that.
func TestPolicyRepeats(t *testing.T) {
	w := newWorld(t)
	p := model.Policy{Refuse: model.Removal, Outside: window(t, "Sat 02:00-06:00")}
	w.now = time.Date(2026, 1, 10, 3, 0, 0, 0, time.UTC)
	w.goal(policedModel("1", p), "n1", "n2")
	w.up("a", "n1", "n2")
	w.answer = func(what string) (string, string) {
		if what == "remove agent[n2]" {
			return "", "it is busy"
		}
		return "", ""
	}
	w.log = nil
	w.goal(policedModel("1", p), "n1")
	w.expect("remove agent[n2]", "remove front[n2]")
	w.outcome("stopped")
	w.now, w.answer = w.now.Add(12*time.Hour), nil
	w.do(history.Goal{Model: w.m.State().Goal().Model, Roles: w.m.State().Goal().Roles}) // joist retry
	w.expect("remove agent[n2]", "release n2")
	w.outcome("converged")
}

// TestPolicyRepeatsAsWhatItWas: what began as one thing is weighed anew as another.
func TestPolicyRepeatsAsWhatItWas(t *testing.T) {
	w := newWorld(t)
	w.goal(policedModel("1", model.Policy{Refuse: model.Removal}), "n1")
	w.up("a", "n1")
	w.goal(policedModel("1", model.Policy{Refuse: model.Removal}))
	r := w.m.Plan().Removal(history.Target{Task: "front", Node: "n1"})
	if r == nil {
		t.Fatal("nothing is to be removed")
	}
	for began, held := range map[string]bool{"": true, string(model.Replacement): true, string(model.Removal): false} {
		w.m.State().Row(r.Target).Removes = began
		if v := policy.Of(w.m.Plan()).Removal(w.now, r); (v.Held.Kind == history.PolicyHeld) != held {
			t.Errorf("began as %q: %+v", began, v)
		}
	}
}
