package plan

import (
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

// Says gives the decision as a phrase.
func (c *Cell) Says() string {
	s := "is " + c.Verdict.String()
	if c.Cause.Kind != history.Same {
		s += ": " + c.Cause.Because()
	}
	if !c.Ready && c.Wait.Kind != history.Same {
		s += "; it waits: " + c.Wait.Because()
	}
	return s
}
