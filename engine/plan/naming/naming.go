// Package naming speaks of what a cluster has as people call it now. What was renamed stands, in the journal, with services and on
// nodes, by the name under which it was started.
package naming

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
)

// Names knows what everything is called. The zero Names knows of no rename.
type Names struct {
	goal   *model.Model
	called map[string]string // what tasks are called that stand by another name
}

// Of learns names from the models that matter, the oldest first: something is called what the newest says that has it.
func Of(goal *model.Model, models []*model.Model) Names {
	called := map[string]string{}
	for _, m := range models {
		for i := range m.Tasks {
			t := &m.Tasks[i]
			if delete(called, t.Name); t.CalledNow() != t.Name {
				called[t.Name] = t.CalledNow()
			}
		}
	}
	return Names{goal, called}
}

// Called gives an instance as people call it now.
func (n Names) Called(t history.Target) history.Target {
	if name, ok := n.called[t.Task]; ok {
		t.Task = name
	}
	return t
}

// CalledCause gives a cause with what people call the instance in it.
func (n Names) CalledCause(c history.Cause) history.Cause {
	c.Of = n.Called(c.Of)
	return c
}

// Standing gives an instance as it stands, given what people call it or called it once. It reports whether it is called so
// now.
func (n Names) Standing(t history.Target) (standing history.Target, now bool) {
	if task, now := n.goal.TaskCalled(t.Task); task != nil {
		t.Task = task.Name
		return t, now
	}
	for name, called := range n.called { // of what the goal does not have any more
		if called == t.Task {
			t.Task = name
			break
		}
	}
	return t, true
}

// CalledRole gives what people call a role.
func (n Names) CalledRole(name string) string {
	if r := n.goal.Role(name); r != nil {
		return r.CalledNow()
	}
	return name
}

// CalledRoles gives nodes by what people call their roles.
func (n Names) CalledRoles(roles map[string][]string) map[string][]string {
	if roles == nil {
		return nil
	}
	called := make(map[string][]string, len(roles))
	for name, nodes := range roles {
		called[n.CalledRole(name)] = nodes
	}
	return called
}

// Rollout finds a rollout of the goal by what it stands by or by what people call it, nil if there is none.
func (n Names) Rollout(name string) *model.Rollout {
	list := n.goal.Rollouts
	if i := slices.IndexFunc(list, func(r model.Rollout) bool { return r.CalledNow() == name }); i >= 0 {
		return &list[i]
	}
	if i := slices.IndexFunc(list, func(r model.Rollout) bool { return r.Name == name || slices.Contains(r.Was, name) }); i >= 0 {
		return &list[i]
	}
	return nil
}
