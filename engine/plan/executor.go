package plan

import (
	"fmt"
	"slices"
	"strings"

	"joist/engine/history"
	"joist/engine/model"
)

// pool is the nodes of a role that may execute cluster-scope scripts with certain `host.` references: of the goal for
// applies, of any goal since the node was claimed for removals. It is kept up to date node by node.
type pool struct {
	role    string
	hosts   []string // tasks whose instance on the node has to be in place
	removal bool
	members []int   // node indexes, sorted by name
	place   []int32 // by node index: position in members + 1
	able    []bool
	born    []uint64 // of members that are left: when their incarnation was first seen; otherwise 0
	count   int      // how many are able
	oldest  uint64   // least of born, 0 if none is left
	staying uint64   // least of born of those that play the role in the goal, 0 for none
	users   []*column
	waiting map[history.Target]*removal
}

func (p *Planner) poolOf(role string, hosts []string) *pool { return p.findPool("run", role, hosts) }

func (p *Planner) removalPool(role string, hosts []string) *pool {
	return p.findPool("remove", role, hosts)
}

func (p *Planner) findPool(use, role string, hosts []string) *pool {
	key := use + " " + role + " " + strings.Join(hosts, " ")
	o := p.pools[key]
	if o == nil {
		o = &pool{role: role, hosts: hosts, removal: use == "remove", waiting: map[history.Target]*removal{}}
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
func (p *Planner) fill(o *pool) {
	if o.removal {
		o.members = o.members[:0]
		for i, n := range p.state.Nodes {
			if _, played := slices.BinarySearch(n.Played, o.role); played {
				o.members = append(o.members, i)
			}
		}
		slices.SortFunc(o.members, func(a, b int) int { return strings.Compare(p.state.Nodes[a].Name, p.state.Nodes[b].Name) })
	} else {
		o.members = p.roleNodes(o.role)
	}
	o.place = make([]int32, len(p.state.Nodes))
	o.able, o.born, o.count = make([]bool, len(o.members)), make([]uint64, len(o.members)), 0
	for k, node := range o.members {
		o.place[node] = int32(k + 1)
		if o.able[k] = p.able(o, node); o.able[k] {
			o.count++
		}
		o.born[k] = p.bornAt(o, node)
	}
	p.findOldest(o)
}

func (p *Planner) rebuildPools() {
	for _, o := range p.pools {
		before := o.count
		p.fill(o)
		if (before == 0) != (o.count == 0) {
			for _, c := range o.users {
				c.taint()
			}
		}
	}
}

// bornAt gives when the incarnation of a node was first seen that is left to execute: it plays the role, or is leaving,
// and had what it needs for that. One that has yet to get it has come after what is to be removed, even if the end of
// that was noticed later.
func (p *Planner) bornAt(o *pool, node int) uint64 {
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
		if row == nil || row.Phase == history.Absent || !p.state.Lives(row.Life) || !(plays && p.offered(host, node)) && !p.stands(host, node) {
			return 0
		}
	}
	return n.Born
}

func (p *Planner) findOldest(o *pool) {
	o.oldest, o.staying = 0, 0
	for k, born := range o.born {
		if born == 0 {
			continue
		}
		if o.oldest == 0 || born < o.oldest {
			o.oldest = born
		}
		if (o.staying == 0 || born < o.staying) && p.plays(o.members[k], o.role) {
			o.staying = born
		}
	}
}

// examine looks at one node of the pool again, and wakes what depends on the change.
func (p *Planner) examine(o *pool, node int) {
	if node < 0 || node >= len(o.place) || o.place[node] == 0 {
		return
	}
	k := int(o.place[node] - 1)
	before, oldest, staying := o.count, o.oldest, o.staying
	able := p.able(o, node)
	changed := able != o.able[k]
	if changed {
		o.able[k] = able
		if able {
			o.count++
		} else {
			o.count--
		}
	}
	if born := p.bornAt(o, node); born != o.born[k] {
		o.born[k] = born
		p.findOldest(o)
	}
	crossed := (before == 0) != (o.count == 0) || oldest != o.oldest || staying != o.staying
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
func (p *Planner) able(o *pool, node int) bool {
	n := p.state.Nodes[node]
	if !n.Alive() || !n.Online || !model.Suffices(n.Level, p.model.Trust) {
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

// stands reports whether an instance is in place on a node that has not changed since. That is enough for a removal to
// use it: to wait until it is as the goal wants it could be to wait for that removal.
func (p *Planner) stands(task string, node int) bool {
	row := p.state.Columns[task].Row(node)
	n := p.state.Nodes[node]
	return row != nil && row.Phase == history.InPlace && p.state.Lives(row.Life) && row.Boot == n.Boot
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
	if i := c.pool.choose(node, attempt, func(i int) bool { return i != node }); i >= 0 {
		return p.state.Nodes[i].Name, Cause{}
	}
	if i := c.pool.choose(node, attempt, func(int) bool { return true }); i >= 0 {
		return p.state.Nodes[i].Name, Cause{}
	}
	return "", noExecutor(c.task.On)
}

func noExecutor(role string) Cause {
	return Cause{Kind: history.Executor, Text: fmt.Sprintf("no node of role %s can execute it now", role)}
}

// choose gives a node index that is able and fits, beginning behind the target's own place; -1 if there is none.
func (o *pool) choose(target, attempt int, fits func(node int) bool) int {
	if o.count == 0 {
		return -1
	}
	start := attempt - 1
	if target >= 0 && target < len(o.place) {
		start += int(o.place[target])
	}
	for i := range o.members {
		k := (start + i) % len(o.members)
		if o.able[k] && fits(o.members[k]) {
			return o.members[k]
		}
	}
	return -1
}
