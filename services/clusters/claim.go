package clusters

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"joist/engine/history"
)

// claim chooses the goal's machines and makes them the cluster's.
func (c *Clusters) claim(ctx context.Context, compiled *Compiled, before *history.Goal) (map[string][]string, error) {
	var roles map[string][]string
	err := c.cfg.Site.Claim(ctx, compiled.Model.Cluster, func(machines []Candidate) ([]string, error) {
		var err error
		roles, err = choose(compiled, before, machines)
		return nodesOf(roles), err
	})
	return roles, err
}

// choose is claim without the claiming.
func (c *Clusters) choose(ctx context.Context, compiled *Compiled, before *history.Goal) (map[string][]string, error) {
	var roles map[string][]string
	err := c.cfg.Site.Claim(ctx, compiled.Model.Cluster, func(machines []Candidate) ([]string, error) {
		var err error
		roles, err = choose(compiled, before, machines)
		return nil, err
	})
	return roles, err
}

// choose assigns machines to roles. A machine that plays a role keeps it as long as it matches; of those that may be let
// go, the ones that do not answer go first.
func choose(compiled *Compiled, before *history.Goal, machines []Candidate) (map[string][]string, error) {
	roles := map[string][]string{}
	taken := map[string]bool{}
	for _, role := range compiled.Model.Roles {
		for _, name := range compiled.Choose[role.Name].Names {
			taken[name] = true
		}
	}
	for _, role := range compiled.Model.Roles {
		sel, ok := compiled.Choose[role.Name]
		if !ok {
			continue
		}
		names := slices.Clone(sel.Names)
		if sel.Match != nil {
			var had []string
			if before != nil {
				had = before.Roles[role.Name]
			}
			var err error
			if names, err = match(compiled.Model.Cluster, role.Name, sel, preference(machines, had, compiled.Model.Cluster), taken); err != nil {
				return nil, err
			}
		}
		for _, name := range names {
			taken[name] = true
		}
		slices.Sort(names)
		roles[role.Name] = names
		if len(names) < role.Min || role.Max > 0 && len(names) > role.Max {
			return nil, fmt.Errorf("role %s of cluster %s has %d nodes; its workflow wants at least %d%s", role.Name, compiled.Model.Cluster, len(names), role.Min, atMost(role.Max))
		}
	}
	return roles, nil
}

func atMost(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and at most %d", n)
}

// preference orders machines: those that play the role, then the cluster's other ones, then free ones; those that answer
// before those that do not; then by name.
func preference(machines []Candidate, had []string, cluster string) []Candidate {
	rank := func(m Candidate) int {
		r := 0
		if !slices.Contains(had, m.Name) {
			r += 4
		}
		if m.Cluster != cluster {
			r += 2
		}
		if !m.Online {
			r++
		}
		return r
	}
	sorted := slices.Clone(machines)
	slices.SortStableFunc(sorted, func(a, b Candidate) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return sorted
}

func match(cluster, role string, sel Selection, machines []Candidate, taken map[string]bool) ([]string, error) {
	var names, refused []string
	for _, m := range machines {
		if len(names) == sel.Count {
			break
		}
		switch {
		case m.Cluster != "" && m.Cluster != cluster:
			refused = append(refused, m.Name+" belongs to cluster "+m.Cluster)
			continue
		case taken[m.Name]:
			continue
		}
		ok, err := sel.Match(m.Name, m.Facts)
		switch {
		case err != nil:
			refused = append(refused, fmt.Sprintf("%s: %v", m.Name, err))
		case !ok:
			refused = append(refused, m.Name+" does not match")
		default:
			names = append(names, m.Name)
		}
	}
	if len(names) < sel.Count {
		why := "there are no other machines"
		if len(refused) > 0 {
			why = strings.Join(refused, "; ")
		}
		return nil, fmt.Errorf("cannot find %d machines for role %s of cluster %s: %d match (%s)", sel.Count, role, cluster, len(names), why)
	}
	return names, nil
}
