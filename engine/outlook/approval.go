package outlook

import (
	"joist/engine/history"
	"joist/engine/plan"
	"joist/engine/value"
)

// Approval is what a person is asked to approve.
type Approval struct {
	history.Target
	Asks        string
	Step, Input value.Digest // what is approved: another step, or other inputs, ask anew
}

// Approvals lists what waits for a person's approval, by task and node.
func Approvals(p *plan.Planner) []Approval {
	var list []Approval
	for i := range p.Model().Tasks {
		task := &p.Model().Tasks[i]
		if task.Step.Apply.Approve == nil {
			continue
		}
		for _, node := range p.Targets(task.Name) {
			t := history.Target{Task: task.Name, Node: node}
			if cell := p.Cell(t); cell != nil && cell.Wait.Kind == history.AskedFor {
				list = append(list, Approval{Target: t, Asks: cell.Wait.Text, Step: task.Step.Digest, Input: cell.Digests().Input})
			}
		}
	}
	return list
}

// Given makes the event that gives an approval.
func (a Approval) Given(by, reason string) history.Approved {
	return history.Approved{Target: a.Target, Step: a.Step, Input: a.Input, By: by, Reason: reason}
}
