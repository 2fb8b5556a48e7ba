package run

import (
	"encoding/json"
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run/pace"
	"joist/engine/run/yield"
	"joist/engine/step"
	"joist/engine/value"
)

// Report is what an agent or a service says of an attempt.
type Report struct {
	ID         uint64          // event that started the attempt
	Outputs    json.RawMessage // object; of an apply that went well
	Error      string          // empty if it went well
	ValidUntil time.Time       // zero for never
	Excused    bool            // nobody's failure: it was aborted, or lost with its node
	Refused    bool            // whoever should have begun it would not, or could not: it says nothing of the effect
	Later      *step.Later     // it came to no end yet; nil if it did. Error says the same
}

// Conclude turns the report of an attempt into the event that ends it. The second result is false for a report of an
// attempt that is no longer in flight: it has been answered before, or given up.
func (m *Machine) Conclude(now time.Time, t history.Target, r Report) (history.Event, bool) {
	now, r.ValidUntil = m.clock.Read(now), m.clock.At(r.ValidUntil)
	if e, ok := m.concludeWatch(now, t, r); ok {
		return e, true
	}
	row := m.state.Row(t)
	if row == nil || row.Flight == nil || m.Asked(row) != r.ID {
		return nil, false
	}
	if row.Flight.Reboot != nil {
		return m.concludeReboot(now, t, r)
	}
	return m.conclude(now, t, r), true
}

// Awaits gives the node whose agent is to report an attempt, or a verify, that is under way.
func (m *Machine) Awaits(t history.Target, id uint64) (agent string, ok bool) {
	if asked, watching := m.watching[t]; watching && asked.id == id {
		return asked.agent, true
	}
	if row := m.state.Row(t); row != nil && row.Flight != nil && m.Asked(row) == id {
		return row.Flight.Agent, true
	}
	return "", false
}

func (m *Machine) conclude(now time.Time, t history.Target, r Report) history.Event {
	row := m.state.Row(t)
	f := row.Flight
	excused := history.Failed{Target: t, Action: f.Action, Attempt: f.Attempt, Error: r.Error, Excused: true}
	if r.Excused || (r.Error != "" || r.Later != nil) && f.Aborted {
		return excused
	}
	was := m.model(row.Goal)
	var task *model.Task
	if was != nil {
		task = was.Task(t.Task)
	}
	if task == nil {
		return history.Failed{Target: t, Action: f.Action, Attempt: f.Attempt, Final: true, Error: "its step is not known any more"}
	}
	if r.Error == "" && !r.ValidUntil.IsZero() && !r.ValidUntil.After(now) {
		r.Error = fmt.Sprintf("its success has expired already, at %s", r.ValidUntil.UTC().Format(time.RFC3339))
	}
	if r.Error == "" && f.Action == step.Apply {
		outputs, err := yield.Check(task.Step, r.Outputs)
		if err == nil && task.Step.Reboots {
			return m.reboots(now, t, outputs, r.ValidUntil)
		}
		if err == nil {
			s := m.success(t, history.Started{Incarnation: row.Life.Incarnation, Attempt: f.Attempt, Agent: f.Agent}, outputs)
			if !r.ValidUntil.IsZero() {
				s.ValidUntil = &r.ValidUntil
			}
			return s
		}
		r.Error = err.Error()
		if f.Aborted { // however it ended
			excused.Error = r.Error
			return excused
		}
	}
	if r.Error == "" {
		return history.Succeeded{Target: t, Action: f.Action, Attempt: f.Attempt}
	}
	action := &task.Step.Apply
	if f.Action == step.Remove {
		action = removeAction(task.Step)
	}
	if r.Later != nil {
		return pace.Postponed(now, t, f, *r.Later)
	}
	failed := history.Failed{Target: t, Action: f.Action, Attempt: f.Attempt, Error: r.Error, Final: f.Attempt-f.Waits >= action.Attempts}
	if !failed.Final {
		retry := now.Add(pace.Backoff(action.Backoff, f.Attempt-f.Waits))
		failed.Retry = &retry
	}
	return failed
}
func (m *Machine) success(t history.Target, started history.Started, outputs json.RawMessage) history.Succeeded {
	s := history.Succeeded{Target: t, Action: step.Apply, Attempt: started.Attempt, Outputs: outputs, Output: value.Sum(outputs)}
	task := m.plan.Task(t.Task)
	if task == nil {
		return s
	}
	if t.Node == "" && task.On != "" {
		rest := func(name string) {
			if n := m.state.Node(name); n.Alive() {
				s.RestsOn = append(s.RestsOn, history.Rest{Node: name, Incarnation: n.Incarnation})
			}
		}
		for _, name := range m.plan.Role(task.On) {
			rest(name)
		}
		if started.Agent != "" && !m.plan.Plays(started.Agent, task.On) {
			rest(started.Agent)
		}
	}
	if t.Node != "" {
		for _, single := range m.plan.Above(t.Task) {
			row := m.state.Row(history.Target{Task: single})
			if row != nil && m.plan.Plays(t.Node, m.plan.Task(single).On) && row.Rests[t.Node] != started.Incarnation {
				s.Joins = append(s.Joins, history.Join{Task: single, Rest: history.Rest{Node: t.Node, Incarnation: started.Incarnation}})
			}
		}
	}
	return s
}
