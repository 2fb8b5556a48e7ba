package sim_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// budgets is what rollouts are held to beside places: waves, failure domains, watches. It is the ledger's own reckoning, made
// of the journal's events and of time.
type budgets struct {
	now      time.Time
	done     map[target]time.Time       // when an apply last went well
	seen     map[target]time.Time       // when a verify last found it in place
	watching map[string]map[string]bool // nodes by rollout
	played   map[string]map[string]bool // roles by node, since it was claimed last
}

func newBudgets() budgets {
	return budgets{done: map[target]time.Time{}, seen: map[target]time.Time{}, watching: map[string]map[string]bool{}, played: map[string]map[string]bool{}}
}

// budget takes an event in, before the laws look at it.
func (l *ledger) budget(e history.Event) error {
	b := &l.budgets
	switch e := e.(type) {
	case history.Goal:
		if e.Changed {
			b.watching = map[string]map[string]bool{}
		}
		for role, names := range e.Roles {
			for _, name := range names {
				if b.played[name] == nil {
					b.played[name] = map[string]bool{}
				}
				b.played[name][role] = true
			}
		}
	case history.NodeReleased:
		if !l.wants(e.Node) {
			delete(b.played, e.Node)
			for _, nodes := range b.watching {
				delete(nodes, e.Node)
			}
		}
	case history.Started:
		delete(b.watching[e.Place], e.Node)
	case history.Succeeded:
		if e.Action == step.Apply {
			b.done[e.Target] = b.now
		}
	case history.Settling:
		if b.watching[e.Rollout] == nil {
			b.watching[e.Rollout] = map[string]bool{}
		}
		b.watching[e.Rollout][e.Node] = true
	case history.Watched:
		if !b.watching[e.Rollout][e.Node] {
			return nil
		}
		if e.OK {
			b.seen[e.Target] = b.now
			return nil
		}
		delete(b.watching[e.Rollout], e.Node)
		l.fails[e.Rollout]++
		l.row(e.Target).drifted, l.row(e.Target).driftedAt = true, l.seq
	case history.PlaceReturned:
		delete(b.watching[e.Rollout], e.Node)
		return l.watchedLongEnough(e)
	}
	return nil
}

// watchedLongEnough is law 8 for a place that is given back with the node's whole group in place.
func (l *ledger) watchedLongEnough(e history.PlaceReturned) error {
	g := l.rolloutNamed(e.Rollout)
	if g == nil || g.Settle == 0 || l.without[e.Node] != nil || !l.groupDone(e.Rollout, e.Node) {
		return nil
	}
	var last time.Time
	some := false
	for _, task := range g.Tasks {
		if t := (target{Task: task, Node: e.Node}); l.wanted(t) && l.current(t) {
			some = true
			if at := l.budgets.done[t]; at.After(last) {
				last = at
			}
		}
	}
	if !some {
		return nil
	}
	if l.budgets.now.Sub(last) < g.Settle {
		return fmt.Errorf("law 8 (settle): %s gave its place in %s back %s after its group was in place", e.Node, g.Name, l.budgets.now.Sub(last))
	}
	for _, task := range g.Tasks {
		t := target{Task: task, Node: e.Node}
		if by := l.model().Task(task); by.Step.Verify != nil && l.wanted(t) && l.current(t) && l.budgets.seen[t].Before(last.Add(g.Settle)) {
			return fmt.Errorf("law 8 (settle): %s gave its place in %s back and %s was not verified at the end of its watch", e.Node, g.Name, t)
		}
	}
	return nil
}

// inWave is law 8 for waves: how many places a rollout has now, counted wave by wave.
func (l *ledger) inWave(g *model.Rollout, total int) error {
	if len(g.Waves) == 0 {
		return nil
	}
	begun, proven, end := len(l.places[g.Name])+1, len(l.proven[g.Name]), 0 // with the one that starts now
	for _, wave := range g.Waves {
		before := end
		end += places(wave, total)
		if proven >= end {
			continue
		}
		if before+places(wave, total) < proven+begun {
			return fmt.Errorf("law 8 (waves): a node starts as number %d while %d are proven, and a wave ends with number %d", proven+begun, proven, end)
		}
		return nil
	}
	return nil
}

// spreadOut is law 8 for failure domains: in these models a node's facts as a whole.
func (l *ledger) spreadOut(g *model.Rollout, node string, limit int) error {
	if g.Spread == nil {
		return nil
	}
	domains := map[string]bool{}
	for name, roles := range l.budgets.played {
		if slices.ContainsFunc(g.Roles, func(role string) bool { return roles[role] }) {
			domains[string(l.node(name).facts)] = true
		}
	}
	held := 0
	for other := range l.places[g.Name] {
		if string(l.node(other).facts) == string(l.node(node).facts) {
			held++
		}
	}
	share := limit
	if n := len(domains); n > 1 {
		share = (limit + n - 1) / n
	}
	if held >= share {
		return fmt.Errorf("law 8 (spread): %s starts while its failure domain holds %d of %d places over %d domains", node, held, limit, len(domains))
	}
	return nil
}

// budgeted draws waves, watches and failure domains for a rollout.
func (g *generator) budgeted(r *model.Rollout) {
	for range g.rng.IntN(3) {
		r.Waves = append(r.Waves, model.Count{N: 1 + g.rng.IntN(2)})
	}
	r.MaxInFlight = model.Count{N: 1 + g.rng.IntN(4)}
	r.Settle = 30 * time.Second
	if g.chance(0.5) {
		spread := argument("spread", record{{Kind: model.RefNode, Attr: model.NodeFacts}})
		r.Spread = &spread
	}
}

// rolling is chaos with rollouts in full.
func rolling(seed uint64, f fault) error {
	sh := full
	sh.budgets, sh.valid = true, false
	if l := chaosOf(sh, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// skewed makes a fault that takes the rollouts to be others.
func skewed(change func(r *model.Rollout)) fault {
	return fault{skew: func(m model.Model) *model.Model {
		m.Rollouts = slices.Clone(m.Rollouts)
		for i := range m.Rollouts {
			change(&m.Rollouts[i])
		}
		return &m
	}}
}

// budgetProperties are law 8 in full, and mistakes that each part of it has to find.
func budgetProperties() []property {
	return []property{
		{law: "law 8: Budget (waves)", does: "waves are ignored", seeds: 100, try: rolling, faults: map[string]fault{"law 8 (waves)": skewed(func(r *model.Rollout) { r.Waves = nil })}},
		{law: "law 8: Budget (spread)", does: "failure domains are ignored", seeds: 100, try: rolling, faults: map[string]fault{"law 8 (spread)": skewed(func(r *model.Rollout) { r.Spread = nil })}},
		{law: "law 8: Budget (settle)", does: "nobody is watched", seeds: 100, try: rolling, faults: map[string]fault{"law 8 (settle)": skewed(func(r *model.Rollout) { r.Settle = 0 })}},
		{law: "law 8: Budget (breaker)", does: "a breaker does not outlast a run", seeds: 100, try: rolling, faults: map[string]fault{"law 8 (breaker)": {meddle: func(l *lab) {
			for _, b := range l.machine.State().Budgets { // a breaker that does not outlast a run
				b.Failures = 0
			}
		}}}},
	}
}

// waveLimit is how many places may be taken in the wave under way, of which limit is what the end of all waves allows.
func waveLimit(g *model.Rollout, proven, total, limit int) int {
	end := 0
	for _, wave := range g.Waves {
		size := places(wave, total)
		if end += size; proven < end {
			n := min(size, end-proven)
			if proven < g.Canaries {
				n = min(n, g.Canaries-proven)
			}
			return n
		}
	}
	return limit
}

// unanswered is chaos with watched rollouts in which many requests vanish: verifies that nobody answers.
func unanswered(seed uint64, f fault) error {
	sh := full
	sh.budgets, sh.valid, sh.mute = true, false, true
	return replayedChaos(sh, seed, f)
}

// unansweredProperties: that a verify was given up follows from the journal.
func unansweredProperties() []property {
	return []property{
		{law: "law 3: Pure decisions (verifies)", does: "verifies are given up by what is remembered of them", seeds: 100, try: unanswered, faults: map[string]fault{"law 3": {meddle: func(l *lab) {
			for _, b := range l.machine.State().Budgets {
				for node, w := range b.Settling {
					if w.Asked != 0 {
						w.By = w.AskedAt.Add(20 * time.Second)
						b.Settling[node] = w
					}
				}
			}
		}}}},
	}
}
