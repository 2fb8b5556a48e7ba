package sim_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
)

// policing is the ledger's own reckoning of policies: what has begun in this run, by policy.
type policing struct {
	reached bool // the goal was
	begun   map[string]map[string]bool
	excused map[string]bool // overridden for this goal
	unwiped map[string]bool // nodes whose wipe was ordered
}

// what is being removed counts in the run that begins, too.
func (b *policing) goal(e history.Goal, last *history.Goal, going func(who string) bool) {
	if last == nil || e.Changed || e.Destroy != last.Destroy || b.reached {
		for name, begun := range b.begun {
			maps.DeleteFunc(begun, func(who string, _ bool) bool { return !going(who) })
			b.begun[name] = begun
		}
		if b.begun == nil {
			b.begun = map[string]map[string]bool{}
		}
	}
	if e.Destroy {
		b.unwiped = nil
	}
	b.reached, b.excused = false, map[string]bool{}
	for _, o := range e.Overrides {
		b.excused[o.Policy] = true
	}
}

// order takes in that every node of the goal is to be wiped.
func (b *policing) order(g *history.Goal) {
	b.unwiped = map[string]bool{}
	if g == nil {
		return
	}
	for _, names := range g.Roles {
		for _, name := range names {
			b.unwiped[name] = true
		}
	}
}

// wiped reports whether nothing is left that is to be wiped: as somebody ordered, with the cluster, or as it leaves.
func (l *ledger) wiped() bool {
	for name := range l.played {
		n := l.node(name)
		if g := l.goal(); g != nil && g.Destroy && n.alive() || !l.wants(name) && n.inc != "" && !n.released && !n.wiped {
			return false
		}
	}
	return len(l.policing.unwiped) == 0
}

// mayEndanger is the law that a policy is never exceeded, for something dangerous that begins: of a task with these roles.
func (l *ledger) mayEndanger(d model.Danger, t target, each []string) error {
	who := t.Node
	if who == "" {
		who = t.Task
	}
	var policies []model.Policy
	if m := l.models[l.goal().Model]; m != nil {
		policies = m.Policies
	}
	for i := range policies {
		p := &policies[i]
		about := len(p.Roles) == 0
		for _, role := range p.Roles {
			about = about || l.played[t.Node][role] && (each == nil || slices.Contains(each, role))
		}
		if p.Refuse != d || !about {
			continue
		}
		excused := p.Override && l.policing.excused[p.Name]
		begun := l.policing.begun[p.Name]
		switch {
		case excused:
		case p.Bounded && !begun[who] && len(begun) >= p.Beyond, !p.Bounded && len(p.Outside) == 0:
			return fmt.Errorf("policy %s: %s of %s begins after %v in this run, and %d may", p.Name, d, t, begun, p.Beyond)
		case !within(p.Outside, l.now):
			return fmt.Errorf("policy %s: %s of %s begins at %s, outside %s", p.Name, d, t, l.now, p.Says())
		}
		if p.Bounded {
			if begun == nil {
				l.policing.begun[p.Name] = map[string]bool{}
			}
			l.policing.begun[p.Name][who] = true
		}
	}
	return nil
}

// within reports whether a time lies in one of some windows.
func within(windows []model.Window, now time.Time) bool {
	m, today := now.UTC().Hour()*60+now.UTC().Minute(), now.UTC().Weekday()
	return len(windows) == 0 || slices.ContainsFunc(windows, func(w model.Window) bool {
		if w.From < w.To {
			return w.Days[today] && m >= w.From && m < w.To
		}
		return w.Days[today] && m >= w.From || w.Days[(today+6)%7] && m < w.To
	})
}

// mayRemoveByPolicy tells which danger a start is, before the ledger takes it in.
func (l *ledger) mayRemoveByPolicy(e history.Started) error {
	d, r := model.Removal, l.row(e.Target)
	begun := r.removes
	r.removes = ""
	task := l.models[l.goals[l.row(e.Target).goal].Model].Task(e.Task)
	switch {
	case e.Cause.Kind == history.MakesWay && len(l.waysFor(e.Target)) > 0: // out, and back as it was
		return nil
	case task != nil && len(task.During) > 0: // never there to stay
		return nil
	case l.replaced(e.Target):
		d = model.Replacement
	}
	if r.removes = d; begun == d { // repeated, for whatever goal
		return nil
	}
	each := []string{}
	if task != nil && task.Each != nil {
		each = task.Each
	}
	return l.mayEndanger(d, e.Target, each)
}

// mayWipe is the law for wipes, which are effects.
func (l *ledger) mayWipe(e run.Effect) error {
	var err error
	switch e := e.(type) {
	case run.Wipe:
		err = l.mayEndanger(model.Wiping, target{Node: e.Node}, nil)
	case run.Release:
		if n := l.node(e.Node); n.inc != "" && !n.wiped {
			err = l.mayEndanger(model.Wiping, target{Node: e.Node}, nil)
		}
	case run.WipeAll:
		for _, n := range e.Nodes {
			err = errors.Join(err, l.mayEndanger(model.Wiping, target{Node: n.Node}, nil))
		}
	}
	return err
}

// policies draws one or two.
func (g *generator) policies(rng *rand.Rand) []model.Policy {
	var list []model.Policy
	for i := range 1 + rng.IntN(2) {
		p := model.Policy{Name: fmt.Sprintf("p%d", i), Refuse: pick(rng, []model.Danger{model.Removal, model.Removal, model.Replacement, model.Wiping}), Override: rng.IntN(2) == 0}
		if rng.IntN(2) == 0 {
			p.Roles = []string{pick(rng, g.shape.roles)}
		}
		if p.Bounded = rng.IntN(3) > 0; p.Bounded {
			p.Beyond = rng.IntN(3)
		}
		for rng.IntN(2) == 0 && len(p.Outside) < 2 {
			w := model.Window{From: 30 * rng.IntN(48), Text: "some time"}
			w.To = (w.From + 30*(1+rng.IntN(20))) % (24 * 60)
			for d := range w.Days {
				w.Days[d] = rng.IntN(3) > 0
			}
			w.Days[rng.IntN(7)] = true
			p.Outside = append(p.Outside, w)
		}
		list = append(list, p)
	}
	return list
}

// overrides is a person's word about some policies, sometimes.
func (l *lab) overrides() []history.Override {
	var list []history.Override
	for _, p := range l.sketch.policies {
		if l.police.IntN(4) == 0 {
			list = append(list, history.Override{Policy: p.Name, Reason: "sim"})
		}
	}
	return list
}

// policed is chaos under policies.
func policed(seed uint64, f fault) error {
	sh := full
	sh.policies = true
	if l := chaosOf(sh, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

func policyProperties() []property {
	return []property{
		{law: "policy: never exceeded", does: `what has begun in a run is forgotten`, seeds: 200, try: policed, faults: map[string]fault{
			"policy": {meddle: func(l *lab) { l.machine.State().Begun = nil }},
		}},
		{law: "policy: in its hours", does: `windows are taken to be open for ever`, seeds: 100, try: policed, faults: map[string]fault{
			"policy": {skew: func(m model.Model) *model.Model {
				m.Policies = slices.Clone(m.Policies)
				for i := range m.Policies {
					for k := range m.Policies[i].Outside {
						m.Policies[i].Outside = slices.Clone(m.Policies[i].Outside)
						m.Policies[i].Outside[k] = model.Window{Days: [7]bool{true, true, true, true, true, true, true}, To: 24 * 60}
					}
				}
				return &m
			}},
		}},
	}
}
