package clusters

import (
	"context"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// stand compiles a declaration again if something that the cluster has is called otherwise in it, so that it goes on standing
// by the name under which it was started. A nil loop is a cluster that has nothing yet.
func (c *Clusters) stand(ctx context.Context, loop *drive.Cluster, compiled *Compiled) (*Compiled, error) {
	if loop == nil || compiled.Source == nil {
		return compiled, nil
	}
	var before []*model.Model
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		for i := len(s.Goals) - 1; i >= 0 && s.Outcome != history.OutcomeDestroyed; i-- {
			if m := p.ModelOf(i); m != nil {
				before = append(before, m)
			}
		}
	}); err != nil {
		return nil, err
	}
	names := model.NamesAfter(compiled.Model, before)
	if names.Empty() {
		return compiled, nil
	}
	s := *compiled.Source
	s.Names = names
	return c.compile(ctx, s)
}
