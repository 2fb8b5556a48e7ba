package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"joist/engine/agent/sandbox"
	agentwire "joist/engine/agent/wire"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/journal/sqlstore"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

const (
	clusterName  = "load"
	eventsAtOnce = 1000
)

// fleet answers every order at once, as nodes that have nothing to do, or runs its script.
type fleet struct {
	to    chan run.Dispatch
	hosts *sandbox.Sandbox // nil for nodes that have nothing to do
}

func (f fleet) Perform(_ context.Context, o drive.Order) error {
	f.to <- o.Dispatch
	return nil
}
func (fleet) Abort(context.Context, drive.Order) error                      { return nil }
func (fleet) HandOver(context.Context, string, string, string) error        { return nil }
func (fleet) Raise(context.Context, string, string) error                   { return nil }
func (fleet) Fence(context.Context, string, string, string) (string, error) { return "", nil }
func (fleet) Wipe(context.Context, string, string, string) (string, error)  { return "", nil }
func (fleet) Release(context.Context, string, string) error                 { return nil }
func (f fleet) report(c *drive.Cluster, reporters int) {
	for range reporters {
		go func() {
			for o := range f.to {
				_ = c.Report(context.Background(), o.Target, f.done(o)) // else the cluster does not rest
			}
		}()
	}
}

// done performs an order.
func (f fleet) done(o run.Dispatch) run.Report {
	if f.hosts == nil {
		return run.Report{ID: o.ID, Outputs: outputs(o.Target)}
	}
	inputs, err := value.Dict(o.Inputs).MarshalJSON()
	if err != nil {
		return run.Report{ID: o.ID, Error: err.Error()}
	}
	r := f.hosts.Run(context.Background(), agentwire.Request{
		ID: fmt.Sprint(o.ID), Cluster: clusterName, Instance: o.Target.String(), Attempt: o.Attempt, Action: agentwire.Apply,
		Script: []byte(linkScript), Inputs: inputs, Outputs: map[string]string{"out": "string"},
	}, func(string) {})
	return run.Report{ID: o.ID, Outputs: r.Outputs, Error: r.Error}
}

// opened is a cluster's loop on its data folder.
func opened(ctx context.Context, a arguments, m *model.Model) (*sqlstore.DB, *drive.Cluster, error) {
	db, err := sqlstore.Open(ctx, sqlstore.Config{Dir: a.Dir, Holder: "bench"})
	if err != nil {
		return nil, nil, err
	}
	nodes := crew{reporters: 512}
	if a.Scripts {
		nodes.reporters = atOnce
		if nodes.hosts, err = sandbox.New(sandbox.Config{Root: filepath.Join(a.Dir, "hosts")}); err != nil {
			return nil, nil, err
		}
	}
	c, err := loop(ctx, db, clusterName, m, nodes)
	return db, c, err
}

// crew is who answers nodes' orders: so many at once, with what they run scripts in.
type crew struct {
	reporters int
	hosts     *sandbox.Sandbox
}

// loop is that of one cluster.
func loop(ctx context.Context, db *sqlstore.DB, name string, m *model.Model, by crew) (*drive.Cluster, error) {
	nodes := fleet{make(chan run.Dispatch, 8*by.reporters), by.hosts}
	c, err := drive.Open(ctx, drive.Config{
		Cluster: name, Holder: "bench", Store: db.Journals(), Snapshots: db.Journals(), Blobs: db.Blobs(), Library: libraryOf(m),
		Services: map[string]step.Handler{"names.put": step.HandlerFunc(namesPut)}, Nodes: nodes, Site: nodes,
	})
	if err != nil {
		return nil, err
	}
	nodes.report(c, by.reporters)
	return c, nil
}

// rested waits until a cluster has converged, asking so often.
func rested(ctx context.Context, c *drive.Cluster, every time.Duration) error {
	var outcome, detail string
	for outcome == "" {
		time.Sleep(every)
		if err := c.Look(ctx, func(s *history.State, _ *plan.Planner) { outcome, detail = s.Outcome, s.Detail }); err != nil {
			return err
		}
	}
	if outcome != "converged" {
		return fmt.Errorf("the cluster %s: %s", outcome, detail)
	}
	return nil
}

// convergence is what converge found out.
type convergence struct {
	Completions, Events, Seconds, CPU float64
}

// converge takes a new cluster from nothing to rest, and waits to be killed. Its profile is complete before it says so.
func converge(ctx context.Context, a arguments) error {
	w := workload{nodes: a.Nodes, gather: a.Gather, knob: "one"}
	m, err := w.compile()
	if err != nil {
		return err
	}
	_, c, err := opened(ctx, a, m)
	if err != nil {
		return err
	}
	var events []history.Event
	for i, name := range w.names() {
		if events = append(events, seen(i, name)); len(events) == eventsAtOnce || i == w.nodes-1 {
			if err := c.Happen(ctx, events...); err != nil {
				return err
			}
			events = nil
		}
	}
	before, begun, cpu := c.Journal().Last(), time.Now(), processorTime()
	if err := c.Pursue(ctx, w.goal(m)); err != nil {
		return err
	}
	if err := rested(ctx, c, 20*time.Millisecond); err != nil {
		return err
	}
	got := convergence{
		Completions: float64(a.Nodes * tasksPerNode), Events: float64(c.Journal().Last() - before),
		Seconds: time.Since(begun).Seconds(), CPU: (processorTime() - cpu).Seconds(),
	}
	if err := errors.Join(a.measured(), say(got)); err != nil {
		return err
	}
	untilTold()
	return nil
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resume is the engine's start on a data folder, up to where it can answer.
func resume(ctx context.Context, a arguments) error {
	m, err := workload{nodes: a.Nodes, gather: a.Gather, knob: "one"}.compile()
	if err != nil {
		return err
	}
	db, c, err := opened(ctx, a, m)
	if err != nil {
		return err
	}
	var got struct{ Settled int }
	if err := c.Look(ctx, func(_ *history.State, p *plan.Planner) { got.Settled = count(p)["unchanged"] }); err != nil {
		return err
	}
	if err := say(got); err != nil {
		return err
	}
	c.Close()
	return db.Close()
}

func count(p *plan.Planner) map[string]int {
	counts := map[string]int{}
	p.Each(func(_ history.Target, _ *model.Task, c *plan.Cell) { counts[c.Verdict.String()]++ })
	for range p.Removals() {
		counts["remove"]++
	}
	return counts
}

// planning is what planOnce found out. Parts are in seconds.
type planning struct {
	Counts map[string]int
	Parts  map[string]float64
	Peak   float64 // MiB
}

// planParts in the order in which they happen.
var planParts = [...]string{"compile", "open", "load", "restore", "fold", "plan"}

// planOnce reads a cluster and plans it, from the sources of its packs and its data folder; with First it plans the goal that would be
// the first there.
func planOnce(ctx context.Context, a arguments) error {
	got := planning{Parts: map[string]float64{}}
	last := time.Now()
	lap := func(part string) {
		now := time.Now()
		got.Parts[part] += now.Sub(last).Seconds()
		last = now
	}
	w := workload{nodes: a.Nodes, gather: a.Gather, knob: "one"}
	m, err := w.compile()
	if err != nil {
		return err
	}
	lap("compile")
	state, db, err := load(ctx, a, lap)
	if err != nil {
		return err
	}
	if a.First {
		state.Fold(1, time.Now(), w.goal(m))
	}
	got.Counts = count(plan.New(state, modelsOf(state, libraryOf(m))))
	lap("plan")
	got.Peak = peakMemory()
	if err := say(got); err != nil {
		return err
	}
	return db.Close()
}

// load reads the newest snapshot, and the journal after it.
func load(ctx context.Context, a arguments, lap func(string)) (*history.State, *sqlstore.DB, error) {
	db, err := sqlstore.Open(ctx, sqlstore.Config{Dir: a.Dir, Holder: "bench"})
	if err != nil {
		return nil, nil, err
	}
	lap("open")
	journals := db.Journals()
	snapshot, err := journals.Load(ctx, drive.JournalOf(clusterName))
	if err != nil {
		return nil, nil, err
	}
	lap("load")
	state := history.New()
	if snapshot.Seq > 0 {
		if state, err = history.Restore(snapshot.Version, snapshot.Data); err != nil {
			return nil, nil, err
		}
	}
	lap("restore")
	folded := 0
	err = journals.Read(ctx, drive.JournalOf(clusterName), snapshot.Seq, func(r journal.Record) error {
		e, err := history.Decode(r)
		if err == nil {
			folded++
			state.Fold(r.Seq, r.Time, e)
		}
		return err
	})
	lap("fold")
	progress("snapshot of %.1f MiB up to event %d, %d events folded after it", float64(len(snapshot.Data))/(1<<20), snapshot.Seq, folded)
	return state, db, err
}

func modelsOf(state *history.State, l library) func(int) *model.Model {
	return func(goal int) *model.Model {
		if goal < 0 || goal >= len(state.Goals) {
			return nil
		}
		return l.find(state.Goals[goal])
	}
}

// replanning is what replan found out, in seconds.
type replanning struct{ Joined, Edited, Grown, Changed []float64 }

// shelf implements run.Library.
type shelf struct{ library }

func (s shelf) Model(g history.Goal) *model.Model { return s.find(g) }

// Blob gives nothing: no attempt is in flight.
func (shelf) Blob(value.Digest) []byte { return nil }

// replan changes the goal of a converged cluster: by a node that joins through an edited cluster file, by one that joins
// while the model stays the same (Grown), and by an input that the last task of every node has. The models are compiled
// before, but for Edited, which is Joined with the time that it takes to compile the edited cluster file.
func replan(ctx context.Context, a arguments) error {
	w := workload{nodes: a.Nodes, gather: a.Gather, knob: "one"}
	more, other := w, w
	more.nodes++
	other.knob = "two"
	var models []*model.Model
	for _, v := range []workload{w, more, other} {
		m, err := v.compile()
		if err != nil {
			return err
		}
		models = append(models, m)
	}
	all := libraryOf(models...)
	var got replanning
	for range a.Repeat {
		state, db, err := load(ctx, a, func(string) {})
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
		now := state.Now.Add(time.Second)
		machine := run.New(state, shelf{all})
		begun := time.Now()
		machine.Advance(now, more.goal(models[1]))
		got.Joined = append(got.Joined, time.Since(begun).Seconds())
		if counts := count(machine.Plan()); counts["unchanged"] < a.Nodes*(tasksPerNode-2) || counts["run"]+counts["run if changed"] < tasksPerNode {
			return fmt.Errorf("with one node more, the plan says %v", counts)
		}
		edited, err := edit(ctx, a, more, models[0])
		if err != nil {
			return err
		}
		got.Edited = append(got.Edited, edited)
		if state, db, err = load(ctx, a, func(string) {}); err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
		grown := more.goal(models[0])
		machine = run.New(state, shelf{all})
		begun = time.Now()
		machine.Advance(now, grown)
		got.Grown = append(got.Grown, time.Since(begun).Seconds())
		runs, err := changed(state, other.goal(models[2]), all)
		if err != nil {
			return err
		}
		got.Changed = append(got.Changed, runs)
	}
	return say(got)
}

// edit gives the seconds from an edited cluster file to the decisions that follow from it.
func edit(ctx context.Context, a arguments, more workload, before *model.Model) (float64, error) {
	state, db, err := load(ctx, a, func(string) {})
	if err != nil {
		return 0, err
	}
	if err := db.Close(); err != nil {
		return 0, err
	}
	all := libraryOf(before)
	machine := run.New(state, shelf{all})
	begun := time.Now()
	m, err := more.compile()
	if err != nil {
		return 0, err
	}
	all[m.Digest.String()] = m
	machine.Advance(state.Now.Add(time.Second), more.goal(m))
	return time.Since(begun).Seconds(), nil
}

// changed plans a goal with another input from scratch.
func changed(state *history.State, goal history.Goal, all library) (float64, error) {
	state = state.Clone()
	begun := time.Now()
	state.Fold(state.Seq+1, state.Now.Add(time.Second), goal)
	counts := count(plan.New(state, modelsOf(state, all)))
	took := time.Since(begun).Seconds()
	if want := len(goal.Roles["node"]); counts["run"] != want {
		said, err := json.Marshal(counts)
		return took, fmt.Errorf("with another input for %d instances, the plan says %s %w", want, said, err)
	}
	return took, nil
}
