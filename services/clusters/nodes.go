package clusters

import (
	"context"
	"errors"
	"time"

	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/plan"
	"joist/engine/run"
)

// Seen tells a cluster what its node is like now: after it connected or was lost, and when its trust or facts changed.
// What the cluster knows already makes no event.
func (c *Clusters) Seen(ctx context.Context, cluster string, seen history.NodeSeen) error {
	loop, err := c.Get(cluster)
	if err != nil {
		return err
	}
	return loop.Seen(ctx, seen)
}

// Result takes in what an agent says of an attempt, and returns once it is durable. It reports false for a result of
// something that this cluster never gave to that node.
func (c *Clusters) Result(ctx context.Context, i addr.Instance, node string, r run.Report) (bool, error) {
	loop, err := c.Get(i.Cluster)
	var unknown *UnknownError
	if errors.As(err, &unknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	t := history.Target{Task: i.Task, Node: i.Node}
	now, given := false, false
	if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if row := s.Row(t); row != nil && row.Flight != nil && row.Started == r.ID {
			now, given = true, row.Flight.Agent == node
		}
	}); err != nil {
		return false, err
	}
	if now {
		if !given {
			return false, nil
		}
		return true, loop.Report(ctx, t, r)
	}
	return c.gave(ctx, i, node, r.ID)
}

// gave looks up in the journal whether the event with a number gave an instance's attempt to a node: an agent repeats a
// result until it hears that it arrived.
func (c *Clusters) gave(ctx context.Context, i addr.Instance, node string, seq uint64) (bool, error) {
	if seq == 0 {
		return false, nil
	}
	given := false
	found := errors.New("found")
	err := c.cfg.Drive.Store.Read(ctx, drive.JournalOf(i.Cluster), seq-1, func(r journal.Record) error {
		if r.Seq != seq {
			return found
		}
		e, err := history.Decode(r)
		if err != nil {
			return err
		}
		s, ok := e.(history.Started)
		given = ok && s.Target == history.Target{Task: i.Task, Node: i.Node} && s.Agent == node
		return found
	})
	if errors.Is(err, found) {
		err = nil
	}
	return given, err
}

// reconcile gives back the machines that a cluster has claimed and that are nodes neither of its goal nor of what it is
// still leaving: a crash or an error came between claim and goal. The caller holds the cluster's lock.
func (c *Clusters) reconcile(ctx context.Context, name string) error {
	claimed := c.cfg.Site.Claims()[name]
	if len(claimed) == 0 {
		return nil
	}
	loop, err := c.Get(name)
	var unknown *UnknownError
	if err != nil && !errors.As(err, &unknown) {
		return nil // what it needs is not known
	}
	needed := map[string]bool{}
	if loop != nil {
		if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
			if g := s.Goal(); g != nil {
				for _, node := range nodesOf(g.Roles) {
					needed[node] = true
				}
			}
			for _, n := range s.Nodes {
				if len(n.Played) > 0 && !n.Released {
					needed[n.Name] = true // it is being left still
				}
			}
		}); err != nil {
			return err
		}
	}
	var errs []error
	for _, machine := range claimed {
		if !needed[machine] {
			c.log.Info("giving back a machine that the cluster claimed and never used", "cluster", name, "machine", machine)
			errs = append(errs, c.cfg.Site.Free(ctx, name, machine))
		}
	}
	return errors.Join(errs...)
}

// Settle waits until nodes had time to come back after a start of the engine, then tells each cluster of those that did
// not. It returns when that is done or ctx ends.
func (c *Clusters) Settle(ctx context.Context) {
	timer := time.NewTimer(c.cfg.Grace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	for _, name := range c.Names() {
		loop, err := c.Get(name)
		if err != nil {
			continue
		}
		var online []string
		if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
			for _, n := range s.Nodes {
				if n.Online {
					online = append(online, n.Name)
				}
			}
		}); err != nil {
			continue
		}
		for _, node := range online {
			if seen, ok := c.cfg.Site.Seen(node); ok && !seen.Online {
				if err := c.Seen(ctx, name, history.NodeSeen{Node: node, Online: false}); err != nil {
					c.log.Warn("cannot tell a cluster that its node is silent", "cluster", name, "node", node, "error", err)
				}
			}
		}
	}
}
