package clusters

import (
	"context"
	"fmt"

	"joist/engine/history"
)

// AimlessError reports a cluster that was never given a goal.
type AimlessError struct{ Name string }

// Error implements error.
func (e *AimlessError) Error() string {
	return fmt.Sprintf("cluster %s was never given a goal", e.Name)
}

// Retry sets a cluster's goal again, on a person's word, which forgets its failures and goes on after a cancel; what is to happen
// first becomes durable along with it. It is the goal that the cluster has when its turn comes: one that was set meanwhile,
// destruction included, is not undone. An *AimlessError reports that there is none.
func (c *Clusters) Retry(ctx context.Context, name, by, reason string, first ...history.Event) error {
	unlock := c.busy.lock(name)
	defer unlock()
	loop, err := c.have(ctx, name)
	if err != nil {
		return err
	}
	if loop == nil {
		return &UnknownError{name}
	}
	g, err := goalOf(ctx, loop)
	if err != nil {
		return err
	}
	if g == nil {
		return &AimlessError{name}
	}
	again := history.Goal{Model: g.Model, Source: g.Source, Roles: g.Roles, Destroy: g.Destroy, By: by, Reason: reason, Expires: g.Expires, Overrides: g.Overrides, Run: g.Run}
	return loop.Pursue(ctx, again, first...)
}
