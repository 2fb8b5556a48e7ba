package plan

import (
	"slices"

	"joist/engine/model"
	"joist/engine/value"
)

// Yield gives what the workflow yields as things stand, by output: a value, or for one with roles a map from node name
// to value. What is not known yet, or cannot be evaluated, is unknown.
func (p *Planner) Yield() map[string]value.Value {
	yield := map[string]value.Value{}
	if p.goal.Seq == 0 || p.goal.Destroy {
		return yield
	}
	for i := range p.model.Outputs {
		o := &p.model.Outputs[i]
		if len(o.Each) == 0 {
			yield[o.Name] = p.yieldOf(&o.Argument, -1)
			continue
		}
		var nodes []string
		for _, role := range o.Each {
			nodes = append(nodes, p.Role(role)...)
		}
		slices.Sort(nodes)
		values := map[string]value.Value{}
		for _, name := range slices.Compact(nodes) {
			values[name] = p.yieldOf(&o.Argument, p.state.Index(name))
		}
		yield[o.Name] = value.Dict(values)
	}
	return yield
}

func (p *Planner) yieldOf(a *model.Argument, node int) value.Value {
	v, err := a.Expr.Eval(scope{p: p, node: node})
	if err != nil {
		return value.Value{}
	}
	return v
}
