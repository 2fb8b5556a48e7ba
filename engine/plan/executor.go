package plan

import (
	"fmt"
	"slices"
	"strings"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan/pool"
)

// executors are the nodes of a role that may execute cluster-scope scripts with certain `host.` references: of the goal for
// applies, of any goal since the node was claimed for removals. They are kept up to date node by node.
type executors struct {
	pool.Pool
	role    string
	hosts   []string // tasks whose instance on the node has to be in place
	removal bool
	users   []*column
	waiting map[history.Target]*removal
}

func (p *Planner) poolOf(role string, hosts []string) *executors {
	return p.findPool("run", role, hosts)
}

func (p *Planner) removalPool(role string, hosts []string) *executors {
	return p.findPool("remove", role, hosts)
}

func (p *Planner) findPool(use, role string, hosts []string) *executors {
	key := use + " " + role + " " + strings.Join(hosts, " ")
	o := p.pools[key]
	if o == nil {
		o = &executors{role: role, hosts: hosts, removal: use == "remove", waiting: map[history.Target]*removal{}}
		p.pools[key] = o
		p.fill(o)
		for _, host := range hosts {
			if c := p.byName[host]; c != nil {
				c.hosts = append(c.hosts, o)
			} else {
				p.remove.hosts[host] = append(p.remove.hosts[host], o)
			}
		}
	}
	return o
}

// fill takes the pool's members anew.
func (p *Planner) fill(o *executors) {
	members := p.roleNodes(o.role)
	if o.removal {
		members = nil
		for i, n := range p.state.Nodes {
			if _, played := slices.BinarySearch(n.Played, o.role); played {
				members = append(members, i)
			}
		}
		slices.SortFunc(members, func(a, b int) int { return strings.Compare(p.state.Nodes[a].Name, p.state.Nodes[b].Name) })
	}
	o.Fill(members, len(p.state.Nodes), p.looker(o))
}

// looker gives how a node is looked at for executors.
func (p *Planner) looker(o *executors) func(node int) pool.Look {
	return func(node int) pool.Look {
		return pool.Look{Able: p.able(o, node), Born: p.bornAt(o, node), Plays: p.plays(node, o.role)}
	}
}

func (p *Planner) rebuildPools() {
	for _, o := range p.pools {
		before := o.Count()
		p.fill(o)
		if (before == 0) != (o.Count() == 0) {
			for _, c := range o.users {
				c.taint()
			}
		}
	}
}

// bornAt gives when the incarnation of a node was first seen that is left to execute: it plays the role, or is leaving,
// and had what it needs for that. One that has yet to get it has come after what is to be removed, even if the end of
// that was noticed later.
func (p *Planner) bornAt(o *executors, node int) uint64 {
	n := p.state.Nodes[node]
	if !n.Alive() {
		return 0
	}
	plays := p.plays(node, o.role)
	if !plays && len(o.hosts) == 0 && p.wanted[node] {
		return 0
	}
	for _, host := range o.hosts {
		row := p.state.Columns[host].Row(node)
		if row == nil || row.Phase == history.Absent || !p.state.Stands(row) || !(plays && p.offered(host, node)) && !p.stands(host, node) {
			return 0
		}
	}
	return n.Born
}

// examine looks at one node of the pool again, and wakes what depends on the change.
func (p *Planner) examine(o *executors, node int) {
	changed, crossed := o.Examine(node, p.looker(o))
	if crossed {
		for _, c := range o.users {
			c.taint()
		}
	}
	if !changed && !crossed {
		return
	}
	for _, r := range o.waiting {
		if crossed || r.end != forever {
			p.remove.mark(r)
		}
	}
}

// able reports whether a node could execute a script of the pool now.
func (p *Planner) able(o *executors, node int) bool {
	n := p.state.Nodes[node]
	if !n.Alive() || !n.Online || n.Aside != nil && !o.removal || !model.Suffices(n.Level, p.model.Trust) {
		return false
	}
	for _, host := range o.hosts {
		if o.removal {
			if !p.stands(host, node) {
				return false
			}
			continue
		}
		c := p.byName[host]
		if k := c.at(node); k < 0 || c.cells[k].view.standing != settled || c.cells[k].aside {
			return false
		}
	}
	return true
}

// stands reports whether an instance is in place on a node, and what it was applied to has not ended since: for a node step, the
// root. That is enough for a removal to use it: to wait until it is as the goal wants it could be to wait for that removal.
func (p *Planner) stands(task string, node int) bool {
	row := p.state.Columns[task].Row(node)
	if row == nil || row.Phase != history.InPlace {
		return false
	}
	m := p.models(row.Goal)
	return m != nil && m.Task(task) != nil && p.lives(m.Task(task), row, node)
}

// offered reports whether the goal has an instance.
func (p *Planner) offered(task string, node int) bool {
	c := p.byName[task]
	if c == nil {
		return false
	}
	k := c.at(node)
	return k >= 0 && c.cells[k].Verdict != Absent
}

// touchHost looks again at the executors that an instance makes able.
func (p *Planner) touchHost(task string, node int) {
	if c := p.byName[task]; c != nil {
		for _, o := range c.hosts {
			p.examine(o, node)
		}
		return
	}
	for _, o := range p.remove.hosts[task] {
		p.examine(o, node)
	}
}

// Executor chooses the node that executes a cluster-scope script for an attempt: alive, online, trusted, wanted by the
// goal, with every `host.` reference in place, and rather another than the target itself. Targets begin at different
// nodes, and attempts take turns.
func (p *Planner) Executor(t history.Target, attempt int) (string, Cause) {
	c := p.byName[t.Task]
	node := p.nodeOf(t)
	if i := c.pool.Choose(node, attempt, func(i int) bool { return i != node }); i >= 0 {
		return p.state.Nodes[i].Name, Cause{}
	}
	if i := c.pool.Choose(node, attempt, func(int) bool { return true }); i >= 0 {
		return p.state.Nodes[i].Name, Cause{}
	}
	return "", p.noExecutor(c.task.On)
}

func (p *Planner) noExecutor(role string) Cause {
	return Cause{Kind: history.Executor, Text: fmt.Sprintf("no node of role %s can execute it now", p.CalledRole(role))}
}
