package outlook

import (
	"slices"

	"joist/engine/history"
	"joist/engine/plan"
)

// Called gives an item as people call what it is about. Only who shows it wants that: everything is found again by what it
// stands by.
func (it Item) Called(p *plan.Planner) Item {
	it.Target, it.Cause, it.Wait = p.Called(it.Target), p.CalledCause(it.Cause), p.CalledCause(it.Wait)
	it.Known = slices.Clone(it.Known)
	for i := range it.Known {
		it.Known[i].After = p.Called(it.Known[i].After)
	}
	return it
}

// Called gives a root as people call what it is.
func (r Root) Called(p *plan.Planner) Root {
	r.Of, r.Cause = p.Called(r.Of), p.CalledCause(r.Cause)
	return r
}

// says is a decision as a phrase, in which everything is called what people call it.
func says(p *plan.Planner, t history.Target, cell *plan.Cell) string {
	c := *cell
	c.Cause, c.Wait = p.CalledCause(c.Cause.Since(p.State().Row(t))), p.CalledCause(c.Wait)
	return c.Says()
}
