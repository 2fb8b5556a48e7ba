package run

import (
	"maps"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// Times of watching.
const (
	watchAgain = 15 * time.Second // before a node that did not answer is asked again
)

// watched is a verify that a node was asked for at the end of its watch time.
type watched struct {
	id      uint64 // event that began the watch: with the instance, the request's identity
	rollout string // whose watch it belongs to; empty for a verify that looks for drift
	agent   string
	until   time.Time // when it is given up
	row     uint64    // of one that looks for drift: the start whose effect it looks at
}

// settles begins the watch of a node whose whole group has just come to be in place: its place is given back once that
// has lasted, and every verify of the group has found it so at the end. It reports whether anything happened; done says that
// the place need not be kept.
func (m *Machine) settles(now time.Time, g *group, node string) (did, done bool) {
	if g.Settle == 0 || !m.proven(g, node) {
		return false, true
	}
	w, watching := m.state.Budgets[g.Name].Settling[node]
	if !watching {
		m.take(now, history.Settling{Rollout: g.Name, Node: node, Until: now.Add(g.Settle)})
		m.watches.Add(now.Add(g.Settle), history.Target{Task: g.Name, Node: node})
		return true, false
	}
	if w.Until.After(now) {
		return false, false
	}
	return false, m.verify(now, g, node, w)
}

// verify asks for what has to be verified at the end of a watch, and reports whether all of it was found in place.
func (m *Machine) verify(now time.Time, g *group, node string, w history.Watch) bool {
	all := true
	for _, t := range m.verified(g, node) {
		if w.Seen[t.Task] {
			continue
		}
		all = false
		switch asked, ok := m.watching[t]; {
		case ok && asked.id == w.Seq: // it will answer, or be given up
		case ok && asked.drift():
			m.lookAway(now, t)
			m.look(now, g, t, w.Seq)
		case !m.state.Node(node).Online:
			m.watches.Add(now.Add(watchAgain), history.Target{Task: g.Name, Node: node})
		default:
			m.look(now, g, t, w.Seq)
		}
	}
	return all
}

// verified lists the instances of a node's group that are looked at when its watch ends.
func (m *Machine) verified(g *group, node string) []history.Target {
	var list []history.Target
	for _, name := range g.Tasks {
		task := m.plan.Task(name)
		if task == nil || task.Step.Verify == nil || task.Step.Scope != model.Node {
			continue
		}
		t := history.Target{Task: name, Node: node}
		if cell := m.plan.Cell(t); cell != nil && cell.Settled() {
			list = append(list, t)
		}
	}
	return list
}

// watch is the end of a watch, or of the time of a verify in it.
func (m *Machine) watch(now time.Time, at history.Target) {
	var g *group
	for _, one := range m.rollouts {
		if one.Name == at.Task {
			g = one
		}
	}
	if g == nil || m.state.Budgets[g.Name] == nil {
		return
	}
	w, watching := m.state.Budgets[g.Name].Settling[at.Node]
	if !watching {
		return
	}
	g.touched[at.Node] = true
	if w.Until.After(now) {
		m.watches.Add(w.Until, at)
		return
	}
	if !m.groupDone(g, at.Node) || m.state.Outcome == history.OutcomeCancelled { // looked at again when that has changed
		return
	}
	for _, t := range m.verified(g, at.Node) {
		asked, ok := m.watching[t]
		switch {
		case w.Seen[t.Task] || !ok || asked.id != w.Seq:
		case asked.until.After(now):
			m.watches.Add(asked.until, at)
		default:
			m.effects = append(m.effects, Abort{Target: t, ID: asked.id, Agent: asked.agent})
			delete(m.watching, t)
			m.take(now, history.Watched{Target: t, Rollout: g.Name, Observed: "no answer to its verify within its time"})
			return
		}
	}
	m.verify(now, g, at.Node, w)
}

// look asks a node to verify an instance.
func (m *Machine) look(now time.Time, g *group, t history.Target, id uint64) {
	row := m.state.Row(t)
	inputs, task, err := m.recorded(t, row)
	if task == nil {
		return
	}
	broken := ""
	if err != nil {
		broken = err.Error()
	}
	asked := watched{id: id, rollout: g.Name, agent: t.Node, until: deadline(now, task.Step.Verify)}
	m.watching[t] = asked
	n := m.state.Node(t.Node)
	m.effects = append(m.effects, Dispatch{Target: t, ID: id, Agent: t.Node, Incarnation: n.Incarnation, Boot: n.Boot, Action: step.Verify, Attempt: 1,
		Step: task.Step, Inputs: inputs, Outputs: row.Outputs, Deadline: asked.until, Broken: broken})
	m.watches.Add(asked.until, history.Target{Task: g.Name, Node: t.Node})
}

// concludeWatch turns the report of a verify into an event. An aborted one says nothing: it is asked for again.
func (m *Machine) concludeWatch(now time.Time, t history.Target, r Report) (history.Event, bool) {
	asked, ok := m.watching[t]
	if !ok || asked.id != r.ID {
		return nil, false
	}
	if asked.drift() {
		return m.concludeLook(now, t, r)
	}
	delete(m.watching, t)
	if r.Excused {
		m.watches.Add(now.Add(watchAgain), history.Target{Task: asked.rollout, Node: t.Node})
		return nil, false
	}
	return history.Watched{Target: t, Rollout: asked.rollout, OK: r.Error == "", Observed: r.Error}, true
}

// rewatch sets the timers of the watches that the journal says are under way.
func (m *Machine) rewatch() {
	for _, g := range m.rollouts {
		b := m.state.Budgets[g.Name]
		if b == nil {
			continue
		}
		for _, node := range slices.Sorted(maps.Keys(b.Settling)) {
			m.watches.Add(later(b.Settling[node].Until, m.state.Now), history.Target{Task: g.Name, Node: node})
		}
	}
}

// settling counts the nodes of the goal's rollouts that are watched.
func (m *Machine) settling() int {
	n := 0
	for _, g := range m.rollouts {
		if b := m.state.Budgets[g.Name]; b != nil && m.open(g) {
			n += len(b.Settling)
		}
	}
	return n
}
