package lang

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// site is where an expression of a workflow stands.
type site struct {
	task   *decl.Task // nil for an output
	output string
	// condition is the name of a check, which has neither task nor output.
	condition string
	each      []string // roles of the node it is about; empty where there is no node
	scope     model.StepScope
	step      bool // feeds an input of a step or a called workflow: paths must not cross
	host      bool // a node executes, and host.… may be asked
	when      bool // decides whether instances exist: inputs and facts only
	items     bool // says which items there are: inputs only
	lost      bool // what it calls has errors, so that nobody knows what it takes
}

func (s site) who() string {
	if s.condition != "" {
		return fmt.Sprintf("check %q", s.condition)
	}
	if s.task == nil {
		return fmt.Sprintf("output %q", s.output)
	}
	return fmt.Sprintf("task %q", s.task.Name)
}

var roots = []string{"task", "all", "host", "node", "role", "input", "item"}

// check checks an expression where it stands.
func (c *flowCheck) check(at site, e hclsyntax.Expression, want value.Type) expr.Shape {
	s := expr.Check(expr.Env{Bag: c.bag, Resolve: func(t hcl.Traversal) (expr.Shape, int) { return c.resolve(at, t) }, Secrets: at.task == nil || at.lost}, e, want)
	flows := s.Flows()
	switch {
	case !at.step || flows&expr.Paths == 0:
	case flows&expr.AwayPath != 0:
		c.bag.Errorf(e.Range(), "A path is a file on one node. Pass its content on, or use the same node's with task.NAME.", "a path would cross nodes: %s takes one of other nodes", at.who())
	case flows&expr.HerePath != 0 && at.task != nil && len(at.each) == 0 && c.targets[at.task.Name].Flow != nil:
		c.bag.Errorf(e.Range(), "A path is a file on one node. Pass its content on.", "a path would cross nodes: %s calls a workflow", at.who())
	case flows&expr.HerePath != 0 && at.scope != model.Node:
		c.bag.Errorf(e.Range(), "The step does not run on that node. Write host.NAME for the node that executes, or pass the content on.", "a path would cross nodes: the step of %s is %s-scope", at.who(), decl.ScopeName(at.scope))
	}
	return s
}

// resolve gives the shape of what a traversal begins with.
func (c *flowCheck) resolve(at site, t hcl.Traversal) (expr.Shape, int) {
	path := expr.StepNames(t, 3)
	fail := func(advice, summary string, args ...any) (expr.Shape, int) {
		c.bag.Errorf(t.SourceRange(), advice, summary, args...)
		return expr.Shape{}, len(path)
	}
	root := path[0]
	if len(path) == 1 {
		switch root {
		case "task", "all", "host", "role", "input", "node", "item":
			return fail(fmt.Sprintf("Write %s.NAME.", root), "%q alone stands for nothing", root)
		}
	}
	if at.items && root != "input" {
		return fail("Use input.… only: which items there are is decided before machines are chosen.", "for looks at inputs and nothing else")
	}
	if at.when && (root == "task" || root == "all" || root == "host") {
		if at.condition != "" {
			return fail("Use input.… and role.… only: it is decided before anything runs.", "a check cannot look at outputs of tasks")
		}
		return fail("Use input.… and node.… only: what exists is decided before anything runs.", "when cannot look at outputs of tasks")
	}
	switch root {
	case "input":
		in := c.w.Input(path[1])
		if in == nil {
			return fail(diag.Suggest(path[1], c.w.InputNames()), "no input is called %q", path[1])
		}
		c.used[in.Name] = true
		return c.resolveInput(at, in, t), 2
	case "node":
		if len(at.each) == 0 && !(at.task != nil && at.task.Lost) {
			return fail("Write each = role.NAME to have one instance for each node, or look at role.NAME.", "%s has no node", at.who())
		}
		a, ok := decl.NodeType().Attrs[path[1]]
		if !ok {
			return fail(diag.Suggest(path[1], decl.SortedKeys(decl.NodeType().Attrs)), "a node has no attribute %q", path[1])
		}
		return expr.Shape{Type: a.Type}, 2
	case "role":
		for _, r := range c.w.Roles {
			if r.Name == path[1] {
				return expr.Shape{Type: value.Of(value.Map, decl.NodeType())}, 2
			}
		}
		return fail(diag.Suggest(path[1], c.w.RoleNames()), "no role is called %q", path[1])
	case "item":
		return c.resolveItem(at, path, fail)
	case "task", "all", "host":
		return c.resolveTask(at, t, path, fail)
	}
	if root == "most" || root == "any" {
		return fail("Write it in after; outputs of all instances are read with all.NAME.", "%q stands for no values", root)
	}
	return fail(diag.Suggest(root, roots)+" Text stands in quotes.", "nothing is called %q", root)
}

// resolveInput gives the shape of an input. One that is given node by node can be asked for on these nodes only.
func (c *flowCheck) resolveInput(at site, in *decl.Input, t hcl.Traversal) expr.Shape {
	each := decl.EachNames(in.Each)
	switch {
	case len(each) == 0 || at.task != nil && at.task.Lost:
		return expr.Shape{Type: in.Type}
	case len(at.each) == 0:
		c.bag.Errorf(t.SourceRange(), fmt.Sprintf("Write each = %s to have one instance for each node.", decl.RoleList(each)), "input %q is given for each node, and %s has no node", in.Name, at.who())
	case !decl.Within(at.each, each):
		c.bag.Errorf(t.SourceRange(), "Place both on the same roles.", "the nodes of %s and of input %q do not meet: %s against %s", at.who(), in.Name, decl.RoleList(at.each), decl.RoleList(each))
	}
	return expr.Shape{Type: in.Type, Path: expr.HerePath}
}

func (c *flowCheck) resolveTask(at site, t hcl.Traversal, path []string, fail func(string, string, ...any) (expr.Shape, int)) (expr.Shape, int) {
	root, name := path[0], path[1]
	if c.w.Task(name) == nil {
		return fail(diag.Suggest(name, c.w.TaskNames()), "no task is called %q", name)
	}
	if c.failed[name] {
		return expr.Shape{}, len(path)
	}
	if c.w.Task(name).OnDemand {
		return fail("Leave on_demand out, or put both into a workflow that is called on demand.", "task %q runs when somebody asks for it, and %s cannot wait for that", name, at.who())
	}
	if why := c.barred(at, root, name); why != "" {
		return fail(why, "task %q is in place only while others run, and %s cannot look at its outputs like this", name, at.who())
	}
	outputs, ok := c.results[name]
	if !ok { // part of a circle, which is reported
		return expr.Shape{}, len(path)
	}
	if root == "host" {
		if !at.host {
			return fail("Only inputs of a cluster-scope script with on = role.NAME can look at the node that executes.", "no node executes %s", at.who())
		}
		at.each = []string{at.task.On.Name}
	}
	if root == "all" {
		return c.gather(name, outputs, fail)
	}
	if c.w.Task(name).For != nil {
		return c.resolveItems(at, t, path, outputs)
	}
	if len(path) < 3 {
		if !c.meetsAll(at, t, name, outputs) {
			return expr.Shape{}, 2
		}
		return whole(outputs, root), 2
	}
	out, ok := outputs[path[2]]
	if !ok {
		return fail(diag.Suggest(path[2], decl.SortedKeys(outputs)), "task %q has no output %q", name, path[2])
	}
	if root == "host" && len(out.each) == 0 {
		return fail(fmt.Sprintf("Write task.%s.%s.", name, path[2]), "task %q has a single instance, not one for each node", name)
	}
	if !c.meets(at, t.SourceRange(), name, out.each) {
		return expr.Shape{}, 3
	}
	return seen(out, root), 3
}

func (c *flowCheck) meetsAll(at site, t hcl.Traversal, name string, outputs map[string]result) bool {
	for _, o := range decl.SortedKeys(outputs) {
		if !c.meets(at, t.SourceRange(), name, outputs[o].each) {
			return false
		}
	}
	return true
}

// seen is an output as it looks through task., all. or host.
func seen(r result, root string) expr.Shape {
	s := r.shape
	from := map[string]expr.Flow{"task": expr.HerePath, "all": expr.AwayPath, "host": expr.HostPath}[root]
	if len(r.each) == 0 { // of a single instance: whatever path is in it is on some node or other
		from = expr.AwayPath
	}
	move := func(f expr.Flow) expr.Flow {
		if f&expr.Paths == 0 || f&expr.AwayPath != 0 { // away stays away
			return f
		}
		return f&^expr.Paths | from
	}
	s.Path, s.Made = move(s.Path), move(s.Made)
	return s
}

// whole is the object of all outputs.
func whole(outputs map[string]result, root string) expr.Shape {
	s := expr.Shape{Type: value.Type{Kind: value.Object, Attrs: map[string]value.Attr{}}}
	for name, r := range outputs {
		one := seen(r, root)
		s.Type.Attrs[name] = value.Attr{Type: one.Type}
		s.Path |= one.Path
		s.Made |= one.Made
	}
	return s
}

func (c *flowCheck) gather(name string, outputs map[string]result, fail func(string, string, ...any) (expr.Shape, int)) (expr.Shape, int) {
	each := map[string]result{}
	for o, r := range outputs {
		if len(r.each) > 0 {
			each[o] = r
		}
	}
	t := c.w.Task(name)
	if len(each) == 0 && len(t.Each) == 0 {
		return fail(fmt.Sprintf("Write task.%s.", name), "task %q has a single instance, not one for each node", name)
	}
	s := whole(each, "all")
	if t.For != nil {
		s.Type = value.Of(value.Map, s.Type)
	}
	s.Type = value.Of(value.Map, s.Type)
	return s, 2
}
