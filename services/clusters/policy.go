package clusters

import (
	"context"
	"slices"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/policy"
)

// Said is what a person says with a declaration.
type Said struct {
	By        string
	Overrides []history.Override // policies that are not to hold for it
	Life      time.Duration      // after which the cluster is destroyed by itself; 0 for never

	// Run is the identity of a run that makes a cluster for itself alone, and takes away no other: Apply only makes a
	// cluster that there is not, or that is destroyed, and Destroy only takes away one that has its goal from this run. Else they
	// give a *TakenError. Empty for whatever cluster has the name.
	Run string
}

// policed refuses a declaration whose plan policies refuse now: before anything is claimed or started. What begins later is
// held by the same policies then.
func (c *Clusters) policed(ctx context.Context, compiled *Compiled, loop *drive.Cluster, goal history.Goal) error {
	if err := policy.CheckOverrides(compiled.Model, goal.Overrides); err != nil || len(compiled.Model.Policies) == 0 {
		return err
	}
	p, err := c.preview(ctx, compiled, loop, goal)
	if err != nil {
		return err
	}
	if err := p.lacks(); err != nil {
		return err
	}
	return p.refused()
}

// policedDestroy refuses the destruction of a cluster whose policies do.
func (c *Clusters) policedDestroy(ctx context.Context, name string, loop *drive.Cluster, overrides []history.Override) error {
	m := &model.Model{Cluster: name}
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		if of := p.ModelOf(len(s.Goals) - 1); of != nil { // nil where its packs cannot be read any more
			m = of
		}
	}); err != nil {
		return err
	}
	if err := policy.CheckOverrides(m, overrides); err != nil || len(m.Policies) == 0 {
		return err
	}
	p, err := c.previewDestroy(ctx, name, loop, overrides)
	if err != nil {
		return err
	}
	return p.refused()
}

// refused gives the error of a plan that policies refuse and nobody has overridden; nil for none.
func (p *Plan) refused() error {
	left := slices.DeleteFunc(slices.Clone(p.Refused), func(r policy.Refusal) bool { return r.By != nil })
	if len(left) == 0 {
		return nil
	}
	return &policy.RefusedError{Cluster: p.Cluster, Refusals: left}
}
