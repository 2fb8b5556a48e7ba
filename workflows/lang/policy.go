package lang

import (
	"encoding/json"
	"maps"
	"slices"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
)

// policies checks what the cluster file's policies refer to, once the tasks are known.
func (c *compiler) policies(w *decl.Workflow) {
	for _, p := range c.file.Policies {
		for _, role := range p.Roles {
			if !slices.Contains(w.RoleNames(), role.Name) {
				c.bag.Errorf(role.At, diag.Suggest(role.Name, w.RoleNames()), "policy %q is about a role %q, which workflow %s does not have", p.Name, role.Name, w.Full())
			}
		}
		for _, task := range p.Tasks {
			if _, there := c.named[task.Name]; !there {
				c.bag.Errorf(task.At, diag.Suggest(task.Name, slices.Collect(maps.Keys(c.named))), "policy %q is about a task %q, which workflow %s does not have", p.Name, task.Name, w.Full())
			}
		}
		c.model.Policies = append(c.model.Policies, c.standing(p.Policy))
	}
}

// standing gives a policy by the names that what it is about stands by. A removal may be of a task that a renamed call does not
// have any more: it stands by what the call was called.
func (c *compiler) standing(p model.Policy) model.Policy {
	names := c.src.Names
	if names.Empty() {
		return p
	}
	p.Roles = slices.Clone(p.Roles)
	for i, role := range p.Roles {
		p.Roles[i] = model.Stand(names.Roles, role)
	}
	tasks := slices.Clone(p.Tasks)
	for _, name := range p.Tasks {
		for i := range c.model.Tasks {
			if t := &c.model.Tasks[i]; model.Below(t.CalledNow(), name) && !model.Below(t.Name, name) {
				tasks = append(tasks, t.Name)
			}
		}
		tasks = append(tasks, c.named[name]...)
	}
	p.Tasks = tasks
	return p
}

// hashPolicies covers what the policies say, and not where.
func (c *compiler) hashPolicies(h value.Hasher) {
	for _, p := range c.model.Policies {
		p.Range = model.Range{}
		data, err := json.Marshal(p)
		if err != nil {
			panic(err) // texts and numbers
		}
		h.Text("policy")
		h.Text(string(data))
	}
}
