package history

import "slices"

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
