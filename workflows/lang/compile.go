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
)

// Compile checks packs and cluster file against one another and makes the model. It returns nil if there are errors. The
// model's digest covers packs, cluster file and inputs.
func Compile(src Source) (*model.Model, Diagnostics) {
	l := newLinker(src.Packs)
	l.kept = src.Kept
	ds := l.check()
	for _, name := range decl.SortedKeys(src.Packs) {
		if src.Packs[name].Broken {
			ds = append(ds, Diagnostic{Severity: diag.Error, Summary: fmt.Sprintf("the pack %q has errors", name), Detail: "Correct them first."})
		}
	}
	c := &compiler{src: src, named: map[string][]string{}, steps: map[*model.Step]*model.Step{}, file: src.Cluster, link: newLinker(src.Packs), bag: diag.NewBag(map[string][]byte{src.Cluster.file: src.Cluster.src})}
	c.link.kept = src.Kept
	w := c.workflow()
	if w != nil {
		c.model = &model.Model{Cluster: c.file.Name, Workflow: w.Full(), Storage: c.file.Storage, TrustBoot: c.file.TrustBoot, Trust: model.Claimed, Frozen: src.Frozen, Drift: c.file.Drift}
		c.inputs(w)
		if !ds.HasErrors() && !c.bag.HasErrors() {
			if w = c.fill(w); !c.bag.HasErrors() {
				c.flatten(w)
				c.policies(w)
				c.reboots()
				c.comeOut()
				ds = append(ds, c.scouts()...)
				if c.file.TrustBoot {
					c.bag.Warnf(c.file.reboot, "Leave it out, give the machines a disk, a TPM or a voucher, or see to it that nobody else is on the boot network.", "a boot that the engine ordered keeps its machine's approval: whoever can answer for the machine on the boot network then gets what the machine is trusted with")
				}
			}
		}
		c.nodes(w)
		c.everybody(w)
		slices.SortFunc(c.model.Artifacts, func(a, b model.Artifact) int { return strings.Compare(a.PinName(), b.PinName()) })
	}
	ds = append(ds, c.bag.Done("")...)
	if ds.HasErrors() {
		return nil, ds
	}
	c.model.Digest = c.digest()
	return c.model, ds
}

type compiler struct {
	src      Source
	file     *ClusterFile
	link     *linker
	bag      *diag.Bag
	model    *model.Model
	each     map[string]bool // tasks that have an instance for each node
	places   map[string]place
	nodewise map[string]bool // inputs that the cluster file gives node by node
	top      *frame
	named    map[string][]string         // every task by what it is called, whether it has instances or not, with its former names
	steps    map[*model.Step]*model.Step // with the digests of their artifacts decided
}

// workflow gives the workflow that the cluster file names, and checks its packs.
func (c *compiler) workflow() *decl.Workflow {
	f := c.file
	for _, name := range decl.SortedKeys(f.Packs) {
		at := f.packs[name]
		p := c.src.Packs[name]
		if p == nil {
			c.bag.Errorf(at, "Look whether its source holds a pack of that name.", "the pack %q is not there", name)
			continue
		}
		want, err := semver.NewConstraint(f.Packs[name].Version)
		if f.Packs[name].Version == "" || err != nil {
			continue
		}
		if have, err := semver.NewVersion(p.Version); err != nil || !want.Check(have) {
			c.bag.Errorf(at, "Take another version of it, or change the constraint.", "pack %s %s is there, %s is wanted", name, p.Version, f.Packs[name].Version)
		}
	}
	pack, name, _ := strings.Cut(f.Workflow, ".")
	if _, ok := f.Packs[pack]; !ok {
		c.bag.Errorf(f.flow, fmt.Sprintf("Add %s = { source = … } to packs. %s", pack, diag.Suggest(pack, decl.SortedKeys(f.Packs))), "the cluster names no pack %q", pack)
		return nil
	}
	p := c.src.Packs[pack]
	if p == nil {
		return nil
	}
	to, now := p.Find(name)
	w := to.Flow
	if w != nil && now != name {
		c.bag.Warnf(f.flow, fmt.Sprintf("Write workflow = %s.%s.", pack, now), "%q is called %q now", name, now)
	}
	if w == nil {
		c.bag.Errorf(f.flow, diag.Suggest(name, decl.SortedKeys(p.WorkflowDecls)), "pack %s has no workflow %q", pack, name)
	}
	return w
}

// nodes checks that every role gets as many nodes as it needs.
func (c *compiler) nodes(w *decl.Workflow) {
	least := map[string]model.Role{}
	for _, r := range c.model.Roles {
		least[r.Called] = r
	}
	given := map[string]string{} // names that the cluster file has for roles
	for _, role := range decl.SortedKeys(c.file.Nodes) {
		now := w.RoleOf(role)
		switch _, twice := c.file.Nodes[now]; {
		case !slices.Contains(w.RoleNames(), now):
			c.bag.Errorf(c.file.roles[role], diag.Suggest(role, w.RoleNames()), "workflow %s has no role %q", w.Full(), role)
		case now == role:
			given[now] = role
		case twice || given[now] != "":
			c.bag.Errorf(c.file.roles[role], fmt.Sprintf("Say once which nodes play it, as %s = ….", now), "role %q of workflow %s is called %q now, and is given twice", role, w.Full(), now)
		default:
			given[now] = role
			c.bag.Warnf(c.file.roles[role], fmt.Sprintf("Write %s = ….", now), "role %q of workflow %s is called %q now", role, w.Full(), now)
		}
	}
	for _, decl := range w.Roles {
		r := decl.Role
		if flat, ok := least[r.Name]; ok {
			r = flat
		}
		role := decl.Name
		if given[role] != "" {
			role = given[role]
		}
		s, ok := c.file.Nodes[role]
		n := s.Count
		if s.Predicate == nil {
			n = len(s.Names)
		}
		at := c.file.roles[role]
		if !ok {
			at = c.file.at
		}
		switch {
		case n < r.Min:
			c.bag.Errorf(at, fmt.Sprintf("Give it at least %d.", r.Min), "role %q of workflow %s has too few nodes: %d", decl.Name, w.Full(), n)
		case r.Max > 0 && n > r.Max:
			c.bag.Errorf(at, fmt.Sprintf("Give it at most %d.", r.Max), "role %q of workflow %s has too many nodes: %d", decl.Name, w.Full(), n)
		}
	}
}

// frame is one call of a workflow.
type frame struct {
	c      *compiler
	w      *decl.Workflow
	prefix string            // "etcd." inside the task etcd
	former []string          // what that was before, if calls were renamed
	roles  map[string]string // of the workflow, to those of the top one
	inputs map[string]expr.Source
	items  map[string][]string // keys of the items of each task that has some
	item   *item               // of the task being compiled; nil if it has none
	calls  map[string]*frame
	steps  map[string]*decl.Step
	when   *model.Argument // of the calls around it
	demand string          // the call around it that runs on demand; empty for none
	after  []model.After   // of the calls around it
}

func (c *compiler) flatten(w *decl.Workflow) {
	c.each, c.places = map[string]bool{}, map[string]place{}
	c.top = &frame{c: c, w: w, roles: map[string]string{}, inputs: map[string]expr.Source{}}
	for _, r := range w.Roles {
		flat := r.Role
		flat.Name, flat.Called = model.Stand(c.src.Names.Roles, r.Name), r.Name
		for _, was := range r.Former {
			flat.Was = append(flat.Was, was.Name)
		}
		c.top.roles[r.Name] = flat.Name
		c.model.Roles = append(c.model.Roles, flat)
	}
	for _, in := range w.Inputs {
		c.top.inputs[in.Name] = c.inputOf(&in)
	}
	c.top.tasks()
	model.Guard(c.model.Tasks)
	c.join()
	c.demands()
	for _, o := range w.Outputs {
		x := c.top.compile(o.Value)
		c.model.Outputs = append(c.model.Outputs, model.Output{Argument: x.Argument(o.Name), Each: decl.EachNames(o.Each)})
	}
}

func (f *frame) needs(r model.Role) {
	for i := range f.c.model.Roles {
		top := &f.c.model.Roles[i]
		if top.Name != f.roles[r.Name] {
			continue
		}
		top.Min, top.Memory = max(top.Min, r.Min), max(top.Memory, r.Memory)
		if r.Max > 0 && (top.Max == 0 || r.Max < top.Max) {
			top.Max = r.Max
		}
	}
}

func (f *frame) tasks() {
	f.calls, f.steps, f.items = map[string]*frame{}, map[string]*decl.Step{}, map[string][]string{}
	f.trust(f.w.Pack)
	order := (&flowCheck{w: f.w, bag: diag.NewBag(nil)}).sorted()
	for _, t := range order {
		f.c.named[f.prefix+t.Name] = f.formerly(t, "")
		to := f.c.link.callee(f.w, t)
		if to.Step != nil {
			f.steps[t.Name] = to.Step
			f.each(t, to.Step)
		} else if to.Flow != nil {
			f.call(t, to.Flow)
		}
	}
	f.during()
	f.checks()
	for _, o := range f.w.Rollouts {
		r := o.Model
		r.Called = f.prefix + o.Name
		for _, prefix := range f.former {
			r.Was = append(r.Was, prefix+o.Name)
		}
		r.Name = model.Stand(f.c.src.Names.Rollouts, r.Called)
		for _, n := range o.Tasks {
			r.Tasks = append(r.Tasks, f.named(n.Name)...)
			r.Roles = f.outer(decl.EachNames(f.w.Task(n.Name).Each))
		}
		if o.Spread != nil {
			a := f.compile(o.Spread).Argument("spread")
			r.Spread = &a
		}
		f.c.model.Rollouts = append(f.c.model.Rollouts, r)
	}
}

// trust raises the level that the cluster's nodes need to what a pack needs.
func (f *frame) trust(p *decl.Pack) {
	if !model.Suffices(f.c.model.Trust, p.Trust) {
		f.c.model.Trust = p.Trust
	}
}

// outer gives roles their names in the top workflow.
func (f *frame) outer(roles []string) []string {
	var out []string
	for _, r := range roles {
		if o := f.roles[r]; !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

func (f *frame) task(t *decl.Task, s *decl.Step) {
	if t.Filled != nil {
		f.trust(s.Pack)
	}
	called := f.item.name(f.prefix + t.Name)
	out := model.Task{
		Name: f.stands(called), Called: called, Was: f.was(t), Doc: s.Doc, Step: f.c.pinned(s.Step), Each: f.outer(decl.EachNames(t.Each)), When: f.condition(t), Asked: f.asked(t),
		After: slices.Clone(f.after), Except: f.excepts(t), Range: decl.Place(f.w.Pack, t.At),
	}
	f.c.each[out.Name] = len(out.Each) > 0
	f.c.places[out.Name] = place{f.w.Pack, t.At}
	if t.On != nil {
		out.On = f.roles[t.On.Name]
	}
	for _, p := range t.With {
		out.With = append(out.With, f.compile(p.Value).Argument(p.Name))
	}
	out.After = append(out.After, f.afters(t)...)
	f.c.model.Tasks = append(f.c.model.Tasks, out)
}

func (f *frame) condition(t *decl.Task) *model.Argument {
	if t.When == nil {
		return f.when
	}
	a := f.compile(t.When).Argument("when")
	if f.when != nil {
		a = expr.Both{A: *f.when, B: a}.Argument()
	}
	return &a
}

// afters gives what a task is ordered after; a called workflow stands for all its tasks, on the same node where that has
// one and everywhere otherwise.
func (f *frame) afters(t *decl.Task) []model.After {
	var out []model.After
	mine := f.outer(decl.EachNames(t.Each))
	for _, a := range t.After {
		inner := f.calls[a.Name]
		if inner == nil {
			for _, name := range f.named(a.Name) {
				out = append(out, model.After{Task: name, All: a.All, Share: a.Share})
			}
			continue
		}
		for _, up := range f.c.model.Tasks {
			if strings.HasPrefix(up.Called, inner.prefix) && (up.Asked == "" || up.Asked == f.asked(t)) { // nobody waits for what may be asked for
				together := len(mine) > 0 && decl.Within(mine, up.Each)
				out = append(out, model.After{Task: up.Name, All: len(up.Each) > 0 && (a.All || !together), Share: a.Share})
			}
		}
	}
	return out
}

func (f *frame) call(t *decl.Task, called *decl.Workflow) {
	g := &frame{c: f.c, w: called, prefix: f.prefix + t.Name + ".", former: f.formerly(t, "."), roles: map[string]string{}, inputs: map[string]expr.Source{}}
	g.demand = f.asked(t)
	g.when, g.after = f.condition(t), append(slices.Clone(f.after), f.afters(t)...)
	for i := range g.after { // the call has no node: its tasks wait for every instance
		g.after[i].All = f.c.each[g.after[i].Task]
	}
	for _, p := range t.Roles {
		g.roles[called.RoleOf(p.Inner.Name)] = f.roles[p.Outer.Name]
	}
	given := map[string]hclsyntax.Expression{}
	for _, p := range t.With {
		given[p.Name] = p.Value
	}
	for _, in := range called.Inputs {
		name := fmt.Sprintf("input %s of %s", in.Name, g.prefix+called.Name)
		switch e := given[in.Name]; {
		case e != nil:
			g.inputs[in.Name] = expr.Inline{Expr: f.compile(e), Name: name, Type: in.Type, Default: in.Default}
		case in.Default != nil:
			g.inputs[in.Name] = expr.Fixed{Value: *in.Default}
		default:
			g.inputs[in.Name] = expr.Fixed{Value: value.NullOf(in.Type)}
		}
	}
	f.calls[t.Name] = g
	for _, r := range called.Roles {
		g.needs(r.Role)
	}
	g.tasks()
}

func (f *frame) compile(e hclsyntax.Expression) *expr.Expr { return expr.Compile(e, f.resolve) }

// resolve says what the names of a checked expression stand for.
func (f *frame) resolve(t hcl.Traversal) (expr.Source, int) {
	path := expr.StepNames(t, 3)
	switch path[0] {
	case "input":
		return f.inputs[path[1]], 2
	case "item":
		return expr.Fixed{Value: f.item.attr(path[1])}, 2
	case "node":
		return expr.Reference{Ref: model.Ref{Kind: model.RefNode, Attr: path[1]}}, 2
	case "role":
		return expr.Reference{Ref: model.Ref{Kind: model.RefRole, Name: f.roles[path[1]]}}, 2
	}
	kind := map[string]model.RefKind{"task": model.RefTask, "all": model.RefAll, "host": model.RefHost}[path[0]]
	if g := f.calls[path[1]]; g != nil {
		return g.output(kind, path)
	}
	if keys, ok := f.items[path[1]]; ok {
		return f.gathered(kind, path[1], keys), 2
	}
	if t := f.w.Task(path[1]); kind == model.RefTask && t != nil && len(t.During) > 0 {
		kind = model.RefDuring
	}
	ref := model.Ref{Kind: kind, Name: f.stands(f.prefix + path[1])}
	if kind == model.RefAll || len(path) < 3 {
		return expr.Reference{Ref: ref, Same: f.c.each[ref.Name]}, 2
	}
	ref.Attr = path[2]
	return expr.Reference{Ref: ref, Same: f.c.each[ref.Name]}, 3
}

// output is what a reference to the call from around it stands for.
func (f *frame) output(kind model.RefKind, path []string) (expr.Source, int) {
	each := func(task string) bool { return f.c.each[task] }
	if kind != model.RefAll && len(path) == 3 {
		for _, o := range f.w.Outputs {
			if o.Name == path[2] {
				return f.through(kind, expr.Inline{Expr: f.compile(o.Value), Name: "output " + f.prefix + o.Name}), 3
			}
		}
	}
	group, roles := expr.Group{Members: map[string]expr.Source{}}, []string(nil)
	for _, o := range f.w.Outputs {
		if kind == model.RefAll && len(o.Each) == 0 {
			continue
		}
		group.Names = append(group.Names, o.Name)
		group.Members[o.Name] = expr.Inline{Expr: f.compile(o.Value), Name: "output " + f.prefix + o.Name}
		roles = append(roles, f.outer(decl.EachNames(o.Each))...)
	}
	slices.Sort(group.Names)
	if kind == model.RefAll {
		slices.Sort(roles)
		return expr.Gather{Of: group, Roles: slices.Compact(roles), Each: each}, 2
	}
	return f.through(kind, group), 2
}

func (f *frame) through(kind model.RefKind, s expr.Source) expr.Source {
	if kind == model.RefHost {
		return expr.OnHost{Source: s, Each: func(task string) bool { return f.c.each[task] }}
	}
	return s
}

// digest covers the packs, and everything that the cluster file says.
func (c *compiler) digest() value.Digest {
	h := value.NewHasher()
	h.Text("model/1")
	for _, name := range decl.SortedKeys(c.src.Packs) {
		h.Text(name)
		h.Digest(c.src.Packs[name].Digest())
	}
	f := c.file
	h.Text(f.Name)
	h.Text(f.Workflow)
	h.Text(f.Storage)
	if f.TrustBoot {
		h.Text("trust-boot-network")
	}
	f.hashSlots(h)
	for _, role := range decl.SortedKeys(f.Nodes) {
		h.Text(role)
		s := f.Nodes[role]
		if s.Predicate != nil {
			h.Text(strings.Join(strings.Fields(s.Text), " "))
			continue
		}
		h.Text(fmt.Sprintf("%q", slices.Sorted(slices.Values(s.Names))))
	}
	for _, name := range decl.SortedKeys(c.model.Inputs) {
		h.Text(name)
		h.Digest(c.model.Inputs[name].Digest())
	}
	decl.ArtifactsDigest(h, c.model.Artifacts)
	if d := f.Drift; d != (model.Drift{Every: model.DriftEvery, AtOnce: model.DriftAtOnce}) {
		h.Text(fmt.Sprintf("drift %s %d %v", d.Every, d.AtOnce, d.Waits))
	}
	c.hashPolicies(h)
	if c.model.Frozen != (value.Digest{}) {
		h.Text("frozen")
		h.Digest(c.model.Frozen)
	}
	for i, names := range []map[string]string{c.src.Names.Tasks, c.src.Names.Roles, c.src.Names.Rollouts} {
		for _, called := range decl.SortedKeys(names) {
			h.Text(fmt.Sprintf("name %d %q %q", i, called, names[called]))
		}
	}
	return h.Sum()
}

// pinned gives a step the digests that were decided for its artifacts. Steps of packs are never changed.
func (c *compiler) pinned(s *model.Step) *model.Step {
	if len(s.Artifacts) == 0 {
		return s
	}
	if p := c.steps[s]; p != nil {
		return p
	}
	p := *s
	p.Artifacts = slices.Clone(s.Artifacts)
	for i := range p.Artifacts {
		a := &p.Artifacts[i]
		if pin, ok := c.src.Pins[a.PinName()]; ok && (a.Digest == value.Digest{} || a.Digest == pin.Digest) {
			a.Digest, a.Size = pin.Digest, pin.Size
		}
		if !slices.ContainsFunc(c.model.Artifacts, func(b model.Artifact) bool { return b.PinName() == a.PinName() }) {
			c.model.Artifacts = append(c.model.Artifacts, *a)
		}
	}
	p.Digest = decl.DigestOf(&p)
	c.steps[s] = &p
	return &p
}
