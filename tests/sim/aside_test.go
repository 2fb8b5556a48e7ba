package sim_test

import (
	"errors"
	"fmt"

	"joist/engine/history"
	"joist/engine/model"
)

// takeAside checks that the engine sets a node aside only for a failure, and while every role of the node tolerates that.
func (l *ledger) takeAside(e history.NodeAside) error {
	var err error
	if e.By == "" {
		err = l.mayAside(e)
	}
	l.without[e.Node] = &e
	for t, rollout := range l.blame {
		if t.Node == e.Node {
			l.fails[rollout]--
			delete(l.blame, t)
		}
	}
	return err
}

func (l *ledger) mayAside(e history.NodeAside) error {
	if r := l.rows[e.Of]; e.Of.Node != e.Node || r == nil || !r.broke {
		return fmt.Errorf("aside: node %s is set aside although %s has not failed", e.Node, e.Of)
	}
	for role, names := range l.goal().Roles {
		plays, aside := false, 0
		for _, name := range names {
			plays = plays || name == e.Node
			if l.without[name] != nil {
				aside++
			}
		}
		var bound model.Count
		for _, r := range l.model().Roles {
			if r.Name == role {
				bound = r.Tolerate
			}
		}
		total := len(names)
		if len(l.goals) > 1 {
			if before := l.goals[len(l.goals)-2].Roles[role]; len(before) > 0 {
				total = len(before)
			}
		}
		if plays && (bound == (model.Count{}) || aside >= places(bound, total)) {
			return fmt.Errorf("aside: node %s is set aside, role %s tolerates %+v of %d and has %d", e.Node, role, bound, total, aside)
		}
	}
	return nil
}

// left reports whether an instance on a node that is set aside yielded something that its readers go on with.
func (l *ledger) left(t target) bool {
	r, task := l.rows[t], l.model().Task(t.Task)
	return task != nil && r != nil && r.there && r.outputs != nil && l.lives(task, t)
}

// leftOut reports whether nobody waits for an instance, because its node is set aside: unless what is there has ended, and
// has to go.
func (l *ledger) leftOut(t target) bool {
	if t.Node == "" || l.without[t.Node] == nil {
		return false
	}
	r, task := l.rows[t], l.model().Task(t.Task)
	return r == nil || !r.there || task == nil || !l.replaced(t) || l.lives(task, t)
}

// tolerant is chaos in which roles tolerate failures, and people set nodes aside.
func tolerant(seed uint64, f fault) error {
	with := full
	with.tolerate = 0.7
	if l := chaosOf(with, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

func asideProperties() []property {
	return []property{
		{law: "aside: within tolerance, and then out of it", does: `every role tolerates that all its nodes fail`, seeds: 200, try: tolerant, faults: map[string]fault{
			"aside": {skew: func(m model.Model) *model.Model {
				m.Roles = nil
				for _, role := range full.roles {
					m.Roles = append(m.Roles, model.Role{Name: role, Tolerate: model.Count{N: 100, Percent: true}})
				}
				return &m
			}},
		}},
		{law: "aside: nothing is applied there", does: `the core forgets in memory who is set aside`, seeds: 200, try: tolerant, faults: map[string]fault{
			"aside": {meddle: func(l *lab) {
				for _, n := range l.machine.State().Nodes {
					if n.Aside != nil {
						n.Aside = nil
						l.machine.Plan().TouchNode(n.Name)
					}
				}
			}},
		}},
	}
}

// asideOrReturn is a person's word about a node.
func (l *lab) asideOrReturn(name string) {
	if n := l.machine.State().Node(name); n != nil && n.Aside != nil {
		l.advance(history.NodeReturned{Node: name, By: "sim"})
		return
	}
	if l.machine.Plan().Wants(name) {
		l.advance(history.NodeAside{Node: name, By: "sim", Reason: "drawn"})
	}
}
