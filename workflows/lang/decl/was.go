package decl

import (
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/workflows/lang/read"
)

// claim says which names something had before.
type claim struct {
	now string
	was []named
}

// was reads was = ["old"] of a step, a workflow, a task or a role.
func (d *decoder) was(r *reader) []named {
	e := r.Attr("was")
	if e == nil {
		return nil
	}
	list := read.List(e)
	if len(list) == 0 {
		d.bag.Errorf(e.Range(), `Write was = ["old"], or leave it out.`, "was names nothing")
		return nil
	}
	var names []named
	for _, x := range list {
		name, ok := ConstantText(d.bag, x)
		switch {
		case !ok:
		case !hclsyntax.ValidIdentifier(name):
			d.bag.Errorf(x.Range(), "Write the name that it had in an earlier version.", "%q is no name", name)
		case slices.ContainsFunc(names, func(n named) bool { return n.Name == name }):
			d.bag.Errorf(x.Range(), "Remove one of them.", "%q stands twice", name)
		default:
			names = append(names, named{Name: name, At: x.Range()})
		}
	}
	return names
}

// renames checks the former names of things of one sort, such as the tasks of a workflow, and gives the present name of each.
func (d *decoder) renames(where, what string, claims []claim) map[string]string {
	renamed, used := map[string]string{}, map[string]bool{}
	for _, c := range claims {
		used[c.now] = true
	}
	for _, c := range claims {
		for _, was := range c.was {
			switch now := renamed[was.Name]; {
			case used[was.Name]:
				d.bag.Errorf(was.At, "Take it out: a name that is in use is nobody's former name.", "%s has a %s %q still", where, what, was.Name)
			case now != "":
				d.bag.Errorf(was.At, "Only one of them can be what it became.", "%q was the name of %q already", was.Name, now)
			default:
				renamed[was.Name] = c.now
			}
		}
	}
	return renamed
}

// renames checks the former names of a workflow's tasks and roles.
func (w *Workflow) renames(d *decoder) {
	var tasks, roles []claim
	for _, t := range w.Tasks {
		tasks = append(tasks, claim{t.Name, t.Was})
	}
	for _, r := range w.Roles {
		roles = append(roles, claim{r.Name, r.Former})
	}
	w.tasks, w.roles = d.renames("the workflow", "task", tasks), d.renames("the workflow", "role", roles)
}

// Find gives the step or workflow of a name, which may be a former one, and the name that it has now.
func (p *Pack) Find(name string) (Callee, string) {
	if now, ok := p.renamed[name]; ok {
		name = now
	}
	return Callee{Step: p.StepDecls[name], Flow: p.WorkflowDecls[name]}, name
}

// RoleOf gives the present name of a role, given that or a former one.
func (w *Workflow) RoleOf(name string) string {
	if now, ok := w.roles[name]; ok {
		return now
	}
	return name
}

// TaskOf gives the present name of a task, given that or a former one.
func (w *Workflow) TaskOf(name string) string {
	if now, ok := w.tasks[name]; ok {
		return now
	}
	return name
}
