package lang

import (
	"fmt"
	"slices"
	"strings"

	"joist/engine/model"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
)

// presence checks whom a task makes way for.
func (c *flowCheck) presence(t *decl.Task) {
	if len(t.Except) == 0 {
		return
	}
	at, to := t.Attrs["except_during"], c.targets[t.Name]
	switch {
	case to.Flow != nil:
		c.bag.Errorf(at, "Write it on the tasks inside that workflow.", "task %q calls a workflow; only a task that runs a step can make way", t.Name)
		return
	case to.Step == nil:
	case to.Step.Pure():
		c.bag.Errorf(at, "Leave it out: a value is nowhere.", "task %q only computes, and cannot make way", t.Name)
	case to.Step.Once:
		c.bag.Errorf(at, "Leave it out, or call a step without once.", "the first success of task %q holds, so it cannot make way", t.Name)
	case to.Step.Reboots && !c.l.kept:
		c.bag.Errorf(at, "Order it with after.", "task %q cannot make way: %s reboots its node, which takes what it made way for with it, and so on for ever", t.Name, to.Step.Name)
	case to.Step.Irreversible != "":
		c.bag.Errorf(at, "Give the step a remove.", "task %q cannot make way: %s is irreversible", t.Name, to.Step.Name)
	}
	for _, n := range t.Except {
		c.disturber(t, n)
	}
}

// disturber checks one of the tasks that another makes way for: they have the same targets.
func (c *flowCheck) disturber(t *decl.Task, n named) {
	up := c.w.Task(n.Name)
	if up == nil {
		c.bag.Errorf(n.At, diag.Suggest(n.Name, c.w.TaskNames()), "no task is called %q", n.Name)
		return
	}
	if c.failed[n.Name] || t.Lost {
		return
	}
	if up.OnDemand {
		c.bag.Errorf(n.At, "Leave it out.", "task %q runs when somebody asks for it: nothing makes way for that", n.Name)
		return
	}
	if len(up.During) > 0 {
		c.bag.Errorf(n.At, "Name what it is in place for.", "task %q is in place only while others run itself", n.Name)
		return
	}
	to, each, upEach := c.targets[n.Name], decl.EachNames(t.Each), decl.EachNames(up.Each)
	if to.Flow != nil {
		for _, p := range up.Roles {
			upEach = append(upEach, p.Outer.Name)
		}
	} else if to.Step.Pure() {
		c.bag.Errorf(n.At, "Leave it out.", "task %q only computes, and disturbs nothing", n.Name)
		return
	}
	switch {
	case len(each) > 0 && len(upEach) == 0:
		c.bag.Errorf(n.At, "Name tasks with an instance for each node.", "task %q has a single instance, and task %q one for each node", n.Name, t.Name)
	case len(each) == 0 && len(upEach) > 0 && to.Flow == nil:
		c.bag.Errorf(n.At, "Write each = role.NAME, so that it makes way node by node.", "task %q has an instance for each node, and task %q has a single one", n.Name, t.Name)
	case len(each) > 0 && !decl.Within(each, upEach):
		c.bag.Errorf(n.At, "Place both on the same roles.", "the nodes of task %q and of task %q do not meet: %s against %s", t.Name, n.Name, decl.RoleList(each), decl.RoleList(upEach))
	}
}

// comesOut reports what could never come out of the way again. Whoever executes its remove needs something there that waits for
// what it makes way for: once every such node was rebooted, neither could go first. What called workflows do is looked at when
// the cluster is compiled.
func (c *flowCheck) comesOut() {
	if c.l.kept {
		return
	}
	var tasks []model.Task
	for _, t := range c.order {
		if to := c.targets[t.Name]; to.Step != nil {
			tasks = append(tasks, outline(t, to.Step))
		}
	}
	model.Guard(tasks)
	for _, x := range model.Circles(tasks) {
		if x.Sure {
			summary, detail := circleSays(x)
			c.bag.Errorf(c.w.Task(x.Task).Attrs["except_during"], detail, "%s", summary)
		}
	}
}

// comeOut is comesOut over all that the workflows do together.
func (c *compiler) comeOut() {
	if c.src.Kept {
		return
	}
	for _, x := range model.Circles(c.model.Tasks) {
		if x.Sure {
			summary, detail := circleSays(x)
			c.bag.Errorf(c.file.flow, detail, "%s", summary)
		}
	}
}

func circleSays(x model.Circle) (summary, detail string) {
	needs := fmt.Sprintf("%q", x.Via[0])
	if len(x.Via) > 1 {
		needs += fmt.Sprintf(", which waits for %q", x.Of)
	}
	if len(x.Via) > 2 {
		needs += " (" + strings.Join(x.Via, " → ") + ")"
	}
	return fmt.Sprintf("task %q could never come out: the node that executes its remove needs %s, and %q waits until %q is out", x.Task, needs, x.Of, x.Task),
		fmt.Sprintf("It comes to that once all nodes that execute it are rebooted together. Let its host. values need nothing of %q, or execute it on nodes of another role.", x.Of)
}

// outline is what a task waits for, as far as its source says so.
func outline(t *decl.Task, s *decl.Step) model.Task {
	m := model.Task{Name: t.Name, Step: s.Step, Each: decl.EachNames(t.Each), Except: decl.EachNames(t.Except), During: decl.EachNames(t.During)}
	if t.On != nil {
		m.On = t.On.Name
	}
	for _, a := range t.After {
		m.After = append(m.After, model.After{Task: a.Name, All: a.All, Share: a.Share})
	}
	for _, d := range t.References() {
		kind := model.RefTask
		switch {
		case d.Host:
			kind = model.RefHost
		case d.All:
			kind = model.RefAll
		}
		m.With = append(m.With, model.Argument{Refs: []model.Ref{{Kind: kind, Name: d.Name}}})
	}
	return m
}

// joined gives the rollouts of every task, those of tasks inside called workflows too. What makes way for a task of a
// rollout is part of it, so that a place covers the time it is out.
func (c *flowCheck) joined() map[string][]string {
	in := map[string][]string{}
	for _, o := range c.w.Rollouts {
		for _, n := range o.Tasks {
			in[n.Name] = append(in[n.Name], o.Name)
		}
	}
	for _, t := range c.order {
		if flow := c.targets[t.Name].Flow; flow != nil {
			for _, name := range c.l.rolloutsOf(flow, nil) {
				in[t.Name] = append(in[t.Name], t.Name+"."+name)
			}
		}
		own := in[t.Name]
		for _, n := range t.Except {
			for _, o := range in[n.Name] {
				if !slices.Contains(in[t.Name], o) {
					in[t.Name] = append(in[t.Name], o)
				}
			}
		}
		if all := in[t.Name]; len(t.Except) > 0 && len(all) > 1 && c.targets[t.Name].Step != nil {
			c.bag.Errorf(t.Attrs["except_during"], "Put what it makes way for into one rollout, and the task itself into that one or none.", "task %q would take places of several rollouts: %s", t.Name, strings.Join(all, ", "))
			in[t.Name] = own
		}
	}
	for _, t := range c.order {
		own := in[t.Name]
		for _, n := range t.During {
			for _, o := range in[n.Name] {
				if !slices.Contains(in[t.Name], o) {
					in[t.Name] = append(in[t.Name], o)
				}
			}
		}
		if all := in[t.Name]; len(t.During) > 0 && len(all) > 1 {
			c.bag.Errorf(t.Attrs["during"], "Put what it is in place for into one rollout, and the task itself into that one or none.", "task %q would take places of several rollouts: %s", t.Name, strings.Join(all, ", "))
			in[t.Name] = own
		}
	}
	return in
}

// rolloutsOf lists the rollouts of a workflow and of those that it calls.
func (l *linker) rolloutsOf(w *decl.Workflow, path []*decl.Workflow) []string {
	var names []string
	if slices.Contains(path, w) { // a circle, which is reported
		return nil
	}
	path = append(slices.Clone(path), w)
	for _, o := range w.Rollouts {
		names = append(names, o.Name)
	}
	for _, t := range w.Tasks {
		if flow := l.callee(w, t).Flow; flow != nil {
			for _, name := range l.rolloutsOf(flow, path) {
				names = append(names, t.Name+"."+name)
			}
		}
	}
	return names
}

// excepts gives the tasks that a task makes way for; a called workflow stands for those of its tasks that do something
// to the same targets.
func (f *frame) excepts(t *decl.Task) []string {
	var out []string
	mine := f.outer(decl.EachNames(t.Each))
	for _, n := range t.Except {
		inner := f.calls[n.Name]
		if inner == nil {
			out = append(out, f.named(n.Name)...)
			continue
		}
		for i := range f.c.model.Tasks {
			up := &f.c.model.Tasks[i]
			if strings.HasPrefix(up.Called, inner.prefix) && up.Asked == "" && !up.Step.Pure() && (len(mine) > 0) == (len(up.Each) > 0) && decl.Within(mine, up.Each) {
				out = append(out, up.Name)
			}
		}
	}
	return out
}

// join makes every task part of the rollout of what it makes way for, or is in place for.
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
	for i := range c.model.Tasks {
		if t := &c.model.Tasks[i]; len(t.During) > 0 && find(t.Name) == nil {
			if o := find(t.During...); o != nil {
				o.Tasks = append(o.Tasks, t.Name)
			}
		}
	}
}
