package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
)

// linker checks packs against one another.
type linker struct {
	kept  bool // see Source.Kept
	packs map[string]*decl.Pack
	bags  map[string]*diag.Bag // by pack
	done  map[*decl.Workflow]*signature
	stack []*decl.Workflow // being checked, outermost first
}

// signature is what callers of a workflow see of its outputs.
type signature struct {
	outputs map[string]result
}

// result is an output of a task: of a step, or of a called workflow.
type result struct {
	shape expr.Shape
	each  []string // roles; empty for a single one
}

// Check checks packs against one another: every reference, every type across an edge, cycles, and the flow of paths and
// secrets. It reports everything that it finds, and file names begin with the pack's name.
func Check(packs map[string]*decl.Pack) Diagnostics { return newLinker(packs).check() }

func (l *linker) check() Diagnostics {
	packs := l.packs
	var out Diagnostics
	for _, name := range decl.SortedKeys(packs) {
		for _, w := range packs[name].Workflows {
			l.workflow(w)
		}
		l.requirements(packs[name])
		for _, step := range decl.SortedKeys(packs[name].StepDecls) {
			if at := packs[name].StepDecls[step].Mute; at != (hcl.Range{}) && !l.kept {
				l.bags[name].Errorf(at, `Write the question that a person answers, such as approve = "Go to ${input.version}?".`, "step %q asks for an approval of nothing that can be read", step)
			}
		}
		out = append(out, l.bags[name].Done(packs[name].Prefix())...)
	}
	return out
}

func newLinker(packs map[string]*decl.Pack) *linker {
	l := &linker{packs: packs, bags: map[string]*diag.Bag{}, done: map[*decl.Workflow]*signature{}}
	for name, p := range packs {
		l.bags[name] = diag.NewBag(p.Files)
	}
	return l
}

func (l *linker) requirements(p *decl.Pack) {
	bag := l.bags[p.Name]
	for _, name := range decl.SortedKeys(p.Requires) {
		other := l.packs[name]
		if other == nil {
			bag.Errorf(p.Required[name], "Put it beside this one, or remove the requirement.", "the pack %q is required and not there", name)
			continue
		}
		want, err := semver.NewConstraint(p.Requires[name])
		if err != nil {
			continue // reported when the pack was loaded
		}
		if have, err := semver.NewVersion(other.Version); err != nil || !want.Check(have) {
			bag.Errorf(p.Required[name], "Take another version of it, or relax the requirement.", "pack %s %s is there, %s is required", name, other.Version, p.Requires[name])
		}
	}
}

// target finds what a task calls: a step or a workflow.
func (l *linker) target(w *decl.Workflow, e hclsyntax.Expression, report bool) (*decl.Step, *decl.Workflow) {
	bag := l.bags[w.Pack.Name]
	if !report {
		bag = diag.NewBag(nil)
	}
	t, diags := hcl.AbsTraversalForExpr(e)
	path := expr.StepNames(t, 3)
	if diags.HasErrors() || len(path) != len(t) || len(path) == 0 || len(path) > 2 {
		bag.Errorf(e.Range(), "Write step = NAME, or step = pack.NAME: a step or a workflow.", "expected the name of a step")
		return nil, nil
	}
	pack, name := w.Pack, path[len(path)-1]
	if len(path) == 2 && path[0] != w.Pack.Name {
		if _, ok := w.Pack.Requires[path[0]]; !ok {
			bag.Errorf(e.Range(), fmt.Sprintf("Add %s = \">= 0.1.0\" to requires in pack.hcl. %s", path[0], diag.Suggest(path[0], append(decl.SortedKeys(w.Pack.Requires), w.Pack.Name))), "the pack %q is not required", path[0])
			return nil, nil
		}
		if pack = l.packs[path[0]]; pack == nil {
			return nil, nil // requirements reports it
		}
	}
	to, now := pack.Find(name)
	if now != name {
		bag.Warnf(e.Range(), fmt.Sprintf("Write step = %s.%s.", pack.Name, now), "%q is called %q now", name, now)
	}
	if to != (decl.Callee{}) {
		return to.Step, to.Flow
	}
	bag.Errorf(e.Range(), diag.Suggest(name, append(decl.SortedKeys(pack.StepDecls), decl.SortedKeys(pack.WorkflowDecls)...)), "pack %s has no step or workflow %q", pack.Name, name)
	return nil, nil
}

// workflow checks a workflow once, what it calls first.
func (l *linker) workflow(w *decl.Workflow) *signature {
	if sig := l.done[w]; sig != nil {
		return sig
	}
	l.stack = append(l.stack, w)
	c := &flowCheck{l: l, w: w, bag: l.bags[w.Pack.Name], results: map[string]map[string]result{}, used: map[string]bool{}, shapes: map[string]expr.Shape{}, failed: map[string]bool{}}
	sig := c.run()
	l.stack = l.stack[:len(l.stack)-1]
	l.done[w] = sig
	return sig
}

// flowCheck checks one workflow.
type flowCheck struct {
	l       *linker
	w       *decl.Workflow
	bag     *diag.Bag
	results map[string]map[string]result // outputs by task
	used    map[string]bool              // inputs
	shapes  map[string]expr.Shape        // of what tasks have their items from
	failed  map[string]bool              // tasks whose step is not known: nothing about them is reported again
	targets map[string]decl.Callee
	order   []*decl.Task // each after what it refers to
}

func (c *flowCheck) run() *signature {
	c.targets = map[string]decl.Callee{}
	for _, t := range c.w.Tasks {
		if t.Target == nil && t.Filled == nil {
			c.failed[t.Name] = true
			continue
		}
		s, called := c.called(t)
		if called != nil && c.recursion(t, called) {
			called = nil
		}
		if s != nil && s.Broken || called != nil && called.Pack.Broken {
			s, called = nil, nil // what is wrong with it was said when its pack was loaded
		}
		c.failed[t.Name] = t.Lost || s == nil && called == nil
		c.targets[t.Name] = decl.Callee{Step: s, Flow: called}
	}
	c.order = c.sorted()
	for _, t := range c.order {
		c.task(t)
	}
	sig := c.outputs()
	c.rollouts()
	c.comesOut()
	c.checks()
	for _, in := range c.w.Inputs {
		if !c.used[in.Name] {
			c.bag.Warnf(in.At, "Use it or remove it.", "input %q is not used", in.Name)
		}
	}
	return sig
}

// called gives what a task calls, and reports what is wrong with that.
func (c *flowCheck) called(t *decl.Task) (*decl.Step, *decl.Workflow) {
	if t.Filled != nil {
		return t.Filled.Step, t.Filled.Flow
	}
	return c.l.target(c.w, t.Target, true)
}

func (c *flowCheck) recursion(t *decl.Task, called *decl.Workflow) bool {
	i := slices.Index(c.l.stack, called)
	if i < 0 {
		return false
	}
	var path []string
	for _, w := range append(slices.Clone(c.l.stack[i:]), called) {
		path = append(path, w.Full())
	}
	c.bag.Errorf(t.Target.Range(), "A workflow cannot call itself, also not through others.", "workflows call one another in a circle: %s", strings.Join(path, " → "))
	return true
}

// sorted gives the tasks so that each comes after what it refers to, in the order of the source otherwise, and reports
// cycles.
func (c *flowCheck) sorted() []*decl.Task {
	var out []*decl.Task
	state := map[string]int{} // 1: on the path, 2: done
	var path []string
	var visit func(t *decl.Task)
	visit = func(t *decl.Task) {
		state[t.Name] = 1
		path = append(path, t.Name)
		for _, d := range t.Dependencies() {
			up := c.w.Task(d.Name)
			if up == nil {
				continue
			}
			switch state[d.Name] {
			case 0:
				visit(up)
			case 1:
				circle := append(slices.Clone(path[slices.Index(path, d.Name):]), d.Name)
				c.bag.Errorf(d.At, "Read it as \"waits for\". Take one of these references away.", "tasks wait for one another in a circle: %s", strings.Join(circle, " → "))
			}
		}
		path = path[:len(path)-1]
		state[t.Name] = 2
		out = append(out, t)
	}
	for _, t := range c.w.Tasks {
		if state[t.Name] == 0 {
			visit(t)
		}
	}
	return out
}

// task checks a task, and works out what it yields.
func (c *flowCheck) task(t *decl.Task) {
	for _, a := range t.After {
		c.after(t, a)
	}
	c.presence(t)
	c.during(t)
	c.onDemand(t)
	c.items(t)
	if t.When != nil {
		c.check(site{task: t, each: decl.EachNames(t.Each), when: true}, t.When, value.Type{Kind: value.Bool})
	}
	to := c.targets[t.Name]
	switch {
	case to.Step != nil:
		c.stepTask(t, to.Step)
	case to.Flow != nil:
		c.flowTask(t, to.Flow)
	default: // its expressions are looked at all the same
		each := decl.EachNames(t.Each)
		for _, p := range t.Roles { // it would have been a workflow
			each = append(each, p.Outer.Name)
		}
		for _, p := range t.With {
			c.check(site{task: t, each: each, host: t.On != nil, lost: true}, p.Value, value.Type{})
		}
	}
}

func (c *flowCheck) after(t *decl.Task, a decl.After) {
	up := c.w.Task(a.Name)
	switch {
	case up == nil:
		c.bag.Errorf(a.At, diag.Suggest(a.Name, c.w.TaskNames()), "no task is called %q", a.Name)
	case up.OnDemand:
		c.bag.Errorf(a.At, "Leave it out: nobody knows when that will be.", "task %q runs when somebody asks for it", a.Name)
	case len(up.During) > 0:
		c.bag.Errorf(a.At, "Leave it out: what it is in place for waits for it, and nobody else can.", "task %q is in place only while others run", a.Name)
	case c.failed[a.Name] || c.targets[a.Name].Flow != nil:
	case up.For != nil && a.All && a.Share != model.Every:
		c.bag.Errorf(a.At, fmt.Sprintf("Write all.%s, or task.%s for the same node's.", a.Name, a.Name), "task %q has an instance for each item, of which each counts", a.Name)
	case a.All && len(up.Each) == 0:
		c.bag.Errorf(a.At, fmt.Sprintf("Write task.%s.", a.Name), "task %q has a single instance, not one for each node", a.Name)
	case !a.All:
		c.meets(site{task: t, each: decl.EachNames(t.Each)}, a.At, a.Name, decl.EachNames(up.Each))
	}
}

// meets reports a reference to the same node's instance of a task that is not on all nodes of the one that refers.
func (c *flowCheck) meets(from site, at hcl.Range, name string, upEach []string) bool {
	who, each := from.who(), from.each
	switch {
	case len(upEach) == 0 || from.task != nil && from.task.Lost:
		return true
	case len(each) == 0:
		c.bag.Errorf(at, fmt.Sprintf("Write all.%s: the map from node name to its outputs.", name), "task %q has an instance for each node, and %s has no node", name, who)
	case !decl.Within(each, upEach):
		c.bag.Errorf(at, fmt.Sprintf("Place both on the same roles, or write all.%s.", name), "the nodes of %s and of task %q do not meet: %s against %s", who, name, decl.RoleList(each), decl.RoleList(upEach))
	default:
		return true
	}
	return false
}

func (c *flowCheck) stepTask(t *decl.Task, s *decl.Step) {
	script := s.Apply.Script != nil && s.Scope == model.Cluster
	if len(t.Roles) > 0 {
		c.bag.Errorf(t.Attrs["roles"], "Only a workflow has roles. Leave it out, or write each = role.NAME.", "%s is a step and has no roles", s.Name)
	}
	if s.Scope == model.Node && len(t.Each) == 0 && t.Attrs["each"] == (hcl.Range{}) {
		c.bag.Errorf(t.Whole, "Write each = role.NAME: one instance for each node of the role.", "task %q runs a node-scope step and does not say on which nodes", t.Name)
	}
	if script && t.On == nil {
		c.bag.Errorf(t.Whole, "Write on = role.NAME: the script runs on one of its nodes.", "task %q runs a cluster-scope script and does not say on which nodes", t.Name)
	}
	if t.On != nil && s.Scope != model.Cluster {
		c.bag.Errorf(t.On.At, "Leave it out: it is for cluster-scope steps.", "%s is a %s-scope step and takes no on", s.Name, decl.ScopeName(s.Scope))
	}
	c.stepInputs(t, s, script)
}

func (c *flowCheck) stepInputs(t *decl.Task, s *decl.Step, script bool) {
	at := site{task: t, each: decl.EachNames(t.Each), scope: s.Scope, host: t.On != nil && script, step: true}
	shapes := map[string]expr.Shape{}
	fields := map[string]model.Field{}
	for _, f := range s.Inputs {
		fields[f.Name] = f
	}
	given := map[string]bool{}
	for _, p := range t.With {
		f, ok := fields[p.Name]
		if !ok {
			c.bag.Errorf(p.At, diag.Suggest(p.Name, decl.SortedKeys(fields)), "step %s has no input %q", s.Name, p.Name)
		}
		given[p.Name] = true
		shapes[p.Name] = c.check(at, p.Value, f.Type)
		c.boots(t, s, p.Name, p.Value)
	}
	c.missing(t, "step "+s.Name, s.Inputs, given)
	out := map[string]result{}
	for _, f := range s.Outputs {
		out[f.Name] = result{shapeOf(f, s, shapes), decl.EachNames(t.Each)}
	}
	c.results[t.Name] = out
}

func (c *flowCheck) missing(t *decl.Task, what string, fields []model.Field, given map[string]bool) {
	if t.Open {
		return
	}
	for _, f := range fields {
		if !given[f.Name] && f.Default == nil && !f.Optional {
			c.bag.Errorf(t.Whole, fmt.Sprintf("Add %s to with: it is %s.", f.Name, expr.Article(f.Type)), "task %q does not give %s its input %q", t.Name, what, f.Name)
		}
	}
}

// shapeOf is the shape of a step's output. One of type any repeats the type of the input of its name, or of the only
// input of type any.
func shapeOf(f model.Field, s *decl.Step, given map[string]expr.Shape) expr.Shape {
	shape := expr.Shape{Type: f.Type, Path: expr.HerePath}
	if f.Type.Kind != value.Any {
		return shape
	}
	var source []string
	for _, in := range s.Inputs {
		if in.Type.Kind == value.Any {
			source = append(source, in.Name)
		}
		if in.Name == f.Name && in.Type.Kind == value.Any {
			return given[in.Name]
		}
	}
	if len(source) == 1 {
		return given[source[0]]
	}
	return shape
}

func (c *flowCheck) flowTask(t *decl.Task, called *decl.Workflow) {
	if at, ok := t.Attrs["for"]; ok {
		c.bag.Errorf(at, "Write it on the tasks inside that workflow.", "%s is a workflow and takes no for", called.Full())
	}
	for _, word := range []string{"each", "on"} {
		if at, ok := t.Attrs[word]; ok {
			c.bag.Errorf(at, fmt.Sprintf("Write roles = { %s = role.NAME } instead.", strings.Join(called.RoleNames(), " = role.…, ")), "%s is a workflow and takes no %s", called.Full(), word)
		}
	}
	mapped := map[string]string{}
	for _, p := range t.Roles {
		now := called.RoleOf(p.Inner.Name)
		switch _, twice := mapped[now]; {
		case !slices.Contains(called.RoleNames(), now):
			c.bag.Errorf(p.Inner.At, diag.Suggest(p.Inner.Name, called.RoleNames()), "workflow %s has no role %q", called.Full(), p.Inner.Name)
		case twice:
			c.bag.Errorf(p.Inner.At, "Say once who plays it.", "role %q of workflow %s is given twice", now, called.Full())
		case now != p.Inner.Name:
			c.bag.Warnf(p.Inner.At, fmt.Sprintf("Write %s = ….", now), "role %q of workflow %s is called %q now", p.Inner.Name, called.Full(), now)
		}
		mapped[now] = p.Outer.Name
	}
	for _, r := range called.Roles {
		if _, ok := mapped[r.Name]; !ok && len(t.Roles) == 0 && t.Attrs["roles"] == (hcl.Range{}) || !ok && len(t.Roles) > 0 {
			c.bag.Errorf(t.Whole, fmt.Sprintf("Write roles = { %s = role.NAME }.", r.Name), "task %q does not say which nodes play the role %q of workflow %s", t.Name, r.Name, called.Full())
		}
	}
	given := map[string]bool{}
	for _, p := range t.With {
		in := called.Input(p.Name)
		var want value.Type
		if in == nil {
			c.bag.Errorf(p.At, diag.Suggest(p.Name, called.InputNames()), "workflow %s has no input %q", called.Full(), p.Name)
		} else {
			want = in.Type
		}
		given[p.Name] = true
		c.check(site{task: t, step: true, each: in.Outer(mapped)}, p.Value, want)
	}
	var fields []model.Field
	for _, in := range called.Inputs {
		fields = append(fields, in.Field)
	}
	c.missing(t, "workflow "+called.Full(), fields, given)
	out := map[string]result{}
	for name, r := range c.l.workflow(called).outputs {
		var each []string
		for _, inner := range r.each {
			if outer, ok := mapped[inner]; ok && !slices.Contains(each, outer) {
				each = append(each, outer)
			}
		}
		out[name] = result{r.shape, each}
	}
	c.results[t.Name] = out
}

func (c *flowCheck) outputs() *signature {
	sig := &signature{outputs: map[string]result{}}
	for _, o := range c.w.Outputs {
		each := decl.EachNames(o.Each)
		s := c.check(site{output: o.Name, each: each}, o.Value, value.Type{})
		sig.outputs[o.Name] = result{s, each}
	}
	return sig
}

func (c *flowCheck) rollouts() {
	in, joined := map[string]string{}, c.joined()
	for _, o := range c.w.Rollouts {
		c.standstill(o, joined)
		var first *decl.Task
		for _, n := range o.Tasks {
			t := c.w.Task(n.Name)
			if t == nil {
				c.bag.Errorf(n.At, diag.Suggest(n.Name, c.w.TaskNames()), "no task is called %q", n.Name)
				continue
			}
			if other, ok := in[n.Name]; ok {
				c.bag.Errorf(n.At, "A task takes places of one rollout only: keep it in one.", "task %q stands in rollout %q already", n.Name, other)
			}
			in[n.Name] = o.Name
			if t.OnDemand {
				c.bag.Errorf(n.At, "Leave it out.", "task %q runs when somebody asks for it, and takes no place of a rollout", n.Name)
			}
			if c.failed[n.Name] || c.targets[n.Name].Flow != nil {
				if c.targets[n.Name].Flow != nil {
					c.bag.Errorf(n.At, "Put the rollout into that workflow, around its own tasks.", "task %q calls a workflow; a rollout is over tasks that run steps", n.Name)
				}
				continue
			}
			switch {
			case len(t.Each) == 0:
				c.bag.Errorf(n.At, "Leave it out: a rollout limits how many nodes change at once.", "task %q has a single instance, not one for each node", n.Name)
			case first == nil:
				first = t
			case !decl.Within(decl.EachNames(t.Each), decl.EachNames(first.Each)) || !decl.Within(decl.EachNames(first.Each), decl.EachNames(t.Each)):
				c.bag.Errorf(n.At, "Make a rollout for each.", "rollout %q is over tasks of different nodes: %q on %s, %q on %s", o.Name, first.Name, decl.RoleList(decl.EachNames(first.Each)), t.Name, decl.RoleList(decl.EachNames(t.Each)))
			}
		}
		if o.Spread != nil && first != nil && read.AboutNode(c.bag, o.Spread) {
			c.check(site{task: first, each: decl.EachNames(first.Each), when: true}, o.Spread, value.Type{})
		}
	}
}

// standstill reports a rollout that could wait for itself: a task in it that waits, perhaps through others, for every
// instance of one in it, while instances of that one wait for their turn.
func (c *flowCheck) standstill(o decl.Rollout, joined map[string][]string) {
	in := map[string]bool{}
	for _, t := range c.w.Tasks {
		in[t.Name] = slices.Contains(joined[t.Name], o.Name)
	}
	visited := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		t := c.w.Task(name)
		if t == nil || visited[name] {
			return
		}
		visited[name] = true
		for _, d := range t.Dependencies() {
			if d.All && in[d.Name] {
				c.bag.Errorf(d.At, fmt.Sprintf("Nodes take turns in the rollout, so not all of them can be done. Wait for task.%s, or take %q out of the rollout.", d.Name, d.Name),
					"rollout %q waits for itself: task %q needs %q of every node", o.Name, name, d.Name)
				continue
			}
			visit(d.Name)
		}
	}
	for _, t := range c.w.Tasks {
		if in[t.Name] {
			visit(t.Name)
		}
	}
}
