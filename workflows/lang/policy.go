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
			if !slices.Contains(w.RoleNames(), role.Name) && !c.gone(model.Unmet{Role: true, Name: role.Name}) {
				c.bag.Errorf(role.At, diag.Suggest(role.Name, w.RoleNames()), "policy %q is about a role %q, which workflow %s does not have", p.Name, role.Name, w.Full())
			}
		}
		for _, task := range p.Tasks {
			if _, there := c.named[task.Name]; !there && !c.gone(model.Unmet{Name: task.Name}) {
				c.bag.Errorf(task.At, diag.Suggest(task.Name, slices.Collect(maps.Keys(c.named))), "policy %q is about a task %q, which workflow %s does not have", p.Name, task.Name, w.Full())
			}
		}
		c.model.Policies = append(c.model.Policies, c.standing(p.Policy))
	}
}

// gone reports whether what a policy names, and the workflow does not have, is what the cluster has still; or may be, in a tentative
// model.
func (c *compiler) gone(u model.Unmet) bool {
	from, into, found := c.src.Names.Tasks, &c.model.Gone.Tasks, false
	if u.Role {
		from, into = c.src.Names.Roles, &c.model.Gone.Roles
	}
	for called, stands := range from {
		if called != u.Name && (u.Role || !model.Below(called, u.Name)) {
			continue
		}
		if *into == nil {
			*into = map[string]string{}
		}
		(*into)[called], found = stands, true
	}
	if !found && c.src.Tentative {
		c.model.Unmet = append(c.model.Unmet, u)
		return true
	}
	return found
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
		for _, called := range slices.Sorted(maps.Keys(c.model.Gone.Tasks)) {
			if stands := c.model.Gone.Tasks[called]; model.Below(called, name) && !model.Below(stands, name) {
				tasks = append(tasks, stands)
			}
		}
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
