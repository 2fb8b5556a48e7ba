package outlook_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// reads is an expression that yields what it reads.
type reads []model.Ref

func (r reads) Refs() []model.Ref { return r }

func (r reads) Eval(s model.Scope) (value.Value, error) {
	m := map[string]value.Value{}
	for i, one := range r {
		m[fmt.Sprint(i)] = s.Lookup(one)
	}
	return value.Dict(m), nil
}

// task reads a line such as "late each service task.soon all.name after.disk": a name, where it is, what it reads and what it comes
// after, of the same node or, with after_all, of every node. "approve" makes it ask for a person's approval.
func task(line string) model.Task {
	words := strings.Fields(line)
	act := func() *model.Action { return &model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1} }
	s := &model.Step{Name: "test." + words[0], Scope: model.Node, Digest: value.Sum([]byte(line)), Apply: *act(), Remove: act(), Verify: act(),
		Outputs: []model.Field{{Name: "out", Type: value.Type{Kind: value.String}}}}
	t := model.Task{Name: words[0], Step: s}
	for _, w := range words[1:] {
		kind, name, _ := strings.Cut(w, ".")
		ref := model.Ref{Kind: model.RefTask, Name: name, Attr: "out"}
		switch kind {
		case "each":
			t.Each = []string{"m"}
			continue
		case "service":
			s.Scope, s.Verify, s.Remove.Script, s.Remove.Call = model.Service, nil, nil, "x.put"
			s.Apply.Script, s.Apply.Call = nil, "x.put"
			continue
		case "approve":
			s.Scope, s.Verify, s.Remove, s.Outputs = model.Cluster, nil, nil, nil
			s.Apply = model.Action{Approve: &model.Argument{Name: "approve", Expr: reads{}, Shared: true}, Valid: time.Hour}
			continue
		case "after", "after_all":
			t.After = append(t.After, model.After{Task: name, All: kind == "after_all", Share: model.Every})
			continue
		case "all":
			ref = model.Ref{Kind: model.RefAll, Name: name}
		}
		in := fmt.Sprintf("i%d", len(t.With))
		t.With = append(t.With, model.Argument{Name: in, Expr: reads{ref}, Refs: []model.Ref{ref}, Digest: value.Sum([]byte(w)), Shared: kind == "all"})
		s.Inputs = append(s.Inputs, model.Field{Name: in})
	}
	return t
}

// bed is a cluster whose nodes and services do at once what they are asked.
type bed struct {
	t    *testing.T
	m    *run.Machine
	all  map[value.Digest]*model.Model
	fail map[string]string // error by instance
	hold map[string]bool   // instances that never answer
	now  time.Time
}

func (b *bed) Model(g history.Goal) *model.Model { return b.all[g.Model] }
func (b *bed) Blob(value.Digest) []byte          { return nil }

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, all: map[value.Digest]*model.Model{}, fail: map[string]string{}, hold: map[string]bool{}, now: time.Unix(1_000_000, 0)}
	b.m = run.New(history.New(), b)
	return b
}

// goal sets a goal of these tasks; with changes the rest of the model.
func (b *bed) goal(nodes string, with func(*model.Model), lines ...string) {
	b.t.Helper()
	m := &model.Model{Cluster: "demo", Trust: model.Claimed, Digest: value.Sum([]byte(strings.Join(lines, "\n")))}
	for _, l := range lines {
		m.Tasks = append(m.Tasks, task(l))
	}
	if with != nil {
		with(m)
	}
	b.all[m.Digest] = m
	b.do(history.Goal{Model: m.Digest, Roles: map[string][]string{"m": strings.Fields(nodes)}, Changed: true, By: "test"})
}

func (b *bed) up(level, nodes string) {
	b.t.Helper()
	for _, n := range strings.Fields(nodes) {
		b.do(history.NodeSeen{Node: n, Incarnation: n, Boot: n, Address: "10.0.0.1", Level: level, Online: true})
	}
}

// answer lets an instance that never answered go well.
func (b *bed) answer(instance string) {
	b.t.Helper()
	delete(b.hold, instance)
	row := b.m.State().Row(target(instance))
	e, ok := b.m.Conclude(b.now, target(instance), run.Report{ID: row.Started, Outputs: json.RawMessage(`{"out":"` + instance + `"}`)})
	if !ok {
		b.t.Fatalf("%s has nothing in flight", instance)
	}
	b.do(e)
}

// do has the cluster take events, and everything done that follows from them.
func (b *bed) do(events ...history.Event) {
	b.t.Helper()
	effects := b.m.Advance(b.now, events...).Effects
	for len(effects) > 0 {
		var (
			t      history.Target
			report run.Report
			action step.Action
		)
		switch e := effects[0].(type) {
		case run.Dispatch:
			t, action, report.ID = e.Target, e.Action, e.ID
		case run.Call:
			t, action, report.ID = e.Target, e.Action, e.ID
		}
		effects = effects[1:]
		if t.Task == "" || b.hold[t.String()] {
			continue
		}
		if report.Error = b.fail[t.String()]; report.Error == "" && action == step.Apply {
			report.Outputs = json.RawMessage(`{"out":"` + t.String() + `"}`)
		}
		if e, ok := b.m.Conclude(b.now, t, report); ok {
			effects = append(effects, b.m.Advance(b.now, e).Effects...)
		}
	}
}

func (b *bed) approve(of history.Target) {
	b.t.Helper()
	list := outlook.Approvals(b.m.Plan())
	if len(list) != 1 || list[0].Target != of {
		b.t.Fatalf("%s should ask for approval, and these do: %+v", of, list)
	}
	b.do(list[0].Given("test", "looked at"))
}

// root checks the root of an instance: its word, where it is, and part of what is said of it.
func (b *bed) root(instance string, by outlook.Word, of, says string) {
	b.t.Helper()
	got := outlook.RootsOf(b.m).Of(target(instance))
	if got.By != by || got.Of.String() != of || !strings.Contains(got.Says(), says) {
		b.t.Errorf("the root of %s is by %s, at %q: %s\nwant by %s, at %q: …%s…", instance, got.By, got.Of, got.Says(), by, of, says)
	}
}

func target(instance string) history.Target {
	name, node, _ := strings.Cut(strings.TrimSuffix(instance, "]"), "[")
	return history.Target{Task: name, Node: node}
}

// one is a rollout that has one node at a time do these tasks.
func one(tasks ...string) func(*model.Model) {
	return func(m *model.Model) {
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: tasks, Roles: []string{"m"}}}
	}
}

// TestWhyByWayOfAPlace: what waited for its turn in a rollout was brought about by who had the place before, and not only by what it
// reads; without a rollout it was not.
func TestWhyByWayOfAPlace(t *testing.T) {
	says := func(with func(*model.Model)) string {
		b := newBed(t)
		b.goal("n1 n2 n3", with, "disk each", "store each task.disk")
		var seen []history.Event
		for _, n := range []string{"n1", "n2", "n3"} {
			seen = append(seen, history.NodeSeen{Node: n, Incarnation: n, Boot: n, Address: "10.0.0.1", Level: model.Vouched, Online: true})
		}
		b.do(seen...)
		chain, _ := outlook.Why(b.m.Plan(), target("store[n3]"), nil)
		list := make([]string, 0, len(chain))
		for _, l := range chain[1 : len(chain)-1] {
			list = append(list, l.Of.String()+" "+l.Says[strings.LastIndex(l.Says, ",")+1:])
		}
		return strings.Join(list, "; ")
	}
	const place = " in the place of rollout r that "
	if got, want := says(one("store")), "store[n3] "+place+"n2 gave back; store[n2] "+place+"n1 gave back; store[n1]"; !strings.HasPrefix(got, want) {
		t.Errorf("it says\n%s\nwant\n%s…", got, want)
	}
	if got := says(nil); strings.Contains(got, "place") || !strings.HasPrefix(got, "store[n3]") || !strings.Contains(got, "; disk[n3]") {
		t.Errorf("without a rollout it says\n%s", got)
	}
}

// patient is a rollout of disks that goes on after a failure, if it has a place left.
func patient(m *model.Model) {
	one("disk")(m)
	m.Rollouts[0].StopAfter = model.Count{N: 2}
}

func trust(level string) func(*model.Model) {
	return func(m *model.Model) { m.Trust = level }
}

// TestWords: what is at the bottom of last[n2] has a word of its own for each sort of thing, and is never what is merely next to it.
func TestWords(t *testing.T) {
	chain := []string{"disk each", "store each task.disk", "last each task.store"}
	for name, c := range map[string]struct {
		do       func(*bed)
		of       string // whose root
		by       outlook.Word
		at, says string
	}{
		"failure": {by: outlook.ByFailure, at: "disk[n2]", says: "disk[n2] failed (no such disk)", do: func(b *bed) {
			b.fail["disk[n2]"] = "no such disk"
			b.goal("n1 n2", nil, chain...)
			b.up(model.Vouched, "n1 n2")
		}},
		"failure of another node, read by all": {by: outlook.ByFailure, at: "disk[n1]", says: "disk[n1] failed (no such disk)", do: func(b *bed) {
			b.fail["disk[n1]"] = "no such disk"
			b.goal("n1 n2", nil, "disk each", "store each all.disk", "last each task.store")
			b.up(model.Vouched, "n1 n2")
		}},
		"failure of a removal": {of: "disk[n2]", by: outlook.ByFailure, at: "last[n2]", says: "last[n2]", do: func(b *bed) {
			b.goal("n1 n2", nil, "disk each service", "store each service task.disk", "last each service task.store")
			b.up(model.Vouched, "n1 n2")
			b.fail["last[n2]"] = "it is still read"
			b.goal("n1", nil, "disk each service", "store each service task.disk", "last each service task.store")
		}},
		"skipped": {by: outlook.ByFailure, at: "disk[n2]", says: "disk[n2] was skipped", do: func(b *bed) {
			b.fail["disk[n2]"] = "no such disk"
			b.goal("n1 n2", nil, chain...)
			b.up(model.Vouched, "n1 n2")
			b.do(history.Skipped{Target: target("disk[n2]"), By: "test", Reason: "none to be had"})
		}},
		"approval that a task asks for": {by: outlook.ByApproval, at: "ok", says: "waiting for approval", do: func(b *bed) {
			b.goal("n1 n2", nil, "disk each", "ok approve after_all.disk", "store each task.disk after.ok", "last each task.store")
			b.up(model.Vouched, "n1 n2")
		}},
		"approval of a key": {by: outlook.ByApproval, at: "node n2", says: "trust", do: func(b *bed) {
			b.goal("n1 n2", trust(model.Approved), chain...)
			b.up(model.Approved, "n1")
			b.up(model.Claimed, "n2")
		}},
		"approval of drift": {of: "store[n2]", by: outlook.ByApproval, at: "store[n2]", says: "it is not running", do: func(b *bed) {
			b.goal("n1 n2", func(m *model.Model) { m.Drift = model.Drift{Every: time.Hour, Waits: true} }, chain...)
			b.up(model.Vouched, "n1 n2")
			b.do(history.Drifted{Target: target("store[n2]"), Observed: "it is not running"})
		}},
		"trust": {by: outlook.ByTrust, at: "node n2", says: "trust", do: func(b *bed) {
			b.goal("n1 n2", trust(model.Vouched), chain...)
			b.up(model.Vouched, "n1")
			b.up(model.Approved, "n2") // a person's word is not enough here
		}},
		"policy": {of: "disk[n2]", by: outlook.ByPolicy, at: "last[n2]", says: "held by policy keep", do: func(b *bed) {
			with := func(m *model.Model) {
				m.Policies = []model.Policy{{Name: "keep", Refuse: model.Removal, Roles: []string{"m"}}}
			}
			lines := []string{"disk each service", "store each service task.disk", "last each service task.store"}
			b.goal("n1 n2", with, lines...)
			b.up(model.Vouched, "n1 n2")
			b.goal("n1", with, lines...)
		}},
		"budget, spent": {by: outlook.ByBudget, at: "node n1", says: "the places of rollout r are taken by n1", do: func(b *bed) {
			b.hold["disk[n1]"] = true
			b.goal("n1 n2", one("disk"), chain...)
			b.up(model.Vouched, "n1 n2")
		}},
		"budget, stopped": {by: outlook.ByBudget, at: "disk[n1]", says: "rollout r was stopped by failures of disk[n1]", do: func(b *bed) {
			b.fail["disk[n1]"] = "no such disk"
			b.goal("n1 n2", one("disk"), chain...)
			b.up(model.Vouched, "n1 n2")
		}},
		"budget, kept by a failure": {of: "disk[n2]", by: outlook.ByBudget, at: "disk[n1]", says: "the places of rollout r are taken by n1, and kept by failures of disk[n1]", do: func(b *bed) {
			b.fail["disk[n1]"] = "no such disk"
			b.goal("n1 n2", patient, chain...)
			b.up(model.Vouched, "n1 n2")
		}},
		"budget, not kept by a failure alone": {of: "disk[n3]", by: outlook.ByBudget, at: "node n1", says: "taken by n1, n2", do: func(b *bed) {
			b.fail["disk[n1]"], b.hold["disk[n2]"] = "no such disk", true
			b.goal("n1 n2 n3", func(m *model.Model) {
				patient(m)
				m.Rollouts[0].MaxInFlight = model.Count{N: 2}
			}, chain...)
			b.up(model.Vouched, "n1 n2 n3")
		}},
		"cancel": {by: outlook.ByCancel, says: "by test: wrong rack", do: func(b *bed) {
			b.goal("n1 n2", nil, chain...)
			b.do(history.Cancelled{By: "test", Reason: "wrong rack"})
			b.up(model.Vouched, "n1 n2")
		}},
		"transition: an attempt": {by: outlook.ByTransition, at: "disk[n2]", says: "an attempt is in flight", do: func(b *bed) {
			b.hold["disk[n2]"] = true
			b.goal("n1 n2", nil, chain...)
			b.up(model.Vouched, "n1 n2")
		}},
		"transition: a node that comes up": {by: outlook.ByTransition, at: "node n2", says: "node n2 has not come up yet", do: func(b *bed) {
			b.goal("n1 n2", nil, chain...)
			b.up(model.Vouched, "n1")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			c.do(b)
			if c.of == "" {
				c.of = "last[n2]"
			}
			b.root(c.of, c.by, c.at, c.says)
		})
	}
}

// TestRootFarBelow follows one long chain while each of its obstacles is cleared: at every moment the root is the lowest one that is left,
// wherever one looks from, though a rollout and an approval lie between.
func TestRootFarBelow(t *testing.T) {
	b := newBed(t)
	b.fail["disk[n1]"] = "no such disk"
	b.hold["start[n2]"] = true
	lines := []string{
		"disk each", "format each task.disk", "seat each task.format", // in a rollout, a node at a time
		"ok approve after_all.seat", "config each task.seat after.ok", "start each task.config", "join each all.start", "last each task.join",
	}
	budget := one("disk", "format", "seat")
	b.goal("n1 n2 n3", budget, lines...)
	b.up(model.Vouched, "n1 n2")

	groups := func(want ...string) {
		t.Helper()
		var got []string
		for _, g := range outlook.RootsOf(b.m).Groups(outlook.OpenItems(b.m.Plan())) {
			got = append(got, fmt.Sprintf("%s %s: %d", g.By, g.Of, g.Count))
		}
		if !slices.Equal(got, want) {
			t.Errorf("groups\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	}
	// The failure of n1 is the root of all beyond the approval, which is not asked for yet. What is n2's or n3's own has another.
	b.root("last[n1]", outlook.ByFailure, "disk[n1]", "no such disk")
	b.root("last[n2]", outlook.ByFailure, "disk[n1]", "no such disk")
	b.root("ok", outlook.ByFailure, "disk[n1]", "no such disk")
	b.root("seat[n2]", outlook.ByBudget, "disk[n1]", "rollout r was stopped by failures")
	b.root("seat[n3]", outlook.ByTransition, "node n3", "has not come up")
	groups("failure disk[n1]: 10", "budget disk[n1]: 5", "transition node n3: 7")

	clear(b.fail) // the disk is there: the rollout goes on, and waits for n3
	b.goal("n1 n2 n3", budget, lines...)
	b.root("last[n1]", outlook.ByTransition, "node n3", "has not come up")
	groups("transition node n3: 16")

	b.up(model.Claimed, "n3")
	b.root("last[n1]", outlook.ByApproval, "ok", "waiting for approval")
	groups("approval ok: 13")

	b.approve(target("ok"))
	b.root("last[n1]", outlook.ByTransition, "start[n2]", "in flight")
	groups("transition start[n2]: 6")
}
