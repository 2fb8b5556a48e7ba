package plan

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
)

// learnNames notes what things are called that stand by another name: as the newest model says that has them.
func (p *Planner) learnNames() {
	p.called = map[string]string{}
	for i := range p.state.Goals {
		if m := p.models(i); m != nil {
			for k := range m.Tasks {
				t := &m.Tasks[k]
				if delete(p.called, t.Name); t.CalledNow() != t.Name {
					p.called[t.Name] = t.CalledNow()
				}
			}
		}
	}
}

// Called gives an instance as people call it now. Everything else in this package goes by what instances stand by.
func (p *Planner) Called(t history.Target) history.Target {
	if name, ok := p.called[t.Task]; ok {
		t.Task = name
	}
	return t
}

// CalledCause gives a cause with what people call the instance in it.
func (p *Planner) CalledCause(c Cause) Cause {
	c.Of = p.Called(c.Of)
	return c
}

// Standing gives an instance as it stands, given what people call it or called it once. It reports whether it is called so
// now.
func (p *Planner) Standing(t history.Target) (standing history.Target, now bool) {
	if task, now := p.model.TaskCalled(t.Task); task != nil {
		t.Task = task.Name
		return t, now
	}
	for name, called := range p.called { // of what the goal does not have any more
		if called == t.Task {
			t.Task = name
			break
		}
	}
	return t, true
}

// CalledRole gives what people call a role.
func (p *Planner) CalledRole(name string) string {
	if r := p.model.Role(name); r != nil {
		return r.CalledNow()
	}
	return name
}

// CalledRoles gives nodes by what people call their roles.
func (p *Planner) CalledRoles(roles map[string][]string) map[string][]string {
	if roles == nil {
		return nil
	}
	called := make(map[string][]string, len(roles))
	for name, nodes := range roles {
		called[p.CalledRole(name)] = nodes
	}
	return called
}

// Rollout finds a rollout of the goal by what it stands by or by what people call it, nil if there is none.
func (p *Planner) Rollout(name string) *model.Rollout {
	list := p.model.Rollouts
	if i := slices.IndexFunc(list, func(r model.Rollout) bool { return r.CalledNow() == name }); i >= 0 {
		return &list[i]
	}
	if i := slices.IndexFunc(list, func(r model.Rollout) bool { return r.Name == name || slices.Contains(r.Was, name) }); i >= 0 {
		return &list[i]
	}
	return nil
}
