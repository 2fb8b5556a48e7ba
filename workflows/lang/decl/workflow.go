package decl

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
)

func (d *decoder) workflow(b *hclsyntax.Block, seen map[string]hcl.Range) {
	r := (&reader{Bag: d.bag}).Inner(b)
	r.Expect(form{
		Attrs:  []string{"doc", "was"},
		Blocks: map[string]int{"role": 1, "input": 1, "output": 1, "task": 1, "slot": 1, "rollout": 1, "check": 1},
	})
	n, ok := r.Word(b)
	if !ok || !read.Unique(d.bag, "steps or workflows", seen, n) {
		return
	}
	w := &Workflow{Name: n.Name, Doc: r.Text("doc"), Pack: d.pack, At: n.At}
	d.claims = append(d.claims, claim{n.Name, d.was(r)})
	d.pack.WorkflowDecls[n.Name] = w
	d.pack.Workflows = append(d.pack.Workflows, w)
	names := map[string]hcl.Range{}
	for _, b := range r.Blocks("role", 1) {
		d.role(r.Inner(b), b, w, names)
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Blocks("input", 1) {
		inner := r.Inner(b)
		if f, at, ok := d.input(inner, b, "each"); ok && read.Unique(d.bag, "inputs", names, named{Name: f.Name, At: at}) { // also one without a type
			w.Inputs = append(w.Inputs, Input{f, at, readRoles(inner, "each", w)})
		}
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Body.Blocks {
		if len(b.Labels) == 1 && (b.Type == "task" || b.Type == "slot") {
			d.task(r.Inner(b), b, w, names)
		}
	}
	w.guard()
	names = map[string]hcl.Range{}
	for _, b := range r.Blocks("output", 1) {
		inner := r.Inner(b)
		inner.Expect(form{Attrs: []string{"value", "each", "doc"}})
		o := Output{Value: inner.Need("value", "Write value = task.NAME.OUTPUT, for example."), Each: readRoles(inner, "each", w)}
		inner.Text("doc")
		if o.Named, ok = inner.Word(b); ok && read.Unique(d.bag, "outputs", names, o.Named) && o.Value != nil {
			w.Outputs = append(w.Outputs, o)
		}
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Blocks("rollout", 1) {
		d.rollout(r.Inner(b), b, w, names)
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Blocks("check", 1) {
		d.check(r.Inner(b), b, w, names)
	}
	w.renames(d)
}

func (d *decoder) role(r *reader, b *hclsyntax.Block, w *Workflow, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"min", "max", "memory", "tolerate", "doc", "was"}})
	r.Text("doc")
	n, ok := r.Word(b)
	role := Role{Role: model.Role{Name: n.Name, Min: int(r.Whole("min", 0, 0)), Max: int(r.Whole("max", 1, 0)), Memory: r.Whole("memory", 1, 0), Tolerate: r.Count("tolerate")}, At: n.At, Former: d.was(r)}
	if role.Max > 0 && role.Max < role.Min {
		d.bag.Errorf(r.Attr("max").Range(), "Raise max or lower min.", "max is less than min")
	}
	if ok && read.Unique(d.bag, "roles", seen, n) {
		w.Roles = append(w.Roles, role)
	}
}

// readRoles reads each = role.x or each = [role.x, role.y]; nil if the attribute does not stand there.
func readRoles(r *reader, name string, w *Workflow) []named {
	e := r.Attr(name)
	if e == nil {
		return nil
	}
	out := []named{}
	for _, x := range read.List(e) {
		if n, ok := readRole(r, x, w); ok {
			if slices.ContainsFunc(out, func(o named) bool { return o.Name == n.Name }) {
				r.Bag.Errorf(n.At, "Remove one of them.", "role %q stands twice", n.Name)
				continue
			}
			out = append(out, n)
		}
	}
	if len(read.List(e)) == 0 {
		r.Bag.Errorf(e.Range(), "Write role.NAME, or leave it out.", "%s names no role", name)
	}
	return out
}

func readRole(r *reader, e hclsyntax.Expression, w *Workflow) (named, bool) {
	n, ok := r.Reference(e, "role")
	if ok && !slices.Contains(w.RoleNames(), n.Name) {
		r.Bag.Errorf(n.At, diag.Suggest(n.Name, w.RoleNames()), "no role is called %q", n.Name)
		return n, false
	}
	return n, ok
}

func (d *decoder) task(r *reader, b *hclsyntax.Block, w *Workflow, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"step", "each", "on", "with", "after", "when", "roles", "except_during", "during", "on_demand", "for", "was"}})
	t := &Task{Whole: r.At, Slot: b.Type == "slot", Attrs: map[string]hcl.Range{}}
	for name, a := range r.Body.Attributes {
		t.Attrs[name] = a.NameRange
	}
	var ok bool
	if t.Named, ok = r.Word(b); !ok || !read.Unique(d.bag, "tasks", seen, t.Named) {
		return
	}
	t.Target = r.Need("step", "Write step = NAME, or step = pack.NAME: a step or a workflow.")
	t.Each = readRoles(r, "each", w)
	t.Lost = r.Attr("each") != nil && len(t.Each) == 0
	if e := r.Attr("on"); e != nil {
		n, ok := readRole(r, e, w)
		if !ok { // reported; the task counts as one that has it
			n.At = e.Range()
		}
		t.On = &n
	}
	t.With = r.Pairs("with")
	_, written := r.Attr("with").(*hclsyntax.ObjectConsExpr)
	t.Open = r.Attr("with") != nil && !written
	t.When, t.For = r.Attr("when"), r.Attr("for")
	if e := r.Attr("after"); e != nil {
		for _, x := range read.List(e) {
			d.after(x, t)
		}
	}
	t.Except = d.others(r, t, "except_during", "makes way for itself")
	t.During = d.others(r, t, "during", "is in place only while it runs itself")
	t.OnDemand = r.Truth("on_demand")
	t.Was = d.was(r)
	for _, p := range r.Pairs("roles") {
		if outer, ok := readRole(r, p.Value, w); ok {
			t.Roles = append(t.Roles, RolePair{p.Named, outer})
		}
	}
	w.Tasks = append(w.Tasks, t)
}

func (d *decoder) after(e hclsyntax.Expression, t *Task) {
	tr, diags := hcl.AbsTraversalForExpr(e)
	path := expr.StepNames(tr, 3)
	switch {
	case diags.HasErrors() || len(path) != 2 || len(tr) != 2:
	case path[0] == "task":
		t.After = append(t.After, After{Named: named{Name: path[1], At: e.Range()}})
		return
	default:
		if share, ok := shares[path[0]]; ok {
			t.After = append(t.After, After{named{Name: path[1], At: e.Range()}, true, share})
			return
		}
	}
	d.bag.Errorf(e.Range(), "Write after = [task.NAME], or all.NAME to wait for every node, most.NAME for more than half, any.NAME for one.", "after names no task")
}

func (d *decoder) rollout(r *reader, b *hclsyntax.Block, w *Workflow, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"tasks", "canaries", "max_in_flight", "stop_after", "settle", "spread", "founding"}})
	n, ok := r.Word(b)
	o := Rollout{Named: n, Model: r.Rollout(n.Name), Spread: r.Attr("spread")}
	if e := r.Need("tasks", "Write tasks = [task.NAME]."); e != nil {
		o.Tasks = r.References(e, "task")
		if len(read.List(e)) == 0 {
			d.bag.Errorf(e.Range(), "Name at least one task.", "%s has no tasks", r.What)
		}
	}
	if ok && read.Unique(d.bag, "rollouts", seen, n) {
		w.Rollouts = append(w.Rollouts, o)
	}
}

// others reads the tasks that an attribute about a task's presence names.
func (d *decoder) others(r *reader, t *Task, attr, itself string) []named {
	e := r.Attr(attr)
	if e == nil {
		return nil
	}
	var out []named
	for _, x := range read.List(e) {
		n, ok := r.Reference(x, "task")
		switch {
		case !ok:
		case n.Name == t.Name:
			d.bag.Errorf(n.At, "Leave it out.", "task %q %s", t.Name, itself)
		case slices.ContainsFunc(out, func(o named) bool { return o.Name == n.Name }):
			d.bag.Errorf(n.At, "Remove one of them.", "task %q stands twice", n.Name)
		default:
			out = append(out, n)
		}
	}
	if len(read.List(e)) == 0 {
		d.bag.Errorf(e.Range(), fmt.Sprintf("Write %s = [task.NAME], or leave it out.", attr), "%s names no task", attr)
	}
	return out
}

// guard lets every task know what is in place only while it runs.
func (w *Workflow) guard() {
	for _, t := range w.Tasks {
		for _, n := range t.During {
			if up := w.Task(n.Name); up != nil {
				up.Guards = append(up.Guards, named{Name: t.Name, At: n.At})
			}
		}
	}
}

// Check is a condition on the inputs and roles of a workflow, without which no cluster of it is planned.
type Check struct {
	read.Named
	That    hclsyntax.Expression
	Message hclsyntax.Expression // says what to change
}

func (d *decoder) check(r *reader, b *hclsyntax.Block, w *Workflow, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"that", "message"}})
	n, ok := r.Word(b)
	c := Check{
		Named: n, That: r.Need("that", "Write that = CONDITION over input.… and role.…."),
		Message: r.Need("message", `Write message = "…": what is wrong, and what to change.`),
	}
	if ok && read.Unique(d.bag, "checks", seen, n) && c.That != nil && c.Message != nil {
		w.Checks = append(w.Checks, c)
	}
}
