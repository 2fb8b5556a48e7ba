package clusters

import (
	"context"
	"time"

	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/history"
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
	return tell(ctx, loop, seen)
}

func tell(ctx context.Context, loop *drive.Cluster, seen history.NodeSeen) error {
	same := false
	if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		n := s.Node(seen.Node)
		same = n != nil && (seen.Incarnation == "" || n.Incarnation == seen.Incarnation && !n.Ended) && (seen.Boot == "" || n.Boot == seen.Boot) &&
			(seen.Address == "" || n.Address == seen.Address) && (seen.Facts == nil || string(n.Facts) == string(seen.Facts)) &&
			(seen.Level == "" || n.Level == seen.Level) && n.Online == seen.Online
	}); err != nil || same {
		return err
	}
	return loop.Happen(ctx, seen)
}

// Result takes in what an agent says of an attempt, and returns once it is durable. It reports false for a result of
// something that this cluster never gave to that node.
func (c *Clusters) Result(ctx context.Context, i addr.Instance, node string, r run.Report) (bool, error) {
	loop, err := c.Get(i.Cluster)
	if err != nil {
		return false, nil
	}
	t := history.Target{Task: i.Task, Node: i.Node}
	given := false
	if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		row := s.Row(t)
		if row == nil || r.ID > row.Started {
			return
		}
		given = row.Started != r.ID || row.Flight == nil || row.Flight.Agent == node
	}); err != nil || !given {
		return given, err
	}
	return true, loop.Report(ctx, t, r)
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
