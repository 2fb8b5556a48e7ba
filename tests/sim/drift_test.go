package sim_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
)

// drifting draws how drift is looked for, if it is.
func (l *lab) drifting(sh shape) {
	if !sh.drift {
		return
	}
	l.side = rand.New(rand.NewPCG(l.seed, 5))
	l.drift = model.Drift{Every: time.Duration(2+l.side.IntN(15)) * time.Minute, AtOnce: 1 + l.side.IntN(3), Waits: l.side.IntN(3) == 0}
}

// lose takes an effect away that a verify can find gone, now and then, or asks for verifies as a person would.
func (l *lab) lose() {
	if l.side == nil || l.err != nil {
		return
	}
	list := l.ledger.instances()
	if len(list) == 0 {
		return
	}
	t := list[l.side.IntN(len(list))]
	task := l.ledger.model().Task(t.Task)
	switch l.side.IntN(4) {
	case 0, 1:
		if task.Step.Verify != nil && !task.Step.Once && l.world.Lose(t) {
			l.logf("%s vanishes", t)
		}
	case 2:
		if _, err := l.machine.Inquire(l.now(), "sim", nil); err == nil {
			l.advance()
		}
	}
}

// turn lets so much time pass that everything was verified, and says once more what is wanted.
func (l *lab) turn() {
	if l.side == nil {
		return
	}
	end := l.world.Now().Add(2 * (3*l.drift.Every + time.Hour)) // time may go on at half the pace
	l.pump(20000, func() bool { return l.world.Now().After(end) })
	if l.drift.Waits {
		l.goal(false)
	}
}

// found is law 5 for drift: it was seen, twice, since the instance last came to be in place.
func (l *lab) found(e history.Drifted) error {
	seen := 0
	for i := len(l.world.Runs) - 1; i >= 0 && seen < 2; i-- {
		r := l.world.Runs[i]
		if r.Target != e.Target || r.Action == "abort" {
			continue
		}
		if !run.IsLook(r.ID) || r.Good {
			break
		}
		seen++
	}
	if seen < 2 {
		return fmt.Errorf("drift: %s is said to have drifted, and %d verifies found that", e.Target, seen)
	}
	return nil
}

// takeDrifted writes drift down.
func (l *ledger) takeDrifted(e history.Drifted) error {
	r := l.rows[e.Target]
	if r == nil || !r.there || r.flight != nil || r.drifted {
		return fmt.Errorf("drift: of %s, which is not in place, or has drifted already", e.Target)
	}
	r.drifted, r.driftedAt = true, l.seq
	return nil
}

// driftWaits reports whether drift is left alone until a person says something.
func (l *ledger) driftWaits(r *lrow) bool {
	return l.model().Drift.Waits && r.driftedAt > l.seqs[len(l.seqs)-1]
}

// mayLook is what a verify may be asked of: what is in place, of a node that is to stay, and of somebody who answers and is
// trusted; never beside an attempt.
func (l *ledger) mayLook(e run.Effect) error {
	var t target
	var action step.Action
	agent, incarnation, boot := "", "", ""
	switch e := e.(type) {
	case run.Dispatch:
		t, action, agent, incarnation, boot = e.Target, e.Action, e.Agent, e.Incarnation, e.Boot
	case run.Call:
		t, action = e.Target, e.Action
	}
	r, n, scope := l.rows[t], l.nodes[agent], l.model().Task(t.Task).Step.Scope
	switch {
	case action != step.Verify:
		return fmt.Errorf("drift: %s of %s is nothing to look with", action, t)
	case l.halted || l.goal().Destroy:
		return fmt.Errorf("drift: a verify of %s although nothing is pursued", t)
	case l.without[t.Node] != nil || l.without[agent] != nil:
		return fmt.Errorf("drift: a verify of %s on a node that is set aside", t)
	case r == nil || !r.there || r.flight != nil || !l.current(t):
		return fmt.Errorf("drift: a verify of %s, which is not in place", t)
	case t.Node != "" && !l.wants(t.Node):
		return fmt.Errorf("drift: a verify of %s on a node that leaves", t)
	case (agent == "") != (scope == model.Service) || scope == model.Node && agent != t.Node:
		return fmt.Errorf("drift: a verify of %s by %q", t, agent)
	case agent == "":
	case !n.alive() || !n.online || !l.wants(agent) || !model.Suffices(n.level, l.model().Trust):
		return fmt.Errorf("drift: a verify of %s on a node that leaves, is silent or not trusted", t)
	case incarnation != n.inc || boot != n.boot:
		return fmt.Errorf("drift: a verify of %s on another root", t)
	}
	return nil
}

// vanishing is chaos in which effects vanish.
func vanishing(seed uint64, f fault) error {
	sh := full
	sh.drift = true
	if l := chaosOf(sh, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// driftProperties are what holds of drift, and mistakes that it has to find.
func driftProperties() []property {
	return []property{
		{law: "law 5: Memo (drift is found)", does: "nobody looks at what is in place", seeds: 100, try: vanishing, faults: map[string]fault{"real": {skew: func(m model.Model) *model.Model {
			m.Drift.Every = 0
			return &m
		}}}},
		{law: "law 5: Memo (drift of services)", does: "what services and scripts of the cluster did is not looked at", seeds: 100, try: vanishing, faults: map[string]fault{"real": {skew: func(m model.Model) *model.Model {
			m.Tasks = slices.Clone(m.Tasks)
			for i := range m.Tasks {
				if s := *m.Tasks[i].Step; s.Scope != model.Node {
					s.Verify = nil
					m.Tasks[i].Step = &s
				}
			}
			return &m
		}}}},
		{law: "law 5: Memo (drift waits)", does: "what waits for a person is converged", seeds: 100, try: vanishing, faults: map[string]fault{"law 5": {skew: func(m model.Model) *model.Model {
			m.Drift.Waits = false
			return &m
		}}}},
		{law: "drift: looked at with care", does: "silent nodes are taken for such that answer", seeds: 100, try: vanishing, faults: map[string]fault{"drift": {meddle: func(l *lab) {
			for _, n := range l.machine.State().Nodes {
				n.Online = true
			}
		}}}},
	}
}
