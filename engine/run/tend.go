package run

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/circle"
)

// Times of what the machine asks of nodes.
const (
	askAgain    = 30 * time.Second // before the same is asked again; doubles
	askAtMost   = 10 * time.Minute
	silentAfter = 45 * time.Second // how long a leaving node may be silent before it is fenced
)

// tend asks for what nodes need: power for those that are wanted and silent, a proof of death for leaving ones that do
// not answer, release for those that have nothing of the cluster on them any more.
func (m *Machine) tend(now time.Time) {
	goal := m.state.Goal()
	if goal == nil || m.state.Outcome == history.OutcomeCancelled {
		m.letGo()
		return
	}
	for _, t := range m.asks.Until(now) {
		m.restless[t.Node] = true
	}
	for _, name := range slices.Sorted(maps.Keys(m.restless)) {
		var what Effect
		n := m.state.Node(name)
		if n != nil {
			what = m.need(goal, n)
		}
		if fence, ok := what.(Fence); ok {
			if silent := n.Since.Add(silentAfter); silent.After(now) {
				m.settle(name, what)
				m.asks.Add(silent, history.Target{Node: fence.Node})
				continue
			}
		}
		if what != nil && !m.mayEnd(now, what) {
			what = nil
		}
		m.settle(name, what)
		if what != nil {
			m.ask(now, name, what)
		}
	}
	if len(m.restless) > 0 {
		m.restless = map[string]bool{} // rather than cleared: one that was large once would stay so
	}
}

// settle notes what has to be asked of a node now.
func (m *Machine) settle(name string, what Effect) {
	urgent := func(e Effect) int {
		switch e.(type) {
		case nil, Raise, HandOver:
			return 0
		}
		return 1
	}
	m.urgent += urgent(what) - urgent(m.needs[name])
	if what == nil {
		delete(m.needs, name)
		delete(m.asked, name)
		return
	}
	m.needs[name] = what
}

// need is what has to be asked of a node, if anything.
func (m *Machine) need(goal *history.Goal, n *history.Node) Effect {
	_, wiping := m.state.Wiping[n.Name]
	if e, ok := m.reboot(n); ok && !wiping {
		return e
	}
	switch {
	case wiping:
		return m.wipeAll(n.Name)
	case m.plan.Wants(n.Name) && n.Scout != "":
		return m.handOver(n)
	case m.plan.Wants(n.Name):
		if !n.Online && n.Aside == nil {
			return Raise{Node: n.Name}
		}
	case !leaving(n):
	case goal.Destroy && n.Alive():
		return Wipe{Node: n.Name, Incarnation: n.Incarnation}
	case m.plan.Burden(n.Name) == 0 && len(m.flights[n.Name]) == 0:
		return Release{Node: n.Name}
	case n.Alive() && !n.Online:
		return Fence{Node: n.Name, Incarnation: n.Incarnation}
	}
	return nil
}

// wipeAll is what has to be asked for the nodes that are to be wiped together; the first of them stands for all.
func (m *Machine) wipeAll(name string) Effect {
	names := slices.Sorted(maps.Keys(m.state.Wiping))
	if names[0] != name {
		return nil
	}
	e := WipeAll{}
	for _, name := range names {
		e.Nodes = append(e.Nodes, history.Rest{Node: name, Incarnation: m.state.Wiping[name]})
	}
	return e
}

// leaving reports whether a node that the goal does not have is still the cluster's.
func leaving(n *history.Node) bool { return len(n.Played) > 0 && !n.Released }

func (m *Machine) ask(now time.Time, node string, e Effect) {
	a, what := m.asked[node], fmt.Sprintf("%T", e)
	if h, ok := e.(HandOver); ok { // of each boot anew
		what += h.Boot
	}
	if a.what != what {
		a = asked{what: what}
	}
	if next := a.at.Add(a.next); !a.at.IsZero() && next.After(now) {
		m.asks.Add(next, history.Target{Node: node})
		return
	}
	a.at, a.next = now, min(max(2*a.next, askAgain), askAtMost)
	m.asked[node] = a
	m.effects = append(m.effects, e)
	m.asks.Add(now.Add(a.next), history.Target{Node: node})
}

// rest notes that nothing more happens by itself: everything is as it should be, or the rest is blocked. It notes also
// when that ceases.
func (m *Machine) rest(now time.Time) {
	goal := m.state.Goal()
	if goal == nil || m.state.Outcome == history.OutcomeCancelled {
		return
	}
	p := m.plan.Progress()
	if m.moving(p) {
		if m.state.Outcome != "" {
			m.take(now, history.Stirred{})
		}
		return
	}
	outcome, detail := history.OutcomeConverged, m.without()
	removals, wipes, first := m.withheld()
	switch {
	case p.Open == 0 && wipes > 0:
		outcome, detail = history.OutcomeStopped, fmt.Sprintf("%d nodes are not wiped: the first is %s", wipes, first)
	case p.Open > 0:
		outcome, detail = history.OutcomeStopped, fmt.Sprintf("%d of %d instances are blocked or stopped", p.Open, p.Total)
		if p.Asking > 0 {
			detail += fmt.Sprintf("; %d waiting for approval", p.Asking)
		}
		if p.Scouting > 0 {
			detail += fmt.Sprintf("; %d wait for their node's next boot", p.Scouting)
		}
		detail += policySays(removals, wipes)
		if says := circle.First(m.plan); says != "" {
			detail += "; " + says
		}
	case goal.Destroy:
		outcome = history.OutcomeDestroyed
	case p.Drifted > 0:
		outcome, detail = history.OutcomeStopped, fmt.Sprintf("%d of %d instances have drifted and wait for a person", p.Drifted, p.Total)
	}
	if outcome != m.state.Outcome || detail != m.state.Detail {
		m.take(now, history.Rested{Outcome: outcome, Detail: detail})
	}
}

// moving reports whether anything is under way by itself: an attempt, the time of the next one, or a node that is
// awaited. Everything else that is open waits for one of these, or for a person.
func (m *Machine) moving(p plan.Progress) bool {
	return m.flying > 0 || m.settling() > 0 || p.Retrying > 0 || m.urgent > 0 || p.Awaiting > 0 && m.awaited()
}

// awaited reports whether a node of the goal has yet to come up, to answer or to be trusted.
func (m *Machine) awaited() bool {
	for _, n := range m.state.Nodes {
		if m.plan.Wants(n.Name) && n.Aside == nil && !m.kept(n) && !(n.Alive() && n.Online && model.Suffices(n.Level, m.plan.Model().Trust)) {
			return true
		}
	}
	return false
}
