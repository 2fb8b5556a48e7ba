package run

import (
	"time"

	"joist/engine/history"
	"joist/engine/model"
)

// approval reports whether an instance of the goal is a person's approval. It is not renewed by time: it lapses when it is
// over and something asks for it.
func (m *Machine) approval(t history.Target) bool {
	task := m.plan.Task(t.Task)
	return task != nil && task.Step.Apply.Approve != nil
}

// asking reports whether an instance asks for this approval, of this step with these inputs.
func (m *Machine) asking(a history.Approved) bool {
	cell := m.plan.Cell(a.Target)
	return cell != nil && cell.Wait.Kind == history.AskedFor && m.plan.Task(a.Task).Step.Digest == a.Step && cell.Digests().Input == a.Input
}

// lapsed finds an approval that an instance about to start waited for, and that is over: it was given too long ago.
func (m *Machine) lapsed(now time.Time, task *model.Task, t history.Target) (history.Target, bool) {
	for _, e := range task.Edges() {
		up := m.plan.Task(e.Task)
		if up == nil || up.Step.Apply.Valid == 0 || e.Host {
			continue
		}
		nodes := []string{t.Node}
		switch {
		case e.All:
			nodes = m.plan.Targets(e.Task)
		case len(up.Each) == 0:
			nodes = []string{""}
		}
		for _, node := range nodes {
			of := history.Target{Task: e.Task, Node: node}
			row := m.state.Row(of)
			if cell := m.plan.Cell(of); cell == nil || row == nil || row.Phase != history.InPlace || row.Due.IsZero() || row.Expired {
				continue
			}
			if !row.Due.After(now) {
				return of, true
			}
		}
	}
	return history.Target{}, false
}
