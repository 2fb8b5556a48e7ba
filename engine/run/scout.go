package run

import (
	"time"

	"joist/engine/history"
)

// handOver is what has to be asked of a wanted machine in the discovery image: nothing while anything of the goal is still to be done there.
func (m *Machine) handOver(n *history.Node) Effect {
	if holds, _ := m.plan.Scouting(n.Name); holds {
		return nil
	}
	return HandOver{Node: n.Name, Boot: n.Scout}
}

// letGo hands machines over while nothing else is asked for, after a cancel: a node that boots by itself meanwhile comes up.
func (m *Machine) letGo() {
	for _, n := range m.state.Nodes {
		if n.Scout == "" || !m.restless[n.Name] || !m.plan.Wants(n.Name) {
			continue
		}
		delete(m.restless, n.Name)
		if e := m.handOver(n); e != nil {
			m.effects = append(m.effects, e)
		}
	}
}

// kept reports whether a machine is kept in the discovery image by what does not go on by itself: it is not awaited.
func (m *Machine) kept(n *history.Node) bool {
	if n.Scout == "" {
		return false
	}
	holds, stuck := m.plan.Scouting(n.Name)
	return holds && stuck
}

// leftScout ends the attempts in a discovery image that the machine is in no more. Where it only does not answer, they may go on.
func (m *Machine) leftScout(now time.Time, n *history.Node) {
	if n.Scout == "" && !n.Online && !n.Ended && !n.Released {
		return
	}
	for _, t := range m.airborne(n.Name) {
		if row := m.state.Row(t); row.Scout && row.Boot != n.Scout {
			m.take(now, history.Failed{Target: t, Action: row.Flight.Action, Attempt: row.Flight.Attempt, Error: "the machine left the discovery image, or was started anew", Excused: true})
		}
	}
}
