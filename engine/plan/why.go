package plan

import (
	"fmt"

	"joist/engine/history"
)

// Trigger completes the cause of a start with the instance that brought it about: of those whose outputs it reads or
// that it was ordered after, the one that came to be in place last.
func (p *Planner) Trigger(t history.Target, cause Cause) Cause {
	c := p.byName[t.Task]
	if c == nil || cause.Of != (history.Target{}) {
		return cause
	}
	node := p.nodeOf(t)
	var since uint64
	if row := c.row(p, node); row != nil {
		since = row.Ended
	}
	latest := since
	for _, e := range c.waits {
		if e.host || cause.Input != "" && !readsIn(c, cause.Input, e.to.task.Name) {
			continue
		}
		up := e.to
		var k int
		switch {
		case e.all:
			k = p.lastOf(up)
		case len(up.task.Each) == 0:
			k = up.at(-1)
		default:
			k = up.at(node)
		}
		if k < 0 {
			continue
		}
		if row := up.row(p, up.targets[k]); row != nil && row.Phase == history.InPlace && row.Ended > latest {
			latest, cause.Of = row.Ended, p.target(up.task.Name, up.targets[k])
		}
	}
	return cause
}

// lastOf gives the position of the instance that came to be in place last, -1 if none is.
func (p *Planner) lastOf(c *column) int {
	ended := func(k int) uint64 {
		if row := c.row(p, c.targets[k]); row != nil && row.Phase == history.InPlace {
			return row.Ended
		}
		return 0
	}
	if c.lastAt > 0 && c.last < len(c.targets) && ended(c.last) == c.lastAt && c.lastGeneration == c.agg.generation {
		return c.last
	}
	c.last, c.lastAt, c.lastGeneration = -1, 0, c.agg.generation
	for k := range c.targets {
		if at := ended(k); at > c.lastAt {
			c.last, c.lastAt = k, at
		}
	}
	return c.last
}

func readsIn(c *column, input, task string) bool {
	for i := range c.task.With {
		if c.task.With[i].Name != input {
			continue
		}
		for _, r := range c.task.With[i].Refs {
			if r.Name == task {
				return true
			}
		}
	}
	return false
}

// Link is one link of the chain that explains an instance.
type Link struct {
	Of   history.Target `json:"of,omitzero"`
	Says string         `json:"says"`
	Seq  uint64         `json:"seq,omitempty"` // event of the journal that it rests on
}

// Why explains an instance: what is decided about it now, why it last ran, and what brought that about, link by link
// down to a fact that nobody decided: a goal that a person set, or a node that came up.
func (p *Planner) Why(t history.Target) []Link {
	var chain []Link
	if cell := p.Cell(t); cell != nil {
		chain = append(chain, Link{Of: t, Says: cell.says()})
	}
	seen := map[history.Target]bool{}
	for !seen[t] {
		seen[t] = true
		row := p.state.Row(t)
		if row == nil || row.Started == 0 {
			break
		}
		chain = append(chain, Link{Of: t, Seq: row.Started, Says: "last started because " + row.Cause.Because()})
		if row.Cause.Of.Task == "" || row.Cause.Of == t {
			return append(chain, p.fact(t, row))
		}
		t = row.Cause.Of
	}
	return append(chain, p.fact(t, p.state.Row(t)))
}

// fact is where a chain ends: the goal, or the node's incarnation if that came after the goal.
func (p *Planner) fact(t history.Target, row *history.Row) Link {
	if n := p.state.Node(t.Node); n != nil && n.Up > p.goalAt(row) {
		return Link{Seq: n.Up, Says: fmt.Sprintf("node %s came up with incarnation %s", n.Name, n.Incarnation)}
	}
	g := p.state.Goal()
	if row != nil && row.Started > 0 && row.Goal >= 0 && row.Goal < len(p.state.Goals) {
		g = &p.state.Goals[row.Goal]
	}
	if g == nil {
		return Link{Says: "no goal has been set"}
	}
	return Link{Seq: g.Seq, Says: fmt.Sprintf("%s set goal %s", g.By, g.Model.Short())}
}

func (p *Planner) goalAt(row *history.Row) uint64 {
	if row == nil || row.Goal < 0 || row.Goal >= len(p.state.Goals) {
		return p.state.GoalSeq
	}
	return p.state.Goals[row.Goal].Seq
}

func (c *Cell) says() string {
	s := "is " + c.Verdict.String()
	if c.Cause.Kind != history.Same {
		s += ": " + c.Cause.Because()
	}
	if !c.Ready && c.Wait.Kind != history.Same {
		s += "; it waits: " + c.Wait.Because()
	}
	return s
}
