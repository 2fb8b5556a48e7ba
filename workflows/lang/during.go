package lang

import (
	"fmt"
	"slices"
	"strings"

	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
)

// during checks a task that is in place only while others run.
func (c *flowCheck) during(t *decl.Task) {
	if len(t.During) == 0 {
		return
	}
	at, to := t.Attrs["during"], c.targets[t.Name]
	if other, both := t.Attrs["except_during"]; both {
		c.bag.Errorf(other, "Leave one of them out.", "task %q cannot have both during and except_during", t.Name)
		return
	}
	if items, some := t.Attrs["for"]; some {
		c.bag.Errorf(items, "Write a task for each.", "task %q is in place only while others run, and cannot have items", t.Name)
	}
	switch {
	case to.Flow != nil:
		c.bag.Errorf(at, "Write it on the tasks inside that workflow.", "task %q calls a workflow; only a task that runs a step can be in place only while others run", t.Name)
		return
	case to.Step == nil:
	case to.Step.Pure():
		c.bag.Errorf(at, "Leave it out: a value is nowhere.", "task %q only computes, and is never in place", t.Name)
	case to.Step.Once:
		c.bag.Errorf(at, "Leave it out, or call a step without once.", "the first success of task %q holds, so it cannot be in place only while others run", t.Name)
	case to.Step.Reboots && !c.l.kept:
		c.bag.Errorf(at, "Order it with after, and let a step without reboots be in place meanwhile.", "task %q cannot be in place only while others run: %s reboots its node for every attempt of theirs, and taking it away does not", t.Name, to.Step.Name)
	case to.Step.Irreversible != "":
		c.bag.Errorf(at, "Give the step a remove.", "task %q cannot be in place only while others run: %s is irreversible", t.Name, to.Step.Name)
	}
	for _, n := range t.During {
		c.user(t, n)
	}
}

// user checks one of the tasks that another one is in place for: they have the same targets.
func (c *flowCheck) user(t *decl.Task, n named) {
	up := c.w.Task(n.Name)
	if up == nil {
		c.bag.Errorf(n.At, diag.Suggest(n.Name, c.w.TaskNames()), "no task is called %q", n.Name)
		return
	}
	to := c.targets[n.Name]
	each, upEach := decl.EachNames(t.Each), decl.EachNames(up.Each)
	switch {
	case up.OnDemand:
		c.bag.Errorf(n.At, "Leave on_demand out, or put both into a workflow that is called on demand.", "task %q runs when somebody asks for it", n.Name)
	case len(up.During) > 0:
		c.bag.Errorf(n.At, "Name what that is in place for.", "task %q is in place only while others run itself", n.Name)
	case c.failed[n.Name] || t.Lost || up.Lost:
	case to.Flow != nil:
		c.bag.Errorf(n.At, "Write the task inside that workflow, beside what it is for.", "task %q calls a workflow; name tasks that run steps", n.Name)
	case to.Step.Pure():
		c.bag.Errorf(n.At, "Leave it out.", "task %q only computes, which takes no time", n.Name)
	case len(each) == 0 && len(upEach) > 0:
		c.bag.Errorf(n.At, "Write each = role.NAME, so that each node has its own.", "task %q has an instance for each node, and task %q a single one", n.Name, t.Name)
	case len(each) > 0 && len(upEach) == 0:
		c.bag.Errorf(n.At, "Name tasks with an instance for each node.", "task %q has a single instance, and task %q one for each node", n.Name, t.Name)
	case !decl.Within(upEach, each):
		c.bag.Errorf(n.At, "Place both on the same roles.", "task %q is on nodes that task %q is not on: %s against %s", n.Name, t.Name, decl.RoleList(upEach), decl.RoleList(each))
	}
}

// barred says what to do instead if outputs of a task that is in place only while others run are looked at by anybody else, or
// otherwise than as the same target's. The empty text is for every other look.
func (c *flowCheck) barred(at site, root, name string) string {
	up := c.w.Task(name)
	switch {
	case len(up.During) == 0:
		return ""
	case at.task == nil || !slices.ContainsFunc(up.During, func(n named) bool { return n.Name == at.task.Name }):
		var names []string
		for _, n := range up.During {
			names = append(names, n.Name)
		}
		return fmt.Sprintf("Only what it is in place for can: %s.", strings.Join(names, ", "))
	case root != "task":
		return fmt.Sprintf("Write task.%s.", name)
	}
	return ""
}

// during says of every task what it is in place for while that runs, which comes after it: all its items.
func (f *frame) during() {
	for _, t := range f.w.Tasks {
		out := f.c.model.Task(f.stands(f.prefix + t.Name))
		for _, n := range t.During {
			if out != nil {
				out.During = append(out.During, f.named(n.Name)...)
			}
		}
	}
}
