package run

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/timers"
	"joist/engine/run/upkeep"
	"joist/engine/step"
)

// watched is a verify under way.
type watched struct {
	id      uint64    // with the instance, the request's identity: the event that asked for it, or a number of its own
	rollout string    // whose watch it belongs to; empty for a verify that looks for drift
	agent   string    // node that performs it; empty for a service
	until   time.Time // when it is given up
	again   time.Time // of one at the end of a watch that gave no answer: when it is asked for once more; zero while it may answer
	row     uint64    // of one that looks for drift: the start whose effect it looks at
}

// Looked says what came of verifies so far.
func (m *Machine) Looked() upkeep.Counts { return m.looks.Counts() }

// Inquire has instances verified as soon as the budget for verifies lets them; without any, all that have a verify. What is
// not verified now is said at once.
func (m *Machine) Inquire(now time.Time, by string, targets []history.Target) (uint64, error) {
	if why := m.resting(); why != "" {
		return 0, fmt.Errorf("cannot verify: %s", why)
	}
	if len(targets) == 0 {
		targets = m.verifiable()
		timers.Sort(targets)
	}
	return m.looks.Inquire(m.clock.Read(now), by, targets, upkeep.Asked{Left: m.unverifiable, Lane: m.lane}), nil
}

// Inquiry says how far an inquiry is; of what has ended it leaves out as many as skip, and gives at most the number asked for.
func (m *Machine) Inquiry(id uint64, skip, most int) (upkeep.Inquiry, error) {
	return m.looks.Inquiry(id, skip, most)
}

// inspect asks for the verifies that are due, as far as the budget for them goes: one on a node, so many in the cluster.
func (m *Machine) inspect(now time.Time) {
	b, every := &m.looks, m.plan.Model().Drift.Every
	if b.Idle() && every == 0 {
		return
	}
	b.Roll(now, every, m.verifiable, func(t history.Target) {
		if m.unverifiable(t) == "" && !b.Doubted(t) {
			b.Put(t, m.lane(t))
		}
	})
	for _, t := range b.Rings(now) {
		asked, under := m.watching[t]
		switch {
		case under && asked.until.After(now):
			b.Extend(t, asked.until)
		case under && asked.drift():
			m.effects = append(m.effects, Abort{Target: t, ID: asked.id, Agent: asked.agent})
			delete(m.watching, t)
			b.End(now, t, upkeep.Look{State: upkeep.LookSilent, Observed: Unanswered})
		case b.Doubted(t):
			b.Put(t, m.lane(t))
		}
	}
	for {
		t, ok := b.Take(cmp.Or(m.plan.Model().Drift.AtOnce, model.DriftAtOnce))
		if !ok {
			return
		}
		if why := m.unverifiable(t); why != "" {
			b.Leave(now, t, why)
			continue
		}
		m.lookAt(now, t)
	}
}

// lane is where an instance is verified, one at a time: its node, or where nothing is in each other's way, a lane of its own.
func (m *Machine) lane(t history.Target) string {
	if task := m.plan.Task(t.Task); task != nil && task.Step.Scope == model.Node {
		return t.Node
	}
	return "\x00" + t.Task + "\x00" + t.Node
}

// verifiable lists the instances that have a verify.
func (m *Machine) verifiable() []history.Target {
	var list []history.Target
	m.plan.Each(func(t history.Target, task *model.Task, _ *plan.Cell) {
		if verified(task) {
			list = append(list, t)
		}
	})
	return list
}

// verified reports whether the instances of a task can drift, and be found to have.
func verified(task *model.Task) bool { return task.Step.Verify != nil && !task.Step.Scout }

// nextLook is when the machine has to be advanced for verifies; zero for never.
func (m *Machine) nextLook(now time.Time) time.Time {
	every := m.plan.Model().Drift.Every
	if m.resting() != "" {
		every = 0
	}
	return m.looks.Next(now, every)
}

// sooner gives the earlier of two times; a zero one never comes.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// resting says why nothing at all is verified, if so.
func (m *Machine) resting() string {
	switch goal := m.state.Goal(); {
	case goal == nil:
		return "the cluster has no goal"
	case goal.Destroy:
		return "the cluster is being destroyed"
	case m.state.Outcome == history.OutcomeCancelled:
		return "the pursuit of the goal was cancelled"
	case len(m.state.Wiping) > 0:
		return "the cluster's machines are being wiped"
	}
	return ""
}

// unverifiable says why an instance is not verified now, if so: what is not in place or about to change, what has no verify,
// what is of a node that leaves, and what has nobody to verify it.
func (m *Machine) unverifiable(t history.Target) string {
	if why := m.resting(); why != "" {
		return why
	}
	cell, row, n := m.plan.Cell(t), m.state.Row(t), m.state.Node(t.Node)
	if cell == nil || t.Node != "" && n == nil {
		return "the goal has no such instance"
	}
	task := m.plan.Task(t.Task)
	if task.Step.Scout {
		return "it is verified in scout, each time that it is applied"
	}
	if !verified(task) {
		return "its step has no verify"
	}
	switch g := m.groups[t.Task]; {
	case row == nil || row.Phase != history.InPlace || !cell.Settled():
		return "it is not in place"
	case row.Flight != nil:
		return "an attempt is in flight"
	case g != nil && t.Node != "" && m.holds(g, t.Node):
		return "its node has a place of rollout " + g.Name + ": it is being changed, or watched"
	case n != nil && !m.plan.Wants(t.Node):
		return "its node is leaving"
	case n != nil && n.Aside != nil:
		return "its node is set aside"
	}
	if asked, ok := m.watching[t]; ok && m.forWatch(t, asked) {
		return "it is being verified for its rollout"
	}
	return m.unasked(task, t)
}

// unasked says why nobody can be asked for a verify now, if so.
func (m *Machine) unasked(task *model.Task, t history.Target) string {
	n := m.state.Node(t.Node)
	switch {
	case task.Step.Scope == model.Service:
		return ""
	case task.Step.Scope == model.Cluster:
		_, why := m.plan.Executor(t, 1)
		return why.Text
	case !n.Alive() || !n.Online:
		return "its node does not answer"
	case !model.Suffices(n.Level, m.plan.Model().Trust):
		return "its node is not trusted enough"
	}
	return ""
}

// drift reports whether what is watched is looked at for drift, and not for a rollout.
func (w watched) drift() bool { return w.rollout == "" }

// firstLook is where the identities of such verifies begin: no event has such a number.
const firstLook = 1 << 63

// IsLook reports whether an attempt's identity is one of a verify for drift, of which the journal knows nothing.
func IsLook(id uint64) bool { return id >= firstLook }

// lookAt asks for a verify of an instance, to see whether it has drifted.
func (m *Machine) lookAt(now time.Time, t history.Target) {
	// By the reading: where the clock was set back, a process that takes up the cluster begins with a time that was before, and
	// agents would answer what they found then.
	m.look = max(m.look+1, firstLook|uint64(m.clock.Reading(now).UnixNano()))
	row := m.state.Row(t)
	asked := watched{id: m.look, until: deadline(now, m.plan.Task(t.Task).Step.Verify), row: row.Started}
	e, err := m.verify(t, row, &asked)
	if err != nil { // it could not be applied again either, and its apply will say so
		m.looks.Leave(now, t, err.Error())
		return
	}
	m.watching[t] = asked
	m.looks.Begin(t, asked.until)
	m.effects = append(m.effects, e)
}

// verify makes the effect that looks at an instance, with the inputs of its last start, and notes who is asked.
func (m *Machine) verify(t history.Target, row *history.Row, asked *watched) (Effect, error) {
	task := m.plan.Task(t.Task)
	host := ""
	switch task.Step.Scope {
	case model.Node:
		asked.agent = t.Node
	case model.Cluster:
		executor, why := m.plan.Executor(t, 1)
		if why.Kind != history.Same {
			return nil, errors.New(why.Text)
		}
		asked.agent, host = executor, executor
	case model.Service:
	}
	inputs, was, err := m.recordedFor(t, row, host)
	if was == nil || err != nil {
		return nil, errors.New("its inputs cannot be read")
	}
	if task.Step.Scope == model.Service {
		return Call{Target: t, ID: asked.id, Name: task.Step.Verify.Call, Action: step.Verify, Attempt: 1, Inputs: inputs, Deadline: asked.until}, nil
	}
	n := m.state.Node(asked.agent)
	return Dispatch{Target: t, ID: asked.id, Agent: asked.agent, Incarnation: n.Incarnation, Boot: n.Boot, Action: step.Verify, Attempt: 1,
		Step: task.Step, Inputs: inputs, Outputs: row.Outputs, Deadline: asked.until}, nil
}

// concludeLook turns the report of a verify into an event, if it found something new.
func (m *Machine) concludeLook(now time.Time, t history.Target, r Report) (history.Event, bool) {
	asked, row := m.watching[t], m.state.Row(t)
	found := upkeep.Look{State: upkeep.LookInPlace}
	output := ""
	switch {
	case r.Excused || r.Refused || r.Later != nil:
		found = upkeep.Look{State: upkeep.LookSilent, Observed: cut(r.Error, mostObserved)}
	case row == nil || row.Started != asked.row || row.Phase != history.InPlace: // discharged meanwhile, without a start
		found = upkeep.Look{State: upkeep.LookLeftOut, Observed: upkeep.Changed}
	case r.Error != "":
		found.State = upkeep.LookDrifted
		found.Observed, output = observed(r.Error)
	}
	delete(m.watching, t)
	if !m.looks.End(now, t, found) {
		return nil, false
	}
	switch {
	case found.State == upkeep.LookInPlace && row.Drifted != "":
		return history.Mended{Target: t}, true
	case found.State == upkeep.LookDrifted && row.Drifted == "":
		return history.Drifted{Target: t, Observed: found.Observed, Output: output, By: m.looks.Asker(t)}, true
	}
	return nil, false
}

// mostObserved bounds the sentence that says what a verify found, in bytes.
const mostObserved = 400

// observed takes apart what an agent says of a verify that failed: how it ended, and the last lines that it wrote. The last
// of these says most.
func observed(text string) (sentence, output string) {
	how, tail, _ := strings.Cut(text, "\n")
	tail = strings.TrimSpace(tail)
	if last := strings.TrimSpace(tail[strings.LastIndexByte(tail, '\n')+1:]); last != "" {
		how += ": " + last
	}
	if len(tail) > history.MostOutput {
		tail = strings.ToValidUTF8(tail[len(tail)-history.MostOutput:], "")
		if at := strings.IndexByte(tail, '\n'); at >= 0 {
			tail = tail[at+1:]
		}
	}
	return cut(how, mostObserved), tail
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// lookAway gives up the verify of an instance that something is about to be done to.
func (m *Machine) lookAway(now time.Time, t history.Target) {
	asked, ok := m.watching[t]
	if !ok {
		m.looks.Forget(now, t)
		return
	}
	delete(m.watching, t)
	m.effects = append(m.effects, Abort{Target: t, ID: asked.id, Agent: asked.agent})
	if asked.drift() {
		m.looks.End(now, t, upkeep.Look{State: upkeep.LookLeftOut, Observed: upkeep.Changed})
	}
}
