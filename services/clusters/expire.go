package clusters

import (
	"context"
	"fmt"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/plan"
)

// How often clusters are looked at whose time may be over, and how long after an end with failures it is tried again to take
// away what is left of one.
const (
	expireEvery = 5 * time.Second
	expireAgain = time.Minute
)

// ApplyFor is Apply of a cluster that is destroyed when a time is over, whoever may have asked for it and whatever became of
// them.
func (c *Clusters) ApplyFor(ctx context.Context, s Source, by string, life time.Duration) (*Accepted, error) {
	return c.ApplyAs(ctx, s, Said{By: by, Life: life})
}

// Expire destroys clusters whose time is over, tries again what is left of them, and forgets the secrets of all that are
// destroyed, until ctx ends.
func (c *Clusters) Expire(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	tried, forgotten := map[string]time.Time{}, map[string]uint64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, name := range c.Names() {
			if err := c.expire(ctx, name, tried); err != nil && ctx.Err() == nil {
				c.log.Warn("cannot take away a cluster whose time is over; it is tried again", "cluster", name, "error", err)
			}
			if err := c.forgetSecrets(ctx, name, forgotten); err != nil && ctx.Err() == nil {
				c.log.Warn("cannot forget the secrets of a destroyed cluster; it is tried again", "cluster", name, "error", err)
			}
		}
	}
}

// expire does what is due for one cluster; tried says when that was tried last.
func (c *Clusters) expire(ctx context.Context, name string, tried map[string]time.Time) error {
	unlock := c.busy.lock(name) // it may be given another goal, which is to last
	defer unlock()
	loop, err := c.Get(name)
	if err != nil {
		return nil // it was said why when it was taken up
	}
	due, again, err := dueOf(ctx, loop, c.cfg.Drive.Now())
	switch {
	case err != nil || !due && !again:
		return err
	case c.cfg.Drive.Now().Before(tried[name].Add(expireAgain)):
		return nil
	}
	tried[name] = c.cfg.Drive.Now()
	c.log.Info("taking away a cluster whose time is over", "cluster", name, "again", again)
	return c.destroy(ctx, name, loop, Said{By: "its time was over"})
}

// dueOf says whether a cluster's time is over, and whether an attempt to take it away has come to nothing.
func dueOf(ctx context.Context, loop *drive.Cluster, now time.Time) (due, again bool, err error) {
	err = loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		g := s.Goal()
		if g == nil || g.Expires.IsZero() {
			return
		}
		due = !g.Destroy && !now.Before(g.Expires)
		again = g.Destroy && s.Outcome != "" && s.Outcome != history.OutcomeDestroyed
	})
	return due, again, err
}

// forgetSecrets destroys the secrets of a cluster that is destroyed, once for each time that it is. Nobody gives the cluster a goal
// meanwhile, for which new ones might be kept.
func (c *Clusters) forgetSecrets(ctx context.Context, name string, forgotten map[string]uint64) error {
	if c.cfg.Forget == nil {
		return nil
	}
	unlock := c.busy.lock(name)
	defer unlock()
	loop, err := c.Get(name)
	if err != nil {
		return nil // it was said why when it was taken up
	}
	life, goal := fmt.Sprintf("%s %d", name, loop.Journal().Epoch()), uint64(0) // a journal that was dropped begins anew
	if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if g := s.Goal(); g != nil && s.Outcome == history.OutcomeDestroyed {
			goal = g.Seq
		}
	}); err != nil || goal == 0 || forgotten[life] == goal {
		return err
	}
	if err := c.cfg.Forget(name); err != nil {
		return err
	}
	forgotten[life] = goal
	return nil
}
