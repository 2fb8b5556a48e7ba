package sim_test

import (
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/providers/sim"
)

// takeRebooting notes that an apply is done and that its node is to reboot for it.
func (l *ledger) takeRebooting(e history.Rebooting) error {
	r := l.row(e.Target)
	m := l.models[l.goals[r.goal].Model]
	switch {
	case r.flight == nil || r.flight.Action != step.Apply || r.reboot != nil:
		return fmt.Errorf("reboot: %s has nothing in flight that reboots its node, or reboots it already", e.Target)
	case m == nil || m.Task(e.Task) == nil || !m.Task(e.Task).Step.Reboots:
		return fmt.Errorf("reboot: %s is not to reboot its node", e.Target)
	case e.Boot != l.node(e.Node).boot:
		return fmt.Errorf("reboot: %s reboots boot %s, and its node has %s", e.Target, e.Boot, l.node(e.Node).boot)
	}
	r.reboot = &e
	return nil
}

// restless is that nothing new starts on a node between the result of a step that reboots it and the end of that.
func (l *ledger) restless(e history.Started) error {
	for t, r := range l.rows {
		if r.reboot != nil && e.Agent != "" && r.reboot.Node == e.Agent {
			return fmt.Errorf("reboot: %s %s started on %s, which reboots for %s", e.Action, e.Target, e.Agent, t)
		}
	}
	return nil
}

// rebooted is that what reboots its node is in place only once that is back, with another boot and the same incarnation.
func (l *ledger) rebooted(t target) error {
	r := l.rows[t]
	m := l.models[l.goals[r.goal].Model]
	if m == nil || m.Task(t.Task) == nil || !m.Task(t.Task).Step.Reboots {
		return nil
	}
	switch n := l.node(t.Node); {
	case r.reboot == nil:
		return fmt.Errorf("reboot: %s is said to be in place, and its node was not to reboot", t)
	case !n.alive() || n.boot == r.reboot.Boot:
		return fmt.Errorf("reboot: %s is said to be in place before its node is back", t)
	case n.inc != r.inc:
		return fmt.Errorf("reboot: %s is said to be in place on another incarnation of its node", t)
	}
	return nil
}

// mayReboot is that a node is asked to reboot only for what is to reboot it, of the boot that this is about, and when nothing else
// is in flight there.
func (l *ledger) mayReboot(e run.Dispatch) error {
	if e.Step.Apply.Builtin != "reboot" || e.Action != step.Apply {
		return nil
	}
	if r := l.rows[e.Target]; r == nil || r.reboot == nil || e.Agent != e.Node || e.Boot != r.reboot.Boot || e.Boot != l.node(e.Node).boot || e.Incarnation != r.inc {
		return fmt.Errorf("reboot: node %s (%s) is to reboot for %s, which does not want that", e.Agent, e.Boot, e.Target)
	}
	for t, r := range l.rows {
		if r.flight != nil && r.flight.Agent == e.Agent && r.reboot == nil {
			return fmt.Errorf("reboot: node %s is to reboot while %s is in flight there", e.Agent, t)
		}
	}
	return nil
}

// rebootedOnce is that a node rebooted at most once for an attempt, and for none that the journal does not have.
func (l *lab) rebootedOnce() error {
	seen := map[uint64]bool{}
	for _, r := range l.world.Runs {
		if r.Action != sim.Reboot {
			continue
		}
		if int(r.ID) > len(l.journal) {
			return fmt.Errorf("reboot: node %s rebooted for what is not in the journal", r.Node)
		}
		if e, ok := l.event(r.ID).(history.Rebooting); !ok || e.Node != r.Node || e.Boot != r.Boot || seen[r.ID] {
			return fmt.Errorf("reboot: node %s (%s) rebooted for event %d, once more or for nothing", r.Node, r.Boot, r.ID)
		}
		seen[r.ID] = true
	}
	return nil
}

// rebootOf reports whether a verify is one after a reboot: it goes by the event that showed the node's new boot.
func (l *lab) rebootOf(r sim.Run) bool {
	if run.IsLook(r.ID) || int(r.ID) > len(l.journal) {
		return false
	}
	e, ok := l.event(r.ID).(history.NodeSeen)
	return ok && e.Node == r.Node && e.Boot == r.Boot
}

// rebooting is chaos with many steps that reboot their nodes, which have disks.
func rebooting(seed uint64, f fault) error {
	sh := full
	sh.reboots = 0.5
	return replayedChaos(sh, seed, f)
}

// rebootProperties are what holds of steps that reboot their nodes.
func rebootProperties() []property {
	return []property{
		{law: "reboot: in place once its node is back", does: "what reboots its node is done when its apply is", seeds: 100, try: rebooting, faults: map[string]fault{"reboot": {skew: func(m model.Model) *model.Model {
			m.Tasks = slices.Clone(m.Tasks)
			for i := range m.Tasks {
				s := *m.Tasks[i].Step
				s.Reboots = false
				m.Tasks[i].Step = &s
			}
			return &m
		}}}},
		{law: "reboot: nothing starts meanwhile", does: "the core forgets in memory that a node is to reboot", seeds: 100, try: rebooting, faults: map[string]fault{"reboot": {meddle: func(l *lab) {
			for t, r := range l.ledger.rows {
				if row := l.machine.State().Row(t); r.reboot != nil && row != nil && row.Flight != nil {
					row.Flight.Reboot = nil
				}
			}
		}}}},
	}
}
