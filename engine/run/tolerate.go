package run

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run/limit"
	"joist/engine/step"
)

// noteFailure remembers a node on which an apply has failed for good.
func (m *Machine) noteFailure(t history.Target, row *history.Row) {
	if t.Node != "" && row != nil && row.Failure != nil && row.Failure.Final && row.Failure.Action == step.Apply {
		m.failing[t.Node] = true
	}
}

// touchAside has everything about a node that was set aside or returned decided anew.
func (m *Machine) touchAside(now time.Time, node string) {
	m.touchNode(now, node, history.Node{})
	for _, g := range m.rollouts {
		g.touched[node] = true
	}
}

// tolerate sets nodes aside on which something failed for good, by name, while the tolerance of all their roles lasts. It
// reports whether it did.
func (m *Machine) tolerate(now time.Time) bool {
	if len(m.failing) == 0 || m.state.Outcome == history.OutcomeCancelled || len(m.state.Wiping) > 0 {
		return false
	}
	did := false
	for _, name := range slices.Sorted(maps.Keys(m.failing)) {
		if n := m.state.Node(name); n.Aside != nil || !m.plan.Wants(name) || !m.tolerated(name) {
			continue
		}
		t, why, failed := m.failedOn(name)
		if why == "" { // forgotten since
			delete(m.failing, name)
		}
		if !failed {
			continue
		}
		delete(m.failing, name)
		m.take(now, history.NodeAside{Node: name, Of: t, Reason: fmt.Sprintf("%s failed: %s", t, why)})
		m.plan.Update()
		did = true
	}
	return did
}

// tolerated reports whether every role that a node plays still tolerates one more that is set aside, and has as many nodes
// left as it needs. Percentages are those of budgets: of the role's nodes before the change.
func (m *Machine) tolerated(node string) bool {
	some := false
	for name := range m.state.Goal().Roles {
		if !m.plan.Plays(node, name) {
			continue
		}
		some = true
		room, known := m.room[name]
		if !known {
			room = m.hasRoom(name)
			m.room[name] = room
		}
		if !room {
			return false
		}
	}
	return some
}

// hasRoom reports whether a role tolerates one more node that is set aside. It looks at all nodes; the answer stands in
// m.room until something happens that may change it, since nodes that are not tolerated ask after each event.
func (m *Machine) hasRoom(role string) bool {
	r := m.plan.Model().Role(role)
	if r == nil || r.Tolerate == (model.Count{}) {
		return false
	}
	aside := m.asideIn(r.Name)
	return aside < limit.Places(r.Tolerate, m.before([]string{r.Name})) && len(m.state.Goal().Roles[r.Name])-aside-1 >= r.Min
}

// roomFor forgets what was known of roles' tolerance, unless an event is one of those, by far the most, that change nothing
// in which nodes there are and which of them are set aside.
func (m *Machine) roomFor(e history.Event) {
	switch e.(type) {
	case history.Started, history.Succeeded, history.Failed:
	default:
		clear(m.room)
	}
}

// before counts the nodes of some roles before the change, or of a first goal the nodes that it has.
func (m *Machine) before(roles []string) int {
	if n := count(roles, m.state.Before); n > 0 {
		return n
	}
	return count(roles, m.state.Goal().Roles)
}

// asideIn counts the nodes of a role that are set aside.
func (m *Machine) asideIn(role string) int {
	n := 0
	for _, node := range m.state.Nodes {
		if node.Aside != nil && m.plan.Plays(node.Name, role) {
			n++
		}
	}
	return n
}

// failedOn finds what failed for good on a node and is blocked by that, and why; why alone if that failed with something
// that is not asked of it now.
func (m *Machine) failedOn(node string) (t history.Target, why string, failed bool) {
	for i := range m.plan.Model().Tasks {
		t := history.Target{Task: m.plan.Model().Tasks[i].Name, Node: node}
		row := m.state.Row(t)
		if row == nil || row.Failure == nil || !row.Failure.Final || row.Failure.Action != step.Apply {
			continue
		}
		why = row.Failure.Error
		if cell := m.plan.Cell(t); cell != nil && cell.Failed() {
			return t, why, true
		}
	}
	return t, why, false
}

// without says which nodes the goal is pursued without, for people; empty for none.
func (m *Machine) without() string {
	var names []string
	for _, n := range m.state.Nodes {
		if n.Aside != nil && m.plan.Wants(n.Name) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	switch n := len(names); {
	case n == 0:
		return ""
	case n == 1:
		return "node " + names[0] + " is set aside"
	case n > 5:
		names = append(names[:5:5], fmt.Sprintf("%d more", n-5))
	}
	return "nodes are set aside: " + strings.Join(names, ", ")
}
