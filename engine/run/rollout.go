package run

import (
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// class is the order in which nodes take places: what is broken goes before what works, and leaving comes last.
type class int

const (
	classEnded   class = iota // removals of ended or unreachable nodes
	classChanged              // nodes that have it already
	classNew
	classLeaving
)

// Places turns a count into a number of nodes out of total: percentages are rounded down, and it is at least 1.
func Places(c model.Count, total int) int {
	n := c.N
	if c.Percent {
		n = total * c.N / 100
	}
	return max(n, 1)
}

// budget is what a rollout allows now.
type budget struct {
	open     bool // the breaker has not opened
	together bool // founding: no living node has completed the group
	limit    int  // places that may be taken at once
}

func (m *Machine) budgetOf(g *model.Rollout) budget {
	total := 0
	for _, role := range m.rolesBefore() {
		for name, nodes := range role {
			if slices.Contains(g.Roles, name) {
				total += len(nodes)
			}
		}
		if total > 0 {
			break
		}
	}
	spent := m.state.Budgets[g.Name]
	if spent == nil {
		spent = &history.Budget{}
	}
	b := budget{open: spent.Failures < Places(g.StopAfter, total), limit: Places(g.MaxInFlight, total)}
	if g.Canaries > 0 && len(spent.Proven) < g.Canaries {
		b.limit = min(g.Canaries-len(spent.Proven), b.limit)
	}
	b.together = g.Together && !m.founded(g)
	return b
}

// rolesBefore gives the roles' nodes before the change, then those of the change.
func (m *Machine) rolesBefore() []map[string][]string {
	n := len(m.state.Goals)
	var list []map[string][]string
	if n > 1 {
		list = append(list, m.state.Goals[n-2].Roles)
	}
	return append(list, m.state.Goals[n-1].Roles)
}

// founded reports whether any living node has completed the group.
func (m *Machine) founded(g *model.Rollout) bool {
	for _, n := range m.state.Nodes {
		if n.Alive() && !n.Released && m.completed(g, n.Name) {
			return true
		}
	}
	return false
}

// completed reports whether everything of the group stands on a living node.
func (m *Machine) completed(g *model.Rollout, node string) bool {
	any := false
	for _, task := range g.Tasks {
		row := m.state.Row(history.Target{Task: task, Node: node})
		if row == nil || row.Phase != history.InPlace || !m.state.Lives(row.Life) {
			return false
		}
		any = true
	}
	return any
}

// admit asks for a place for an instance that is to start. It gives the rollout whose place the instance holds, empty
// without one. What is refused is asked again when a place comes back.
func (m *Machine) admit(t history.Target) (string, bool) {
	g := m.groups[t.Task]
	if g == nil || t.Node == "" {
		return "", true
	}
	if m.mayEnter(g, t.Node) {
		return g.Name, true
	}
	m.held[g.Name] = append(m.held[g.Name], t)
	return "", false
}

func (m *Machine) admitRemoval(r plan.Removal) (string, bool) {
	g := m.groups[r.Target.Task]
	if g == nil || r.Node == "" {
		return "", true
	}
	return g.Name, m.mayEnter(g, r.Node)
}

func (m *Machine) mayEnter(g *model.Rollout, node string) bool {
	b := m.budgetOf(g)
	if !b.open {
		return false
	}
	spent := m.state.Budgets[g.Name]
	if b.together || spent != nil && spent.Places[node] {
		return true
	}
	return spent == nil || len(spent.Places) < b.limit
}

// order sorts what is ready by the order in which nodes take places, so that the first asked is the first to go.
func (m *Machine) order(queue []history.Target) []history.Target {
	slices.SortStableFunc(queue, func(a, b history.Target) int {
		if m.groups[a.Task] == nil || m.groups[b.Task] == nil {
			return 0
		}
		if d := m.class(a.Node) - m.class(b.Node); d != 0 {
			return int(d)
		}
		if a.Node < b.Node {
			return -1
		}
		if a.Node > b.Node {
			return 1
		}
		return 0
	})
	return slices.Compact(queue)
}

func (m *Machine) class(node string) class {
	n := m.state.Node(node)
	switch {
	case n == nil:
		return classNew
	case !m.plan.Wants(node):
		if n.Alive() && n.Online {
			return classLeaving
		}
		return classEnded
	}
	for task := range m.groups {
		if row := m.state.Row(history.Target{Task: task, Node: node}); row != nil && row.Phase != history.Absent {
			return classChanged
		}
	}
	return classNew
}

// returnPlaces gives back the places of nodes whose whole group is in place, or gone.
func (m *Machine) returnPlaces(now time.Time) bool {
	did := false
	rollouts := m.plan.Model().Rollouts
	for i := range rollouts {
		g := &rollouts[i]
		spent := m.state.Budgets[g.Name]
		if spent == nil {
			continue
		}
		var done []string
		for node := range spent.Places {
			if m.groupDone(g, node) {
				done = append(done, node)
			}
		}
		slices.Sort(done)
		for _, node := range done {
			m.take(now, history.PlaceReturned{Rollout: g.Name, Node: node})
			did = true
		}
	}
	return did
}

func (m *Machine) groupDone(g *model.Rollout, node string) bool {
	for _, task := range g.Tasks {
		t := history.Target{Task: task, Node: node}
		row := m.state.Row(t)
		if cell := m.plan.Cell(t); cell != nil {
			if !cell.Settled() && cell.Verdict != plan.Absent {
				return false
			}
			continue
		}
		if row != nil && row.Phase != history.Absent {
			return false
		}
	}
	return true
}
