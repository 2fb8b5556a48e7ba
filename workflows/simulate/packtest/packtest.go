// Package packtest runs the tests that a pack ships: clusters of simulated machines whose steps are answered by fakes, and
// what is expected of their plans, order, outputs and removals. What fails is a diagnostic with its place.
package packtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"joist/engine/addr"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/run/yield"
	"joist/engine/step"
	"joist/engine/value"
	"joist/workflows/lang"
	"joist/workflows/lang/diag"
	"joist/workflows/simulate"
)

// Folder is where in a pack its tests lie.
const Folder = "tests"

// Outside is the world around a test.
type Outside struct {
	World    simulate.World
	Machines simulate.Machines
}

// Config says what is tested. All fields are required but Only.
type Config struct {
	Pack      *lang.Pack
	Files     map[string][]byte     // of the pack's folder, tests included
	Packs     map[string]*lang.Pack // the pack and what it requires, by name
	Catalogue lang.Catalogue
	Only      string // part of the names of the tests to run; empty for all
	// Outside makes a world for one test; answer says what its actions yield.
	Outside func(seed uint64, odds simulate.Chances, answer func(simulate.Ask) (json.RawMessage, error)) Outside
	// Now is the clock by which the tests' real duration is told.
	Now func() time.Time
}

// Result is what came of one test.
type Result struct {
	Name    string  `json:"name"`
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Passed  bool    `json:"passed"`
	Runs    int     `json:"runs"`    // attempts that ended
	Events  uint64  `json:"events"`  // of the journal
	Digest  string  `json:"digest"`  // of the journal
	Virtual float64 `json:"virtual"` // seconds that passed in the simulation
	Real    float64 `json:"real"`    // seconds that it took
}

// Run runs a pack's tests, by file and place. The diagnostics say what is wrong with the files, and what was not as
// expected; file names are those in the pack. The error is ctx's.
func Run(ctx context.Context, cfg Config) ([]Result, diag.Diagnostics, error) {
	results, found := []Result{}, diag.Diagnostics{}
	names := slices.Sorted(maps.Keys(cfg.Files))
	some := false
	for _, name := range names {
		if path.Dir(name) != Folder || path.Ext(name) != ".hcl" {
			continue
		}
		some = true
		f := &file{name: name, src: cfg.Files[name], bag: diag.NewBag(map[string][]byte{name: cfg.Files[name]}), packs: cfg.Packs, own: cfg.Pack.Name, fakes: map[string]*fake{}, tapes: cfg.Files}
		f.parse(cfg.Catalogue)
		if f.bag.HasErrors() {
			found = append(found, f.bag.Done("")...)
			continue
		}
		for _, t := range f.tests {
			if cfg.Only != "" && !strings.Contains(t.title, cfg.Only) {
				continue
			}
			r, err := f.run(ctx, cfg, t)
			if err != nil {
				return results, found, err
			}
			results = append(results, r)
		}
		found = append(found, f.bag.Done("")...)
	}
	if !some {
		found = append(found, diag.Diagnostic{Severity: diag.Warning, Summary: fmt.Sprintf("the pack %s has no tests", cfg.Pack.Name), Detail: "Write some into " + Folder + "/*.hcl."})
	}
	return results, found, nil
}

// trial is one test being run.
type trial struct {
	*file
	sim   *simulate.Simulation
	stage *stage
	steps map[string]*model.Step // by task
	wrong map[string]bool        // fakes that were found to yield what their steps do not
	from  int                    // first deed of the stage
	had   []*model.Model         // of the goals before, the newest first
}

func (f *file) run(ctx context.Context, cfg Config, t *scenario) (Result, error) {
	before, begun := f.bag.Count(), cfg.Now()
	tr := &trial{file: f, steps: map[string]*model.Step{}, wrong: map[string]bool{}}
	out := cfg.Outside(t.seed, t.odds, tr.answer)
	var err error
	tr.sim, err = simulate.New(simulate.Config{World: out.World, Machines: out.Machines, Seed: t.seed, Faults: t.faults})
	if err != nil {
		return Result{}, err
	}
	for i, s := range t.stages {
		tr.stage, tr.from = s, len(tr.sim.Deeds())
		nodes, ok := tr.begin(out.Machines, t)
		if !ok {
			break
		}
		if i == 0 {
			tr.sim.Mishaps(nodes)
		}
		tr.befall(out.Machines)
		switch err := tr.sim.Settle(ctx.Err); {
		case ctx.Err() != nil:
			return Result{}, ctx.Err()
		case err != nil:
			f.bag.Errorf(s.at, "", "%q: %s", s.title, err)
		default:
			tr.check()
		}
		if f.bag.Count() > before {
			break // what follows would only repeat it
		}
	}
	tally := tr.sim.Tally()
	return Result{
		Name: t.title, File: f.name, Line: t.at.Start.Line, Passed: f.bag.Count() == before, Runs: tally.Runs, Events: tally.Events,
		Digest: tr.sim.Digest(), Virtual: tally.Virtual.Seconds(), Real: cfg.Now().Sub(begun).Seconds(),
	}, nil
}

// begin sets the stage's goal and checks the plan for it.
func (t *trial) begin(machines simulate.Machines, of *scenario) (nodes []string, ok bool) {
	s := t.stage
	if s.cluster == nil {
		if err := t.sim.Goal(nil, nil); err != nil {
			t.bag.Errorf(s.at, "Create it first.", "%s", err)
			return nil, false
		}
		t.plan()
		t.had = nil
		return nil, true
	}
	m, ds := lang.CompileAfter(lang.Source{Packs: t.packs, Cluster: s.cluster}, t.had)
	for _, d := range ds {
		t.file.from(d, s.at, s.shift)
	}
	if m == nil {
		return nil, false
	}
	t.had = append([]*model.Model{m}, t.had...)
	var facts value.Value
	if err := facts.UnmarshalJSON(of.facts); err != nil {
		t.bag.Errorf(of.at, "", "the facts cannot be used: %s", err)
		return nil, false
	}
	roles, err := simulate.Cast(simulate.RolesOf(m, s.cluster, facts), 0)
	if err != nil {
		t.bag.Errorf(s.at, "", "%s", err)
		return nil, false
	}
	for i := range m.Tasks {
		t.steps[m.Tasks[i].Name] = m.Tasks[i].Step
	}
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		for _, name := range roles[role] {
			machines.Add(name, of.facts)
			nodes = append(nodes, name)
		}
	}
	if err := t.sim.Goal(m, roles); err != nil {
		t.bag.Errorf(s.at, "", "%s", err)
		return nil, false
	}
	t.ask()
	t.plan()
	slices.Sort(nodes)
	return slices.Compact(nodes), true
}

// ask has run what the stage says that a person asks for.
func (t *trial) ask() {
	p := t.sim.Plan()
	for _, n := range t.stage.asked {
		targets := outlook.Asked(p, n.name)
		if task, node, ok := addr.ParsePath(n.name); ok {
			if one, _ := p.Standing(history.Target{Task: task, Node: node}); p.Cell(one) != nil {
				targets = append(targets, one)
			}
		}
		if len(targets) == 0 {
			t.bag.Errorf(n.at, "Name an instance, or what runs on demand.", "nobody can ask for %q", n.name)
		}
		t.sim.Force(targets)
	}
}

// befall lets the stage's mishaps happen.
func (t *trial) befall(machines simulate.Machines) {
	known := map[string]bool{}
	for _, n := range t.sim.State().Nodes {
		known[n.Name] = true
	}
	for _, word := range mishaps {
		for _, n := range t.stage.mishaps[word] {
			if !known[n.name] {
				t.bag.Errorf(n.at, diag.Suggest(n.name, slices.Collect(maps.Keys(known))), "there is no machine %q", n.name)
				continue
			}
			switch word {
			case "crash":
				machines.Crash(n.name, false)
			case "kill":
				machines.Crash(n.name, true)
			case "partition":
				machines.Cut(n.name)
				t.sim.Later(3*time.Minute, func() { machines.Reconnect(n.name) })
			}
		}
	}
}

// answer says what an action yields: what the step's fake says, and for the outputs that it leaves out, or without one,
// what simulate.Answers makes.
func (t *trial) answer(ask simulate.Ask) (json.RawMessage, error) {
	s := t.steps[ask.Task]
	if s == nil {
		return nil, fmt.Errorf("internal error: no step is known of %s", ask.Target)
	}
	k := t.stage.fakes[s.Name]
	if k != nil && ask.Action != step.Verify && ask.Attempt <= k.fails { // a verify is no attempt: what is in place stays so
		return nil, errors.New(k.error)
	}
	if ask.Action != step.Apply {
		return nil, nil
	}
	if k == nil || k.outputs == nil {
		return t.calm.Answer(s, ask)
	}
	data, err := t.fake(k, s, ask)
	if err != nil && !t.wrong[s.Name] {
		t.wrong[s.Name] = true
		t.bag.Errorf(k.where, "Correct the fake.", "the fake of %s cannot answer for %s: %s", s.Name, ask.Target, err)
	}
	return data, err
}

func (t *trial) fake(k *fake, s *model.Step, ask simulate.Ask) (json.RawMessage, error) {
	given, err := k.outputs.Eval(scope{ask})
	if err != nil {
		return nil, err
	}
	out := map[string]value.Value{}
	for _, f := range s.Outputs {
		v, ok := given.Attr(f.Name)
		if !ok || v.Null() {
			v = t.calm.Field(f, ask)
		} else if f.Type.Holds(value.Secret) { // a fake's is in clear
			data, err := v.MarshalJSON()
			if err == nil {
				v, err = f.Type.Seal(data, func(plain []byte) (value.Handle, error) { return value.HandleOf(value.Sum(plain)), nil })
			}
			if err != nil {
				return nil, fmt.Errorf("output %s: %w", f.Name, err)
			}
		}
		out[f.Name] = v
	}
	data, err := value.Dict(out).MarshalJSON()
	if err != nil {
		return nil, err
	}
	if _, err := yield.Check(s, data); err != nil {
		return nil, err
	}
	return data, nil
}
