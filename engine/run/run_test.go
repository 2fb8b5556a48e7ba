package run

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// expr is an expression for tests: it lists what it refers to and yields the values as an object.
type expr []model.Ref

func (e expr) Refs() []model.Ref { return e }

func (e expr) Eval(s model.Scope) (value.Value, error) {
	m := map[string]value.Value{"of": value.Text(fmt.Sprint([]model.Ref(e)))}
	for i, r := range e {
		m[fmt.Sprintf("v%d", i)] = s.Lookup(r)
	}
	return value.Dict(m), nil
}

func arg(name string, refs ...model.Ref) model.Argument {
	shared := !slices.ContainsFunc(refs, func(r model.Ref) bool {
		return r.Kind == model.RefNode || r.Kind == model.RefTask || r.Kind == model.RefHost || r.Kind == model.RefDuring
	})
	return model.Argument{Name: name, Expr: expr(refs), Refs: refs, Digest: value.Sum([]byte(fmt.Sprint(refs))), Shared: shared}
}

// task reads a line such as "member each=m: task.seat all.name after=disk".
func task(line string) model.Task {
	head, tail, _ := strings.Cut(line, ":")
	words := strings.Fields(head)
	s := &model.Step{Name: "p." + words[0], Scope: model.Node, Digest: value.Sum([]byte(words[0])),
		Apply:   model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1, Backoff: time.Second},
		Remove:  &model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1, Backoff: time.Second},
		Outputs: []model.Field{{Name: "out", Type: value.Type{Kind: value.String}}}}
	t := model.Task{Name: words[0], Step: s}
	for _, w := range words[1:] {
		switch key, v, _ := strings.Cut(w, "="); key {
		case "each":
			t.Each = []string{v}
		case "on":
			t.On = v
			s.Scope = model.Cluster
		case "service":
			s.Scope, s.Remove, s.Apply = model.Service, nil, model.Action{Call: "x.put", Timeout: time.Minute, Attempts: 1}
		case "once":
			s.Once = true
		case "attempts":
			s.Apply.Attempts = 3
		case "asked":
			t.Asked = v
		}
	}
	for i, w := range strings.Fields(tail) {
		kind, name, _ := strings.Cut(w, ".")
		in := fmt.Sprintf("i%d", i)
		var a model.Argument
		switch kind {
		case "guard":
			a = arg(in, model.Ref{Kind: model.RefDuring, Name: name, Attr: "out"})
		case "task":
			a = arg(in, model.Ref{Kind: model.RefTask, Name: name, Attr: "out"})
		case "all":
			a = arg(in, model.Ref{Kind: model.RefAll, Name: name})
		case "host":
			a = arg(in, model.Ref{Kind: model.RefHost, Name: name, Attr: "out"})
		case "input":
			a = arg(in, model.Ref{Kind: model.RefInput, Name: name})
		case "node":
			a = arg(in, model.Ref{Kind: model.RefNode, Attr: name})
		case "role":
			a = arg(in, model.Ref{Kind: model.RefRole, Name: name})
		default:
			word, name, _ := strings.Cut(w, "=")
			if word == "during" {
				t.During = append(t.During, name)
			} else if word == "except" {
				t.Except = append(t.Except, name)
			} else {
				share, some := map[string]model.Share{"all": model.Every, "most": model.Most, "any": model.Any}[word]
				t.After = append(t.After, model.After{Task: name, All: some, Share: share})
			}
			continue
		}
		t.With = append(t.With, a)
		s.Inputs = append(s.Inputs, model.Field{Name: in})
	}
	return t
}

// world performs effects at once, as its answer function says.
type world struct {
	t       *testing.T
	m       *Machine
	models  map[value.Digest]*model.Model
	now     time.Time
	log     []string
	answer  func(what string) (outputs string, err string)
	pending []Effect
	hold    bool
	raised  bool // log what is powered on
}

func (w *world) Model(g history.Goal) *model.Model { return w.models[g.Model] }
func (w *world) Blob(value.Digest) []byte          { return nil }

func newWorld(t *testing.T) *world {
	w := &world{t: t, models: map[value.Digest]*model.Model{}, now: time.Unix(1_000_000, 0)}
	w.m = New(history.New(), w)
	return w
}

func (w *world) goal(mod *model.Model, nodes ...string) {
	mod.Digest = value.Sum([]byte(fmt.Sprintf("%v%v", mod.Tasks, mod.Inputs)))
	mod.Trust = model.Claimed
	w.models[mod.Digest] = mod
	w.do(history.Goal{Model: mod.Digest, Roles: map[string][]string{"m": nodes}, Changed: true, Destroy: len(nodes) == 0})
}

func (w *world) up(incarnation string, nodes ...string) {
	for _, n := range nodes {
		w.do(history.NodeSeen{Node: n, Incarnation: n + incarnation, Boot: n + incarnation, Address: "10.0.0.1", Level: "vouched", Online: true})
	}
}

func (w *world) do(events ...history.Event) {
	w.t.Helper()
	out := w.m.Advance(w.now, events...)
	w.perform(out)
}

func (w *world) perform(out Outcome) {
	for _, e := range out.Events {
		if d, ok := e.(history.Discharged); ok {
			w.log = append(w.log, "discharge "+name(d.Target))
		}
	}
	w.pending = append(w.pending, out.Effects...)
	for len(w.pending) > 0 && !w.hold {
		e := w.pending[0]
		w.pending = w.pending[1:]
		switch e := e.(type) {
		case Dispatch:
			w.finish(e.Target, e.ID, e.Action)
		case Call:
			w.finish(e.Target, e.ID, e.Action)
		case Wipe:
			w.do(history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: "wiped", Wiped: true})
		case WipeAll:
			var ends []history.Event
			for _, n := range e.Nodes {
				w.log = append(w.log, "wipe "+n.Node)
				ends = append(ends, history.NodeEnded{Node: n.Node, Incarnation: n.Incarnation, Why: "wiped", Wiped: true})
			}
			w.do(ends...)
		case Raise:
			if w.raised {
				w.log = append(w.log, "raise "+e.Node)
			}
		case HandOver:
			w.log = append(w.log, "hand over "+e.Node+" "+e.Boot)
		case Fence:
			w.log = append(w.log, "fence "+e.Node)
			w.do(history.NodeEnded{Node: e.Node, Incarnation: e.Incarnation, Why: "fenced"})
		case Release:
			w.log = append(w.log, "release "+e.Node)
			w.do(history.NodeReleased{Node: e.Node})
		}
	}
}

func (w *world) finish(t history.Target, id uint64, action step.Action) {
	what := name(t)
	if action != step.Apply {
		what = string(action) + " " + what
	}
	w.log = append(w.log, what)
	r := Report{ID: id, Outputs: json.RawMessage(`{"out":"` + name(t) + `"}`)}
	if w.answer != nil {
		if out, err := w.answer(what); err != "" {
			r.Error = err
			if later, err := step.ParseLater(err); err == nil {
				r.Later = later
			}
		} else if out != "" {
			r.Outputs = json.RawMessage(`{"out":"` + out + `"}`)
		}
	}
	if action == step.Remove {
		r.Outputs = nil
	}
	if e, ok := w.m.Conclude(w.now, t, r); ok {
		w.do(e)
		return
	}
	w.do() // as the loop does, whatever came of it
}

func name(t history.Target) string {
	if t.Node == "" {
		return t.Task
	}
	return t.Task + "[" + t.Node + "]"
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	got := w.log
	w.log = nil
	if !slices.Equal(got, want) {
		w.t.Errorf("ran\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (w *world) outcome(want string) {
	w.t.Helper()
	if got := w.m.State().Outcome; got != want {
		w.t.Errorf("outcome %q (%s), want %q", got, w.m.State().Detail, want)
	}
}

// A cluster whose machines are wiped founds itself anew: nothing starts before all are wiped, and nothing is removed through
// the old one.
func TestWipeAll(t *testing.T) {
	w := newWorld(t)
	build := func() *model.Model {
		return mod("founders on=m once=1: input.x", "seat each=m on=m: task.founders", "member each=m: task.seat")
	}
	w.goal(build(), "n1", "n2")
	w.up("a", "n1", "n2")
	w.outcome("converged")
	w.log = nil

	w.hold, w.raised = true, true
	w.do(history.WipeOrdered{By: "p"})
	w.outcome("")
	w.do(history.Forced{Target: history.Target{Task: "member", Node: "n1"}, By: "p"})
	w.do(history.NodeSeen{Node: "n2", Online: false})
	w.now = w.now.Add(time.Hour)
	w.do()
	w.outcome("")
	for _, e := range w.pending {
		if _, ok := e.(WipeAll); !ok {
			t.Errorf("asks %T%+v while the machines are wiped", e, e)
		}
	}
	w.hold = false
	w.pending = w.pending[:1]
	w.do()
	w.expect("wipe n1", "wipe n2", "discharge member[n1]", "discharge member[n2]", "discharge seat[n1]", "discharge seat[n2]", "discharge founders", "raise n1", "raise n2")
	w.up("b", "n1", "n2")
	w.expect("founders", "seat[n1]", "member[n1]", "seat[n2]", "member[n2]")
	w.outcome("converged")
	if w.m.State().Wiping != nil {
		t.Error("still wiping")
	}
	w.do(history.WipeOrdered{By: "p"}) // and again, from converged
	w.up("c", "n1", "n2")
	w.outcome("converged")
}

func mod(lines ...string) *model.Model {
	m := &model.Model{Cluster: "c", Inputs: map[string]value.Value{"x": value.Text("1")}}
	for _, l := range lines {
		m.Tasks = append(m.Tasks, task(l))
	}
	model.Guard(m.Tasks)
	return m
}

func TestConverge(t *testing.T) {
	w := newWorld(t)
	build := func() *model.Model {
		return mod("name each=m service: node.address", "hosts each=m: all.name", "member each=m: task.name after=hosts")
	}
	w.goal(build(), "n1", "n2")
	w.expect()
	w.outcome("")
	w.up("a", "n1")
	w.expect("name[n1]")
	w.up("a", "n2")
	w.expect("name[n2]", "hosts[n1]", "hosts[n2]", "member[n1]", "member[n2]")
	w.outcome("converged")

	w.goal(build(), "n1", "n2") // again: nothing to do
	w.expect()
	w.outcome("converged")

	w.goal(build(), "n1", "n2", "n3") // a node joins: its instances, and what reads all names
	w.up("a", "n3")
	w.expect("name[n3]", "hosts[n1]", "hosts[n2]", "hosts[n3]", "member[n3]")
	w.outcome("converged")

	w.goal(build(), "n1", "n2") // and leaves again
	w.expect("remove member[n3]", "hosts[n1]", "hosts[n2]", "remove hosts[n3]", "remove name[n3]", "release n3")
	w.outcome("converged")

	w.goal(build())
	w.expect("discharge member[n1]", "discharge hosts[n1]", "discharge member[n2]", "discharge hosts[n2]", "remove name[n1]", "remove name[n2]", "release n1", "release n2")
	w.outcome("destroyed")
}

func TestEarlyCutOff(t *testing.T) {
	w := newWorld(t)
	w.answer = func(string) (string, string) { return "same", "" }
	m := mod("a each=m: input.x", "b each=m: task.a")
	w.goal(m, "n1")
	w.up("a", "n1")
	w.expect("a[n1]", "b[n1]")
	m2 := mod("a each=m: input.x", "b each=m: task.a")
	m2.Inputs["x"] = value.Text("2")
	w.goal(m2, "n1")
	w.expect("a[n1]")
	w.outcome("converged")
}

func TestFailureStopsOnlyWhatDependsOnIt(t *testing.T) {
	w := newWorld(t)
	bad := true
	w.answer = func(what string) (string, string) {
		if bad && what == "a[n1]" {
			return "", "broken"
		}
		return "", ""
	}
	build := func() *model.Model { return mod("a each=m:", "b each=m: task.a") }
	w.goal(build(), "n1", "n2")
	w.up("a", "n1", "n2")
	w.expect("a[n1]", "a[n2]", "b[n2]")
	w.outcome("stopped")
	if c := w.m.Plan().Cell(history.Target{Task: "b", Node: "n1"}); c.Cause.Of != (history.Target{Task: "a", Node: "n1"}) {
		t.Errorf("root cause of b[n1] is %+v", c.Cause)
	}
	bad = false
	w.goal(build(), "n1", "n2")
	w.expect("a[n1]", "b[n1]")
	w.outcome("converged")
}

func TestTakingAChangeBackReruns(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("a each=m: input.x"), "n1")
	w.up("a", "n1")
	w.expect("a[n1]")
	w.answer = func(string) (string, string) { return "", "broken" }
	m2 := mod("a each=m: input.x")
	m2.Inputs["x"] = value.Text("2")
	w.goal(m2, "n1")
	w.expect("a[n1]")
	w.answer = nil
	w.goal(mod("a each=m: input.x"), "n1") // what was started since may have changed the node
	w.expect("a[n1]")
	w.outcome("converged")
}

func TestRetryWithBackoff(t *testing.T) {
	w := newWorld(t)
	n := 0
	w.answer = func(string) (string, string) {
		if n++; n < 3 {
			return "", "not yet"
		}
		return "", ""
	}
	w.goal(mod("a each=m attempts:"), "n1")
	w.up("a", "n1")
	w.expect("a[n1]")
	w.do()
	w.expect()
	w.now = w.now.Add(time.Second)
	w.do()
	w.expect("a[n1]")
	w.now = w.now.Add(time.Second)
	w.do()
	w.expect()
	w.now = w.now.Add(time.Second)
	w.do()
	w.expect("a[n1]")
	w.outcome("converged")
}

func TestRolloutBudget(t *testing.T) {
	w := newWorld(t)
	build := func(x string) *model.Model {
		m := mod("a each=m: input.x", "b each=m: task.a")
		m.Inputs["x"] = value.Text(x)
		m.Rollouts = []model.Rollout{{Name: "r", Tasks: []string{"a", "b"}, Roles: []string{"m"}, Canaries: 1, MaxInFlight: model.Count{N: 2}, StopAfter: model.Count{N: 1}, Together: true}}
		return m
	}
	w.goal(build("1"), "n1", "n2", "n3")
	w.hold = true
	w.up("a", "n1", "n2", "n3")
	if n := len(w.m.State().Budgets["r"].Places); n != 3 {
		t.Errorf("founding took %d places, want all 3 at once", n)
	}
	w.hold = false
	w.do()
	w.log = nil
	w.outcome("converged")

	w.hold = true
	w.goal(build("2"), "n1", "n2", "n3")
	if got := w.m.State().Budgets["r"].Places; len(got) != 1 || !got["n1"] {
		t.Errorf("places of the canary: %v, want n1 alone", got)
	}
	w.hold = false
	w.answer = func(what string) (string, string) {
		if what == "b[n2]" {
			return "", "broken"
		}
		return what + "2", ""
	}
	w.do()
	w.outcome("stopped")
	if b := w.m.State().Budgets["r"]; b.Failures != 1 || !b.Places["n2"] {
		t.Errorf("budget after the failure: %+v", b)
	}
	w.log, w.answer = nil, nil
	w.do(history.BreakerClosed{Rollout: "r", By: "test"})
	w.goal(build("2"), "n1", "n2", "n3")
	w.outcome("converged")
}

func TestNewIncarnationIsReplaced(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("name each=m service: node.address", "member each=m: task.name", "seat each=m on=m: task.name"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.log = nil
	w.up("b", "n1")
	w.expect("discharge member[n1]", "remove seat[n1]", "remove name[n1]", "name[n1]", "member[n1]", "seat[n1]")
	w.outcome("converged")
}

func TestDeadNodeLeaves(t *testing.T) {
	w := newWorld(t)
	build := func() *model.Model {
		return mod("seat each=m on=m:", "member each=m: task.seat")
	}
	w.goal(build(), "n1", "n2", "n3")
	w.up("a", "n1", "n2", "n3")
	w.log = nil
	w.do(history.NodeSeen{Node: "n3", Incarnation: "n3a", Online: false})
	w.goal(build(), "n1", "n2")
	w.expect()
	w.now = w.now.Add(time.Minute)
	w.do()
	w.expect("fence n3", "discharge member[n3]", "remove seat[n3]", "release n3")
	w.outcome("converged")
}

// TestAnotherStep: another step at the same address, as when a slot is filled differently, takes the place of what stands
// there node by node; what does not read it is left alone, and what reads it runs if that yields something else.
func TestAnotherStep(t *testing.T) {
	w := newWorld(t)
	build := func(step string) *model.Model {
		m := mod("base each=m:", "network each=m: task.base", "use each=m: task.network", "other each=m: task.base")
		m.Tasks[1].Step.Name = step
		m.Tasks[1].Step.Digest = value.Sum([]byte(step))
		return m
	}
	w.goal(build("p.routes"), "n1")
	w.up("a", "n1")
	w.log = nil
	w.goal(build("p.tunnel"), "n1")
	w.expect("remove network[n1]", "network[n1]")
	w.outcome("converged")
	w.answer = func(what string) (string, string) { return what + "'", "" }
	w.goal(build("p.routes"), "n1")
	w.expect("remove network[n1]", "network[n1]", "use[n1]")
	w.outcome("converged")
}

func TestAfterSome(t *testing.T) {
	w := newWorld(t)
	w.goal(mod("a each=m:", "one service: any=a", "half service: most=a", "every service: all=a"), "n1", "n2", "n3")
	w.expect()
	w.up("a", "n1")
	w.expect("a[n1]", "one")
	w.up("a", "n2")
	w.expect("a[n2]", "half")
	w.up("a", "n3")
	w.expect("a[n3]", "every")
	w.outcome("converged")
	w = newWorld(t)
	w.answer = func(what string) (string, string) {
		if what == "a[n1]" || what == "a[n2]" {
			return "", "broken"
		}
		return "", ""
	}
	w.goal(mod("a each=m:", "b service: any=a", "c service: most=a"), "n1", "n2", "n3", "n4")
	w.up("a", "n1", "n2", "n3", "n4") // two of four fail: one is enough for any, and most can never be
	w.outcome("stopped")
	if c := w.m.Plan().Cell(history.Target{Task: "c"}); c.Verdict.String() != "blocked" {
		t.Errorf("c is %s: %s", c.Verdict, c.Wait.Because())
	}
	if c := w.m.Plan().Cell(history.Target{Task: "b"}); !c.Settled() {
		t.Errorf("b is %s: %s", c.Verdict, c.Wait.Because())
	}
}

// TestRemovesAsArchived: what was started is removed by the step as it was then, with the inputs and outputs that it had then, whatever
// the goal has at its address by now.
func TestRemovesAsArchived(t *testing.T) {
	build := func(version string) *model.Model {
		m := mod("a each=m: input.x")
		m.Inputs["x"], m.Tasks[0].Step.Digest = value.Text(version), value.Sum([]byte(version))
		m.Tasks[0].Step.Remove.Script = &model.Script{Name: version}
		return m
	}
	w := newWorld(t)
	w.answer = func(string) (string, string) { return "old", "" }
	w.goal(build("1"), "n1", "n2")
	w.up("a", "n1", "n2")
	w.expect("a[n1]", "a[n2]")
	w.hold = true
	w.goal(build("2"), "n1")
	for _, e := range w.pending {
		d, ok := e.(Dispatch)
		if !ok || d.Action != step.Remove {
			continue
		}
		in, err := value.Dict(d.Inputs).MarshalJSON()
		if d.Node != "n2" || d.Step.Remove.Script.Name != "1" || err != nil || !strings.Contains(string(in), `"v0":"1"`) || string(d.Outputs) != `{"out":"old"}` {
			t.Errorf("%s is removed by the script of version %s with %s and %s", name(d.Target), d.Step.Remove.Script.Name, in, d.Outputs)
		}
		return
	}
	t.Fatalf("nothing is removed: %+v", w.pending)
}
