package plan

import (
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// State is the history that is planned with. It must not be changed.
func (p *Planner) State() *history.State { return p.state }

// Failed reports whether the instance is blocked by its own final failure.
func (c *Cell) Failed() bool { return c.failed }

// Open reports whether the instance is not as the goal wants it: about to run, waiting, or blocked.
func (c *Cell) Open() bool { return c.view.standing == pending || c.view.standing == blocked }

// Unsettled counts the instances of a task that are not as the goal wants them.
func (p *Planner) Unsettled(task string) int {
	if c := p.byName[task]; c != nil {
		return c.agg.pending + c.agg.blocked
	}
	return 0
}

// Absentees counts the nodes of a role that have not come up, and names the first. It looks at them once after a change.
func (p *Planner) Absentees(name string) (first string, count int) {
	r := p.roles[name]
	if r == nil {
		return "", 0
	}
	if r.absentAt != r.generation+1 {
		r.absentAt, r.absentCount, r.absentFirst = r.generation+1, 0, ""
		for _, i := range r.nodes {
			if n := p.state.Nodes[i]; !n.Alive() {
				if r.absentCount == 0 {
					r.absentFirst = n.Name
				}
				r.absentCount++
			}
		}
	}
	return r.absentFirst, r.absentCount
}

// OfNode evaluates an expression about a node.
func (p *Planner) OfNode(a *model.Argument, node string) (value.Value, error) {
	return a.Expr.Eval(scope{p: p, node: p.state.Index(node)})
}

// Targets lists the nodes that a task has instances for, in order; one empty name for a single instance.
func (p *Planner) Targets(task string) []string {
	c := p.byName[task]
	if c == nil {
		return nil
	}
	names := make([]string, len(c.targets))
	for k, node := range c.targets {
		names[k] = p.target(task, node).Node
	}
	return names
}
