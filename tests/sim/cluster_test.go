package sim_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/journal/journaltest"
	"joist/engine/journal/sqlstore"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/replay"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/providers/sim"
)

// fleet joins a simulated world to a real loop: in the bubble of a synctest its time is the loop's.
type fleet struct {
	mu    sync.Mutex
	world *sim.World
	kick  chan struct{}
	model *model.Model
	epoch uint64
}

func (f *fleet) Model(context.Context, history.Goal) (*model.Model, error) { return f.model, nil }

// Perform implements drive.Nodes: agents refuse orders of an older epoch.
func (f *fleet) Perform(_ context.Context, o drive.Order) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.Epoch < f.epoch {
		return fmt.Errorf("epoch %d is over, it is %d", o.Epoch, f.epoch)
	}
	f.epoch = o.Epoch
	f.effect(o.Dispatch)
	return nil
}

func (f *fleet) effect(e run.Effect) {
	f.world.Until(time.Now())
	f.world.Perform(e)
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

func (f *fleet) Abort(_ context.Context, o drive.Order) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.effect(run.Abort{Target: o.Target, ID: o.ID, Agent: o.Agent})
	return nil
}

func (f *fleet) HandOver(context.Context, string, string, string) error { return nil }
func (f *fleet) Raise(_ context.Context, _, node string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.effect(run.Raise{Node: node})
	return nil
}

func (f *fleet) Fence(_ context.Context, _, node, _ string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.world.PowerOff(node)
	return "fenced", nil
}

func (f *fleet) Wipe(ctx context.Context, cluster, node, incarnation string) (string, error) {
	return f.Fence(ctx, cluster, node, incarnation)
}

func (f *fleet) Release(context.Context, string, string) error { return nil }

// Call implements step.Handler for every service operation.
func (f *fleet) Call(_ context.Context, c step.Call) (step.Result, error) {
	i, err := addr.Parse(c.Owner)
	if err != nil {
		return step.Result{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := target{Task: i.Task, Node: i.Node}
	if c.Action == step.Remove {
		delete(f.world.Tables(), t)
		return step.Result{}, nil
	}
	if c.Action == step.Verify {
		if f.world.Tables()[t] == nil {
			return step.Result{}, fmt.Errorf("%s has no entry", c.Owner)
		}
		return step.Result{}, nil
	}
	f.world.Tables()[t] = c.Inputs
	return step.Result{Outputs: sim.Outputs(c.Name, c.Inputs)}, nil
}

// pump lets the world go on until ctx ends, and tells the loop what it hears.
func (f *fleet) pump(ctx context.Context, c *drive.Cluster) {
	for {
		f.mu.Lock()
		f.world.Until(time.Now())
		heard := f.world.Hear()
		next, ok := f.world.Next()
		f.mu.Unlock()
		for _, n := range heard {
			var err error
			if n.Event != nil {
				err = c.Happen(ctx, n.Event)
			} else {
				err = c.Report(ctx, n.Target, n.Report)
			}
			if err != nil {
				return
			}
		}
		wait := time.Hour
		if ok {
			wait = max(time.Until(next), time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.kick:
		case <-time.After(wait):
		}
	}
}

// live runs a cluster until it comes to rest or its store fails; it reports whether it came to rest.
func (f *fleet) live(t *testing.T, store *journaltest.Hooked, blobs journal.Blobs, goal history.Goal) bool {
	ctx, cancel := context.WithCancel(t.Context())
	services := map[string]step.Handler{}
	for _, task := range f.model.Tasks {
		if call := task.Step.Apply.Call; call != "" {
			services[call] = f
		}
	}
	c, err := drive.Open(ctx, drive.Config{Cluster: "c", Holder: "test", Store: store, Blobs: blobs, Library: f, Services: services, Nodes: f, Site: f})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	defer func() {
		cancel()
		c.Close()
		work.Wait()
	}()
	var outcome string
	look := func(s *history.State, _ *plan.Planner) {
		outcome = s.Outcome
		if s.Goal() == nil {
			outcome = "none"
		}
	}
	if err := c.Look(ctx, look); err != nil {
		return false
	}
	f.mu.Lock()
	f.world.Announce()
	f.mu.Unlock()
	work.Go(func() { f.pump(ctx, c) })
	if outcome == "none" {
		if err := c.Pursue(ctx, goal); err != nil {
			return false
		}
	}
	for range 3600 {
		select {
		case <-c.Done():
			return false
		case <-time.After(time.Second):
		}
		if err := c.Look(ctx, look); err != nil {
			return false
		}
		if outcome != "" {
			if outcome != history.OutcomeConverged {
				t.Fatalf("came to rest as %q", outcome)
			}
			return true
		}
	}
	t.Fatal("did not come to rest within an hour")
	return false
}

var errKilled = errors.New("the engine was killed")

// TestKilledAtWrites kills the engine at random writes of its journal in SQLite, before or after the write, several
// times in a run: each time it resumes and finishes, and nothing that a node had finished ran there again.
func TestKilledAtWrites(t *testing.T) {
	for seed := range uint64(seeds(20)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) { killed(t, seed, folder) })
		})
	}
}

func killed(t *testing.T, seed uint64, folder string) {
	rng := rand.New(rand.NewPCG(seed, 7))
	gen := &generator{rng: rng, shape: shape{tasks: 6, roles: []string{"a", "b"}, rollouts: true}}
	f := &fleet{kick: make(chan struct{}, 1), model: gen.sketch().build(fault{})}
	f.model.Cluster = "c"
	f.world = sim.New(sim.Config{Seed: seed, Start: time.Now()})
	for _, name := range []string{"n1", "n2", "n3"} {
		f.world.Add(name)
	}
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: folder, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	goal := history.Goal{Model: f.model.Digest, Roles: map[string][]string{"a": {"n1", "n2"}, "b": {"n2", "n3"}}, By: "test", Changed: true}
	kills := 0
	for range 100 {
		left := 2 + rng.IntN(12)
		after := rng.IntN(2) == 0
		hook := func(journal.Batch) error {
			if left--; left <= 0 && kills < 20 {
				kills++
				return errKilled
			}
			return nil
		}
		store := &journaltest.Hooked{Store: db.Journals()}
		if after {
			store.After = hook
		} else {
			store.Before = hook
		}
		if f.live(t, store, db.Blobs(), goal) {
			f.ranOnce(t)
			f.replays(t, folder)
			t.Logf("killed %d times", kills)
			return
		}
	}
	t.Fatal("did not finish after 100 starts")
}

// replays reads the journal as joist replay does, beside the open database: the core decides again what the loops
// decided, whatever group commits and kills there were.
func (f *fleet) replays(t *testing.T, folder string) {
	t.Helper()
	db, err := sqlstore.OpenReadOnly(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := replay.New(stocked{f, db.Blobs()}, 0)
	if err := db.Journals().Read(t.Context(), drive.JournalOf("c"), 0, r.Take); err != nil {
		t.Fatal(err)
	}
	if report := r.End(); report.Diverged > 0 || report.Decisions == 0 {
		t.Errorf("law 3: a replay finds %d divergences in %d decisions; the first: %v", report.Diverged, report.Decisions, report.Divergences)
	}
}

// stocked is a library over the fleet's only model.
type stocked struct {
	*fleet
	blobs journal.Blobs
}

// Model implements run.Library.
func (s stocked) Model(history.Goal) *model.Model { return s.model }

// Blob implements run.Library.
func (s stocked) Blob(d value.Digest) []byte {
	data, err := s.blobs.Get(context.Background(), d.String())
	if err != nil {
		return nil
	}
	return data
}

// ranOnce checks what the nodes counted: every action that went well ran once.
func (f *fleet) ranOnce(t *testing.T) {
	type action struct {
		target
		action, inputs string
	}
	count := map[action]int{}
	for _, r := range f.world.Runs {
		if r.Agent != "" {
			count[action{r.Target, r.Action, r.Inputs}]++
		}
	}
	for a, n := range count {
		if n > 1 {
			t.Errorf("%s %s ran %d times with %s", a.action, a.target, n, a.inputs)
		}
	}
}
