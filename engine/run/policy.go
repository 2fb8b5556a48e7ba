package run

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/plan"
	"joist/engine/policy"
	"joist/engine/run/timers"
)

// policed is what is ready and held by policies: until a window opens, or another goal.
type policed struct {
	policy.Judge
	held    map[history.Target]bool
	open    []bool // of each policy, whether its windows let something pass, when that was last looked at
	counted bool   // something has begun that counts, since those that wait for a place were last looked at
}

// repolice takes the policies of the newest goal. What was held waits anew.
func (m *Machine) repolice() (waiting []history.Target) {
	waiting = slices.Collect(maps.Keys(m.policed.held))
	timers.Sort(waiting)
	m.policed = policed{Judge: policy.New(m.state, m.model(len(m.state.Goals)-1)), held: map[history.Target]bool{}, counted: true}
	return waiting
}

// reopen looks again at what is held, if a window has opened or closed since.
func (m *Machine) reopen(now time.Time) {
	if m.policed.Idle() {
		return
	}
	open := m.policed.Open(now)
	if slices.Equal(open, m.policed.open) {
		return
	}
	m.policed.open, m.policed.counted = open, true
	for t := range m.policed.held {
		m.plan.Touch(t)
	}
	clear(m.policed.held)
}

// sift takes what policies hold out of the lines for places: it asks for none.
func (m *Machine) sift(now time.Time) {
	if !m.policed.counted || m.policed.Idle() {
		return
	}
	m.policed.counted = false
	for _, g := range m.rollouts {
		g.ready = slices.DeleteFunc(g.ready, func(t history.Target) bool { return m.withhold(now, t) })
		for node, list := range g.waiting {
			if g.waiting[node] = slices.DeleteFunc(list, func(t history.Target) bool { return m.withhold(now, t) }); len(g.waiting[node]) == 0 {
				delete(g.waiting, node)
			}
		}
		g.queue = slices.DeleteFunc(g.queue, func(q queued) bool { return len(g.waiting[q.node]) == 0 })
		heap.Init(&g.queue)
	}
}

// withhold reports whether policies hold what is ready, and keeps it aside then.
func (m *Machine) withhold(now time.Time, t history.Target) bool {
	if m.policed.Idle() || m.held(now, t).Kind == history.Same {
		return false
	}
	m.policed.held[t] = true
	return true
}

// held says which policy holds what is ready; the zero cause for none, and for what is not ready.
func (m *Machine) held(now time.Time, t history.Target) plan.Cause {
	if r := m.plan.Removal(t); r != nil {
		if r.Ready {
			return m.policed.Removal(now, r).Held
		}
		return plan.Cause{}
	}
	if cell := m.plan.Cell(t); cell != nil && cell.Ready {
		return m.policed.Reboot(now, t, m.plan.Task(t.Task)).Held
	}
	return plan.Cause{}
}

// opening is when something that is held may go on; zero for never.
func (m *Machine) opening(now time.Time) time.Time {
	if len(m.policed.held) == 0 {
		return time.Time{}
	}
	return m.policed.Opens(now)
}

// mayEnd reports whether policies let what is asked for: that nodes be wiped, also as they are given back, or that one be fenced,
// which ends all that is on it. What of that counts is written down before.
func (m *Machine) mayEnd(now time.Time, e Effect) bool {
	if m.policed.Idle() {
		return true
	}
	var wiped []string // the first of which is asked for again
	var v policy.Verdict
	node := ""
	switch e := e.(type) {
	case Fence:
		node, v = e.Node, m.policed.End(now, e.Node, m.plan)
	case Wipe:
		node, v = e.Node, m.policed.End(now, e.Node, m.plan)
		wiped = []string{e.Node}
	case WipeAll:
		node = e.Nodes[0].Node
		for _, n := range e.Nodes {
			wiped = append(wiped, n.Node)
		}
	case Release:
		if node = e.Node; m.state.Node(node).Holds() {
			wiped = []string{node}
		}
	}
	begins, held := m.policed.Wipes(now, wiped)
	if held.Held.Kind != history.Same {
		v.Held, v.Opens = held.Held, later(v.Opens, held.Opens)
	}
	if v.Held.Kind != history.Same {
		m.asks.Add(v.Opens, history.Target{Node: node})
		return false
	}
	if slices.ContainsFunc(v.Counts, func(name string) bool { return !m.state.Begun[name][node] }) {
		begins = append(begins, history.WipeBegun{Node: node, Policies: v.Counts})
	}
	for _, e := range begins {
		m.take(now, e)
	}
	m.policed.counted = m.policed.counted || len(begins) > 0
	return true
}

// Policed says which policy holds a removal, or the wipe of a node; the zero cause for none.
func (m *Machine) Policed(t history.Target) plan.Cause {
	if m.policed.Idle() {
		return plan.Cause{}
	}
	if held := m.held(m.plan.Now(), t); held.Kind != history.Same {
		return held
	}
	if n := m.state.Node(t.Node); n != nil {
		return m.unwiped(n)
	}
	return plan.Cause{}
}

// unwiped says which policy holds the wipe of a node; the zero cause for none, and for a node that is not to be wiped. Those whose
// wipe was ordered are wiped together or not at all.
func (m *Machine) unwiped(n *history.Node) plan.Cause {
	goal := m.state.Goal()
	if _, ordered := m.state.Wiping[n.Name]; ordered {
		_, v := m.policed.Wipes(m.plan.Now(), slices.Sorted(maps.Keys(m.state.Wiping)))
		return v.Held
	}
	if goal == nil || !leaving(n) || m.plan.Wants(n.Name) {
		return plan.Cause{}
	}
	if goal.Destroy && n.Alive() {
		if held := m.policed.Wipe(m.plan.Now(), n.Name).Held; held.Kind != history.Same {
			return held
		}
		return m.policed.End(m.plan.Now(), n.Name, m.plan).Held
	}
	if n.Holds() && m.plan.Burden(n.Name) == 0 && len(m.flights[n.Name]) == 0 { // nothing else keeps it from being given back
		return m.policed.Wipe(m.plan.Now(), n.Name).Held
	}
	return plan.Cause{}
}

// Refused lists what policies refuse of what is left to do.
func (m *Machine) Refused() []policy.Refusal { return m.policed.Refusals(m.plan.Now(), m.plan) }

// withheld counts what policies hold, and says which wipes are among it.
func (m *Machine) withheld() (removals, wipes int, first string) {
	if m.policed.Idle() {
		return 0, 0, ""
	}
	note := func(n *int, held plan.Cause) {
		if held.Kind != history.Same {
			if *n++; first == "" {
				first = held.Text
			}
		}
	}
	for _, r := range m.plan.Removals() {
		if r.Ready {
			note(&removals, m.policed.Removal(m.plan.Now(), &r).Held)
		}
	}
	for t := range m.policed.held {
		if m.plan.Removal(t) == nil {
			note(&removals, m.held(m.plan.Now(), t))
		}
	}
	for _, n := range m.state.Nodes {
		note(&wipes, m.unwiped(n))
	}
	return removals, wipes, first
}

// policySays ends the detail of a rest with what policies hold.
func policySays(removals, wipes int) string {
	if removals+wipes == 0 {
		return ""
	}
	return fmt.Sprintf("; %d held by policies", removals+wipes)
}
