package clusters

import (
	"context"
	"fmt"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/plan"
)

// TakenError reports a cluster that is not the run's that meant its own.
type TakenError struct {
	Name string
	By   string // who set its goal
}

// Error implements error.
func (e *TakenError) Error() string {
	return fmt.Sprintf("there is a cluster %s already, which is not this run's: %s set its goal", e.Name, e.By)
}

// untaken refuses a cluster that a run cannot make for itself alone; a nil loop is one that has no journal yet. The caller holds
// the cluster's lock.
func untaken(ctx context.Context, loop *drive.Cluster, name string) error {
	if loop == nil {
		return nil
	}
	var taken error
	err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if g := s.Goal(); g != nil && s.Outcome != history.OutcomeDestroyed {
			taken = &TakenError{name, g.By}
		}
	})
	if err != nil {
		return err
	}
	return taken
}
