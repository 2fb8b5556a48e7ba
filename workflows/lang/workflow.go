package lang

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func compare(a, b string) int { return cmp.Compare(a, b) }

// What package read takes bodies apart into.
type (
	reader = read.Reader
	form   = read.Form
	named  = read.Named
	pair   = read.Pair
)

// workflowDecl is a workflow as it stands in a pack.
type workflowDecl struct {
	name     string
	doc      string
	pack     *Pack
	at       hcl.Range
	roles    []roleDecl
	inputs   []inputDecl
	tasks    []*taskDecl
	outputs  []outputDecl
	rollouts []rolloutDecl
	checks   []checkDecl
}

type roleDecl struct {
	model.Role
	at hcl.Range
}

type inputDecl struct {
	model.Field
	at   hcl.Range
	each []named // roles: the nodes that it is given for, one by one; nil for one that is the same for all
}

type outputDecl struct {
	named
	each  []named // nil for a single one
	value hclsyntax.Expression
}

type taskDecl struct {
	named
	target hclsyntax.Expression
	slot   bool
	filled *callee // what stands in the slot in place of target
	each   []named
	on     *named
	with   []pair
	open   bool // with could not be read
	lost   bool // each could not be read: nothing about its nodes is reported again
	when   hclsyntax.Expression
	after  []afterDecl
	except []named // tasks that it makes way for
	roles  []rolePair
	whole  hcl.Range // of the block's header
	attrs  map[string]hcl.Range
}

type afterDecl struct {
	named
	all   bool
	share model.Share // with all
}

var shares = map[string]model.Share{"all": model.Every, "most": model.Most, "any": model.Any}

type rolePair struct{ inner, outer named }

type rolloutDecl struct {
	named
	tasks  []named
	spread hclsyntax.Expression // nil for none
	model  model.Rollout
}

func (w *workflowDecl) full() string { return w.pack.Name + "." + w.name }

func (w *workflowDecl) task(name string) *taskDecl {
	for _, t := range w.tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

func (w *workflowDecl) taskNames() []string {
	var out []string
	for _, t := range w.tasks {
		out = append(out, t.Name)
	}
	return out
}

func (w *workflowDecl) input(name string) *inputDecl {
	for i := range w.inputs {
		if w.inputs[i].Name == name {
			return &w.inputs[i]
		}
	}
	return nil
}

func (w *workflowDecl) inputNames() []string {
	var out []string
	for _, in := range w.inputs {
		out = append(out, in.Name)
	}
	return out
}

func (w *workflowDecl) roleNames() []string {
	var out []string
	for _, r := range w.roles {
		out = append(out, r.Name)
	}
	return out
}

func (d *decoder) workflow(b *hclsyntax.Block, seen map[string]hcl.Range) {
	r := (&reader{Bag: d.bag}).Inner(b)
	r.Expect(form{
		Attrs:  []string{"doc"},
		Blocks: map[string]int{"role": 1, "input": 1, "output": 1, "task": 1, "slot": 1, "rollout": 1, "check": 1},
		Later:  []string{"was"},
	})
	n, ok := r.Word(b)
	if !ok || !read.Unique(d.bag, "steps or workflows", seen, n) {
		return
	}
	w := &workflowDecl{name: n.Name, doc: r.Text("doc"), pack: d.pack, at: n.At}
	d.pack.workflows[n.Name] = w
	d.pack.order = append(d.pack.order, w)
	names := map[string]hcl.Range{}
	for _, b := range r.Blocks("role", 1) {
		d.role(r.Inner(b), b, w, names)
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Blocks("input", 1) {
		inner := r.Inner(b)
		if f, at, ok := d.input(inner, b, "each"); ok && read.Unique(d.bag, "inputs", names, named{Name: f.Name, At: at}) { // also one without a type
			w.inputs = append(w.inputs, inputDecl{f, at, readRoles(inner, "each", w)})
		}
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Body.Blocks {
		if len(b.Labels) == 1 && (b.Type == "task" || b.Type == "slot") {
			d.task(r.Inner(b), b, w, names)
		}
	}
	names = map[string]hcl.Range{}
	for _, b := range r.Blocks("output", 1) {
		inner := r.Inner(b)
		inner.Expect(form{Attrs: []string{"value", "each", "doc"}})
		o := outputDecl{value: inner.Need("value", "Write value = task.NAME.OUTPUT, for example."), each: readRoles(inner, "each", w)}
		inner.Text("doc")
		if o.named, ok = inner.Word(b); ok && read.Unique(d.bag, "outputs", names, o.named) && o.value != nil {
			w.outputs = append(w.outputs, o)
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
}

func (d *decoder) role(r *reader, b *hclsyntax.Block, w *workflowDecl, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"min", "max", "memory", "doc"}, Later: []string{"tolerate", "was"}})
	r.Text("doc")
	n, ok := r.Word(b)
	role := roleDecl{Role: model.Role{Name: n.Name, Min: int(r.Whole("min", 0, 0)), Max: int(r.Whole("max", 1, 0)), Memory: r.Whole("memory", 1, 0)}, at: n.At}
	if role.Max > 0 && role.Max < role.Min {
		d.bag.Errorf(r.Attr("max").Range(), "Raise max or lower min.", "max is less than min")
	}
	if ok && read.Unique(d.bag, "roles", seen, n) {
		w.roles = append(w.roles, role)
	}
}

// roles reads each = role.x or each = [role.x, role.y]; nil if the attribute does not stand there.
func readRoles(r *reader, name string, w *workflowDecl) []named {
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

func readRole(r *reader, e hclsyntax.Expression, w *workflowDecl) (named, bool) {
	n, ok := r.Reference(e, "role")
	if ok && !slices.Contains(w.roleNames(), n.Name) {
		r.Bag.Errorf(n.At, diag.Suggest(n.Name, w.roleNames()), "no role is called %q", n.Name)
		return n, false
	}
	return n, ok
}

func (d *decoder) task(r *reader, b *hclsyntax.Block, w *workflowDecl, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"step", "each", "on", "with", "after", "when", "roles", "except_during"}, Later: []string{"for", "during", "was"}})
	t := &taskDecl{whole: r.At, slot: b.Type == "slot", attrs: map[string]hcl.Range{}}
	for name, a := range r.Body.Attributes {
		t.attrs[name] = a.NameRange
	}
	var ok bool
	if t.named, ok = r.Word(b); !ok || !read.Unique(d.bag, "tasks", seen, t.named) {
		return
	}
	t.target = r.Need("step", "Write step = NAME, or step = pack.NAME: a step or a workflow.")
	t.each = readRoles(r, "each", w)
	t.lost = r.Attr("each") != nil && len(t.each) == 0
	if e := r.Attr("on"); e != nil {
		n, ok := readRole(r, e, w)
		if !ok { // reported; the task counts as one that has it
			n.At = e.Range()
		}
		t.on = &n
	}
	t.with = r.Pairs("with")
	_, written := r.Attr("with").(*hclsyntax.ObjectConsExpr)
	t.open = r.Attr("with") != nil && !written
	t.when = r.Attr("when")
	if e := r.Attr("after"); e != nil {
		for _, x := range read.List(e) {
			d.after(x, t)
		}
	}
	d.excepts(r, t)
	for _, p := range r.Pairs("roles") {
		if outer, ok := readRole(r, p.Value, w); ok {
			t.roles = append(t.roles, rolePair{p.Named, outer})
		}
	}
	w.tasks = append(w.tasks, t)
}

func (d *decoder) after(e hclsyntax.Expression, t *taskDecl) {
	tr, diags := hcl.AbsTraversalForExpr(e)
	path := expr.StepNames(tr, 3)
	switch {
	case diags.HasErrors() || len(path) != 2 || len(tr) != 2:
	case path[0] == "task":
		t.after = append(t.after, afterDecl{named: named{Name: path[1], At: e.Range()}})
		return
	default:
		if share, ok := shares[path[0]]; ok {
			t.after = append(t.after, afterDecl{named{Name: path[1], At: e.Range()}, true, share})
			return
		}
	}
	d.bag.Errorf(e.Range(), "Write after = [task.NAME], or all.NAME to wait for every node, most.NAME for more than half, any.NAME for one.", "after names no task")
}

func (d *decoder) rollout(r *reader, b *hclsyntax.Block, w *workflowDecl, seen map[string]hcl.Range) {
	r.Expect(form{Attrs: []string{"tasks", "canaries", "max_in_flight", "stop_after", "settle", "spread", "founding"}})
	n, ok := r.Word(b)
	o := rolloutDecl{named: n, model: r.Rollout(n.Name), spread: r.Attr("spread")}
	if e := r.Need("tasks", "Write tasks = [task.NAME]."); e != nil {
		o.tasks = r.References(e, "task")
		if len(read.List(e)) == 0 {
			d.bag.Errorf(e.Range(), "Name at least one task.", "%s has no tasks", r.What)
		}
	}
	if ok && read.Unique(d.bag, "rollouts", seen, n) {
		w.rollouts = append(w.rollouts, o)
	}
}

// eachNames gives the roles of a list, empty for none.
func eachNames(each []named) []string {
	var out []string
	for _, e := range each {
		out = append(out, e.Name)
	}
	return out
}

func roleList(names []string) string {
	if len(names) == 0 {
		return "no role"
	}
	return "role." + strings.Join(names, ", role.")
}

// within reports whether every role of a is one of b.
func within(a, b []string) bool {
	return !slices.ContainsFunc(a, func(r string) bool { return !slices.Contains(b, r) })
}

// nodeType is the type of `node` and of the elements of `role.R`.
var nodeType = value.Type{Kind: value.Object, Attrs: map[string]value.Attr{
	model.NodeName: {Type: value.Type{Kind: value.String}}, model.NodeAddress: {Type: value.Type{Kind: value.Address}},
	model.NodeIncarnation: {Type: value.Type{Kind: value.String}}, model.NodeBoot: {Type: value.Type{Kind: value.String}},
	model.NodeFacts: {Type: value.Type{}}, model.NodeStorage: {Type: value.Type{Kind: value.String}},
}}

func place(pack *Pack, at hcl.Range) model.Range {
	return model.Range{File: pack.prefix() + at.Filename, Line: at.Start.Line, Col: at.Start.Column}
}
