package run

import (
	"encoding/json"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/step"
)

// RebootTime is how long a node may take from the result of its step until it is back, and verified.
const RebootTime = 20 * time.Minute

// NotBack is the error of an attempt whose node rebooted for it, and was not back in time.
const NotBack = "its node has not come back from the reboot within 20 minutes, or its verify gave no answer; look at its console"

// rebooter is what a node's agent performs to reboot: the order names the only boot that may.
func rebooter() *model.Step {
	return &model.Step{Name: "reboot", Scope: model.Node, Reboots: true, Apply: model.Action{Builtin: "reboot", Timeout: time.Minute, Attempts: 1}}
}

// reboots ends the first part of an attempt: what its apply did is durable, and its node is to reboot.
func (m *Machine) reboots(now time.Time, t history.Target, outputs json.RawMessage, until time.Time) history.Event {
	f := m.flight(t)
	if f.Aborted {
		return history.Failed{Target: t, Action: f.Action, Attempt: f.Attempt, Error: "it was cancelled before its node rebooted", Excused: true}
	}
	e := history.Rebooting{Target: t, Attempt: f.Attempt, Outputs: outputs, Boot: m.state.Node(t.Node).Boot, Deadline: now.Add(RebootTime)}
	if !until.IsZero() {
		e.ValidUntil = &until
	}
	return e
}

// Asked gives the event that names what an agent is asked for in the attempt in flight: its start, its node's reboot, or the boot
// after that, for the verify then. A request is never taken for another one.
func (m *Machine) Asked(row *history.Row) uint64 {
	if row.Flight == nil || row.Flight.Reboot == nil {
		return row.Started
	}
	if n := m.state.Node(row.Flight.Agent); n.Boot != row.Flight.Reboot.Boot {
		return n.Up
	}
	return row.Flight.Reboot.Seq
}

// goingDown reports whether a node is about to reboot: nothing else starts there until it is back.
func (m *Machine) goingDown(node string) bool {
	if !m.down[node] {
		return false
	}
	for t := range m.flights[node] {
		if m.flight(t).Reboot != nil {
			return true
		}
	}
	delete(m.down, node)
	return false
}

// chosen is what the plan's choice of a node for an attempt at a script comes to: none that is about to reboot.
func (m *Machine) chosen(t history.Target, attempt int, choose func(history.Target, int) (string, plan.Cause)) (string, plan.Cause) {
	name, why := choose(t, attempt)
	for i := 1; why.Kind == history.Same && m.goingDown(name); i++ {
		if i > len(m.state.Nodes) {
			return "", plan.Cause{Kind: history.Executor, Text: "the nodes that could execute it reboot"}
		}
		name, why = choose(t, attempt+i)
	}
	return name, why
}

// awaitsReboot reports whether nothing may start for an instance before a node is back from its reboot: its own, or all that could
// execute it.
func (m *Machine) awaitsReboot(t history.Target) bool {
	if len(m.down) == 0 {
		return false
	}
	if m.goingDown(t.Node) {
		return true
	}
	task, choose := m.plan.Task(t.Task), m.plan.Executor
	if r := m.plan.Removal(t); r != nil {
		task, choose = r.Task, m.plan.RemovalExecutor
		if r.Discharge != "" || !r.Ready {
			return false
		}
	} else if cell := m.plan.Cell(t); cell == nil || !cell.Ready {
		return false
	}
	if task == nil || task.Step.Scope != model.Cluster || task.Step.Pure() {
		return false
	}
	name, _ := m.chosen(t, 1, choose)
	return name == ""
}

// reboot is what has to be asked of a node that something in flight reboots: that it does, once nothing else is in flight there, and
// a verify once it is back. ok says that there is such an attempt.
func (m *Machine) reboot(n *history.Node) (what Effect, ok bool) {
	if !m.goingDown(n.Name) {
		return nil, false
	}
	flights := m.airborne(n.Name)
	busy := slices.ContainsFunc(flights, func(t history.Target) bool { return m.flight(t).Reboot == nil })
	for _, t := range flights {
		row := m.state.Row(t)
		r := row.Flight.Reboot
		switch {
		case r == nil:
			continue
		case !n.Online || !n.Alive() || row.Flight.Aborted:
			return nil, m.plan.Wants(n.Name) && n.Online
		case n.Boot == r.Boot && busy:
			return nil, true
		}
		d := Dispatch{Target: t, ID: m.Asked(row), Agent: n.Name, Incarnation: n.Incarnation, Boot: n.Boot, Action: step.Apply, Attempt: row.Flight.Attempt, Step: rebooter(), Deadline: row.Flight.Deadline}
		if n.Boot != r.Boot {
			inputs, task, err := m.recorded(t, row)
			if task == nil || task.Step.Verify == nil {
				return nil, true
			}
			d.Action, d.Step, d.Inputs, d.Outputs = step.Verify, task.Step, inputs, r.Outputs
			if err != nil {
				d.Broken = err.Error()
			}
		}
		return d, true
	}
	return nil, false
}

// cameBack gives the end of an attempt whose node rebooted for it, now that the node's boot or incarnation is another one; nil if
// that does not end it.
func (m *Machine) cameBack(t history.Target, n *history.Node) history.Event {
	row := m.state.Row(t)
	f := row.Flight
	switch {
	case f.Reboot == nil || n.Ended:
		return nil
	case n.Incarnation != row.Life.Incarnation:
		return history.Failed{Target: t, Action: f.Action, Attempt: f.Attempt, Error: history.Reborn, Final: true}
	}
	if was := m.model(row.Goal); was != nil && was.Task(t.Task) != nil && was.Task(t.Task).Step.Verify != nil {
		return nil
	}
	return m.rebooted(t)
}

func (m *Machine) rebooted(t history.Target) history.Event {
	row := m.state.Row(t)
	s := m.success(t, history.Started{Incarnation: row.Life.Incarnation, Attempt: row.Flight.Attempt, Agent: row.Flight.Agent}, row.Flight.Reboot.Outputs)
	s.ValidUntil = row.Flight.Reboot.ValidUntil
	return s
}

// concludeReboot turns what an agent says of a reboot, or of the verify after it, into the event that ends the attempt, if it does.
func (m *Machine) concludeReboot(now time.Time, t history.Target, r Report) (history.Event, bool) {
	n, f := m.state.Node(t.Node), m.flight(t)
	switch {
	case r.Excused || r.Refused: // it is asked again
		return nil, false
	case r.Error != "":
		if n.Boot == f.Reboot.Boot {
			r.Error = "its node does not reboot: " + r.Error
		}
		return m.conclude(now, t, r), true
	case n.Boot == f.Reboot.Boot:
		return nil, false // it goes down
	}
	return m.rebooted(t), true
}

// overdue is the error of an attempt whose time is over.
func (m *Machine) overdue(row *history.Row) string {
	if row.Flight.Reboot != nil {
		return NotBack
	}
	return TimedOut
}
