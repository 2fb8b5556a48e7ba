package run

import (
	"slices"

	"joist/engine/history"
	"joist/engine/run/limit"
)

// domains is which failure domain each node of a rollout is in, kept up node by node.
type domains struct {
	of   map[string]string
	size map[string]int
}

// spreads learns the domains of a group's nodes.
func (m *Machine) spreads(g *group) {
	if g.Spread == nil {
		return
	}
	g.domains = &domains{of: map[string]string{}, size: map[string]int{}}
	for _, n := range m.state.Nodes {
		m.locate(g, n)
	}
}

// locate learns the domain of a node that plays, or played, a role of the group. Nodes whose facts do not say are in a domain
// of their own together.
func (m *Machine) locate(g *group, n *history.Node) {
	d := g.domains
	if was, ok := d.of[n.Name]; ok {
		if d.size[was]--; d.size[was] == 0 {
			delete(d.size, was)
		}
		delete(d.of, n.Name)
	}
	if !slices.ContainsFunc(g.Roles, func(role string) bool { return slices.Contains(n.Played, role) }) {
		return
	}
	key := "?"
	if v, err := m.plan.OfNode(g.Spread, n.Name); err == nil && v.Known() && !v.Null() {
		if data, err := v.MarshalJSON(); err == nil {
			key = string(data)
		}
	}
	d.of[n.Name] = key
	d.size[key]++
}

// crowded reports whether the domain of a node holds its share of the places already.
func (m *Machine) crowded(g *group, node string) bool {
	if g.domains == nil {
		return false
	}
	b := m.state.Budgets[g.Name]
	if b == nil {
		return false
	}
	held := 0
	for other := range b.Places {
		if g.domains.of[other] == g.domains.of[node] {
			held++
		}
	}
	return held >= limit.Share(limit.Of(g.Rollout, len(b.Proven), g.total), len(g.domains.size))
}
