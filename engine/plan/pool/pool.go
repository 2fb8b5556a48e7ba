// Package pool keeps which nodes of a role may execute cluster-scope scripts, node by node, and chooses one for an attempt.
package pool

// Look is what a pool has to know of a node, given by its index.
type Look struct {
	Able  bool   // it could execute a script now
	Born  uint64 // event that showed its incarnation first, if that is left to execute; otherwise 0
	Plays bool   // the goal has it in the role
}

// Pool is the nodes of a role. It is kept up to date node by node.
type Pool struct {
	members []int   // node indexes, sorted by name
	place   []int32 // by node index: position in members + 1
	looks   []Look  // by position
	count   int
	oldest  uint64
	staying uint64
}

// Count is how many nodes are able.
func (o *Pool) Count() int { return o.count }

// Oldest is the least of what the nodes were born at, 0 if none is left.
func (o *Pool) Oldest() uint64 { return o.oldest }

// Staying is the least of what those nodes were born at that play the role in the goal, 0 for none.
func (o *Pool) Staying() uint64 { return o.staying }

// Fill takes the members anew, out of a number of nodes in all.
func (o *Pool) Fill(members []int, nodes int, look func(node int) Look) {
	o.members, o.place, o.looks, o.count = members, make([]int32, nodes), make([]Look, len(members)), 0
	for k, node := range members {
		o.place[node] = int32(k + 1)
		if o.looks[k] = look(node); o.looks[k].Able {
			o.count++
		}
	}
	o.findOldest()
}

func (o *Pool) findOldest() {
	o.oldest, o.staying = 0, 0
	for _, l := range o.looks {
		if l.Born == 0 {
			continue
		}
		if o.oldest == 0 || l.Born < o.oldest {
			o.oldest = l.Born
		}
		if (o.staying == 0 || l.Born < o.staying) && l.Plays {
			o.staying = l.Born
		}
	}
}

// Examine looks at one node again. It reports whether that changed, and whether with it something about the pool as a whole
// did: that it has a node at all, or how old they are.
func (o *Pool) Examine(node int, look func(node int) Look) (changed, crossed bool) {
	if node < 0 || node >= len(o.place) || o.place[node] == 0 {
		return false, false
	}
	k := int(o.place[node] - 1)
	before, oldest, staying := o.count, o.oldest, o.staying
	was, now := o.looks[k], look(node)
	o.looks[k] = now
	if changed = now.Able != was.Able; changed && now.Able {
		o.count++
	} else if changed {
		o.count--
	}
	if now.Born != was.Born || now.Plays != was.Plays {
		o.findOldest()
	}
	return changed, (before == 0) != (o.count == 0) || oldest != o.oldest || staying != o.staying
}

// Choose gives a node index that is able and fits, beginning behind the target's own place; -1 if there is none. Targets
// begin at different nodes, and attempts take turns.
func (o *Pool) Choose(target, attempt int, fits func(node int) bool) int {
	if o.count == 0 {
		return -1
	}
	start := attempt - 1
	if target >= 0 && target < len(o.place) {
		start += int(o.place[target])
	}
	for i := range o.members {
		k := (start + i) % len(o.members)
		if o.looks[k].Able && fits(o.members[k]) {
			return o.members[k]
		}
	}
	return -1
}
