package run

import (
	"maps"
	"slices"
	"time"

	"joist/engine/history"
)

// watchAgain is how long a verify at the end of a watch rests that came to no end.
const watchAgain = 15 * time.Second

// Unanswered is what is observed of an instance whose verify nobody answered in time: the machine's own words.
const Unanswered = "no answer to its verify within its time"

// A watch is in the journal as a whole: when it began, until when it lasts, when the verifies at its end were asked for, what
// each found, and until when an answer may come. What leaves no event, such as an answer that says nothing, decides nothing:
// so a replay comes to the same end.

// settles carries on the watch of a node whose whole group is in place: its place is given back once that has lasted, and
// every verify of the group has found it so at the end. It reports whether anything happened; done says that the place need
// not be kept.
func (m *Machine) settles(now time.Time, g *group, node string) (did, done bool) {
	if g.Settle == 0 || !m.proven(g, node) {
		return false, true
	}
	w, watching := m.state.Budgets[g.Name].Settling[node]
	if !watching {
		m.take(now, history.Settling{Rollout: g.Name, Node: node, Until: now.Add(g.Settle)})
		m.watchAt(now.Add(g.Settle), g, node)
		return true, false
	}
	if w.Until.After(now) {
		m.watchAt(w.Until, g, node)
		return false, false
	}
	list := slices.DeleteFunc(m.verified(g, node), func(t history.Target) bool { return w.Seen[t.Task] })
	switch {
	case len(list) == 0:
		return false, true
	case w.Asked == 0:
		return m.askAll(now, g, node, list), false
	case !m.answerBy(w).After(now):
		m.giveUp(list)
		m.take(now, history.Watched{Target: list[0], Rollout: g.Name, Observed: Unanswered})
		return true, false
	}
	m.watchAt(m.answerBy(w), g, node)
	for _, t := range list {
		m.watch(now, g, t, w)
	}
	return false, false
}

// askAll asks for the verifies at the end of a watch, all at once, if there is somebody to ask for each.
func (m *Machine) askAll(now time.Time, g *group, node string, list []history.Target) bool {
	by := now
	for _, t := range list {
		task := m.plan.Task(t.Task)
		if m.unasked(task, t) != "" {
			g.waits(node) // looked at again whenever anything happens
			return false
		}
		by = later(by, deadline(now, task.Step.Verify))
	}
	m.take(now, history.Asked{Rollout: g.Name, Node: node, Until: by})
	w := m.state.Budgets[g.Name].Settling[node]
	m.watchAt(m.answerBy(w), g, node)
	for _, t := range list {
		m.watch(now, g, t, w)
	}
	return true
}

// answerBy is when the verifies of a watch are given up. What ended while the engine was down has time to say so.
func (m *Machine) answerBy(w history.Watch) time.Time {
	if w.AskedAt.Before(m.state.Resumed) {
		return later(w.By, m.state.Resumed.Add(resumeGrace))
	}
	return w.By
}

// watch sends the request for a verify, unless that is under way.
func (m *Machine) watch(now time.Time, g *group, t history.Target, w history.Watch) {
	asked, under := m.watching[t]
	if under && asked.id == w.Asked && (asked.again.IsZero() || asked.again.After(now)) {
		m.watchAt(asked.again, g, t.Node)
		return
	}
	if under && asked.drift() {
		m.lookAway(now, t)
	}
	asked = watched{id: w.Asked, rollout: g.Name, until: m.answerBy(w)}
	e, err := m.verify(t, m.state.Row(t), &asked)
	if err != nil { // there may be somebody to ask before its time is over
		asked.again = now.Add(watchAgain)
		m.watchAt(asked.again, g, t.Node)
	} else {
		m.effects = append(m.effects, e)
	}
	m.watching[t] = asked
}

// giveUp ends the verifies that are under way.
func (m *Machine) giveUp(list []history.Target) {
	for _, t := range list {
		if asked, ok := m.watching[t]; ok && !asked.drift() {
			m.effects = append(m.effects, Abort{Target: t, ID: asked.id, Agent: asked.agent})
			delete(m.watching, t)
		}
	}
}

// verified lists the instances of a node's group that are looked at when its watch ends.
func (m *Machine) verified(g *group, node string) []history.Target {
	var list []history.Target
	for _, name := range g.Tasks {
		task := m.plan.Task(name)
		if task == nil || !verified(task) {
			continue
		}
		t := history.Target{Task: name, Node: node}
		if cell := m.plan.Cell(t); cell != nil && cell.Settled() {
			list = append(list, t)
		}
	}
	return list
}

// watchAt has a node's watch looked at again at a time.
func (m *Machine) watchAt(at time.Time, g *group, node string) {
	m.watches.Add(at, history.Target{Task: g.Name, Node: node})
}

// waits has a node's watch looked at whenever anything happens: what it waits for may leave no event.
func (g *group) waits(node string) { g.due[node] = true }

// rung looks at the watches whose time has come.
func (m *Machine) rung(now time.Time) {
	for _, at := range m.watches.Until(now) {
		for _, g := range m.rollouts {
			if g.Name == at.Task {
				g.waits(at.Node)
			}
		}
	}
}

// concludeWatch turns the report of a verify into an event. One that came to no end says nothing: it is asked for again.
func (m *Machine) concludeWatch(now time.Time, t history.Target, r Report) (history.Event, bool) {
	asked, ok := m.watching[t]
	if !ok || asked.id != r.ID {
		return nil, false
	}
	if asked.drift() {
		return m.concludeLook(now, t, r)
	}
	if !m.forWatch(t, asked) {
		delete(m.watching, t)
		return nil, false
	}
	if r.Excused || r.Later != nil {
		asked.again = now.Add(watchAgain)
		m.watching[t] = asked
		m.watches.Add(asked.again, history.Target{Task: asked.rollout, Node: t.Node})
		return nil, false
	}
	delete(m.watching, t)
	return history.Watched{Target: t, Rollout: asked.rollout, OK: r.Error == "", Observed: r.Error}, true
}

// forWatch reports whether a verify under way is of a watch that is not over.
func (m *Machine) forWatch(t history.Target, asked watched) bool {
	b := m.state.Budgets[asked.rollout]
	return b != nil && b.Settling[t.Node].Asked == asked.id
}

// rewatch sets the timers of the watches that the journal says are under way.
func (m *Machine) rewatch() {
	for _, g := range m.rollouts {
		b := m.state.Budgets[g.Name]
		if b == nil {
			continue
		}
		for _, node := range slices.Sorted(maps.Keys(b.Settling)) {
			m.watchAt(later(b.Settling[node].Until, m.state.Now), g, node)
		}
	}
}

// settling counts the nodes of the goal's rollouts whose watch goes on by itself.
func (m *Machine) settling() int {
	n := 0
	for _, g := range m.rollouts {
		if b := m.state.Budgets[g.Name]; b != nil && m.open(g) {
			for node := range b.Settling {
				if m.groupDone(g, node) {
					n++
				}
			}
		}
	}
	return n
}

// awaitsVerify reports whether any verify at the end of a watch is asked for.
func (m *Machine) awaitsVerify() bool {
	for _, b := range m.state.Budgets {
		for _, w := range b.Settling {
			if w.Asked != 0 {
				return true
			}
		}
	}
	return false
}
