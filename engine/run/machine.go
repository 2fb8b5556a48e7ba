package run

import (
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
)

// Machine pursues the goal of one cluster. It is not safe for concurrent use.
type Machine struct {
	state   *history.State
	plan    *plan.Planner
	library Library

	queue   []history.Target            // ready, not yet looked at
	held    map[string][]history.Target // ready, but refused a place, by rollout
	timers  timers
	groups  map[string]*model.Rollout // by task
	asked   map[string]asked          // what was last asked of nodes
	nextAsk time.Time                 // when to look at them again; zero for when something happens
	flights int                       // attempts in flight
	events  []history.Event
	effects []Effect
}

type asked struct {
	what string
	at   time.Time
	next time.Duration
}

// Library holds what the machine needs beside the journal. Everything in it is immutable, named by digest.
type Library interface {
	// Model gives the checked model of a goal. The driver has loaded those of every goal that a live row names.
	Model(g history.Goal) *model.Model
	// Blob gives a large value that a Keep stored, or nil.
	Blob(d value.Digest) []byte
}

// Outcome is what an advance yields: events to append, in order, and effects to perform once they are durable.
type Outcome struct {
	Events  []history.Event
	Effects []Effect
	Now     time.Time // time of all the events
	Wake    time.Time // when Advance has to be called again if nothing happens before; zero for never
}

// New takes up a journal where it stands. Call Resume before the first Advance.
func New(state *history.State, library Library) *Machine {
	m := &Machine{state: state, library: library, held: map[string][]history.Target{}, groups: map[string]*model.Rollout{}, asked: map[string]asked{}}
	m.replan()
	m.flights = len(m.flying())
	return m
}

// State gives the folded journal. It must not be changed.
func (m *Machine) State() *history.State { return m.state }

// Plan gives the decisions as they stand. They must not be changed.
func (m *Machine) Plan() *plan.Planner { return m.plan }

func (m *Machine) replan() {
	m.plan = plan.New(m.state, m.model)
	clear(m.groups)
	clear(m.held)
	rollouts := m.plan.Model().Rollouts
	for i := range rollouts {
		for _, task := range rollouts[i].Tasks {
			m.groups[task] = &rollouts[i]
		}
	}
	m.queue = m.plan.Fresh()
}

func (m *Machine) model(goal int) *model.Model {
	if goal < 0 || goal >= len(m.state.Goals) {
		return nil
	}
	return m.library.Model(m.state.Goals[goal])
}

// Resume repeats the effects of everything in flight, after a restart. Whoever receives them knows the identity of
// each, and does nothing twice.
func (m *Machine) Resume(now time.Time) Outcome {
	for name, c := range m.state.Columns {
		for i, row := range c.Rows {
			if row == nil {
				continue
			}
			t := history.Target{Task: name}
			if i > 0 {
				t.Node = m.state.Nodes[i-1].Name
			}
			if row.Flight != nil {
				m.timers.add(row.Flight.Deadline, t)
				m.perform(t, row)
			}
			m.remind(t, row)
		}
	}
	return m.Advance(now)
}

// remind sets the timers that a row asks for: the next attempt, and the renewal of a success with a limited life.
func (m *Machine) remind(t history.Target, row *history.Row) {
	if f := row.Failure; f != nil && !f.Final {
		m.timers.add(f.Retry, t)
	}
	if !row.Due.IsZero() && !row.Expired {
		m.timers.add(renewal(t, row), t)
	}
}

// Advance folds what happened and decides what follows. The events given stand first in the outcome.
func (m *Machine) Advance(now time.Time, happened ...history.Event) Outcome {
	m.events = nil
	for _, e := range happened {
		m.take(now, e)
	}
	due := m.timers.until(now)
	for _, t := range due {
		m.ring(now, t)
	}
	m.plan.Update()
	for m.step(now) {
		m.plan.Update()
	}
	m.tend(now)
	m.rest(now)
	out := Outcome{Events: m.events, Effects: m.effects, Now: now, Wake: m.timers.next()}
	if !m.nextAsk.IsZero() && (out.Wake.IsZero() || m.nextAsk.Before(out.Wake)) {
		out.Wake = m.nextAsk
	}
	m.events, m.effects = nil, nil
	return out
}

// take makes an event part of the journal and of everything derived from it.
func (m *Machine) take(now time.Time, e history.Event) {
	before := m.endedBy(e)
	m.flights += flightChange(m.state, e)
	m.state.Fold(m.state.Seq+1, now, e)
	m.events = append(m.events, e)
	switch e := e.(type) {
	case history.Goal:
		m.replan()
		clear(m.asked)
	case history.NodeSeen:
		m.plan.TouchNode(e.Node)
		m.excuse(now, e.Node, before)
	case history.NodeEnded:
		m.plan.TouchNode(e.Node)
		m.excuse(now, e.Node, before)
	case history.NodeReleased:
		m.plan.TouchNode(e.Node)
	case history.Cancelled:
		m.abortAll()
	case history.BreakerClosed:
		m.recall(e.Rollout)
	case history.PlaceReturned:
		m.recall(e.Rollout)
	case history.Succeeded:
		m.touch(e.Target)
		for _, j := range e.Joins {
			m.touch(history.Target{Task: j.Task})
		}
	case history.Started:
		m.touch(e.Target)
	case history.Failed:
		m.touch(e.Target)
	case history.Discharged:
		m.touch(e.Target)
	case history.Forced:
		m.touch(e.Target)
	case history.Drifted:
		m.touch(e.Target)
	case history.Expired:
		m.touch(e.Target)
	}
}

func (m *Machine) touch(t history.Target) {
	m.plan.Touch(t)
	if row := m.state.Row(t); row != nil {
		m.remind(t, row)
	}
	if g := m.groups[t.Task]; g != nil {
		m.recall(g.Name)
	}
}

// flightChange is by how much an event changes the number of attempts in flight.
func flightChange(s *history.State, e history.Event) int {
	flying := func(t history.Target) int {
		if row := s.Row(t); row != nil && row.Flight != nil {
			return 1
		}
		return 0
	}
	switch e := e.(type) {
	case history.Started:
		return 1 - flying(e.Target)
	case history.Succeeded:
		return -flying(e.Target)
	case history.Failed:
		return -flying(e.Target)
	case history.Discharged:
		return -flying(e.Target)
	}
	return 0
}

// recall lets everything that was refused a place ask again.
func (m *Machine) recall(rollout string) {
	m.queue = append(m.queue, m.held[rollout]...)
	delete(m.held, rollout)
}

// endedBy gives the incarnation and boot that an event may be about to end.
func (m *Machine) endedBy(e history.Event) history.Node {
	var name string
	switch e := e.(type) {
	case history.NodeSeen:
		name = e.Node
	case history.NodeEnded:
		name = e.Node
	default:
		return history.Node{}
	}
	if n := m.state.Node(name); n != nil {
		return *n
	}
	return history.Node{}
}

// excuse ends the attempts that were in flight on a node whose incarnation or boot has ended: they are nobody's failure.
func (m *Machine) excuse(now time.Time, name string, before history.Node) {
	n := m.state.Node(name)
	if before.Incarnation == "" || before.Incarnation == n.Incarnation && before.Boot == n.Boot && !n.Ended {
		return
	}
	for _, t := range m.flying() {
		row := m.state.Row(t)
		if row.Flight.Agent != name {
			continue
		}
		m.take(now, history.Failed{Target: t, Action: row.Flight.Action, Attempt: row.Flight.Attempt, Error: "the node's boot or incarnation ended", Excused: true})
	}
}

// flying lists what is in flight, in a fixed order.
func (m *Machine) flying() []history.Target {
	var list []history.Target
	for name, c := range m.state.Columns {
		for i, row := range c.Rows {
			if row == nil || row.Flight == nil {
				continue
			}
			t := history.Target{Task: name}
			if i > 0 {
				t.Node = m.state.Nodes[i-1].Name
			}
			list = append(list, t)
		}
	}
	sortTargets(list)
	return list
}

// ring is the time that something was waiting for.
func (m *Machine) ring(now time.Time, t history.Target) {
	row := m.state.Row(t)
	if row == nil {
		return
	}
	switch {
	case row.Flight != nil && !row.Flight.Deadline.After(now):
		m.effects = append(m.effects, Abort{Target: t, ID: row.Started, Agent: row.Flight.Agent})
		m.take(now, m.conclude(now, t, Report{ID: row.Started, Error: "no result within its time; the node or service may be cut off"}))
	case row.Flight == nil && row.Phase == history.InPlace && !row.Due.IsZero() && !row.Expired && !renewal(t, row).After(now):
		m.take(now, history.Expired{Target: t})
	case row.Flight == nil && row.Failure != nil && !row.Failure.Final:
		m.plan.Touch(t)
	}
}
