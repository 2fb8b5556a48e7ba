package simulate

import (
	"fmt"
	"slices"
	"strings"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang"
)

// Chances are the probabilities, from 0 to 1, of what befalls single actions and messages.
type Chances struct {
	Fail, Lie, Lose, Duplicate, Slow float64
}

// FaultNames lists the faults that can be asked for.
func FaultNames() []string {
	return []string{"crash", "partition", "slow", "lie", "fail", "lose", "duplicate"}
}

// ParseFaults reads names of faults. An unknown one is an error.
func ParseFaults(names []string) (Faults, Chances, error) {
	var f Faults
	var c Chances
	for _, name := range names {
		switch name {
		case "crash":
			f.Crash = true
		case "partition":
			f.Partition = true
		case "slow":
			c.Slow = 0.1
		case "lie":
			c.Lie = 0.02
		case "fail":
			c.Fail = 0.05
		case "lose":
			c.Lose = 0.05
		case "duplicate":
			c.Duplicate = 0.1
		default:
			return f, c, fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(FaultNames(), ", "))
		}
	}
	return f, c, nil
}

// DefaultFacts are those of a simulated machine, under the names by which agents report them.
const DefaultFacts = `{"cpu":{"model":"simulated","arch":"x86_64","threads":16},"memory":68719476736,"disks":[],"nics":[],"firmware":"uefi","tpm":"","smbios":{},"kernel":"simulated"}`

// Nodes names n machines: node1, node2, with as many zeros as it takes to sort them.
func Nodes(n int) []string {
	width := len(fmt.Sprint(n))
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("node%0*d", width, i+1)
	}
	return names
}

// Role is a role as a cluster file fills it: with machines by name, or a number of any that match.
type Role struct {
	Name  string
	Names []string // nil for a number
	Count int
	Match func(name string) error // whether a machine will do; nil for any
	Max   int                     // 0 for no limit
}

// Cast gives roles their machines, every one another but where the file names it twice, and lets the largest role without a
// limit grow until there are total machines; 0 leaves the roles as the file has them.
func Cast(roles []Role, total int) (map[string][]string, error) {
	need := map[string]bool{}
	free, grown := 0, -1
	for i, r := range roles {
		for _, name := range r.Names {
			need[name] = true
		}
		if r.Names == nil {
			free += r.Count
		}
		size := func(r Role) int { return max(r.Count, len(r.Names)) }
		if r.Max == 0 && size(r) > 0 && (grown < 0 || size(r) >= size(roles[grown])) {
			grown = i
		}
	}
	extra := total - len(need) - free
	switch {
	case total > 0 && extra < 0:
		return nil, fmt.Errorf("the cluster file wants %d machines, more than %d", len(need)+free, total)
	case extra > 0 && grown < 0:
		return nil, fmt.Errorf("no role can take %d more machines", extra)
	}
	extra = max(extra, 0)
	names := slices.DeleteFunc(Nodes(len(need)+free+extra), func(name string) bool { return need[name] })
	cast := map[string][]string{}
	for i, r := range roles {
		take := 0
		if r.Names == nil {
			take = r.Count
		}
		if i == grown {
			take += extra
		}
		cast[r.Name] = append(slices.Clone(r.Names), names[:take]...)
		for _, name := range names[:take] {
			if r.Match == nil {
				break
			}
			if err := r.Match(name); err != nil {
				return nil, fmt.Errorf("no simulated machine will do for role %s: %w", r.Name, err)
			}
		}
		names = names[take:]
	}
	return cast, nil
}

// RolesOf gives the roles of a model as its cluster file fills them; facts are those of every machine.
func RolesOf(m *model.Model, file *lang.ClusterFile, facts value.Value) []Role {
	var roles []Role
	for _, r := range m.Roles {
		var s lang.Selection
		for called, one := range file.Nodes {
			if of, _ := m.RoleCalled(called); of != nil && of.Name == r.Name {
				s = one
			}
		}
		role := Role{Name: r.Name, Names: s.Names, Count: s.Count, Max: r.Max}
		if s.Predicate != nil {
			role.Match = func(name string) error {
				ok, err := s.Predicate(name, facts)
				if err == nil && !ok {
					err = fmt.Errorf("%s:%d: %s does not match %s", s.Range.File, s.Range.Line, name, s.Text)
				}
				return err
			}
		}
		roles = append(roles, role)
	}
	return roles
}
