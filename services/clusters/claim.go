package clusters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"joist/engine/history"
	"joist/engine/model"
)

// claim chooses the goal's machines and makes them the cluster's.
func (c *Clusters) claim(ctx context.Context, compiled *Compiled, before *history.Goal) (map[string][]string, error) {
	var roles map[string][]string
	err := c.cfg.Site.Claim(ctx, claimOf(compiled.Model), func(machines []Candidate) ([]string, error) {
		var err error
		roles, err = choose(compiled, before, machines)
		return nodesOf(roles), err
	})
	return roles, err
}

func claimOf(m *model.Model) Claim {
	return Claim{Cluster: m.Cluster, Disk: m.Storage == model.OnDisk, Trust: m.TrustBoot}
}

// choose is claim without the claiming. What it finds no machine for is missing, and stands in the roles all the same.
func (c *Clusters) choose(ctx context.Context, compiled *Compiled, before *history.Goal) (map[string][]string, []Missing, error) {
	var roles map[string][]string
	l := &lack{}
	err := c.cfg.Site.Claim(ctx, claimOf(compiled.Model), func(machines []Candidate) ([]string, error) {
		var err error
		roles, err = l.choose(compiled, before, machines)
		return nil, err
	})
	return roles, l.missing, err
}

// choose assigns machines to roles. A machine that plays a role keeps it as long as it matches; of those that may be let
// go, the ones that do not answer go first. A machine that another role has is not taken from it while others will do.
func choose(compiled *Compiled, before *history.Goal, machines []Candidate) (map[string][]string, error) {
	return (*lack)(nil).choose(compiled, before, machines)
}

// choose is the function choose, which notes the machines that are missing, and goes on with names in their places; of a nil
// lack they are an error.
func (l *lack) choose(compiled *Compiled, before *history.Goal, machines []Candidate) (map[string][]string, error) {
	m := compiled.Model
	roles, taken := map[string][]string{}, map[string]bool{}
	for _, role := range m.Roles {
		for _, name := range compiled.Choose[role.Name].Names {
			taken[name] = true
		}
	}
	for _, role := range m.Roles {
		sel := compiled.Choose[role.Name]
		names := slices.Clone(sel.Names)
		var lost []string
		var err error
		if sel.Match != nil {
			names, err = match(m.Cluster, role, sel, preference(m.Cluster, role.Name, before, machines), taken)
			lost = l.stand(sel.Count-len(names), machines)
			names = append(names, lost...)
		} else {
			lost, err = available(m.Cluster, role.CalledNow(), names, machines)
		}
		if err != nil {
			if err = l.note(&role, lost, compiled.about(role.Name, err)); err != nil {
				return nil, err
			}
		}
		for _, name := range names {
			taken[name] = true
		}
		slices.Sort(names)
		names = slices.Compact(names)
		if len(names) < role.Min || role.Max > 0 && len(names) > role.Max {
			return nil, compiled.about(role.Name,
				fmt.Errorf("role %s of cluster %s has %s; its workflow wants at least %d%s", role.CalledNow(), m.Cluster, count(len(names), "node"), role.Min, atMost(role.Max)))
		}
		if len(names) > 0 {
			roles[role.Name] = names
		}
	}
	return roles, compiled.roomy(roles, machines)
}

// available checks that machines named for a role exist and belong to nobody else, and gives those that do not.
func available(cluster, role string, names []string, machines []Candidate) (lost []string, err error) {
	var whys []string
	refuse := func(name, format string, args ...any) {
		lost = append(lost, name)
		whys = append(whys, fmt.Sprintf("cannot give %s to role %s of cluster %s: ", name, role, cluster)+fmt.Sprintf(format, args...))
	}
	for _, name := range names {
		at := slices.IndexFunc(machines, func(m Candidate) bool { return m.Name == name })
		switch {
		case at < 0:
			refuse(name, "there is no machine of that name")
		case machines[at].Cluster != "" && machines[at].Cluster != cluster:
			refuse(name, "cluster %s has it; choose another machine, or take it out of that cluster first", machines[at].Cluster)
		case machines[at].Cluster == "" && machines[at].Unwiped != "":
			refuse(name, "%s", machines[at].Unwiped)
		}
	}
	if len(whys) == 0 {
		return nil, nil
	}
	if n := len(whys); n > mostReasons {
		whys = append(whys[:mostReasons], fmt.Sprintf("and %d more", n-mostReasons))
	}
	return lost, errors.New(strings.Join(whys, "; "))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func atMost(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and at most %d", n)
}

// preference orders machines for a role: those that play it, then the cluster's that play none, then free ones, then those
// of other roles; of each sort those that answer before those that do not; then by name.
func preference(cluster, role string, before *history.Goal, machines []Candidate) []Candidate {
	plays := map[string]string{}
	if before != nil {
		for r, names := range before.Roles {
			for _, name := range names {
				if plays[name] != role {
					plays[name] = r
				}
			}
		}
	}
	rank := func(m Candidate) int {
		r := 0
		switch was, ok := plays[m.Name]; {
		case ok && was == role:
		case !ok && m.Cluster == cluster:
			r = 2
		case !ok:
			r = 4
		default:
			r = 6
		}
		if !m.Online {
			r++
		}
		return r
	}
	sorted := slices.Clone(machines)
	slices.SortStableFunc(sorted, func(a, b Candidate) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(a.Name, b.Name))
	})
	return sorted
}

// mostReasons bounds how many machines an error names.
const mostReasons = 10

// match gives the machines that a role selects; with an error, those that there are.
func match(cluster string, role model.Role, sel Selection, machines []Candidate, taken map[string]bool) ([]string, error) {
	var names, refused []string
	for _, m := range machines {
		if len(names) == sel.Count {
			break
		}
		switch {
		case m.Cluster != "" && m.Cluster != cluster:
			refused = append(refused, m.Name+" belongs to cluster "+m.Cluster)
			continue
		case m.Cluster == "" && m.Unwiped != "":
			refused = append(refused, m.Name+": "+m.Unwiped)
			continue
		case taken[m.Name]:
			continue
		}
		ok, err := sel.Match(m.Name, m.Facts)
		has, known := memoryOf(m.Facts)
		switch {
		case err == nil && ok && known && has < role.Memory:
			refused = append(refused, fmt.Sprintf("%s has %s of memory, and a %s needs %s", m.Name, gib(has), role.CalledNow(), gib(role.Memory)))
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
		if n := len(refused); n > mostReasons {
			refused = append(refused[:mostReasons], fmt.Sprintf("and %d more", n-mostReasons))
		}
		if len(refused) > 0 {
			why = strings.Join(refused, "; ")
		}
		return names, fmt.Errorf("cannot find %s for role %s of cluster %s: only %d will do (%s)", count(sel.Count, "machine"), role.CalledNow(), cluster, len(names), why)
	}
	return names, nil
}
