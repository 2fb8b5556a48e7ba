package run

import (
	"fmt"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/step"
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
	if goal == nil || m.state.Outcome == "cancelled" {
		return
	}
	m.nextAsk = time.Time{}
	busy := m.rowsByNode()
	for _, n := range m.state.Nodes {
		switch {
		case m.plan.Wants(n.Name):
			if !n.Online {
				m.ask(now, n.Name, "raise", Raise{Node: n.Name})
			} else {
				delete(m.asked, n.Name)
			}
		case n.Released || !m.everWanted(n.Name):
		case goal.Destroy && n.Alive():
			m.ask(now, n.Name, "wipe", Wipe{Node: n.Name, Incarnation: n.Incarnation})
		case busy[n.Name] == 0:
			m.ask(now, n.Name, "release", Release{Node: n.Name})
		case n.Alive() && !n.Online:
			if since := now.Sub(n.Since); since < silentAfter {
				m.askAt(n.Since.Add(silentAfter))
				continue
			}
			m.ask(now, n.Name, "fence", Fence{Node: n.Name, Incarnation: n.Incarnation})
		}
	}
}

func (m *Machine) everWanted(node string) bool {
	for i := range m.state.Goals {
		for _, nodes := range m.state.Goals[i].Roles {
			if slices.Contains(nodes, node) {
				return true
			}
		}
	}
	return false
}

func (m *Machine) ask(now time.Time, node, what string, e Effect) {
	a := m.asked[node]
	if a.what != what {
		a = asked{what: what}
	}
	if next := a.at.Add(a.next); !a.at.IsZero() && next.After(now) {
		m.askAt(next)
		return
	}
	a.at, a.next = now, min(max(2*a.next, askAgain), askAtMost)
	m.asked[node] = a
	m.effects = append(m.effects, e)
	m.askAt(now.Add(a.next))
}

// askAt makes the machine look at its nodes again at a time.
func (m *Machine) askAt(at time.Time) {
	if m.nextAsk.IsZero() || at.Before(m.nextAsk) {
		m.nextAsk = at
	}
}

// rowsByNode counts the live rows of each node.
func (m *Machine) rowsByNode() map[string]int {
	counts := map[string]int{}
	for _, r := range m.plan.Removals() {
		if r.Node != "" {
			counts[r.Node]++
		}
	}
	return counts
}

// rest notes that nothing more happens by itself: everything is as it should be, or the rest is blocked.
func (m *Machine) rest(now time.Time) {
	goal := m.state.Goal()
	if goal == nil || m.state.Outcome != "" || m.flights > 0 {
		return
	}
	s := m.survey()
	if s.moving > 0 {
		return
	}
	outcome, detail := "converged", ""
	switch {
	case s.stuck > 0:
		outcome, detail = "stopped", fmt.Sprintf("%d of %d instances are blocked or stopped", s.stuck, s.total)
	case goal.Destroy:
		outcome = "destroyed"
	}
	m.take(now, history.Rested{Outcome: outcome, Detail: detail})
}

type survey struct{ total, moving, stuck int }

// survey counts what is still under way, by itself or because a node is awaited, and what is not.
func (m *Machine) survey() survey {
	var s survey
	for _, n := range m.state.Nodes {
		if !m.plan.Wants(n.Name) && !n.Released && m.everWanted(n.Name) {
			s.moving++
		}
	}
	for _, r := range m.plan.Removals() {
		s.total++
		switch {
		case r.Failed || m.stopped(r.Target):
			s.stuck++
		case r.Wait.Kind == history.Consumer && m.stuck(r.Wait.Of):
			s.stuck++
		default:
			s.moving++
		}
	}
	m.plan.Each(func(t history.Target, _ *model.Task, c *plan.Cell) {
		s.total++
		switch {
		case c.Settled() || c.Verdict == plan.Absent:
		case c.Verdict == plan.Replace:
		case m.stuck(t):
			s.stuck++
		default:
			s.moving++
		}
	})
	return s
}

// stuck reports whether an instance cannot go on by itself: it is blocked, waits for one that is, or for a breaker.
func (m *Machine) stuck(t history.Target) bool {
	for range 1000 { // chains are as long as the graph is deep
		c := m.plan.Cell(t)
		if c == nil {
			row := m.state.Row(t)
			return row != nil && row.Failure != nil && row.Failure.Final && row.Failure.Action == step.Remove
		}
		if c.Verdict == plan.Blocked || c.Ready && m.stopped(t) {
			return true
		}
		if row := m.state.Row(t); row != nil && row.Flight != nil {
			return false
		}
		if c.Wait.Of.Task == "" || c.Wait.Of == t {
			return false
		}
		t = c.Wait.Of
	}
	return false
}

// stopped reports whether an instance's rollout has its breaker open.
func (m *Machine) stopped(t history.Target) bool {
	g := m.groups[t.Task]
	return g != nil && t.Node != "" && !m.budgetOf(g).open
}
