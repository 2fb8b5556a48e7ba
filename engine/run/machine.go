package run

import (
	"maps"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/pace"
	"joist/engine/run/timers"
	"joist/engine/run/upkeep"
	"joist/engine/value"
)

// Machine pursues the goal of one cluster. It is not safe for concurrent use.
type Machine struct {
	state   *history.State
	plan    *plan.Planner
	library Library
	clock   timers.Clock

	queue    []history.Target        // became ready while nothing was allowed to start
	begun    map[history.Target]bool // in the current step
	timers   timers.Set
	watches  timers.Set                 // ends of watches, by rollout and node
	watching map[history.Target]watched // verifies under way
	looks    upkeep.Book
	look     uint64 // identity of the last verify that looks for drift
	policed  policed
	rollouts []*group
	groups   map[string]*group                  // by task
	flights  map[string]map[history.Target]bool // attempts in flight, by the node that performs them; "" for services
	flying   int                                // how many
	down     map[string]bool                    // nodes that may be about to reboot
	asked    map[string]asked                   // what was last asked of nodes
	restless map[string]bool                    // nodes to look at, whether something has to be asked of them
	needs    map[string]Effect                  // what has to be asked of nodes, until it is done
	urgent   int                                // needs other than power
	asks     timers.Set                         // when to ask again
	failing  map[string]bool                    // nodes on which something failed for good, and that are not set aside
	readings map[reading]value.Value            // large inputs that were read
	room     map[string]bool                    // whether a role tolerates one more node that is set aside; see roomFor
	events   []history.Event
	effects  []Effect
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
	Now     time.Time // time of all the events: never before that of an earlier one, whatever the clock shows
	Wake    time.Time // when, by the clock, Advance has to be called again if nothing happens before; zero for never
}

// New takes up a journal where it stands. Call Resume before the first Advance.
func New(state *history.State, library Library) *Machine {
	m := &Machine{
		state: state, library: library, clock: timers.Since(state.Now), groups: map[string]*group{}, begun: map[history.Target]bool{}, asked: map[string]asked{}, restless: map[string]bool{}, needs: map[string]Effect{},
		flights: map[string]map[history.Target]bool{}, watching: map[history.Target]watched{}, failing: map[string]bool{}, looks: upkeep.New(), readings: map[reading]value.Value{}, room: map[string]bool{}, down: map[string]bool{},
	}
	m.eachRow(func(t history.Target, row *history.Row) {
		m.note(t, nil, row.Flight)
		m.noteFailure(t, row)
	})
	m.replan()
	return m
}

// State gives the folded journal. It must not be changed.
func (m *Machine) State() *history.State { return m.state }

// Plan gives the decisions as they stand. They must not be changed.
func (m *Machine) Plan() *plan.Planner { return m.plan }

func (m *Machine) replan() {
	if m.plan == nil || !m.plan.Retarget() {
		m.plan = plan.New(m.state, m.model)
		m.queue = nil
	}
	m.looks.Renew()
	waiting := append(m.queue, m.repolice()...)
	m.queue = nil
	for _, g := range m.rollouts {
		waiting = append(waiting, g.ready...)
		for _, node := range slices.Sorted(maps.Keys(g.waiting)) {
			waiting = append(waiting, g.waiting[node]...)
		}
	}
	m.groupsOf()
	for _, t := range waiting { // in the plan's order, whatever order they came to wait in
		m.plan.Touch(t)
	}
	for _, n := range m.state.Nodes {
		m.restless[n.Name] = true
	}
}

func (m *Machine) model(goal int) *model.Model {
	if goal < 0 || goal >= len(m.state.Goals) {
		return nil
	}
	return m.library.Model(m.state.Goals[goal])
}

// resumeGrace is how long after a start of the engine results may still come of what was in flight before.
const resumeGrace = 2 * time.Minute

// Resume repeats the effects of everything in flight, after a restart. Whoever receives them knows the identity of
// each, and does nothing twice.
func (m *Machine) Resume(now time.Time) Outcome {
	now = m.clock.Read(now)
	m.events = nil
	if m.flying > 0 || m.awaitsVerify() {
		m.take(now, history.Resumed{})
	}
	m.eachRow(func(t history.Target, row *history.Row) {
		if row.Flight != nil {
			m.perform(t, row)
			if row.Flight.Aborted {
				m.effects = append(m.effects, Abort{Target: t, ID: row.Started, Agent: row.Flight.Agent})
			}
		}
		m.remind(now, t, row)
	})
	return m.advance(now)
}

// Recall takes up everything that the journal says is awaited, as if the machine had been there all along: nothing is
// repeated and nothing decided. It stands in Resume's place where a journal is replayed, and performs nothing.
func (m *Machine) Recall(now time.Time) {
	m.eachRow(func(t history.Target, row *history.Row) { m.remind(now, t, row) })
}

// eachRow calls f for every row that there is, by task and node.
func (m *Machine) eachRow(f func(history.Target, *history.Row)) {
	for _, name := range slices.Sorted(maps.Keys(m.state.Columns)) {
		for i, row := range m.state.Columns[name].Rows {
			if row == nil {
				continue
			}
			t := history.Target{Task: name}
			if i > 0 {
				t.Node = m.state.Nodes[i-1].Name
			}
			f(t, row)
		}
	}
}

// remind sets the timer that a row asks for: the end of an attempt, the next one, or the renewal of a success with a
// limited life.
func (m *Machine) remind(now time.Time, t history.Target, row *history.Row) {
	switch {
	case row.Flight != nil:
		m.timers.Add(m.deadline(row), t)
	case row.Failure != nil && !row.Failure.Final && row.Failure.Retry.After(now):
		m.timers.Add(row.Failure.Retry, t)
	case row.Failure != nil && !row.Failure.Final:
		m.plan.Touch(t)
	case !row.Due.IsZero() && !row.Expired && row.Phase == history.InPlace && !m.approval(t):
		m.timers.Add(pace.Renewal(t, row), t)
	}
}

// TimedOut is the error of an attempt that the machine itself gave up.
const TimedOut = "no result within its time; the node or service may be cut off"

// deadline is when an attempt is given up. What ended while the engine was down has time to say so.
func (m *Machine) deadline(row *history.Row) time.Time {
	at := row.Flight.Deadline
	if grace := m.state.Resumed.Add(resumeGrace); row.Begun.Before(m.state.Resumed) && at.Before(grace) {
		return grace
	}
	return at
}

// Advance folds what happened and decides what follows. The events given stand first in the outcome, but for those that
// answer a question nobody asks any more. Where several are told together, what was due before them stands first: a replay,
// which is told of one at a time, finds nothing to decide between them that the machine decided after them.
func (m *Machine) Advance(now time.Time, happened ...history.Event) Outcome {
	now = m.clock.Read(now)
	m.events = nil
	var due Outcome
	if len(happened) > 1 {
		due = m.advance(now)
	}
	for _, e := range happened {
		if !m.stale(e) {
			m.take(now, e)
		}
	}
	out := m.advance(now)
	out.Events, out.Effects = append(due.Events, out.Events...), append(due.Effects, out.Effects...)
	return out
}

// stale reports whether an event answers what the machine would not ask any more: the release of a node that the goal
// has again, or that something stands on; the approval of what is another thing now.
func (m *Machine) stale(e history.Event) bool {
	if a, ok := e.(history.Approved); ok {
		return !m.asking(a)
	}
	r, ok := e.(history.NodeReleased)
	return ok && (m.plan.Wants(r.Node) || m.plan.Burden(r.Node) > 0 || len(m.flights[r.Node]) > 0)
}

func (m *Machine) advance(now time.Time) Outcome {
	m.plan.At(now)
	for _, t := range m.timers.Until(now) {
		m.ring(now, t)
	}
	m.rung(now)
	m.reopen(now)
	m.plan.Update()
	for m.tolerate(now) || m.step(now) || m.lend(now) {
		m.plan.Update()
	}
	m.tend(now)
	m.rest(now)
	m.inspect(now)
	out := Outcome{Events: m.events, Effects: m.effects, Now: now, Wake: sooner(sooner(m.timers.Next(), m.nextLook(now)), m.opening(now))}
	if m.state.Outcome != history.OutcomeCancelled {
		out.Wake = sooner(sooner(out.Wake, m.asks.Next()), m.watches.Next())
	}
	m.events, m.effects = nil, nil
	return m.outside(out)
}

// outside gives the times of an outcome as clocks will show them: those of others, too, may have been set back.
func (m *Machine) outside(out Outcome) Outcome {
	if m.clock.True() {
		return out
	}
	out.Wake = m.clock.Reading(out.Wake)
	for i, e := range out.Effects {
		switch e := e.(type) {
		case Dispatch:
			e.Deadline = m.clock.Reading(e.Deadline)
			out.Effects[i] = e
		case Call:
			e.Deadline = m.clock.Reading(e.Deadline)
			out.Effects[i] = e
		}
	}
	return out
}

// take makes an event part of the journal and of everything derived from it.
func (m *Machine) take(now time.Time, e history.Event) {
	m.plan.At(now)
	t, aimed := history.TargetOf(e)
	var before *history.Flight
	if aimed {
		before = m.flight(t)
	}
	node := m.endedBy(e)
	if _, starts := e.(history.Started); starts {
		m.lookAway(now, t)
	}
	m.state.Fold(m.state.Seq+1, now, e)
	m.roomFor(e)
	m.events = append(m.events, e)
	if aimed {
		m.note(t, before, m.flight(t))
		m.noteFailure(t, m.state.Row(t))
		m.touch(now, t)
	}
	switch e := e.(type) {
	case history.Goal:
		m.replan()
		clear(m.asked)
	case history.NodeSeen:
		m.touchNode(now, e.Node, node)
	case history.NodeEnded:
		m.touchNode(now, e.Node, node)
	case history.NodeReleased:
		m.touchNode(now, e.Node, node)
	case history.NodeAside:
		m.touchAside(now, e.Node)
	case history.NodeReturned:
		m.touchAside(now, e.Node)
	case history.WipeOrdered:
		for name := range m.state.Wiping {
			m.restless[name] = true
		}
		m.asked = map[string]asked{}
	case history.Cancelled:
		m.abortAll()
		m.plan.TouchGuards()
	case history.Watched:
		if g := m.groups[t.Task]; g != nil {
			g.touched[t.Node] = true
		}
		if row := m.state.Row(t); e.OK && row != nil && row.Drifted != "" { // as it waits for a person
			m.take(now, history.Mended{Target: t})
		}
	case history.Succeeded:
		for _, j := range e.Joins {
			m.plan.Touch(history.Target{Task: j.Task})
		}
		if g := m.groups[t.Task]; g != nil {
			m.found(g, t.Node)
		}
	}
}

func (m *Machine) touch(now time.Time, t history.Target) {
	m.plan.Touch(t)
	if row := m.state.Row(t); row != nil {
		m.remind(now, t, row)
	}
	if t.Node != "" {
		m.restless[t.Node] = true
	}
}

func (m *Machine) touchNode(now time.Time, name string, before history.Node) {
	m.plan.TouchNode(name)
	m.restless[name] = true
	for other := range m.state.Wiping { // another one may stand for all now
		m.restless[other] = true
	}
	m.excuse(now, name, before)
	for _, g := range m.rollouts {
		if g.domains != nil {
			m.locate(g, m.state.Node(name))
		}
	}
}

// flight gives the attempt of an instance that is in flight, or nil.
func (m *Machine) flight(t history.Target) *history.Flight {
	if row := m.state.Row(t); row != nil {
		return row.Flight
	}
	return nil
}

// note keeps count of what is in flight, and where.
func (m *Machine) note(t history.Target, before, after *history.Flight) {
	if before != nil {
		delete(m.flights[before.Agent], t)
		m.flying--
		m.restless[before.Agent] = true
	}
	if after != nil {
		if after.Reboot != nil {
			m.down[after.Agent] = true
		}
		if m.flights[after.Agent] == nil {
			m.flights[after.Agent] = map[history.Target]bool{}
		}
		m.flights[after.Agent][t] = true
		m.flying++
	}
}

// airborne lists what a node has in flight, in a fixed order.
func (m *Machine) airborne(agent string) []history.Target {
	list := slices.Collect(maps.Keys(m.flights[agent]))
	timers.Sort(list)
	return list
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
	m.leftScout(now, n)
	if before.Incarnation == "" || before.Incarnation == n.Incarnation && before.Boot == n.Boot && !n.Ended {
		return
	}
	for _, t := range m.airborne(name) {
		row := m.state.Row(t)
		if row.Scout {
			continue
		}
		if e := m.cameBack(t, n); e != nil {
			m.take(now, e)
			continue
		} else if row.Flight.Reboot != nil && n.Alive() {
			continue // to be verified
		}
		m.take(now, history.Failed{Target: t, Action: row.Flight.Action, Attempt: row.Flight.Attempt, Error: "the node's boot or incarnation ended", Excused: true})
	}
}

// ring is the time that something was waiting for.
func (m *Machine) ring(now time.Time, t history.Target) {
	row := m.state.Row(t)
	if row == nil {
		return
	}
	switch {
	case row.Flight != nil && !m.deadline(row).After(now):
		m.effects = append(m.effects, Abort{Target: t, ID: m.Asked(row), Agent: row.Flight.Agent})
		m.take(now, m.conclude(now, t, Report{ID: m.Asked(row), Error: m.overdue(row)}))
	case row.Flight == nil && row.Phase == history.InPlace && !row.Due.IsZero() && !row.Expired && !m.approval(t) && !pace.Renewal(t, row).After(now):
		m.take(now, history.Expired{Target: t})
	default:
		m.plan.Touch(t)
		m.remind(now, t, row)
	}
}

// Replanned plans the same goal from scratch, for whoever wants to compare. It changes nothing.
func (m *Machine) Replanned() *plan.Planner {
	p := plan.New(m.state, m.model)
	p.At(m.plan.Now())
	for _, r := range m.plan.Removals() {
		p.Touch(r.Target)
	}
	p.Halt(m.stopped)
	p.Each(func(t history.Target, _ *model.Task, _ *plan.Cell) { p.Touch(t) })
	p.Update()
	return p
}
