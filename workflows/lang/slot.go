package lang

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// fill is what a cluster file puts into a slot.
type fill struct {
	named         // path of the slot: "network", or "etcd.disk" inside the task etcd
	target string // "pack.name" of a step or a workflow
	aim    hcl.Range
	with   []pair // for inputs that the slot does not feed
}

const slotAdvice = "Write SLOT = pack.NAME, or SLOT = { step = pack.NAME, with = { … } }."

// slots reads slots = { network = pack.NAME, … }.
func (c *ClusterFile) slots(r *reader) {
	for _, p := range r.Pairs("slots") {
		f := &fill{named: p.Named, aim: p.Value.Range()}
		e := p.Value
		if o, ok := e.(*hclsyntax.ObjectConsExpr); ok {
			e = nil
			for _, item := range o.Items {
				switch key, _ := expr.KeyName(item.KeyExpr); key {
				case "step":
					e, f.aim = item.ValueExpr, item.ValueExpr.Range()
				case "with":
					f.with = r.PairsOf("with", item.ValueExpr)
				default:
					r.Bag.Errorf(item.KeyExpr.Range(), diag.Suggest(key, []string{"step", "with"}), "no attribute of a slot is called %q", key)
				}
			}
		}
		var t hcl.Traversal
		if e != nil {
			t, _ = hcl.AbsTraversalForExpr(e)
		}
		path := expr.StepNames(t, 2)
		if len(t) != 2 || len(path) != 2 {
			r.Bag.Errorf(f.aim, slotAdvice, "expected the name of a step or a workflow for slot %q", p.Name)
			continue
		}
		f.target = path[0] + "." + path[1]
		c.fills[p.Name] = f
		c.Slots[p.Name] = f.target
	}
}

// fill gives the workflow with its slots filled as the cluster file says: itself, if that says nothing.
func (c *compiler) fill(w *decl.Workflow) *decl.Workflow {
	before := c.bag.Count()
	for _, path := range decl.SortedKeys(c.file.fills) {
		f := c.file.fills[path]
		if !c.slotAt(w, f) {
			continue
		}
		one := c.filled(w, "", map[string]*fill{path: f})
		for _, d := range c.fits(one) {
			c.bag.Errorf(f.aim, strings.TrimSpace(fmt.Sprintf("%s (%s:%d)", d.Detail, d.File, d.Line)), "slot %q does not take %s: %s", path, f.target, d.Summary)
		}
	}
	if c.bag.Count() > before || len(c.file.fills) == 0 {
		return w
	}
	all := c.filled(w, "", c.file.fills)
	for _, d := range c.fits(all) {
		c.bag.Errorf(c.file.at, strings.TrimSpace(fmt.Sprintf("%s (%s:%d)", d.Detail, d.File, d.Line)), "what fills the slots does not fit together: %s", d.Summary)
	}
	return all
}

// fits checks a workflow whose slots are filled. Only what the filling brought about is wrong with it.
func (c *compiler) fits(w *decl.Workflow) Diagnostics {
	l := newLinker(c.src.Packs)
	l.workflow(w)
	var out Diagnostics
	for _, name := range decl.SortedKeys(l.bags) {
		out = append(out, l.bags[name].Done(c.src.Packs[name].Prefix()).Errors()...)
	}
	return out
}

// slotAt looks whether there is a slot where the cluster file fills one, and something to fill it with.
func (c *compiler) slotAt(w *decl.Workflow, f *fill) bool {
	rest := f.Name
	for more := true; more; {
		var name string
		name, rest, more = strings.Cut(rest, ".")
		t := w.Task(name)
		if t == nil || !more && !t.Slot {
			advice := diag.Suggest(name, w.SlotNames())
			if now := w.TaskOf(name); now != name {
				advice = fmt.Sprintf("It is called %q now.", now)
			}
			if len(w.SlotNames()) == 0 {
				advice = "It has none."
			}
			c.bag.Errorf(f.At, advice, "workflow %s has no slot %q", w.Full(), name)
			return false
		}
		if !more {
			break
		}
		to := c.link.callee(w, t)
		if other := c.file.fills[strings.TrimSuffix(f.Name, "."+rest)]; other != nil {
			to = c.find(other, false)
		}
		if to.Flow == nil {
			c.bag.Errorf(f.At, fmt.Sprintf("It runs a step, which has no slots: leave %q out.", rest), "task %q calls no workflow", name)
			return false
		}
		w = to.Flow
	}
	to := c.find(f, true)
	return to.Step != nil || to.Flow != nil
}

// find gives the step or workflow that fills a slot.
func (c *compiler) find(f *fill, report bool) decl.Callee {
	name, what, _ := strings.Cut(f.target, ".")
	p := c.src.Packs[name]
	switch {
	case !report && p == nil:
	case c.file.Packs[name].Source == "" || p == nil:
		c.bag.Errorf(f.aim, fmt.Sprintf("Add %s = { source = … } to packs. %s", name, diag.Suggest(name, decl.SortedKeys(c.file.Packs))), "the cluster names no pack %q", name)
	default:
		to, now := p.Find(what)
		switch {
		case to == (decl.Callee{}) && report:
			c.bag.Errorf(f.aim, diag.Suggest(what, append(decl.SortedKeys(p.StepDecls), decl.SortedKeys(p.WorkflowDecls)...)), "pack %s has no step or workflow %q", name, what)
		case now != what && report:
			c.bag.Warnf(f.aim, fmt.Sprintf("Write %s.%s.", name, now), "%q is called %q now", what, now)
		}
		return to
	}
	return decl.Callee{}
}

// filled gives a workflow with other tasks where slots are filled, in it or in what it calls.
func (c *compiler) filled(w *decl.Workflow, prefix string, fills map[string]*fill) *decl.Workflow {
	out := *w
	out.Tasks = slices.Clone(w.Tasks)
	for i, t := range out.Tasks {
		if f := fills[prefix+t.Name]; f != nil {
			t = c.fit(w, t, f)
		}
		inside := slices.ContainsFunc(decl.SortedKeys(fills), func(path string) bool { return strings.HasPrefix(path, prefix+t.Name+".") })
		if to := c.link.callee(w, t); inside && to.Flow != nil {
			filled := *t
			filled.Filled = &decl.Callee{Flow: c.filled(to.Flow, prefix+t.Name+".", fills)}
			t = &filled
		}
		out.Tasks[i] = t
	}
	return &out
}

// fit gives the task that stands in a slot: with what the slot gives and the other takes, on the slot's nodes.
func (c *compiler) fit(w *decl.Workflow, t *decl.Task, f *fill) *decl.Task {
	to := c.find(f, false)
	out := *t
	out.Filled, out.With, out.Attrs = &to, nil, maps.Clone(t.Attrs)
	fields := to.Inputs()
	for _, p := range t.With {
		if _, ok := fields[p.Name]; ok {
			out.With = append(out.With, p)
		}
	}
	for _, p := range f.with {
		in, ok := fields[p.Name]
		switch {
		case !ok:
			c.bag.Errorf(p.At, diag.Suggest(p.Name, decl.SortedKeys(fields)), "%s has no input %q", f.target, p.Name)
		case slices.ContainsFunc(t.With, func(q pair) bool { return q.Name == p.Name }):
			c.bag.Errorf(p.At, "Leave it out.", "slot %q gives the input %q itself", f.Name, p.Name)
		default:
			if _, ok := expr.Constant(c.bag, p.Value, in.Type); ok {
				out.With = append(out.With, p)
			}
		}
	}
	drop := func(words ...string) {
		for _, word := range words {
			delete(out.Attrs, word)
		}
	}
	if to.Step != nil {
		if len(t.Roles) == 1 { // it was a workflow on nodes of one role
			out.Each = []named{t.Roles[0].Outer}
		}
		out.Roles = nil
		drop("roles")
		if to.Step.Scope != model.Cluster || to.Step.Apply.Script == nil {
			out.On = nil
			drop("on")
		}
		return &out
	}
	out.Each, out.On = nil, nil
	drop("each", "on")
	out.Roles = slices.DeleteFunc(slices.Clone(t.Roles), func(p decl.RolePair) bool { return !slices.Contains(to.Flow.RoleNames(), to.Flow.RoleOf(p.Inner.Name)) })
	if len(t.Roles) == 0 && len(t.Each) == 1 && len(to.Flow.Roles) == 1 {
		out.Roles = []decl.RolePair{{Inner: named{Name: to.Flow.Roles[0].Name, At: f.aim}, Outer: t.Each[0]}}
	}
	return &out
}

// callee gives what a task calls, without a word about what is wrong with it.
func (l *linker) callee(w *decl.Workflow, t *decl.Task) decl.Callee {
	switch {
	case t.Filled != nil:
		return *t.Filled
	case t.Target == nil:
		return decl.Callee{}
	}
	s, flow := l.target(w, t.Target, false)
	return decl.Callee{Step: s, Flow: flow}
}

// hashSlots adds what fills the slots.
func (c *ClusterFile) hashSlots(h value.Hasher) {
	for _, path := range decl.SortedKeys(c.fills) {
		f := c.fills[path]
		h.Text(path)
		h.Text(f.target)
		for _, p := range f.with {
			h.Text(p.Name)
			if v, ok := expr.Constant(diag.NewBag(nil), p.Value, value.Type{}); ok {
				h.Digest(v.Digest())
			}
		}
	}
}
