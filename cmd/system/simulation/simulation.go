// Package simulation composes clusters and packs with simulated machines: what joist simulate and joist pack test run.
package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"joist/cmd/system"
	"joist/cmd/system/restapi"
	"joist/content"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/replay"
	"joist/engine/step"
	"joist/engine/value"
	"joist/providers/sim"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
	"joist/workflows/lang"
	"joist/workflows/simulate"
	"joist/workflows/simulate/packtest"
)

// world is a world for package simulate.
type world struct{ *sim.World }

// newWorld makes a world of simulated machines. answer says what each action yields.
func newWorld(seed uint64, faults sim.Faults, answer func(simulate.Ask) (json.RawMessage, error)) *world {
	w := sim.New(sim.Config{
		Seed: seed, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Scout: true,
		Answer: func(a sim.Ask) (json.RawMessage, error) {
			return answer(simulate.Ask{Target: a.Target, Action: a.Action, Attempt: a.Attempt, Inputs: a.Inputs, Agent: a.Agent})
		},
	})
	w.Faults = faults
	return &world{w}
}

// Hear implements simulate.World.
func (w *world) Hear() []simulate.Notice {
	heard := w.World.Hear()
	out := make([]simulate.Notice, len(heard))
	for i, n := range heard {
		out[i] = simulate.Notice{Event: n.Event, Target: n.Target, Report: n.Report}
	}
	return out
}

// Add implements simulate.Machines.
func (w *world) Add(name string, facts json.RawMessage) {
	if w.Node(name) == nil {
		w.World.Add(name)
	}
	n := w.Node(name)
	n.Level, n.Facts = model.Attested, facts
}

// Crash implements simulate.Machines.
func (w *world) Crash(name string, forGood bool) {
	if forGood {
		w.Kill(name)
	} else {
		w.PowerOff(name)
	}
}

// Restart implements simulate.Machines.
func (w *world) Restart() {
	w.Forget()
	w.Announce()
}

// answerer answers for the steps of models that came to be goals.
type answerer struct {
	answers *simulate.Answers
	steps   map[string]*model.Step // by task, the newest
}

func (a *answerer) know(m *model.Model) {
	for i := range m.Tasks {
		a.steps[m.Tasks[i].Name] = m.Tasks[i].Step
	}
}

func (a *answerer) answer(ask simulate.Ask) (json.RawMessage, error) {
	s := a.steps[ask.Task]
	if s == nil {
		return nil, fmt.Errorf("internal error: no step is known of %s", ask.Target)
	}
	if ask.Action != step.Apply {
		return nil, nil
	}
	return a.answers.Answer(s, ask)
}

// Config is what joist simulate was told.
type Config struct {
	Source   clusters.Source
	Nodes    int // machines in all; 0 for those that the cluster file wants
	Seed     uint64
	Faults   []string
	Recorded []byte // events of a real run, whose outputs are the answers; nil for made ones
	Again    int    // how often a person sets the goal again after it stopped
	Check    bool   // have the core decide again what it decided
	Progress func(simulate.Tally)
}

// Result is what came of a simulation.
type Result struct {
	Cluster   string          `json:"cluster"`
	Workflow  string          `json:"workflow"`
	Nodes     int             `json:"nodes"`
	Instances int             `json:"instances"`
	Seed      uint64          `json:"seed"`
	Faults    []string        `json:"faults"`
	Outcome   string          `json:"outcome"`
	Detail    string          `json:"detail,omitempty"`
	Goals     int             `json:"goals"` // 1, and one more for each time that a person set the goal again after it stopped
	Tally     simulate.Tally  `json:"tally"`
	Virtual   float64         `json:"virtual"` // seconds that passed in the simulation
	Real      float64         `json:"real"`    // seconds that it took
	Path      []simulate.Link `json:"critical_path"`
	Failed    []outlook.Item  `json:"failed,omitempty"` // what failed for good, at most 20
	More      int             `json:"more,omitempty"`   // what failed for good besides
	Blocked   []v1.Blockage   `json:"blocked"`          // what is at the bottom of all that is not in place, if it did not converge
	Diverged  int             `json:"diverged"`         // decisions that a replay of the journal makes otherwise, if it was checked: always 0
	Digest    string          `json:"digest"`           // of the journal
}

// Run runs a cluster file on simulated machines until it comes to rest. The same simulation gives the same digest.
func Run(ctx context.Context, o Config) (*Result, []journal.Record, error) {
	m, file, err := modelOf(o.Source)
	if err != nil {
		return nil, nil, err
	}
	faults, odds, err := simulate.ParseFaults(o.Faults)
	if err != nil {
		return nil, nil, err
	}
	var facts value.Value
	if err := facts.UnmarshalJSON([]byte(simulate.DefaultFacts)); err != nil {
		return nil, nil, fmt.Errorf("internal error: %w", err)
	}
	roles, err := simulate.Cast(simulate.RolesOf(m, file, facts), o.Nodes)
	if err != nil {
		return nil, nil, err
	}
	var recorded map[history.Target]json.RawMessage
	if o.Recorded != nil {
		if recorded, err = simulate.ReadRecorded(o.Recorded); err != nil {
			return nil, nil, err
		}
	}
	a := &answerer{steps: map[string]*model.Step{}}
	if a.answers, err = simulate.NewAnswers(recorded); err != nil {
		return nil, nil, err
	}
	a.know(m)
	w := newWorld(o.Seed, chancesOf(odds), a.answer)
	var nodes []string
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		nodes = append(nodes, roles[role]...)
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	for _, name := range nodes {
		w.Add(name, json.RawMessage(simulate.DefaultFacts))
	}
	begun := time.Now()
	s, err := simulate.New(simulate.Config{World: w, Machines: w, Seed: o.Seed, Faults: faults, Progress: o.Progress})
	if err != nil {
		return nil, nil, err
	}
	out := &Result{Cluster: m.Cluster, Workflow: m.Workflow, Nodes: len(nodes), Seed: o.Seed, Faults: append([]string{}, o.Faults...)}
	for out.Goals = 1; ; out.Goals++ {
		if err := s.Goal(m, roles); err != nil {
			return nil, nil, err
		}
		if out.Goals == 1 {
			s.Mishaps(nodes)
		}
		if err := s.Settle(ctx.Err); err != nil {
			return nil, nil, err
		}
		if s.State().Outcome == history.OutcomeConverged || out.Goals > o.Again {
			break
		}
	}
	out.Real = time.Since(begun).Seconds()
	out.fill(s)
	if !o.Check {
		return out, s.Journal(), nil
	}
	return out, s.Journal(), out.replay(s)
}

// most is how many instances that failed for good a result names.
const most = 20

func (o *Result) fill(s *simulate.Simulation) {
	state := s.State()
	o.Outcome, o.Detail, o.Tally, o.Digest, o.Path = state.Outcome, state.Detail, s.Tally(), s.Digest(), s.CriticalPath()
	o.Virtual = o.Tally.Virtual.Seconds()
	items := outlook.Items(s.Plan())
	o.Instances, o.Blocked = len(items), []v1.Blockage{}
	if o.Outcome != history.OutcomeConverged {
		o.Blocked = restapi.Blockages(s.Machine(), outlook.OpenItems(s.Plan()))
	}
	for _, it := range items {
		switch {
		case it.State != outlook.Failed:
		case len(o.Failed) == most:
			o.More++
		default:
			if it.Error == "" { // it never began: nobody can say what it takes
				it.Error = it.Cause.Because()
			}
			o.Failed = append(o.Failed, it)
		}
	}
}

// replay has the core decide again what it decided.
func (o *Result) replay(s *simulate.Simulation) error {
	r := replay.New(s, 0)
	for _, rec := range s.Journal() {
		if err := r.Take(rec); err != nil {
			return err
		}
	}
	o.Diverged = r.End().Diverged
	return nil
}

func chancesOf(c simulate.Chances) sim.Faults {
	return sim.Faults{Fail: c.Fail, Lie: c.Lie, Lose: c.Lose, Duplicate: c.Duplicate, Slow: c.Slow}
}

func modelOf(s clusters.Source) (*model.Model, *lang.ClusterFile, error) {
	packs, diags, err := content.Unpack(s.Packs, system.Catalogue())
	if err != nil {
		return nil, nil, err
	}
	file, more := lang.LoadCluster(s.FileName, s.File)
	if diags = append(diags, more...); diags.HasErrors() {
		return nil, nil, diags.Err()
	}
	m, more := lang.Compile(lang.Source{Packs: packs, Cluster: file})
	if diags = append(diags, more...); diags.HasErrors() {
		return nil, nil, diags.Err()
	}
	return m, file, nil
}

// PackUnderTest is a pack whose tests are to run.
type PackUnderTest struct {
	Files  map[string][]byte // of its folder
	Beside string            // folder where packs that it requires may lie; empty for none but those that ship
	Only   string            // tests with this in their names; empty for all
	Now    func() time.Time  // clock by which it is told how long each took; nil for time.Now
}

// TestPack runs the tests of a pack. An error is one of reading, or ctx's.
func TestPack(ctx context.Context, of PackUnderTest) ([]packtest.Result, lang.Diagnostics, error) {
	pack, diags := lang.Load(of.Files, system.Catalogue())
	if pack == nil {
		return nil, diags, nil
	}
	pack.Folder = ""
	packs := map[string]*lang.Pack{pack.Name: pack}
	more, err := content.Required(packs, of.Beside, system.Catalogue())
	if err != nil {
		return nil, diags, err
	}
	if diags = append(append(diags, more...), lang.Check(packs)...); diags.HasErrors() {
		return nil, diags, nil
	}
	if of.Now == nil {
		of.Now = time.Now
	}
	results, found, err := packtest.Run(ctx, packtest.Config{
		Pack: pack, Packs: packs, Files: of.Files, Catalogue: system.Catalogue(), Only: of.Only, Now: of.Now,
		Outside: func(seed uint64, odds simulate.Chances, answer func(simulate.Ask) (json.RawMessage, error)) packtest.Outside {
			w := newWorld(seed, chancesOf(odds), answer)
			return packtest.Outside{World: w, Machines: w}
		},
	})
	return results, append(diags, found...), err
}
