package clusters

import (
	"context"
	"errors"
	"fmt"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// Declared gives what a cluster pursues: the model of its goal, and the source that it is compiled from.
func (c *Clusters) Declared(ctx context.Context, name string) (*model.Model, Source, error) {
	loop, err := c.Get(name)
	if err != nil {
		return nil, Source{}, err
	}
	goal, err := goalOf(ctx, loop)
	if err != nil {
		return nil, Source{}, err
	}
	if goal == nil || goal.Destroy {
		return nil, Source{}, fmt.Errorf("cluster %s has no goal", name)
	}
	m, err := c.Pursued(ctx, name)
	if err != nil {
		return nil, Source{}, err
	}
	s, err := c.source(ctx, goal.Source)
	return m, s, err
}

// Pursued gives the model of a cluster's goal, or why there is none.
func (c *Clusters) Pursued(ctx context.Context, name string) (*model.Model, error) {
	loop, err := c.Get(name)
	if err != nil {
		return nil, err
	}
	var m *model.Model
	err = loop.Look(ctx, func(_ *history.State, p *plan.Planner) { m = p.Model() })
	if err == nil && m == nil {
		err = fmt.Errorf("cluster %s has no goal", name)
	}
	return m, err
}

// Uses gives for each cluster the models that something of it may still be made of: that of its goal, and older ones. It
// fails if a cluster could not be taken up: what that uses is not known.
func (c *Clusters) Uses(ctx context.Context) (map[string][]*model.Model, error) {
	all := map[string][]*model.Model{}
	for _, name := range c.Names() {
		loop, err := c.Get(name)
		var unknown *UnknownError
		if errors.As(err, &unknown) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		err = loop.Look(ctx, func(s *history.State, p *plan.Planner) {
			if s.Outcome == history.OutcomeDestroyed {
				return
			}
			for i := range s.Goals {
				if m := p.ModelOf(i); m != nil {
					all[name] = append(all[name], m)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
