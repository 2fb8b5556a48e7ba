package sim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"joist/engine/addr"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// parts lists the roles that a sketch speaks of.
func (s *sketch) parts() []string {
	all := maps.Clone(s.tolerate)
	if all == nil {
		all = map[string]model.Count{}
	}
	for i := range s.tasks {
		roles := append(slices.Clone(s.tasks[i].each), s.tasks[i].on)
		for _, e := range s.tasks[i].args {
			for _, r := range e.Refs() {
				if r.Kind == model.RefRole {
					roles = append(roles, r.Name)
				}
			}
		}
		for _, role := range roles {
			if _, ok := all[role]; !ok && role != "" {
				all[role] = model.Count{}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// called gives what a role is called.
func (s *sketch) called(role string) string {
	if names := s.calls[role]; len(names) > 0 {
		return names[len(names)-1]
	}
	return role
}

// naming says what tasks and roles are to be called instead.
type naming struct{ tasks, roles func(string) string }

func mapped(names []string, by func(string) string) []string {
	var out []string
	for _, name := range names {
		out = append(out, by(name))
	}
	return out
}

func (n naming) refs(refs []model.Ref) []model.Ref {
	var out []model.Ref
	for _, r := range refs {
		switch r.Kind {
		case model.RefTask, model.RefAll, model.RefHost, model.RefDuring:
			r.Name = n.tasks(r.Name)
		case model.RefRole:
			r.Name = n.roles(r.Name)
		case model.RefInput, model.RefNode, model.RefStep:
		}
		out = append(out, r)
	}
	return out
}

// by gives the sketch with other names for tasks and roles, in every place.
func (s *sketch) by(n naming) *sketch {
	out := *s
	out.tasks = slices.Clone(s.tasks)
	for i := range out.tasks {
		d := &out.tasks[i]
		d.name, d.each, d.except, d.hosts = n.tasks(d.name), mapped(d.each, n.roles), mapped(d.except, n.tasks), n.refs(d.hosts)
		d.during, d.guards, d.held = mapped(d.during, n.tasks), mapped(d.guards, n.tasks), n.refs(d.held)
		if d.on != "" {
			d.on = n.roles(d.on)
		}
		d.after = slices.Clone(d.after)
		for k := range d.after {
			d.after[k].Task = n.tasks(d.after[k].Task)
		}
		d.args = slices.Clone(d.args)
		for k, e := range d.args {
			if r, ok := e.(record); ok {
				d.args[k] = record(n.refs(r))
			}
		}
	}
	out.rollouts = slices.Clone(s.rollouts)
	for i := range out.rollouts {
		out.rollouts[i].Tasks, out.rollouts[i].Roles = mapped(s.rollouts[i].Tasks, n.tasks), mapped(s.rollouts[i].Roles, n.roles)
	}
	out.policies = slices.Clone(s.policies)
	for i := range out.policies {
		out.policies[i].Roles = mapped(s.policies[i].Roles, n.roles)
	}
	out.tolerate = map[string]model.Count{}
	for role, count := range s.tolerate {
		out.tolerate[n.roles(role)] = count
	}
	return &out
}

func same(name string) string { return name }

// build makes the model of a sketch for a cluster that has something of other models, the newest first.
func (s *sketch) build(f fault, before ...*model.Model) *model.Model {
	present := s.by(naming{same, s.called})
	m := present.draw()
	for i := range m.Roles {
		r := &m.Roles[i]
		r.Called = r.Name
		for role, names := range s.calls {
			if s.called(role) == r.Name {
				r.Was = append([]string{role}, names[:len(names)-1]...)
			}
		}
	}
	names := model.NamesAfter(m, before)
	if f.nameless {
		names = model.Names{}
	}
	standing := present.by(naming{names.Task, func(role string) string { return model.Stand(names.Roles, role) }}).draw()
	for i := range standing.Tasks {
		standing.Tasks[i].Called, standing.Tasks[i].Was = m.Tasks[i].Called, m.Tasks[i].Was
	}
	standing.Roles = slices.Clone(m.Roles)
	for i := range standing.Roles {
		standing.Roles[i].Name = model.Stand(names.Roles, m.Roles[i].Name)
	}
	standing.Digest = value.Sum([]byte(fmt.Sprint(s, names)))
	return standing
}

// rename gives some tasks and roles other names, and takes from others what they were called before.
func (g *generator) rename(s *sketch, odds float64) *sketch {
	to := map[string]string{}
	for i := range s.tasks {
		if g.names.Float64() < odds {
			g.renamed++
			name := fmt.Sprintf("r%d", g.renamed)
			if of, item, some := addr.CutItem(s.tasks[i].name); some && of != "" {
				name = addr.WithItem(name, item)
			}
			if f := s.tasks[i].former; len(f) > 0 && g.names.IntN(2) == 0 { // as it was called before
				name = f[0]
			}
			to[s.tasks[i].name] = name
		}
	}
	n := s.by(naming{func(name string) string { return model.Stand(to, name) }, same})
	for i := range n.tasks {
		d, was := &n.tasks[i], s.tasks[i].name
		if d.name == was {
			if g.names.IntN(3) == 0 {
				d.former = nil
			}
			continue
		}
		d.former = slices.DeleteFunc(append(slices.Clone(d.former), was), func(name string) bool { return name == d.name })
	}
	n.calls = maps.Clone(s.calls)
	for _, role := range g.shape.roles {
		if g.names.Float64() < odds {
			if n.calls == nil {
				n.calls = map[string][]string{}
			}
			g.renamed++
			n.calls[role] = append(slices.Clone(n.calls[role]), fmt.Sprintf("%s%d", role, g.renamed))
		}
	}
	return n
}

func renameProperties() []property {
	return []property{{law: "renames: nothing starts", does: `former names are not looked at`, seeds: 150, try: renames, faults: map[string]fault{"renames": {nameless: true}}}}
}

// renames gives tasks and roles of a cluster at rest other names, again and again: nothing is applied, removed or computed
// again, and every service keeps what it has, by the same owners.
func renames(seed uint64, f fault) error {
	l := steady(seed, f)
	had := map[target]json.RawMessage(maps.Clone(l.world.Tables()))
	for range 3 {
		before := len(l.journal)
		l.sketch = l.gen.rename(l.sketch, 0.6)
		l.goal(true)
		l.settle()
		for i := before; i < len(l.journal) && l.err == nil; i++ {
			e := l.event(uint64(i + 1))
			if s := started(e); s != nil {
				l.fail(fmt.Errorf("renames: %s of %s started", s.Action, s.Target))
			}
			if d, ok := e.(history.Discharged); ok {
				l.fail(fmt.Errorf("renames: %s was let go", d.Target))
			}
		}
		if !maps.EqualFunc(had, map[target]json.RawMessage(l.world.Tables()), func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			l.fail(errors.New("renames: a service has other entries"))
		}
	}
	if l.err != nil {
		return errors.New(l.report())
	}
	return nil
}
