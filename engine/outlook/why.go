package outlook

import (
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/plan"
)

// Link is one link of the chain that explains an instance.
type Link struct {
	Of   history.Target `json:"of,omitzero"`
	Says string         `json:"says"`
	Seq  uint64         `json:"seq,omitempty"` // event of the journal that it rests on
}

// Why explains an instance: what is decided about it now, why it last ran, and what brought that about, or what it waited for
// after that until it had a place in its rollout, link by link down to a fact that nobody decided: a goal that a person set, or a node that came up. An attempt that only repeats one that
// failed was brought about by what the first one was: firsts has that, as far as it is known. Retried names the targets of
// links for which it is wanted.
func Why(p *plan.Planner, t history.Target, firsts map[history.Target]history.Cause) (chain []Link, retried []history.Target) {
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
		cause, says := row.Cause, "last started because "+p.CalledCause(row.Cause).Because()
		if cause.Kind == history.Interrupted {
			retried = append(retried, t)
			if first, ok := firsts[t]; ok {
				cause = first
				says += ", and at first because " + p.CalledCause(first).Because()
			}
		}
		if before, rollout := lent(p, t, row, cause.Of); rollout != "" {
			says += fmt.Sprintf(", in the place of rollout %s that %s gave back", rollout, before.Node)
			cause.Of = before
		}
		chain = append(chain, Link{Of: t, Seq: row.Started, Says: says})
		if cause.Of.Task == "" || cause.Of == t {
			return append(chain, fact(s, t, row)), retried
		}
		t = cause.Of
	}
	return append(chain, fact(s, t, s.Row(t))), retried
}

// lent finds who had the place of a rollout in which an instance started, if it waited for one after what brought it about: of the
// rollout's instances on other nodes the one that was in place last before it started. It gives the rollout as people call it.
func lent(p *plan.Planner, t history.Target, row *history.Row, by history.Target) (holder history.Target, rollout string) {
	s := p.State()
	latest := fact(s, t, row).Seq
	if of := s.Row(by); by.Task != "" && of != nil {
		latest = of.Ended
	}
	for i := range p.Model().Rollouts {
		r := &p.Model().Rollouts[i]
		if t.Node == "" || !slices.Contains(r.Tasks, t.Task) {
			continue
		}
		for _, task := range r.Tasks {
			rows := s.Columns[task]
			if rows == nil {
				continue
			}
			for k, other := range rows.Rows {
				if k > 0 && other != nil && s.Nodes[k-1].Name != t.Node && other.Phase == history.InPlace && other.Ended > latest && other.Ended < row.Started {
					latest, holder, rollout = other.Ended, history.Target{Task: task, Node: s.Nodes[k-1].Name}, r.CalledNow()
				}
			}
		}
	}
	return holder, rollout
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
	if n := s.Node(t.Node); n != nil && n.Up > goalAt(s, row) {
		return Link{Seq: n.Up, Says: fmt.Sprintf("node %s came up with incarnation %s", n.Name, n.Incarnation)}
	}
	g := s.Goal()
	if row != nil && row.Started > 0 && row.Goal >= 0 && row.Goal < len(s.Goals) {
		g = &s.Goals[row.Goal]
	}
	if g == nil {
		return Link{Says: "no goal has been set"}
	}
	return Link{Seq: g.Seq, Says: fmt.Sprintf("%s set goal %s", g.By, g.Model.Short())}
}

func goalAt(s *history.State, row *history.Row) uint64 {
	if row == nil || row.Goal < 0 || row.Goal >= len(s.Goals) {
		return s.GoalSeq
	}
	return s.Goals[row.Goal].Seq
}
