package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/step"
)

// property is a law and how it is tried: it returns what a seed breaks. The faults are mistakes that it must find.
type property struct {
	law    string
	does   string // what the planted mistake is, for people
	seeds  int
	try    func(seed uint64, f fault) error
	faults map[string]fault
}

func chaos(seed uint64, f fault) error {
	l := chaosSeed(seed, f)
	if l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// properties are every law's.
func properties() []property {
	return slices.Concat(lawProperties(), restProperties(), budgetProperties(), asideProperties(), approvalProperties(), driftProperties(), renameProperties(), policyProperties(), duringProperties(), clockProperties(), loopProperties(), unansweredProperties(), rebootProperties(), laterProperties(), skipProperties(), scoutProperties(), demandProperties())
}

func lawProperties() []property {
	return append(presenceProperties(), []property{
		{law: "law 1: Isolation", does: `a success with an undeclared output is written down`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 1": {tamper: func(_ *lab, e history.Event) history.Event {
				if s, ok := e.(history.Succeeded); ok && s.Action == step.Apply && s.Silent == nil {
					s.Outputs = json.RawMessage(`{"out":"1","same":"s","more":"x"}`)
					return s
				}
				return e
			}},
		}},
		{law: "law 2: Explicit flow", does: `the core loses every "after"`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 2": {skew: func(m model.Model) *model.Model {
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					m.Tasks[i].After = nil
				}
				return &m
			}},
		}},
		{law: "law 3: Pure decisions", does: `a node's facts change in memory, without an event`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 3": {meddle: func(l *lab) {
				for _, n := range l.machine.State().Nodes {
					n.Facts = json.RawMessage(`{"size":"odd"}`)
				}
			}},
		}},
		{law: "law 4: Journal first", does: `effects begin before their events are durable`, seeds: 100, try: chaos, faults: map[string]fault{"law 4": {early: true}}},
		{law: "law 5: Memo", does: `the core forgets that an instance is in place`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 5": {meddle: func(l *lab) {
				for _, t := range l.ledger.targets() {
					if row := l.machine.State().Row(t); row != nil && row.Phase == history.InPlace && l.steps%5 == 0 {
						row.Phase = history.Dirty
						l.machine.Plan().Touch(t)
					}
				}
			}},
		}},
		{law: "law 6: Early cut-off", does: `a reader of one output is woken by another one`, seeds: 150, try: cutOff, faults: map[string]fault{
			"law 6": {skew: func(m model.Model) *model.Model { // one attribute is taken for another
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					m.Tasks[i].With = slices.Clone(m.Tasks[i].With)
					for k, a := range m.Tasks[i].With {
						if e, ok := a.Expr.(record); ok {
							e = slices.Clone(e)
							for r := range e {
								if e[r].Kind == model.RefTask && e[r].Attr == "same" {
									e[r].Attr = "out"
								}
							}
							m.Tasks[i].With[k] = argument(a.Name, e)
						}
					}
				}
				return &m
			}},
		}},
		{law: "law 7: Symmetry", does: `the core forgets to have services remove what they did`, seeds: 100, try: symmetry, faults: map[string]fault{
			"law 7": {skew: func(m model.Model) *model.Model { // whatever a service did is taken for what cannot be taken back
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					if s := *m.Tasks[i].Step; s.Scope == model.Service {
						s.Irreversible = "forgotten"
						m.Tasks[i].Step = &s
					}
				}
				return &m
			}},
		}},
		{law: "law 8: Budget", does: `the core takes limits for nine nodes and no canaries`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 8": {skew: func(m model.Model) *model.Model {
				m.Rollouts = slices.Clone(m.Rollouts)
				for i := range m.Rollouts {
					m.Rollouts[i].MaxInFlight, m.Rollouts[i].Canaries, m.Rollouts[i].StopAfter = model.Count{N: 9}, 0, model.Count{N: 9}
				}
				return &m
			}},
		}},
		{law: "law 9: trust", does: `every node counts as vouched for`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 9": {meddle: func(l *lab) {
				for _, n := range l.machine.State().Nodes {
					n.Level = model.Vouched
				}
			}},
		}},
		{law: "law 10: One writer", does: `a second writer gets the epoch of the first`, seeds: 20, try: oneWriter, faults: map[string]fault{"law 10": {early: true}}},
		{law: "law 11: No orphans", does: `what is not wanted any more is forgotten, not removed`, seeds: 100, try: chaos, faults: map[string]fault{
			"law 11": {meddle: func(l *lab) {
				for _, t := range l.ledger.targets() {
					if row := l.machine.State().Row(t); row != nil && !l.ledger.wanted(t) && row.Flight == nil {
						*row = history.Row{}
						l.machine.Plan().Touch(t)
					}
				}
			}},
		}},
	}...)
}

func restProperties() []property {
	return []property{
		{law: "removal: order", does: `removals lose the order of "after"`, seeds: 100, try: chaos, faults: map[string]fault{
			"removal": {skew: func(m model.Model) *model.Model {
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					m.Tasks[i].After = nil
				}
				return &m
			}},
		}},
		{law: "rest: converged only when everything is", does: `whatever rests is said to have converged`, seeds: 100, try: chaos, faults: map[string]fault{
			"rest": {tamper: func(_ *lab, e history.Event) history.Event {
				if r, ok := e.(history.Rested); ok {
					r.Outcome = history.OutcomeConverged
					return r
				}
				return e
			}},
		}},
		{law: "cancel: nothing starts until the next goal", does: `the core forgets that a person cancelled`, seeds: 100, try: chaos, faults: map[string]fault{
			"cancel": {meddle: func(l *lab) {
				if s := l.machine.State(); s.Outcome == history.OutcomeCancelled {
					s.Outcome = ""
				}
			}},
		}},
	}
}

func presenceProperties() []property {
	return []property{
		{law: "presence: out while it is disturbed", does: `nothing makes way for anything`, seeds: 200, try: disturbed, faults: map[string]fault{
			"presence": {skew: func(m model.Model) *model.Model { // makes way as if it were only ordered
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					t := &m.Tasks[i]
					for _, name := range t.Except {
						t.After = append(slices.Clone(t.After), model.After{Task: name})
					}
					t.Except = nil
				}
				return &m
			}},
			"law 11": {skew: func(m model.Model) *model.Model { // makes way for what it is only ordered after
				m.Tasks = slices.Clone(m.Tasks)
				for i := range m.Tasks {
					t := &m.Tasks[i]
					if t.Step.Pure() || t.Step.Once {
						continue
					}
					for _, a := range t.After {
						if !a.All && len(m.Task(a.Task).Each) > 0 == (len(t.Each) > 0) {
							t.Except = append(slices.Clone(t.Except), a.Task)
						}
					}
				}
				return &m
			}},
		}},
	}
}

// disturbed is chaos with many tasks that make way for others.
func disturbed(seed uint64, f fault) error {
	crowded := full
	crowded.except = 0.5
	if l := chaosOf(crowded, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// TestLaws holds each law for a number of seeds.
func TestLaws(t *testing.T) {
	for _, p := range properties() {
		t.Run(p.law, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= uint64(seeds(p.seeds)); seed++ {
				if err := p.try(100_000+seed, fault{}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMutations plants in each property a mistake that it has to find, and prints which seed found it.
func TestMutations(t *testing.T) {
	var mu sync.Mutex
	rows := map[string]string{}
	t.Run("all", func(t *testing.T) {
		for _, p := range properties() {
			for name, f := range p.faults {
				t.Run(p.law, func(t *testing.T) {
					t.Parallel()
					found := caught(p, name, f)
					mu.Lock()
					defer mu.Unlock()
					if found == 0 {
						rows[p.law] = fmt.Sprintf("%-45s %-60s NOT CAUGHT", p.law, p.does)
						t.Error("the planted mistake was not found")
						return
					}
					rows[p.law] = fmt.Sprintf("%-45s %-60s caught by seed %d", p.law, p.does, found)
				})
			}
		}
	})
	t.Logf("%-45s %-60s\n%s", "PROPERTY", "MUTATION", strings.Join(slices.Collect(func(yield func(string) bool) {
		for _, p := range properties() {
			if !yield(rows[p.law]) {
				return
			}
		}
	}), "\n"))
}

// caught gives the first seed that finds a planted mistake, 0 for none.
func caught(p property, name string, f fault) uint64 {
	for seed := uint64(1); seed <= 1000; seed++ {
		if err := p.try(seed, f); err != nil && strings.Contains(err.Error(), ": "+name) {
			return seed
		}
	}
	return 0
}

// steady is a cluster that has come to rest with nothing going wrong.
func steady(seed uint64, f fault) *lab {
	l := newLab(seed, shape{tasks: 6, roles: []string{"a", "b"}, rollouts: true})
	l.fault = f
	l.begin(2 + int(seed%3))
	for _, role := range l.gen.shape.roles {
		l.roles[role] = []string{"n1", "n2"}
	}
	l.goal(true)
	l.settle()
	return l
}

// cutOff forces every instance to run again: outputs are equal, so that nothing else starts. Then an input changes, and
// what starts must read, attribute by attribute, something that changed.
func cutOff(seed uint64, f fault) error {
	l := steady(seed, f)
	for _, t := range l.ledger.instances() {
		before := len(l.journal)
		l.advance(history.Forced{Target: t, By: "sim"})
		l.settle()
		for i := before; i < len(l.journal); i++ {
			if s := started(l.event(uint64(i + 1))); s != nil && s.Target != t && l.err == nil {
				l.fail(fmt.Errorf("law 6: %s started although %s yielded what it had yielded", s.Target, t))
			}
		}
	}
	was := map[target]string{}
	for t, r := range l.ledger.rows {
		was[t] = string(r.start.Inputs)
	}
	before := len(l.journal)
	l.sketch.inputs["x"] = "2"
	l.goal(true)
	l.settle()
	for i := before; i < len(l.journal); i++ {
		if s := started(l.event(uint64(i + 1))); s != nil && string(s.Inputs) == was[s.Target] && l.err == nil {
			l.fail(fmt.Errorf("law 6: %s started with what it had", s.Target))
		}
	}
	if l.err != nil {
		return errors.New(strings.Replace(l.report(), "law 2: ", "law 6: by way of law 2: ", 1))
	}
	return nil
}

func started(e history.Event) *history.Started {
	switch e := e.(type) {
	case history.Started:
		return &e
	case history.Succeeded:
		return e.Silent
	}
	return nil
}

// symmetry adds nodes and removes them again: every service has the entries it had.
func symmetry(seed uint64, f fault) error {
	l := steady(seed, f)
	before := maps.Clone(l.world.Tables())
	had := maps.Clone(l.roles)
	for _, name := range []string{"n8", "n9"} {
		l.world.Add(name)
		for role := range l.roles {
			l.roles[role] = append(slices.Clone(l.roles[role]), name)
		}
	}
	l.goal(true)
	l.settle()
	if seed%2 == 0 {
		l.world.Kill("n9") // one of them is dead before it leaves
	}
	l.roles = had
	l.goal(true)
	l.settle()
	if l.err == nil || strings.Contains(l.err.Error(), "orphan in tables") {
		for t := range l.world.Tables() {
			if before[t] == nil {
				l.err = fmt.Errorf("law 7: the services have %s, which they had not before", t)
			}
		}
		for t, entry := range before {
			if string(l.world.Tables()[t]) != string(entry) {
				l.err = fmt.Errorf("law 7: the services have %s for %s, before it was %s", l.world.Tables()[t], t, entry)
			}
		}
	}
	if l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// oneWriter opens a journal twice: the first writer can write nothing more. The planted fault is a store that hands out
// the same epoch again.
func oneWriter(seed uint64, f fault) error {
	ctx := context.Background()
	memory := &journal.Memory{}
	var store journal.Store = memory
	if f.early {
		store = &unfenced{Store: memory}
	}
	record, err := history.Encode(history.Resumed{}, time.Unix(1_700_000_000+int64(seed), 0))
	if err != nil {
		return err
	}
	first, err := journal.Open(ctx, journal.Config{Store: store, Journal: "j", Holder: "first"})
	if err != nil {
		return err
	}
	if err := first.Append(ctx, []journal.Record{record}); err != nil {
		return err
	}
	if _, err := journal.Open(ctx, journal.Config{Store: store, Journal: "j", Holder: "second"}); err != nil {
		return err
	}
	var fenced *journal.FencedError
	if err := first.Append(ctx, []journal.Record{record}); !errors.As(err, &fenced) {
		return fmt.Errorf("seed %d: law 10: the first writer still writes, after a second took the journal: %w", seed, err)
	}
	return nil
}

type unfenced struct {
	journal.Store
	epoch uint64
}

func (u *unfenced) Acquire(ctx context.Context, name, holder string) (uint64, error) {
	if u.epoch > 0 {
		return u.epoch, nil
	}
	epoch, err := u.Store.Acquire(ctx, name, holder)
	u.epoch = epoch
	return epoch, err
}
