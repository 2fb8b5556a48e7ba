package clusters

import (
	"context"
	"errors"
	"fmt"

	"joist/engine/history"
	"joist/engine/plan"
)

// Dropped is the journal of a destroyed cluster that is to be empty again.
type Dropped struct {
	Cluster string
	By      string
	Events  uint64 // how many it has
	Epoch   uint64 // of its writer, which is to write no more
}

// LivingError reports a cluster that cannot be forgotten, since it is not destroyed.
type LivingError struct {
	Name    string
	Outcome string // empty while its goal is pursued
}

// Error implements error.
func (e *LivingError) Error() string {
	if e.Outcome == "" {
		return fmt.Sprintf("cannot forget cluster %s: its goal is being pursued", e.Name)
	}
	return fmt.Sprintf("cannot forget cluster %s: it is %s", e.Name, e.Outcome)
}

// Drop forgets a destroyed cluster with its journal. It is a *LivingError for any other. A cluster of the same name may be made
// again, and begins with event 1.
func (c *Clusters) Drop(ctx context.Context, name, by string) error {
	if c.cfg.Drop == nil {
		return errors.New("cannot forget clusters: the journals here cannot be dropped")
	}
	unlock := c.busy.lock(name)
	defer unlock()
	loop, err := c.have(ctx, name)
	if err != nil {
		return err
	}
	if loop == nil {
		return &UnknownError{name}
	}
	var living error
	if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if s.Outcome != history.OutcomeDestroyed {
			living = &LivingError{name, s.Outcome}
		}
	}); err != nil {
		return err
	}
	if living != nil {
		return living
	}
	if c.cfg.Forget != nil {
		if err := c.cfg.Forget(name); err != nil {
			return err
		}
	}
	d := Dropped{Cluster: name, By: by, Events: loop.Journal().Last(), Epoch: loop.Journal().Epoch()}
	c.mu.Lock()
	delete(c.loops, name)
	c.mu.Unlock()
	loop.Close()
	if err := c.cfg.Drop(context.WithoutCancel(ctx), d); err != nil {
		_, again := c.open(context.WithoutCancel(ctx), name) // it is there still
		return errors.Join(err, again)
	}
	return nil
}
