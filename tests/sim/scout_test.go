package sim_test

import (
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
)

// scouting makes a draft one that runs in the discovery image: it waits for nothing that needs a node image, looks at nothing that
// ends with an incarnation, and has no part in what comes and goes.
func (g *generator) scouting(d *draft, before []draft) {
	d.scout, d.reboots = true, false
	for range g.rng.IntN(3) {
		refs := record{{Kind: model.RefInput, Name: pick(g.rng, []string{"x", "y"})}}
		if g.chance(0.3) {
			refs = append(refs, model.Ref{Kind: model.RefNode, Attr: pick(g.rng, []string{model.NodeName, model.NodeFacts})})
		}
		d.args = append(d.args, refs)
	}
	for i := range before {
		up := &before[i]
		switch {
		case !up.scout || !meets(d, up):
		case g.chance(0.5):
			d.args = append(d.args, record{{Kind: model.RefTask, Name: up.name, Attr: "out"}})
		case g.chance(0.5):
			d.after = append(d.after, model.After{Task: up.name})
		}
	}
	if g.shape.when && g.chance(0.2) {
		d.when = is{of: model.Ref{Kind: model.RefNode, Attr: model.NodeFacts}, part: "size", want: "small"}
	}
}

// scouts reports whether an instance is one that is done in the discovery image.
func (l *ledger) scouts(t target) bool {
	task := l.model().Task(t.Task)
	return task != nil && task.Step.Scout
}

// inScout is that what runs in the discovery image starts there, on the boot that is in it, of a machine that is trusted; and
// that nothing else does.
func (l *ledger) inScout(task *model.Task, e history.Started) error {
	switch n := l.node(e.Node); {
	case !task.Step.Scout || !e.Scout || n.scout == "" || e.Boot != n.scout || e.Incarnation != "" || e.Agent != e.Node:
		return fmt.Errorf("scout: %s started on boot %q of %s (incarnation %q), which waits in scout in boot %q", e.Target, e.Boot, e.Agent, e.Incarnation, n.scout)
	case !model.Suffices(n.level, l.model().Trust):
		return fmt.Errorf("law 9: %s started in scout on %s, which is not trusted", e.Target, e.Node)
	}
	return nil
}

// mayHandOver is that a machine leaves the discovery image only with everything in place that is done there.
func (l *ledger) mayHandOver(e run.HandOver) error {
	n := l.node(e.Node)
	if n.scout == "" || e.Boot != n.scout || !l.wants(e.Node) {
		return fmt.Errorf("scout: %s is handed over in boot %q, and waits in %q", e.Node, e.Boot, n.scout)
	}
	for _, t := range l.instances() {
		if t.Node != e.Node || !l.scouts(t) || l.skipped(t) {
			continue
		}
		if exists, known := l.exists(t); !known || exists && !l.current(t) {
			return fmt.Errorf("scout: %s is handed over before %s is in place", e.Node, t)
		}
	}
	return nil
}

// throughScout takes the power of all machines, so that they come up by way of scout: a change waits for that.
func (l *lab) throughScout() {
	if l.gen.shape.scout == 0 || l.err != nil {
		return
	}
	for _, n := range l.world.Nodes() {
		l.world.PowerOff(n.Name)
	}
}

// discovering is chaos with machines to which much is done in scout.
func discovering(seed uint64, f fault) error {
	sh := full
	sh.scout = 0.5
	return replayedChaos(sh, seed, f)
}

// scoutProperties are what holds of steps in scout, and mistakes that it has to find.
func scoutProperties() []property {
	return []property{
		{law: "scout: handed over once it is done", does: "machines are handed over while something is to be done there", seeds: 100, try: discovering, faults: map[string]fault{"scout": {skew: func(m model.Model) *model.Model {
			m.Tasks = slices.Clone(m.Tasks)
			for i := range m.Tasks {
				s := *m.Tasks[i].Step
				s.Scout = false
				m.Tasks[i].Step = &s
			}
			return &m
		}}}},
		{law: "scout: as long as the machine", does: "what was done to a machine ends with its incarnation", seeds: 100, try: discovering, faults: map[string]fault{"law 5": {meddle: func(l *lab) {
			for _, t := range l.ledger.targets() {
				if row := l.machine.State().Row(t); row != nil && row.Scout && row.Flight == nil && l.ledger.scouts(t) {
					row.Machine = "another board"
					l.machine.State().Node(t.Node).Machine = "this board"
					l.machine.Plan().Touch(t)
				}
			}
		}}}},
	}
}
