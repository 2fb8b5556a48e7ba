package clusters

import (
	"context"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// stand compiles a declaration again if something that the cluster has is called otherwise in it, so that it goes on standing
// by the name under which it was started, or if policies name what only the cluster has still. A nil loop is a cluster that has
// nothing yet.
func (c *Clusters) stand(ctx context.Context, loop *drive.Cluster, compiled *Compiled) (*Compiled, error) {
	unmet := len(compiled.Model.Unmet) > 0
	if loop == nil && !unmet || compiled.Source == nil {
		return compiled, nil
	}
	before, err := modelsOf(ctx, loop)
	if err != nil {
		return nil, err
	}
	names := model.NamesAfter(compiled.Model, before)
	if names.Empty() && !unmet {
		return compiled, nil
	}
	s := *compiled.Source
	s.Names, s.Tentative = names, false
	return c.compile(ctx, s)
}

// modelsOf gives the models that a cluster has something of, the newest first.
func modelsOf(ctx context.Context, loop *drive.Cluster) (before []*model.Model, err error) {
	if loop == nil {
		return nil, nil
	}
	err = loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		for i := len(s.Goals) - 1; i >= 0 && s.Outcome != history.OutcomeDestroyed; i-- {
			if m := p.ModelOf(i); m != nil {
				before = append(before, m)
			}
		}
	})
	return before, err
}
