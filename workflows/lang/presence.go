package lang

import (
	"slices"
	"strings"

	"joist/engine/model"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/read"
)

// presence checks whom a task makes way for.
func (c *flowCheck) presence(t *taskDecl) {
	if len(t.except) == 0 {
		return
	}
	at, to := t.attrs["except_during"], c.targets[t.Name]
	switch {
	case to.flow != nil:
		c.bag.Errorf(at, "Write it on the tasks inside that workflow.", "task %q calls a workflow; only a task that runs a step can make way", t.Name)
		return
	case to.step == nil:
	case to.step.Pure():
		c.bag.Errorf(at, "Leave it out: a value is nowhere.", "task %q only computes, and cannot make way", t.Name)
	case to.step.Once:
		c.bag.Errorf(at, "Leave it out, or call a step without once.", "the first success of task %q holds, so it cannot make way", t.Name)
	case to.step.Irreversible != "":
		c.bag.Errorf(at, "Give the step a remove.", "task %q cannot make way: %s is irreversible", t.Name, to.step.Name)
	}
	for _, n := range t.except {
		c.disturber(t, n)
	}
}

// disturber checks one of the tasks that another makes way for: they have the same targets.
func (c *flowCheck) disturber(t *taskDecl, n named) {
	up := c.w.task(n.Name)
	if up == nil {
		c.bag.Errorf(n.At, diag.Suggest(n.Name, c.w.taskNames()), "no task is called %q", n.Name)
		return
	}
	if c.failed[n.Name] || t.lost {
		return
	}
	to, each, upEach := c.targets[n.Name], eachNames(t.each), eachNames(up.each)
	if to.flow != nil {
		for _, p := range up.roles {
			upEach = append(upEach, p.outer.Name)
		}
	} else if to.step.Pure() {
		c.bag.Errorf(n.At, "Leave it out.", "task %q only computes, and disturbs nothing", n.Name)
		return
	}
	switch {
	case len(each) > 0 && len(upEach) == 0:
		c.bag.Errorf(n.At, "Name tasks with an instance for each node.", "task %q has a single instance, and task %q one for each node", n.Name, t.Name)
	case len(each) == 0 && len(upEach) > 0 && to.flow == nil:
		c.bag.Errorf(n.At, "Write each = role.NAME, so that it makes way node by node.", "task %q has an instance for each node, and task %q has a single one", n.Name, t.Name)
	case len(each) > 0 && !within(each, upEach):
		c.bag.Errorf(n.At, "Place both on the same roles.", "the nodes of task %q and of task %q do not meet: %s against %s", t.Name, n.Name, roleList(each), roleList(upEach))
	}
}

// joined gives the rollouts of every task, those of tasks inside called workflows too. What makes way for a task of a
// rollout is part of it, so that a place covers the time it is out.
func (c *flowCheck) joined() map[string][]string {
	in := map[string][]string{}
	for _, o := range c.w.rollouts {
		for _, n := range o.tasks {
			in[n.Name] = append(in[n.Name], o.Name)
		}
	}
	for _, t := range c.order {
		if flow := c.targets[t.Name].flow; flow != nil {
			for _, name := range c.l.rolloutsOf(flow, nil) {
				in[t.Name] = append(in[t.Name], t.Name+"."+name)
			}
		}
		own := in[t.Name]
		for _, n := range t.except {
			for _, o := range in[n.Name] {
				if !slices.Contains(in[t.Name], o) {
					in[t.Name] = append(in[t.Name], o)
				}
			}
		}
		if all := in[t.Name]; len(t.except) > 0 && len(all) > 1 && c.targets[t.Name].step != nil {
			c.bag.Errorf(t.attrs["except_during"], "Put what it makes way for into one rollout, and the task itself into that one or none.", "task %q would take places of several rollouts: %s", t.Name, strings.Join(all, ", "))
			in[t.Name] = own
		}
	}
	return in
}

// rolloutsOf lists the rollouts of a workflow and of those that it calls.
func (l *linker) rolloutsOf(w *workflowDecl, path []*workflowDecl) []string {
	var names []string
	if slices.Contains(path, w) { // a circle, which is reported
		return nil
	}
	path = append(slices.Clone(path), w)
	for _, o := range w.rollouts {
		names = append(names, o.Name)
	}
	for _, t := range w.tasks {
		if flow := l.callee(w, t).flow; flow != nil {
			for _, name := range l.rolloutsOf(flow, path) {
				names = append(names, t.Name+"."+name)
			}
		}
	}
	return names
}

// excepts gives the tasks that a task makes way for; a called workflow stands for those of its tasks that do something
// to the same targets.
func (f *frame) excepts(t *taskDecl) []string {
	var out []string
	mine := f.outer(eachNames(t.each))
	for _, n := range t.except {
		inner := f.calls[n.Name]
		if inner == nil {
			out = append(out, f.prefix+n.Name)
			continue
		}
		for i := range f.c.model.Tasks {
			up := &f.c.model.Tasks[i]
			if strings.HasPrefix(up.Name, inner.prefix) && !up.Step.Pure() && (len(mine) > 0) == (len(up.Each) > 0) && within(mine, up.Each) {
				out = append(out, up.Name)
			}
		}
	}
	return out
}

// join makes every task part of the rollout of what it makes way for.
func (c *compiler) join() {
	find := func(names ...string) *model.Rollout {
		for i := range c.model.Rollouts {
			if o := &c.model.Rollouts[i]; slices.ContainsFunc(names, func(name string) bool { return slices.Contains(o.Tasks, name) }) {
				return o
			}
		}
		return nil
	}
	for i := range c.model.Tasks {
		t := &c.model.Tasks[i]
		if find(t.Name) != nil {
			continue
		}
		if o := find(t.Except...); o != nil {
			o.Tasks = append(o.Tasks, t.Name)
		}
	}
}

func (d *decoder) excepts(r *reader, t *taskDecl) {
	e := r.Attr("except_during")
	if e == nil {
		return
	}
	for _, x := range read.List(e) {
		n, ok := r.Reference(x, "task")
		switch {
		case !ok:
		case n.Name == t.Name:
			d.bag.Errorf(n.At, "Leave it out.", "task %q makes way for itself", t.Name)
		case slices.ContainsFunc(t.except, func(o named) bool { return o.Name == n.Name }):
			d.bag.Errorf(n.At, "Remove one of them.", "task %q stands twice", n.Name)
		default:
			t.except = append(t.except, n)
		}
	}
	if len(read.List(e)) == 0 {
		d.bag.Errorf(e.Range(), "Write except_during = [task.NAME], or leave it out.", "except_during names no task")
	}
}
