package outlook

import (
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// Link is one link of the chain that explains an instance.
type Link struct {
	Of   history.Target `json:"of,omitzero"`
	Says string         `json:"says"`
	Seq  uint64         `json:"seq,omitempty"` // event of the journal that it rests on
}

// First is the first of several attempts that only repeat each other: what brought it about, and the event that it started with.
type First struct {
	Cause history.Cause
	Seq   uint64
}

// Why explains an instance: what is decided about it now, why it last ran, and what brought that about, or what it waited for
// after that until it had a place in its rollout, link by link down to a fact that nobody decided: a goal that a person set, or a node that came up. An attempt that only repeats one that
// failed was brought about by what the first one was: firsts has that, as far as it is known. Retried names the targets of
// links for which it is wanted.
func Why(p *plan.Planner, t history.Target, firsts map[history.Target]First) (chain []Link, retried []history.Target) {
	s := p.State()
	if cell := p.Cell(t); cell != nil {
		chain = append(chain, Link{Of: t, Says: says(p, t, cell)})
	}
	if r := p.Removal(t); r != nil {
		chain = append(chain, Link{Of: t, Says: removal(p, r)})
	}
	seen := map[history.Target]bool{}
	for !seen[t] {
		seen[t] = true
		row := s.Row(t)
		if row == nil || row.Started == 0 {
			break
		}
		cause, began, says := row.Cause, row.Started, "last started because "+p.CalledCause(row.Cause).Because()
		if cause.Kind == history.Interrupted {
			retried = append(retried, t)
			if first, ok := firsts[t]; ok {
				cause, began = first.Cause, first.Seq
				says += ", and at first because " + p.CalledCause(first.Cause).Because()
			}
		}
		if before, rollout := lent(p, t, began, cause.Of); rollout != "" {
			says += fmt.Sprintf(", in the place of rollout %s that %s gave back", rollout, before.Node)
			cause.Of = before
		}
		chain = append(chain, Link{Of: t, Seq: row.Started, Says: says})
		if cause.Of.Task == "" || cause.Of == t {
			return append(chain, fact(s, t, row)), retried
		}
		if by := s.Row(cause.Of); by != nil && by.Started > began {
			return append(chain, Link{Of: cause.Of, Says: fmt.Sprintf("has started again since, in event %d", by.Started)}), retried
		}
		t = cause.Of
	}
	return append(chain, fact(s, t, s.Row(t))), retried
}

// lent finds who had the place of a rollout in which an instance began, if it waited for one after what brought it about: of the
// rollout's other nodes the one whose group was in place last before that. It gives the rollout as people call it. A node that had
// begun something of the group before that had its place already.
func lent(p *plan.Planner, t history.Target, began uint64, by history.Target) (holder history.Target, rollout string) {
	s := p.State()
	i := slices.IndexFunc(p.Model().Rollouts, func(r model.Rollout) bool { return slices.Contains(r.Tasks, t.Task) })
	if i < 0 || t.Node == "" {
		return holder, ""
	}
	r := &p.Model().Rollouts[i]
	since := fact(s, t, s.Row(t)).Seq
	latest := since
	if of := s.Row(by); by.Task != "" && of != nil {
		latest = of.Ended
	}
	for k := range s.Nodes {
		if at, task := together(s, r, k, began); at > latest && s.Nodes[k].Name != t.Node {
			latest, holder, rollout = at, history.Target{Task: task, Node: s.Nodes[k].Name}, r.CalledNow()
		}
	}
	for _, task := range r.Tasks {
		if own := s.Row(history.Target{Task: task, Node: t.Node}); own != nil && task != t.Task && own.Started > since && own.Started < latest {
			return history.Target{}, ""
		}
	}
	return holder, rollout
}

// together gives the last event by which a node had its part of a rollout in place before an event, and the task that was about; 0
// if it had not, or has begun it again since.
func together(s *history.State, r *model.Rollout, node int, before uint64) (at uint64, task string) {
	for _, name := range r.Tasks {
		switch row := s.Columns[name].Row(node); {
		case row == nil:
		case row.Flight != nil || row.Ended >= before:
			return 0, ""
		case row.Phase == history.InPlace && row.Ended > at:
			at, task = row.Ended, name
		}
	}
	return at, task
}

// removal says why an instance is to be removed, and what it waits for.
func removal(p *plan.Planner, r *plan.Removal) string {
	s := "is to be removed: " + p.CalledCause(r.Cause).Because()
	if !r.Ready && r.Wait.Kind != history.Same {
		s += "; it waits: " + p.CalledCause(r.Wait).Because()
	}
	return s
}

// fact is where a chain ends: the goal, or the node's incarnation if that came after the goal.
func fact(s *history.State, t history.Target, row *history.Row) Link {
	g := goalOf(s, row)
	switch {
	case s.Goal() == nil:
		return Link{Says: "no goal has been set"}
	case g == nil:
		return Link{Says: "the goal was one that others have replaced since"}
	}
	if n := s.Node(t.Node); n != nil {
		for _, up := range []uint64{n.Up, n.Born} { // a boot after it started has nothing to do with that
			if up > g.Seq && (row == nil || row.Started == 0 || up < row.Started) {
				return Link{Seq: up, Says: fmt.Sprintf("node %s came up with incarnation %s", n.Name, n.Incarnation)}
			}
		}
	}
	return Link{Seq: g.Seq, Says: fmt.Sprintf("%s set goal %s", g.By, g.Model.Short())}
}

// goalOf gives the goal for which something was started last, nil if that is not known any more: what is gone names none.
func goalOf(s *history.State, row *history.Row) *history.Goal {
	g := s.Goal()
	if g == nil || row == nil || row.Started == 0 || row.Started > g.Seq {
		return g
	}
	if row.Phase == history.Absent || row.Goal < 0 || row.Goal >= len(s.Goals) {
		return nil
	}
	for i := row.Goal; i < len(s.Goals) && s.Goals[i].Seq < row.Started; i++ {
		g = &s.Goals[i]
	}
	return g
}
