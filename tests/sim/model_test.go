package sim_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"joist/engine/addr"
	"joist/engine/model"
	"joist/engine/value"
)

// record is an expression that yields everything it refers to as one object.
type record []model.Ref

func (e record) Refs() []model.Ref { return e }

func (e record) Eval(s model.Scope) (value.Value, error) {
	m := map[string]value.Value{"of": value.Text("record")}
	for i, r := range e {
		m[fmt.Sprintf("v%d", i)] = s.Lookup(r)
	}
	return value.Dict(m), nil
}

// is compares what it refers to with a text, part by part.
type is struct {
	of   model.Ref
	part string
	want string
}

func (e is) Refs() []model.Ref { return []model.Ref{e.of} }

func (e is) Eval(s model.Scope) (value.Value, error) {
	v := s.Lookup(e.of)
	if e.part != "" {
		v, _ = v.Attr(e.part)
	}
	if !v.Known() {
		return value.Unknown(value.Type{Kind: value.Bool}), nil
	}
	return value.Truth(v.Equal(value.Text(e.want))), nil
}

func argument(name string, e model.Expr) model.Argument {
	refs := e.Refs()
	shared := !slices.ContainsFunc(refs, func(r model.Ref) bool {
		return r.Kind == model.RefNode || r.Kind == model.RefTask || r.Kind == model.RefHost || r.Kind == model.RefDuring
	})
	return model.Argument{Name: name, Expr: e, Refs: refs, Digest: value.Sum([]byte(fmt.Sprintf("%#v", e))), Shared: shared}
}

// shape says what may be in a generated model. A property that is about one thing leaves out what would hide it.
type shape struct {
	tasks    int
	roles    []string
	rollouts bool
	budgets  bool // waves, watches and failure domains
	when     bool
	reboots  float64 // probability that a step on a node reboots it; every node has a disk then
	except   float64 // probability that a task makes way for one before it
	during   float64 // probability that a task has one that is in place only while it runs
	valid    bool    // successes that expire
	approve  float64 // probability that a task is a person's approval
	tolerate float64 // probability that a role tolerates failures
	policies bool    // of the cluster
	mute     bool    // many requests vanish
	later    bool    // many actions come to no end at first
	scout    float64 // probability that a step on a node runs in the discovery image; every machine boots through it then
	skips    float64 // probability that a person skips something, after every act
	clocks   bool    // somebody sets the engine's clock
	drift    bool    // effects vanish, and verifies look for that
	demand   float64 // probability that a task runs on demand
}

// generator makes random models, and random changes of them.
type generator struct {
	rng     *rand.Rand
	names   *rand.Rand // what renames follow from, so that they change nothing else
	shape   shape
	serial  int
	renamed int // names given
}

// sketch is a model before it is checked: what a change changes.
type sketch struct {
	tasks    []draft
	inputs   map[string]string
	rollouts []model.Rollout
	tolerate map[string]model.Count // by role
	drift    model.Drift
	calls    map[string][]string // by role, what it is called if that is another name: the last one now
	policies []model.Policy
}

type draft struct {
	name     string
	former   []string // names that the task had
	kind     string   // node, service, script, value, gate
	each     []string
	on       string
	once     bool
	version  int
	stepName string
	was      []string // names that the step had
	attempts int
	reboots  bool
	scout    bool
	valid    time.Duration // of an approval
	args     []model.Expr
	hosts    []model.Ref
	asked    string // what is asked for to have it run; empty for by itself
	after    []model.After
	except   []string
	during   []string
	guards   []string
	held     []model.Ref // to what is in place while it runs
	when     model.Expr
}

func (g *generator) chance(p float64) bool { return g.rng.Float64() < p }

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

func (g *generator) sketch() *sketch {
	s := &sketch{inputs: map[string]string{"x": "1", "y": "1"}}
	for range 2 + g.rng.IntN(g.shape.tasks) {
		s.tasks = g.add(s.tasks)
	}
	if g.shape.rollouts {
		g.addRollout(s)
	}
	s.tolerate = map[string]model.Count{}
	for _, role := range g.shape.roles {
		if g.shape.tolerate > 0 && g.chance(g.shape.tolerate) {
			s.tolerate[role] = pick(g.rng, []model.Count{{N: 1}, {N: 2}, {N: 40, Percent: true}})
		}
	}
	return s
}

func (g *generator) draft(before []draft) draft {
	g.serial++
	d := draft{name: fmt.Sprintf("t%d", g.serial), kind: pick(g.rng, []string{"node", "node", "node", "service", "service", "script", "value", "gate"}), attempts: 1 + g.rng.IntN(2)}
	if g.shape.approve > 0 && g.chance(g.shape.approve) {
		d.kind, d.valid = "approval", pick(g.rng, []time.Duration{0, 0, 10 * time.Minute})
	}
	d.stepName = "p." + d.name
	if g.serial%5 == 0 { // what stands for one item of a task
		d.name = addr.WithItem(d.name, "a.1")
	}
	if d.kind == "node" || g.chance(0.6) {
		d.each = []string{pick(g.rng, g.shape.roles)}
		if g.chance(0.1) {
			d.each = slices.Clone(g.shape.roles)
		}
	}
	if d.kind == "script" || d.kind == "value" && len(d.each) == 0 && g.chance(0.4) {
		d.on = pick(g.rng, g.shape.roles)
	}
	d.once = g.chance(0.15) && d.kind != "approval"
	d.reboots = d.kind == "node" && g.shape.reboots > 0 && g.chance(g.shape.reboots)
	if d.kind == "node" && g.shape.scout > 0 && g.chance(g.shape.scout) {
		g.scouting(&d, before)
		return d
	}
	for range g.rng.IntN(3) {
		d.args = append(d.args, g.expr(&d, before))
	}
	if len(before) > 0 && g.chance(0.3) {
		if up := pick(g.rng, before); len(up.each) == 0 || meets(&d, &up) || g.chance(0.5) {
			d.after = append(d.after, model.After{Task: up.name, All: len(up.each) > 0 && !meets(&d, &up)})
			if a := &d.after[0]; a.All {
				a.Share = pick(g.rng, []model.Share{model.Every, model.Most, model.Any})
			}
		}
	}
	if d.kind == "script" && g.chance(0.5) {
		for _, up := range before {
			if (up.kind == "node" || up.kind == "service") && len(up.each) == 1 && up.each[0] == d.on && !d.once && up.when == nil && !up.scout {
				d.hosts = append(d.hosts, model.Ref{Kind: model.RefHost, Name: up.name, Attr: "out"})
				break
			}
		}
	}
	g.makeWay(&d, before)
	d.reboots = d.reboots && len(d.except) == 0 // else it reboots for ever, and is refused
	if g.shape.when && g.chance(0.25) {
		switch {
		case len(d.each) > 0 && g.chance(0.5):
			d.when = is{of: model.Ref{Kind: model.RefNode, Attr: model.NodeFacts}, part: "size", want: "small"}
		default:
			d.when = is{of: model.Ref{Kind: model.RefInput, Name: "y"}, want: "1"}
		}
	}
	return d
}

// makeWay lets d be in place except while another task's instances of the same targets run.
func (g *generator) makeWay(d *draft, before []draft) {
	if d.once || d.pure() {
		return
	}
	for i := range before {
		up := &before[i]
		if !up.pure() && !up.scout && (len(d.each) == 0 && len(up.each) == 0 || meets(d, up)) && g.chance(g.shape.except) {
			d.except = append(d.except, up.name)
			if neverOut(append(slices.Clone(before), *d)) {
				d.except = d.except[:len(d.except)-1]
			}
		}
	}
}

// neverOut reports whether something could never come out, on some nodes: nobody may write that, or a person has to help.
func neverOut(tasks []draft) bool {
	if !slices.ContainsFunc(tasks, func(d draft) bool { return len(d.hosts) > 0 && len(d.except) > 0 }) {
		return false
	}
	var list []model.Task
	for i := range tasks {
		list = append(list, tasks[i].build())
	}
	model.Guard(list)
	return len(model.Circles(list)) > 0
}

// pure reports whether a task only computes.
func (d *draft) pure() bool { return d.kind == "value" || d.kind == "gate" || d.kind == "approval" }

// meets reports whether every instance of d has one of up for the same node.
func meets(d, up *draft) bool {
	return len(d.each) > 0 && len(up.each) > 0 && !slices.ContainsFunc(d.each, func(r string) bool { return !slices.Contains(up.each, r) })
}

func (g *generator) expr(d *draft, before []draft) model.Expr {
	var refs record
	for range 1 + g.rng.IntN(2) {
		switch n := g.rng.IntN(10); {
		case n < 2:
			refs = append(refs, model.Ref{Kind: model.RefInput, Name: pick(g.rng, []string{"x", "y"})})
		case n < 3 && len(d.each) > 0:
			refs = append(refs, model.Ref{Kind: model.RefNode, Attr: pick(g.rng, []string{model.NodeName, model.NodeAddress, model.NodeIncarnation, model.NodeFacts})})
		case n < 4 && g.shape.reboots > 0: // a role's nodes have their boots with them: what reboots for another boot never ends
			refs = append(refs, model.Ref{Kind: model.RefInput, Name: "y"})
		case n < 4:
			refs = append(refs, model.Ref{Kind: model.RefRole, Name: pick(g.rng, g.shape.roles)})
		case len(before) > 0:
			up := pick(g.rng, before)
			switch {
			case up.kind == "gate" || up.kind == "approval":
			case len(up.each) == 0 || meets(d, &up) && g.chance(0.7):
				refs = append(refs, model.Ref{Kind: model.RefTask, Name: up.name, Attr: pick(g.rng, []string{"out", "out", "same"})})
			case len(up.each) > 0:
				refs = append(refs, model.Ref{Kind: model.RefAll, Name: up.name})
			}
		}
	}
	return refs
}

func (g *generator) addRollout(s *sketch) {
	role := pick(g.rng, g.shape.roles)
	r := model.Rollout{Name: "r", Roles: []string{role}, Canaries: g.rng.IntN(2), Together: g.chance(0.5)}
	if g.chance(0.7) {
		r.MaxInFlight = model.Count{N: 1 + g.rng.IntN(2)}
	} else {
		r.MaxInFlight = model.Count{N: 50, Percent: true}
	}
	r.StopAfter = model.Count{N: 1 + g.rng.IntN(2)}
	if g.shape.budgets {
		g.budgeted(&r)
	}
	r.Tasks = g.members(s, role, map[string]bool{})
	s.rollouts = nil
	if len(r.Tasks) > 0 {
		s.rollouts = []model.Rollout{r}
	}
}

// members picks the tasks of a rollout. What makes way for one of them is one of them.
func (g *generator) members(s *sketch, role string, not map[string]bool) []string {
	var names []string
	for i := range s.tasks {
		d := &s.tasks[i]
		if len(d.during) > 0 || d.scout || d.asked != "" {
			continue
		}
		forced := slices.ContainsFunc(d.except, func(name string) bool { return slices.Contains(names, name) })
		if !forced && (len(d.each) != 1 || d.each[0] != role || not[d.name] || !g.chance(0.6)) {
			continue
		}
		if !g.gathersGroup(s, d, names) {
			names = append(names, d.name)
			continue
		}
		if forced { // then none of those that it makes way for
			for _, name := range d.except {
				not[name] = true
			}
			return g.members(s, role, not)
		}
	}
	return s.guardRollout(names)
}

// gathersGroup reports whether d waits, directly or not, for every node's instance of a task of the group: such a group
// can never go node by node.
func (g *generator) gathersGroup(s *sketch, d *draft, group []string) bool {
	tainted := map[string]bool{} // waits for all of the group
	for i := range s.tasks {
		t := &s.tasks[i]
		for _, e := range t.edges() {
			if tainted[e.name] || (e.all || len(t.each) == 0) && s.below(e.name, group) {
				tainted[t.name] = true
			}
		}
	}
	return tainted[d.name]
}

// below reports whether a task is in the group or waits for a task of it.
func (s *sketch) below(name string, group []string) bool {
	if slices.Contains(group, name) {
		return true
	}
	for i := range s.tasks {
		if s.tasks[i].name == name {
			return slices.ContainsFunc(s.tasks[i].edges(), func(e upEdge) bool { return s.below(e.name, group) })
		}
	}
	return false
}

type upEdge struct {
	name string
	all  bool
}

func (d *draft) edges() []upEdge {
	var list []upEdge
	for _, e := range d.args {
		for _, r := range e.Refs() {
			if r.Kind == model.RefTask || r.Kind == model.RefAll {
				list = append(list, upEdge{r.Name, r.Kind == model.RefAll})
			}
		}
	}
	for _, a := range d.after {
		list = append(list, upEdge{a.Task, a.All})
	}
	for _, name := range d.except {
		list = append(list, upEdge{name, false})
	}
	for _, name := range d.guards {
		list = append(list, upEdge{name, false})
	}
	for _, r := range d.hosts {
		list = append(list, upEdge{r.Name, true})
	}
	return list
}

// change gives a sketch that differs in one thing.
func (g *generator) change(s *sketch) *sketch {
	n := &sketch{tasks: slices.Clone(s.tasks), inputs: map[string]string{"x": s.inputs["x"], "y": s.inputs["y"]}, rollouts: s.rollouts, tolerate: s.tolerate, drift: s.drift, calls: s.calls, policies: s.policies}
	switch g.rng.IntN(6) {
	case 0, 1:
		n.inputs[pick(g.rng, []string{"x", "y"})] = fmt.Sprint(g.rng.IntN(3))
	case 2: // a new version of a step
		n.tasks[g.rng.IntN(len(n.tasks))].version++
	case 3: // another step at the same address
		d := &n.tasks[g.rng.IntN(len(n.tasks))]
		g.serial++
		if d.was = slices.Clone(d.was); g.serial%2 == 0 { // the same one by another name
			d.was = append(d.was, d.stepName)
		} else {
			d.was = nil
		}
		d.stepName = fmt.Sprintf("p.other%d", g.serial)
	case 4: // a task goes, with everything that refers to it
		n.drop(n.tasks[g.rng.IntN(len(n.tasks))].name)
		if len(n.tasks) == 0 {
			n.tasks = g.add(nil)
		}
	case 5:
		n.tasks = g.add(n.tasks)
	}
	if g.shape.rollouts {
		g.addRollout(n)
	}
	if g.names.IntN(4) == 0 {
		n = g.rename(n, 0.3)
	}
	return n
}

func (s *sketch) drop(name string) {
	gone := map[string]bool{name: true}
	var kept []draft
	for _, d := range s.tasks {
		if gone[d.name] || slices.ContainsFunc(d.edges(), func(e upEdge) bool { return gone[e.name] }) {
			gone[d.name] = true
			continue
		}
		kept = append(kept, d)
	}
	s.tasks = kept
	for _, idle := range s.release() {
		s.drop(idle)
	}
}

// draw makes the model of a sketch, in which everything stands by what it is called.
func (s *sketch) draw() *model.Model {
	m := &model.Model{Cluster: "c", Workflow: "p.w", Trust: model.Approved, Inputs: map[string]value.Value{}, Rollouts: s.rollouts, Drift: s.drift, Policies: s.policies}
	for name, text := range s.inputs {
		m.Inputs[name] = value.Text(text)
	}
	for _, role := range s.parts() {
		m.Roles = append(m.Roles, model.Role{Name: role, Tolerate: s.tolerate[role]})
	}
	for i := range s.tasks {
		m.Tasks = append(m.Tasks, s.tasks[i].build())
	}
	model.Guard(m.Tasks)
	m.Digest = value.Sum([]byte(s.String()))
	return m
}

// first is the step's first name: a rename is none of what it does.
func (d *draft) first() string {
	if len(d.was) > 0 {
		return d.was[0]
	}
	return d.stepName
}

func (d *draft) build() model.Task {
	st := &model.Step{
		Name: d.stepName, Was: d.was, Once: d.once, Digest: value.Sum([]byte(fmt.Sprint(d.first(), d.version, d.kind))),
		Outputs: []model.Field{{Name: "out", Type: value.Type{Kind: value.String}}, {Name: "same", Type: value.Type{Kind: value.String}}},
	}
	script := model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: d.attempts, Backoff: 5 * time.Second}
	st.Apply = script
	remove := script
	remove.Attempts = 3
	switch d.kind {
	case "node":
		st.Scope, st.Remove, st.Reboots = model.Node, &remove, d.reboots
		if len(d.args) > 0 {
			st.Verify = &model.Action{Script: &model.Script{}, Timeout: 20 * time.Second, Attempts: 1}
		}
		if d.scout {
			st.Scout, st.Remove, st.Verify, st.Irreversible = true, nil, nil, "it stays on the machine"
		}
	case "service":
		st.Scope, st.Apply.Script, st.Apply.Call = model.Service, nil, "sim."+d.first()
		if len(d.args) > 0 {
			st.Verify = &model.Action{Call: st.Apply.Call, Timeout: 20 * time.Second, Attempts: 1}
		}
	case "script":
		st.Scope, st.Remove = model.Cluster, &remove
		if len(d.args) > 0 {
			st.Verify = &model.Action{Script: &model.Script{}, Timeout: 20 * time.Second, Attempts: 1}
		}
	case "value":
		st.Scope, st.Apply.Script = model.Cluster, nil
		var e hashed
		for i := range d.args {
			e = append(e, fmt.Sprintf("i%d", i))
		}
		st.Apply.Outputs = map[string]model.Argument{"out": argument("out", e), "same": argument("same", constant{value.Text("s")})}
	case "approval":
		st.Scope, st.Apply.Script, st.Outputs = model.Cluster, nil, nil
		ask := argument("approve", constant{value.Text("go on?")})
		st.Apply.Approve, st.Apply.Valid = &ask, d.valid
	case "gate":
		st.Scope, st.Apply.Script, st.Outputs = model.Cluster, nil, nil
		open := argument("when", constant{value.Truth(true)})
		st.Apply.When = &open
	}
	t := model.Task{Name: d.name, Called: d.name, Was: d.former, Step: st, Each: d.each, On: d.on, After: d.after, Except: d.except, During: d.during, Asked: d.asked}
	for i, e := range d.args {
		t.With = append(t.With, argument(fmt.Sprintf("i%d", i), e))
	}
	for i, r := range d.hosts {
		t.With = append(t.With, argument(fmt.Sprintf("host%d", i), record{r}))
	}
	for i, r := range d.held {
		t.With = append(t.With, argument(fmt.Sprintf("held%d", i), record{r}))
	}
	for _, a := range t.With {
		st.Inputs = append(st.Inputs, model.Field{Name: a.Name})
	}
	if d.when != nil {
		a := argument("when", d.when)
		t.When = &a
	}
	return t
}

var truth = value.Truth(true)

// constant is always the same.
type constant struct{ v value.Value }

func (constant) Refs() []model.Ref                       { return nil }
func (c constant) Eval(model.Scope) (value.Value, error) { return c.v, nil }

// hashed is one of four texts, by the step's inputs.
type hashed []string

func (e hashed) Refs() []model.Ref {
	var refs []model.Ref
	for _, name := range e {
		refs = append(refs, model.Ref{Kind: model.RefStep, Name: name})
	}
	return refs
}

func (e hashed) Eval(s model.Scope) (value.Value, error) {
	h := value.NewHasher()
	for _, r := range e.Refs() {
		h.Digest(s.Lookup(r).Digest())
	}
	return value.Text(fmt.Sprint(h.Sum()[0] % 4)), nil
}

// String is the whole sketch, for digests and for people.
func (s *sketch) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "inputs %v tolerate %v\n", s.inputs, s.tolerate)
	for i := range s.tasks {
		d := &s.tasks[i]
		if len(d.former) > 0 {
			fmt.Fprintf(&b, "  was %v\n", d.former)
		}
		fmt.Fprintf(&b, "  %s %s step=%s/%d was=%v each=%v on=%s once=%v attempts=%d valid=%s args=%v hosts=%v after=%v except=%v when=%v\n", d.name, d.kind, d.stepName, d.version, d.was, d.each, d.on, d.once, d.attempts, d.valid, d.args, d.hosts, d.after, d.except, d.when)
	}
	for i := range s.tasks {
		if d := &s.tasks[i]; len(d.during) > 0 || len(d.held) > 0 {
			fmt.Fprintf(&b, "  %s during=%v held=%v\n", d.name, d.during, d.held)
		}
	}
	for i := range s.tasks {
		if d := &s.tasks[i]; d.reboots {
			fmt.Fprintf(&b, "  %s reboots its node\n", d.name)
		} else if d.scout {
			fmt.Fprintf(&b, "  %s runs in scout\n", d.name)
		}
	}
	for _, r := range s.rollouts {
		fmt.Fprintf(&b, "  rollout %+v\n", r)
	}
	if len(s.calls) > 0 {
		fmt.Fprintf(&b, "  roles are called %v\n", s.calls)
	}
	for _, p := range s.policies {
		fmt.Fprintf(&b, "  policy %+v\n", p)
	}
	if s.drift.Every > 0 {
		fmt.Fprintf(&b, "  drift %+v\n", s.drift)
	}
	return b.String()
}
