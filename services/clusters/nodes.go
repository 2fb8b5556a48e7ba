package clusters

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/plan"
	"joist/engine/run"
)

// Tell tells a cluster what a machine of it is like now: after it connected or was lost, and when its trust or facts changed.
// What the cluster knows already makes no event.
func (c *Clusters) Tell(ctx context.Context, cluster, machine string) error {
	loop, err := c.Get(cluster)
	if err != nil {
		return err
	}
	return c.tell(ctx, loop, machine)
}

// tell is one at a time for a machine, from asking what it is like: what is told last is what is so.
func (c *Clusters) tell(ctx context.Context, loop *drive.Cluster, machine string) error {
	defer c.telling.lock(machine)()
	seen, ok := c.cfg.Site.Seen(machine)
	if !ok {
		return nil
	}
	return loop.Seen(ctx, seen)
}

// Reception is what becomes of a result.
type Reception uint8

// The receptions.
const (
	Stranger Reception = iota // of something that this cluster never gave to that node
	Late                      // of an attempt of that node that has ended: nothing comes of it
	Taken                     // it is durable, or is on its way to be
)

// Result takes in what an agent says of an attempt, and returns once it is durable.
func (c *Clusters) Result(ctx context.Context, i addr.Instance, node string, r run.Report) (Reception, error) {
	loop, err := c.Get(i.Cluster)
	var unknown *UnknownError
	if errors.As(err, &unknown) {
		return Stranger, nil
	}
	if err != nil {
		return Stranger, err
	}
	t := history.Target{Task: i.Task, Node: i.Node}
	now, given := false, false
	if err := loop.Inspect(ctx, func(m *run.Machine) {
		var agent string
		agent, now = m.Awaits(t, r.ID)
		given = agent == node
	}); err != nil {
		return Stranger, err
	}
	if now {
		if !given {
			return Stranger, nil
		}
		return Taken, loop.Report(ctx, t, r)
	}
	if run.IsLook(r.ID) { // nobody waits for it any more, and no journal knows it
		return Late, nil
	}
	return c.gave(ctx, i, node, r)
}

// repeats is how many events after an attempt's start are searched for its end, when a result comes that nobody waits for.
const repeats = 20_000

// gave looks up in the journal whether the event with the report's number gave an instance's attempt to a node, and whether that
// has ended. Outputs other than those that the attempt yielded were never asked for.
func (c *Clusters) gave(ctx context.Context, i addr.Instance, node string, said run.Report) (Reception, error) {
	if said.ID == 0 {
		return Stranger, nil
	}
	is := Stranger
	target := history.Target{Task: i.Task, Node: i.Node}
	var started history.Started
	found := errors.New("found")
	err := c.cfg.Drive.Store.Read(ctx, drive.JournalOf(i.Cluster), said.ID-1, func(r journal.Record) error {
		e, err := history.Decode(r)
		switch {
		case r.Seq < said.ID || r.Seq > said.ID+repeats || is == Stranger && r.Seq > said.ID:
			return found
		case err != nil:
			return err
		}
		if r.Seq == said.ID {
			switch e := e.(type) {
			case history.Asked: // of verifies at the end of a watch; nothing comes of a late one, whoever performed it
				if e.Node == i.Node {
					is = Late
				}
			case history.Settling: // likewise, as engines asked before
				if e.Node == i.Node && e.Node == node {
					is = Late
				}
			case history.Started:
				if started = e; e.Target == target && e.Agent == node {
					is = Taken
				}
				return nil
			case history.Rebooting: // its node was told to reboot by that name
				if e.Target == target && i.Node == node {
					is = Late
				}
			case history.NodeSeen: // and was asked by that one, once it was back, whether all is well
				if e.Node == node && i.Node == node {
					is = Late
				}
			}
			return found
		}
		switch e := e.(type) {
		case history.Succeeded:
			if e.Target == target && e.Action == started.Action && e.Attempt == started.Attempt {
				is = Late
				if said.Error == "" && len(e.Outputs) > 0 && !repeated(said.Outputs, e.Outputs) {
					is = Stranger
				}
				return found
			}
		case history.Failed:
			if e.Target == target && e.Action == started.Action && e.Attempt == started.Attempt {
				is = Late
				return found
			}
		}
		return nil
	})
	if errors.Is(err, found) {
		err = nil
	}
	return is, err
}

// repeated reports whether what a node says can be what was journalled, which has its canonical form: only what is plain text
// on both sides is compared, and not by case.
func repeated(said, kept json.RawMessage) bool {
	var a, b map[string]any
	if len(said) == 0 || json.Unmarshal(said, &a) != nil || json.Unmarshal(kept, &b) != nil {
		return true
	}
	for name, v := range a {
		was, known := b[name]
		text, plain := v.(string)
		other, also := was.(string)
		if !known || plain && also && !strings.EqualFold(text, other) {
			return false
		}
	}
	return true
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

// reclaim has the site hold the machines of a cluster's goal as that goal says: a crash or an error may have come after they were claimed
// for one that never came to be, which keeps its data elsewhere or trusts the boot network. The caller holds the cluster's lock.
func (c *Clusters) reclaim(ctx context.Context, name string) error {
	loop, err := c.Get(name)
	if err != nil || loop.Err() != nil {
		return nil // what it needs is not known
	}
	var as Claim
	var needed []string
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		if g := s.Goal(); g != nil && !g.Destroy && p != nil && p.Model() != nil {
			as, needed = claimOf(p.Model()), nodesOf(g.Roles)
		}
	}); err != nil || len(needed) == 0 {
		return err
	}
	return c.cfg.Site.Claim(ctx, as, func(all []Candidate) ([]string, error) {
		var held []string
		for i := range all {
			if _, needs := slices.BinarySearch(needed, all[i].Name); needs && all[i].Cluster == name {
				held = append(held, all[i].Name)
			}
		}
		return held, nil
	})
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
			if err := c.tell(ctx, loop, node); err != nil {
				c.log.Warn("cannot tell a cluster whether its node is silent", "cluster", name, "node", node, "error", err)
			}
		}
	}
}
