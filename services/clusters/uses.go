package clusters

import (
	"context"
	"errors"
	"fmt"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
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
	var m *model.Model
	if err := loop.Look(ctx, func(_ *history.State, p *plan.Planner) { m = p.Model() }); err != nil {
		return nil, Source{}, err
	}
	s, err := c.source(ctx, goal.Source)
	return m, s, err
}

// Pinned gives the frozen set that a cluster is made of, its destruction included: disks are wiped by scout, which comes from
// that set as well. It is zero for a cluster that no set is named for, or that is gone.
func (c *Clusters) Pinned(ctx context.Context, name string) (value.Digest, error) {
	none := value.Digest{}
	loop, err := c.Get(name)
	if err != nil {
		return none, err
	}
	var goal *history.Goal
	err = loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if goal = s.Goal(); s.Outcome == history.OutcomeDestroyed {
			goal = nil
		}
	})
	if err != nil || goal == nil {
		return none, err
	}
	a, err := c.archived(ctx, goal.Source)
	if err != nil {
		return none, err
	}
	return a.Frozen, nil
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
