package outlook

import (
	"slices"

	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
)

// Yield gives what the workflow yields as things stand, by output: a value, or for one with roles a map from node name
// to value. What is not known yet, or cannot be evaluated, is unknown.
func Yield(p *plan.Planner) map[string]value.Value {
	yield := map[string]value.Value{}
	goal := p.State().Goal()
	if goal == nil || goal.Destroy {
		return yield
	}
	for i := range p.Model().Outputs {
		o := &p.Model().Outputs[i]
		if len(o.Each) == 0 {
			yield[o.Name] = yieldOf(p, &o.Argument, "")
			continue
		}
		var nodes []string
		for _, role := range o.Each {
			nodes = append(nodes, p.Role(role)...)
		}
		slices.Sort(nodes)
		values := map[string]value.Value{}
		for _, name := range slices.Compact(nodes) {
			values[name] = yieldOf(p, &o.Argument, name)
		}
		yield[o.Name] = value.Dict(values)
	}
	return yield
}

func yieldOf(p *plan.Planner, a *model.Argument, node string) value.Value {
	v, err := p.OfNode(a, node)
	if err != nil {
		return value.Value{}
	}
	return v
}
