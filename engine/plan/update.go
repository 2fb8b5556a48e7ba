package plan

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
)

// taint marks every instance of the task for a new decision.
func (c *column) taint() { c.all = true }

// taintAt marks one instance; a position below 0 stands for none.
func (c *column) taintAt(k int) {
	if k >= 0 && !c.all && !c.dirty[k] {
		c.dirty[k] = true
		c.stale = append(c.stale, k)
	}
}

// takeStale gives the positions marked since the last time, in order, and unmarks them.
func (c *column) takeStale() []int {
	stale := c.stale
	c.stale = nil
	if c.all {
		c.all = false
		stale = make([]int, len(c.cells))
		for k := range stale {
			stale[k] = k
		}
	}
	slices.Sort(stale)
	for _, k := range stale {
		c.dirty[k] = false
	}
	return stale
}

// Touch marks an instance for a new decision: its history has changed.
func (p *Planner) Touch(t history.Target) {
	node := p.nodeOf(t)
	p.wakeDisturbed(t, node)
	p.wakeGuards(t, node)
	p.wakeGuarded(t, node)
	if c := p.byName[t.Task]; c != nil {
		if k := c.at(node); k >= 0 {
			c.taintAt(k)
			return
		}
	}
	p.remove.loose = append(p.remove.loose, t)
	p.touchHost(t.Task, node)
}

// TouchNode marks everything that looks at a node for a new decision: its incarnation, address, facts or connection
// have changed.
func (p *Planner) TouchNode(name string) {
	node := p.state.Index(name)
	delete(p.known, model.Ref{Kind: model.RefNode, Name: name})
	changed := map[string]bool{}
	for role, r := range p.roles {
		if p.plays(node, role) {
			r.generation++
			changed[role] = true
			delete(p.known, model.Ref{Kind: model.RefRole, Name: role})
		}
	}
	for _, c := range p.tasks {
		c.taintAt(c.at(node))
		if len(c.task.Each) == 0 && c.task.On != "" {
			c.taint()
		}
		if slices.ContainsFunc(c.looks, func(role string) bool { return changed[role] }) {
			c.taint()
		}
	}
	for _, pool := range p.pools {
		p.examine(pool, node)
	}
	p.remove.touchNode(p, name, node)
}

func (p *Planner) plays(node int, role string) bool {
	return p.Plays(p.state.Nodes[node].Name, role)
}

// Update brings every decision up to date, upstream first.
func (p *Planner) Update() {
	for p.again = true; p.again; {
		p.again = false
		for p.rewind = true; p.rewind; {
			p.rewind = false
			for _, c := range p.tasks {
				if c.all || len(c.stale) > 0 {
					p.updateColumn(c)
				}
			}
		}
		p.again = false // who makes way comes after what it makes way for
		p.updateRemovals()
	}
}

func (p *Planner) updateColumn(c *column) {
	before := c.agg
	for _, k := range c.takeStale() {
		old := c.cells[k]
		now := p.decide(c, c.targets[k])
		now.stirs = now.aside || p.stirred(c, c.targets[k], &now)
		c.cells[k] = now
		p.counts.add(&old, -1)
		p.counts.add(&now, +1)
		if now.Ready {
			p.fresh = append(p.fresh, p.target(c.task.Name, c.targets[k]))
		}
		p.account(c.task.Name, c.targets[k], &now)
		c.agg.stirs += count(now.stirs) - count(old.stirs)
		if old.way != now.way {
			p.wakeMakers(p.target(c.task.Name, c.targets[k]), c.targets[k])
		}
		p.wakePresent(c, c.targets[k], &old, &now)
		p.touchHost(c.task.Name, c.targets[k])
		if old.view != now.view {
			c.count(old.view, -1)
			c.count(now.view, +1)
			if old.view.standing == settled || now.view.standing == settled || old.view.standing == absent || now.view.standing == absent {
				c.agg.generation++
			}
			if now.view.standing == settled || now.view.standing == absent {
				p.done = append(p.done, p.target(c.task.Name, c.targets[k]))
			}
		}
		if old.stirs != now.stirs || old.view != now.view || now.view.standing == blocked && old.Cause != now.Cause {
			p.wakeSame(c, c.targets[k])
		}
	}
	if before != c.agg {
		p.wakeAll(c, before)
	}
}

func (c *column) count(v view, by int) {
	switch v.standing {
	case pending:
		c.agg.pending += by
	case blocked:
		c.agg.blocked += by
	case absent:
		c.agg.absent += by
	}
}

// wakeSame taints the dependants that read the instance for node directly.
func (p *Planner) wakeSame(c *column, node int) {
	for _, e := range c.wakes {
		switch {
		case e.all || e.host:
		case node < 0:
			e.to.taint()
		default:
			e.to.taintAt(e.to.at(node))
		}
	}
}

// standing is that of a share of a task's instances as one.
func (a aggregate) standing(share model.Share) standing {
	n := a.total - a.absent
	need := share.Of(n)
	switch {
	case n-a.blocked < need:
		return blocked
	case n-a.blocked-a.pending < need:
		return pending
	}
	return settled
}

// wakeAll taints the readers of `all.T`, which see the instances together: only once all of them are settled, and when
// that ceases.
func (p *Planner) wakeAll(c *column, before aggregate) {
	for _, e := range c.wakes {
		now := c.agg.standing(e.share)
		if e.all && (before.standing(e.share) != now || now == settled && e.share == model.Every || (before.stirs > 0) != (c.agg.stirs > 0)) {
			e.to.taint()
		}
	}
}

// Retarget plans the newest goal, if that has a model like the one before, by what is different: its nodes, and that
// failures are forgotten. It reports false, and has done nothing, for a goal that has to be planned from scratch.
func (p *Planner) Retarget() bool {
	goal := p.state.Goal()
	if goal == nil || goal.Destroy || p.goal.Destroy || p.goal.Seq == 0 {
		return false
	}
	m := p.models(len(p.state.Goals) - 1)
	if m == nil || !model.Alike(p.model, m) {
		return false
	}
	p.swap(m)
	p.goal = *goal
	changed := p.assign()
	for role := range changed {
		delete(p.known, model.Ref{Kind: model.RefRole, Name: role})
	}
	for _, c := range p.tasks {
		if len(c.task.During) > 0 {
			c.taint()
		}
		touched := slices.ContainsFunc(c.task.Each, func(r string) bool { return changed[r] })
		if touched {
			p.reaim(c)
		}
		if slices.ContainsFunc(c.looks, func(r string) bool { return changed[r] }) {
			c.taint()
		}
		if len(c.task.Each) == 0 && c.task.On != "" {
			c.taint()
		}
		for k := range c.cells {
			if v := c.cells[k].Verdict; v != Unchanged || c.cells[k].view.standing != settled {
				c.taintAt(k)
			}
		}
	}
	p.rebuildPools()
	p.buildRemovals()
	return true
}

// swap takes a model that is alike in place of the one planned with: its steps are what is run from now on.
func (p *Planner) swap(m *model.Model) {
	p.model = m
	clear(p.parts)
	for i, c := range p.tasks {
		c.task = &m.Tasks[i]
	}
}

// reaim gives a task the instances of the new goal, and keeps the decisions about those that it had.
func (p *Planner) reaim(c *column) {
	targets := p.targetsOf(c.task)
	stale := make([]int, 0, len(c.stale))
	for _, k := range c.stale {
		stale = append(stale, c.targets[k])
		c.dirty[k] = false
	}
	was, had := c.place, c.targets
	c.targets = targets
	c.index()
	kept := 0
	for k, node := range had { // those that go, forwards
		if c.at(node) < 0 {
			p.counts.add(&c.cells[k], -1)
			c.count(c.cells[k].view, -1)
			c.agg.stirs -= count(c.cells[k].stirs)
			continue
		}
		if kept != k {
			c.cells[kept] = c.cells[k]
		}
		kept++
	}
	c.cells = slices.Grow(c.cells[:kept], len(targets)-kept)[:len(targets)]
	for k := len(targets) - 1; k >= 0; k-- { // those that come, backwards
		if node := targets[k]; node+1 < len(was) && was[node+1] > 0 {
			kept--
			if kept != k {
				c.cells[k] = c.cells[kept]
			}
			continue
		}
		c.cells[k] = Cell{view: view{standing: pending}}
		c.count(c.cells[k].view, +1)
		p.counts.add(&c.cells[k], +1)
		stale = append(stale, targets[k])
	}
	c.dirty, c.stale = slices.Grow(c.dirty[:0], len(targets))[:len(targets)], nil
	clear(c.dirty)
	for _, node := range stale {
		c.taintAt(c.at(node))
	}
	c.agg.generation++
	c.agg.total = len(targets)
	c.lastAt = 0
	for _, e := range c.wakes {
		if e.all {
			e.to.taint()
		}
	}
}
