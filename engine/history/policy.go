package history

import (
	"maps"
	"slices"
)

// Counted gives what counts under a policy of what becomes of an instance: its node, or the instance that has none.
func (t Target) Counted() string {
	if t.Node != "" {
		return t.Node
	}
	return "task " + t.String()
}

// anew reports whether a goal begins a run: another goal than the one before it, or one that is set after that was reached.
func (s *State) anew(e Goal) bool {
	last := s.Goal()
	return last == nil || e.Changed || e.Destroy != last.Destroy || s.Outcome == OutcomeConverged || s.Outcome == OutcomeDestroyed
}

// count takes in that something has begun that counts under some policies.
func (s *State) count(what string, policies []string) {
	for _, name := range policies {
		if s.Begun == nil {
			s.Begun = map[string]map[string]bool{}
		}
		if s.Begun[name] == nil {
			s.Begun[name] = map[string]bool{}
		}
		s.Begun[name][what] = true
	}
}

// Overridden says why a policy does not hold for the newest goal, or while its machines are wiped and built anew, if a person said so.
func (s *State) Overridden(policy string) (Override, bool) {
	said := s.Waived
	if g := s.Goal(); g != nil {
		said = slices.Concat(g.Overrides, said)
	}
	i := slices.IndexFunc(said, func(o Override) bool { return o.Policy == policy })
	if i < 0 {
		return Override{}, false
	}
	return said[i], true
}

// renew begins a run. What has begun to be removed and is not gone counts in it again, whether an attempt is in flight or failed: a
// goal that comes meanwhile gives no leave for as much once more.
func (s *State) renew() {
	going := map[string]bool{}
	if len(s.Begun) > 0 {
		for name, c := range s.Columns {
			for i, row := range c.Rows {
				if row != nil && row.Removes != "" {
					going[s.targetAt(name, i-1).Counted()] = true
				}
			}
		}
	}
	for name, begun := range s.Begun {
		maps.DeleteFunc(begun, func(what string, _ bool) bool { return !going[what] })
		if len(begun) == 0 {
			delete(s.Begun, name)
		}
	}
	if len(s.Begun) == 0 {
		s.Begun = nil
	}
}

// targetAt gives an instance by the index of its node; -1 for none.
func (s *State) targetAt(task string, node int) Target {
	if node < 0 {
		return Target{Task: task}
	}
	return Target{Task: task, Node: s.Nodes[node].Name}
}
