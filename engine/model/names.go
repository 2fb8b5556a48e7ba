package model

import (
	"fmt"
	"maps"
	"slices"

	"joist/engine/addr"
)

// Names says by what names things stand that are called otherwise now. A task's instances keep the name under which the task
// was first started for as long as it is there: in the journal, with services as the owners of entries, on nodes, in what
// others are digested from. So a rename changes nothing but what people write and read. By present name; what is not
// mentioned stands by that itself. All items of a task go with it.
type Names struct {
	Tasks    map[string]string `json:"tasks,omitempty"`
	Roles    map[string]string `json:"roles,omitempty"`
	Rollouts map[string]string `json:"rollouts,omitempty"`
}

// Empty reports whether everything stands by what it is called.
func (n Names) Empty() bool { return len(n.Tasks)+len(n.Roles)+len(n.Rollouts) == 0 }

// Equal reports whether things stand by the same names.
func (n Names) Equal(o Names) bool {
	return maps.Equal(n.Tasks, o.Tasks) && maps.Equal(n.Roles, o.Roles) && maps.Equal(n.Rollouts, o.Rollouts)
}

// Stand gives the name that something stands by, of one of the maps of Names.
func Stand(names map[string]string, called string) string {
	if name, ok := names[called]; ok {
		return name
	}
	return called
}

// Task gives the name that a task stands by, that of an item included.
func (n Names) Task(called string) string {
	if of, item, some := addr.CutItem(called); some {
		return addr.WithItem(Stand(n.Tasks, of), item)
	}
	return Stand(n.Tasks, called)
}

// NamesAfter decides by what names the things of a model stand, given the models that a cluster has something of, the newest
// first. What was there goes on, also if it was called one of its former names. What is new stands by what it is called, or,
// where that name is another thing's, by that with a number.
func NamesAfter(m *Model, before []*Model) Names {
	n := Names{
		Tasks:    after(taskNames(m), before, taskNames),
		Roles:    after(roleNames(m), before, roleNames),
		Rollouts: after(rolloutNames(m), before, rolloutNames),
	}
	for _, u := range m.Unmet {
		for _, b := range before {
			n.find(u, b)
		}
	}
	return n
}

// Unmet is a name that a policy is about and that nothing has.
type Unmet struct {
	Role bool // of a role; else of a task, or of a workflow called as one
	Name string
}

// find adds what a model that a cluster has something of knows by an unmet name; what a newer one knew stays.
func (n *Names) find(u Unmet, in *Model) {
	known, into := append(taskNames(in), gone(in.Gone.Tasks)...), &n.Tasks
	if u.Role {
		known, into = append(roleNames(in), gone(in.Gone.Roles)...), &n.Roles
	}
	for _, k := range known {
		if _, newer := (*into)[k.called]; newer || k.called != u.Name && (u.Role || !Below(k.called, u.Name)) {
			continue
		}
		if *into == nil {
			*into = map[string]string{}
		}
		(*into)[k.called] = k.name
	}
}

func gone(names map[string]string) []called {
	var list []called
	for as, name := range names {
		list = append(list, called{name: name, called: as})
	}
	return list
}

// called is how something is called, and stands.
type called struct {
	name, called string
	was          []string
}

func taskNames(m *Model) []called {
	var list []called
	for i := range m.Tasks {
		t := &m.Tasks[i]
		c := called{whole(t.Name), whole(t.CalledNow()), nil}
		for _, was := range t.Was {
			c.was = append(c.was, whole(was))
		}
		if n := len(list); n == 0 || list[n-1].called != c.called { // items come one after the other
			list = append(list, c)
		}
	}
	return list
}

// whole gives the task that an item is of; a task without items is that itself.
func whole(task string) string {
	of, _, _ := addr.CutItem(task)
	return of
}

func roleNames(m *Model) []called {
	var list []called
	for _, r := range m.Roles {
		list = append(list, called{r.Name, r.CalledNow(), r.Was})
	}
	return list
}

func rolloutNames(m *Model) []called {
	var list []called
	for _, r := range m.Rollouts {
		list = append(list, called{r.Name, r.CalledNow(), r.Was})
	}
	return list
}

func after(now []called, before []*Model, of func(*Model) []called) map[string]string {
	stands, taken := map[string]string{}, map[string]bool{}
	for _, m := range before {
		had := map[string]string{}
		for _, c := range of(m) {
			had[c.called] = c.name
		}
		for _, former := range []bool{false, true} { // who is called so still comes first
			for _, c := range now {
				names := []string{c.called}
				if former {
					names = c.was
				}
				for _, name := range names {
					if id, ok := had[name]; ok && stands[c.called] == "" && !taken[id] {
						stands[c.called], taken[id] = id, true
					}
				}
			}
		}
	}
	out := map[string]string{}
	for _, c := range now {
		id := stands[c.called]
		if id == "" {
			id = c.called
			for n := 2; taken[id]; n++ {
				id = fmt.Sprintf("%s~%d", c.called, n)
			}
			taken[id] = true
		}
		if id != c.called {
			out[c.called] = id
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func present(called, name string) string {
	if called == "" {
		return name
	}
	return called
}

// CalledNow gives what the task is called.
func (t *Task) CalledNow() string { return present(t.Called, t.Name) }

// CalledNow gives what the role is called.
func (r *Role) CalledNow() string { return present(r.Called, r.Name) }

// CalledNow gives what the rollout is called.
func (r *Rollout) CalledNow() string { return present(r.Called, r.Name) }

// TaskCalled finds a task by what it is called, or by what it was called before or stands by. It reports whether that is
// what it is called now.
func (m *Model) TaskCalled(name string) (t *Task, now bool) {
	for i := range m.Tasks {
		if m.Tasks[i].CalledNow() == name {
			return &m.Tasks[i], true
		}
	}
	for i := range m.Tasks {
		if m.Tasks[i].Name == name || slices.Contains(m.Tasks[i].Was, name) {
			return &m.Tasks[i], false
		}
	}
	return nil, false
}

// RoleCalled is TaskCalled of a role.
func (m *Model) RoleCalled(name string) (r *Role, now bool) {
	for i := range m.Roles {
		if m.Roles[i].CalledNow() == name {
			return &m.Roles[i], true
		}
	}
	for i := range m.Roles {
		if m.Roles[i].Name == name || slices.Contains(m.Roles[i].Was, name) {
			return &m.Roles[i], false
		}
	}
	return nil, false
}
