package run

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/yield"
	"joist/engine/step"
	"joist/engine/value"
)

// step starts what is ready now. It reports whether it did anything, so that decisions have to be looked at again.
func (m *Machine) step(now time.Time) bool {
	for _, t := range m.plan.Done() {
		if g := m.groups[t.Task]; g != nil && t.Node != "" {
			g.touched[t.Node] = true
			m.found(g, t.Node)
		}
		m.restless[t.Node] = true
	}
	held := len(m.queue) > 0
	queue := append(m.queue, m.plan.Fresh()...)
	if m.queue = nil; m.state.Outcome == history.OutcomeCancelled || len(m.state.Wiping) > 0 {
		m.queue = queue
		return m.release(now)
	}
	if held {
		queue = m.reorder(queue)
	}
	if len(m.begun) > 0 {
		m.begun = map[history.Target]bool{} // rather than cleared: one that was large once would stay so
	}
	if m.plan.Halt(m.stopped) {
		m.plan.Update()
		queue = append(queue, m.plan.Fresh()...)
	}
	did := m.returnPlaces(now)
	if did { // a watch may have ended with something that is not in place any more, and what is ready may read it
		m.plan.Update()
	}
	for _, t := range queue {
		if !m.withhold(now, t) && !m.line(t) {
			did = m.start(now, t, "") || did
		}
	}
	for _, g := range m.rollouts {
		m.sift(now)
		did = m.admit(now, g) || did
	}
	return did
}

// release removes what was in place only for what has ended. Nothing else starts after a cancel, nor before a wipe that was
// ordered, which policies may hold for long.
func (m *Machine) release(now time.Time) bool {
	did := false
	m.begun = map[history.Target]bool{}
	m.queue = slices.DeleteFunc(m.queue, func(t history.Target) bool {
		r := m.plan.Removal(t)
		if r == nil || !r.Ready || len(r.Task.During) == 0 {
			return false
		}
		did = m.start(now, t, "") || did
		return true
	})
	return did
}

// stopped reports whether a task's rollout lets nothing start.
func (m *Machine) stopped(task string) bool {
	g := m.groups[task]
	return g != nil && !m.open(g)
}

// reorder gives what is ready of a list in the plan's order. When each became ready is not in the journal while nothing is
// allowed to start: a timer that rang meanwhile has left no event, and a replay has to come to the same order.
func (m *Machine) reorder(list []history.Target) []history.Target {
	for _, t := range list {
		m.plan.Touch(t)
	}
	m.plan.Update()
	return m.plan.Fresh()
}

// start starts an instance's apply or remove, if that is ready still, in a place of a rollout or outside any.
func (m *Machine) start(now time.Time, t history.Target, place string) bool {
	if m.flight(t) != nil || m.begun[t] { // what began in this step is decided about anew only after it
		return false
	}
	if m.awaitsReboot(t) {
		m.queue = append(m.queue, t)
		return false
	}
	if r := m.plan.Removal(t); r != nil {
		if m.withhold(now, t) {
			return false
		}
		m.begun[t] = r.Ready
		return r.Ready && m.startRemoval(now, *r, place)
	}
	cell := m.plan.Cell(t)
	if cell == nil || !cell.Ready || m.withhold(now, t) {
		return false
	}
	task, attempt := m.plan.Task(t.Task), 1
	if lapsed, ok := m.lapsed(now, task, t); ok { // which may let it wait
		m.take(now, history.Expired{Target: lapsed})
		m.plan.Touch(t)
		m.plan.Update()
		return true
	}
	m.begun[t] = true
	if row := m.state.Row(t); row != nil && row.Failure.Of(task.Step.Digest, cell.Digests().Input) {
		attempt = row.Failure.Attempt + 1
	}
	started, inputs, err := m.prepare(now, t, attempt)
	started.Place = place
	started.Policies = m.policed.Reboot(now, t, task).Counts
	m.policed.counted = m.policed.counted || len(started.Policies) > 0
	if err != nil {
		input := cell.Digests().Input
		m.take(now, history.Failed{Target: t, Action: step.Apply, Attempt: attempt, Error: err.Error(), Final: true, Step: started.Step, Input: &input})
		return true
	}
	if task.Step.Pure() {
		m.take(now, m.compute(now, task, started, inputs))
		return true
	}
	m.take(now, started)
	m.emit(t, inputs)
	return true
}

// prepare makes the intent of an apply.
func (m *Machine) prepare(now time.Time, t history.Target, attempt int) (history.Started, map[string]value.Value, error) {
	cell, task := m.plan.Cell(t), m.plan.Task(t.Task)
	s := history.Started{Target: t, Action: step.Apply, Attempt: attempt, Step: task.Step.Digest, Deadline: deadline(now, &task.Step.Apply)}
	s.Ref, s.Input = cell.Digests().Ref, cell.Digests().Input
	s.Cause = m.plan.Trigger(t, cell.Cause)
	if t.Node != "" {
		n := m.state.Node(t.Node)
		s.Incarnation, s.Boot = n.Incarnation, n.Boot
		if task.Step.Scout { // and of no incarnation
			s.Incarnation, s.Boot, s.Scout, s.Machine = "", n.Scout, true, n.Machine
		}
		if task.Step.Scope == model.Node {
			s.Agent = t.Node
		}
	}
	if task.Step.Scope == model.Cluster && !task.Step.Pure() {
		executor, why := m.chosen(t, attempt, m.plan.Executor)
		if why.Kind != history.Same {
			return s, nil, fmt.Errorf("cannot choose a node to execute it: %s", why.Text)
		}
		s.Agent = executor
	}
	inputs, err := m.plan.Inputs(t, s.Agent)
	if err != nil {
		return s, nil, err
	}
	s.Inputs, err = m.record(t, task, inputs)
	return s, inputs, err
}

// record gives inputs the form in which the journal keeps them: without those from `host.`, large ones by digest.
func (m *Machine) record(t history.Target, task *model.Task, inputs map[string]value.Value) (json.RawMessage, error) {
	kept := make(map[string]json.RawMessage, len(task.With))
	for i := range task.With {
		a := &task.With[i]
		if a.Outside() {
			continue
		}
		small, large, err := m.plan.Kept(t, i, inputs[a.Name])
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", a.Name, err)
		}
		if d, ok := history.Large(small); ok && large != nil {
			m.effects = append(m.effects, Keep{Digest: d, Data: large})
		}
		kept[a.Name] = small
	}
	return json.Marshal(kept)
}

// deadline leaves the agent its own time-out and grace before the engine gives up.
func deadline(now time.Time, a *model.Action) time.Time {
	return now.Add(a.Timeout + a.Timeout/4 + 30*time.Second)
}

// compute performs a pure step: a value, or a gate.
func (m *Machine) compute(now time.Time, task *model.Task, started history.Started, inputs map[string]value.Value) history.Event {
	outputs, err := yield.Compute(task.Step, inputs)
	if err == nil {
		outputs, err = yield.Check(task.Step, outputs)
	}
	if err != nil {
		started.Deadline = time.Time{}
		m.take(now, started)
		return m.conclude(now, started.Target, Report{ID: m.state.Seq, Error: err.Error()})
	}
	s := m.success(started.Target, started, outputs)
	s.Silent = &started
	if task.Step.Apply.Valid > 0 {
		until := now.Add(task.Step.Apply.Valid)
		s.ValidUntil = &until
	}
	return s
}

func (m *Machine) startRemoval(now time.Time, r plan.Removal, place string) bool {
	if r.Discharge != "" {
		m.take(now, history.Discharged{Target: r.Target, Why: r.Discharge})
		return true
	}
	row := m.state.Row(r.Target)
	attempt := 1
	if f := row.Failure; f != nil && f.Action == step.Remove && !f.Final {
		attempt = f.Attempt + 1
	}
	s := history.Started{Target: r.Target, Action: step.Remove, Attempt: attempt, Step: row.Step, Input: row.Input, Place: place,
		Incarnation: row.Life.Incarnation, Boot: row.Boot, Deadline: deadline(now, removeAction(r.Task.Step)), Cause: r.Cause, Policies: m.policed.Removal(now, &r).Counts, Danger: m.policed.Danger(&r)}
	m.policed.counted = m.policed.counted || len(s.Policies) > 0
	switch r.Task.Step.Scope {
	case model.Cluster:
		var why plan.Cause
		if s.Agent, why = m.chosen(r.Target, attempt, m.plan.RemovalExecutor); why.Kind != history.Same {
			return false
		}
	case model.Node:
		s.Agent = r.Node
	}
	m.take(now, s)
	m.perform(r.Target, m.state.Row(r.Target))
	return true
}

// removeAction is the action that removes a step's effect; a service step without one has its entries deleted.
func removeAction(s *model.Step) *model.Action {
	if s.Remove != nil {
		return s.Remove
	}
	return &s.Apply
}

// perform emits the effect of an attempt in flight from the journal alone, as after a restart.
func (m *Machine) perform(t history.Target, row *history.Row) {
	inputs, task, err := m.recorded(t, row)
	if task == nil {
		return
	}
	broken := ""
	if err != nil {
		broken = err.Error()
	}
	m.dispatch(t, row, task, inputs, broken)
}

func (m *Machine) emit(t history.Target, inputs map[string]value.Value) {
	m.dispatch(t, m.state.Row(t), m.plan.Task(t.Task), inputs, "")
}

func (m *Machine) dispatch(t history.Target, row *history.Row, task *model.Task, inputs map[string]value.Value, broken string) {
	f := row.Flight
	if f.Reboot != nil {
		return // tend asks for it
	}
	if task.Step.Scope == model.Service {
		name := task.Step.Apply.Call
		if f.Action == step.Remove && task.Step.Remove != nil && task.Step.Remove.Call != "" {
			name = task.Step.Remove.Call
		}
		m.effects = append(m.effects, Call{Target: t, ID: row.Started, Name: name, Action: f.Action, Attempt: f.Attempt, Inputs: inputs, Deadline: m.deadline(row), Broken: broken})
		return
	}
	agent := f.Agent
	incarnation, boot := "", ""
	if n := m.state.Node(agent); n != nil {
		incarnation, boot = n.Incarnation, n.Boot
	}
	if row.Scout {
		incarnation, boot = "", row.Boot
	}
	m.effects = append(m.effects, Dispatch{Target: t, ID: row.Started, Agent: agent, Incarnation: incarnation, Boot: boot, Action: f.Action, Attempt: f.Attempt,
		Step: task.Step, Inputs: inputs, Outputs: row.Outputs, Deadline: m.deadline(row), Broken: broken})
}

// recorded gives the inputs of the last start of an apply from the journal, `host.` ones resolved anew.
// An error says which input cannot be read back; the others are given all the same.
func (m *Machine) recorded(t history.Target, row *history.Row) (map[string]value.Value, *model.Task, error) {
	host := ""
	if f := row.Flight; f != nil {
		host = f.Agent
	}
	return m.recordedFor(t, row, host)
}

// recordedFor is recorded for a node that performs something now; empty for none.
func (m *Machine) recordedFor(t history.Target, row *history.Row, host string) (map[string]value.Value, *model.Task, error) {
	was := m.model(row.Goal)
	if was == nil {
		return nil, nil, nil
	}
	task := was.Task(t.Task)
	if task == nil {
		return nil, nil, nil
	}
	var kept map[string]json.RawMessage
	var broken error
	if err := json.Unmarshal(row.Inputs, &kept); err != nil && len(row.Inputs) > 0 {
		broken = fmt.Errorf("the inputs in the journal cannot be read: %w", err)
	}
	inputs := map[string]value.Value{}
	for _, f := range task.Step.Inputs {
		data, ok := kept[f.Name]
		if !ok {
			continue
		}
		v, err := m.read(task, &f, data)
		if err != nil {
			broken = err
			continue
		}
		inputs[f.Name] = v
	}
	if row.Flight != nil && row.Flight.Action == step.Apply || host != "" && task.Step.Scope == model.Cluster {
		m.plan.HostInputs(t, task, host, inputs)
	}
	return task.Step.Complete(inputs), task, broken
}

// reading is a large input of a step: what every node was given is kept once, and read once.
type reading struct {
	kept  value.Digest
	step  *model.Step
	input string
}

// mostReadings is how many large inputs are remembered: a workflow gathers few values, and those of an older goal go.
const mostReadings = 16

// read gives the value of an input from what the journal has of it.
func (m *Machine) read(task *model.Task, f *model.Field, data []byte) (value.Value, error) {
	d, large := history.Large(data)
	as := reading{d, task.Step, f.Name}
	if v, known := m.readings[as]; large && known {
		return v, nil
	}
	if large {
		if data = m.library.Blob(d); data == nil {
			return value.Value{}, fmt.Errorf("input %s, a large value kept as %s, cannot be read", f.Name, d.Short())
		}
	}
	v, err := f.Type.Parse(data)
	if err != nil {
		return value.Value{}, fmt.Errorf("input %s in the journal: %w", f.Name, err)
	}
	if large {
		if len(m.readings) >= mostReadings {
			clear(m.readings)
		}
		m.readings[as] = v
	}
	return v, nil
}

func (m *Machine) abortAll() {
	for _, agent := range slices.Sorted(maps.Keys(m.flights)) {
		for _, t := range m.airborne(agent) {
			m.effects = append(m.effects, Abort{Target: t, ID: m.Asked(m.state.Row(t)), Agent: agent})
		}
	}
}
