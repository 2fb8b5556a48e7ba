package drive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// refer is an expression: the output of a task for the same node, or, empty, a constant.
type refer string

func (r refer) Refs() []model.Ref {
	if r == "" {
		return nil
	}
	return []model.Ref{{Kind: model.RefTask, Name: string(r), Attr: "out"}}
}

func (r refer) Eval(s model.Scope) (value.Value, error) {
	if r == "" {
		return value.Text("constant"), nil
	}
	return s.Lookup(r.Refs()[0]), nil
}

// large is an expression that yields more than the journal keeps in place.
type large struct{ refer }

func (large) Eval(model.Scope) (value.Value, error) {
	return value.Text(strings.Repeat("large", 1000)), nil
}

var text = value.Type{Kind: value.String}

// task makes a task of a service step, or, for a node, of a script; its output is of type out, its input of type in.
func task(name string, scope model.StepScope, in value.Type, of model.Expr, out value.Type) model.Task {
	s := &model.Step{Name: "p." + name, Scope: scope, Digest: value.Sum([]byte(name)), Inputs: []model.Field{{Name: "in", Type: in}},
		Outputs: []model.Field{{Name: "out", Type: out}}}
	s.Apply = model.Action{Timeout: time.Minute, Attempts: 3, Backoff: time.Second}
	if scope == model.Service {
		s.Apply.Call = name
	} else {
		s.Apply.Script = &model.Script{}
		s.Remove = &s.Apply
	}
	return model.Task{Name: name, Step: s, Each: []string{"m"}, With: []model.Argument{{
		Name: "in", Expr: of, Refs: of.Refs(), Digest: value.Sum([]byte(fmt.Sprint(of))), Shared: len(of.Refs()) == 0,
	}}}
}

// world is everything around a cluster's loop. Its journal is a Memory, which outlives loops.
type world struct {
	t     *testing.T
	store *journal.Memory
	model *model.Model
	logs  *bytes.Buffer
	cfg   drive.Config

	mu      sync.Mutex
	done    []string // effects, in order
	orders  []drive.Order
	handle  func(ctx context.Context, call step.Call) (step.Result, error)
	durable int // records that the journal has
}

func newWorld(t *testing.T, tasks ...model.Task) *world {
	w := &world{t: t, store: &journal.Memory{}, logs: &bytes.Buffer{}}
	w.model = &model.Model{Digest: value.Sum([]byte("model")), Cluster: "demo", Trust: model.Vouched, Roles: []model.Role{{Name: "m"}}, Tasks: tasks}
	w.store.AfterCommit = func(b journal.Batch) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.durable += len(b.Records)
		return nil
	}
	services := map[string]step.Handler{}
	for _, task := range tasks {
		if task.Step.Scope == model.Service && task.Name != "missing" {
			services[task.Name] = step.HandlerFunc(w.call)
		}
	}
	w.cfg = drive.Config{Cluster: "demo", Holder: "test", Store: w.store, Blobs: w.store, Library: w, Services: services, Nodes: w, Site: w,
		Log: slog.New(slog.NewTextHandler(&locked{w: w.logs}, nil))}
	return w
}

type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (w *world) Model(context.Context, history.Goal) (*model.Model, error) { return w.model, nil }

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, fmt.Sprintf(format, args...))
}

func (w *world) call(ctx context.Context, call step.Call) (step.Result, error) {
	w.note("%s %s", call.Action, call.Owner)
	if w.handle != nil {
		return w.handle(ctx, call)
	}
	return step.Result{Outputs: json.RawMessage(`{"out":"made"}`)}, nil
}

func (w *world) Perform(_ context.Context, o drive.Order) error {
	w.note("%s", o)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, o)
	return nil
}

func (w *world) Abort(_ context.Context, o drive.Order) error {
	w.note("abort %s", o.Target)
	return nil
}

func (w *world) HandOver(context.Context, string, string, string) error { return nil }
func (w *world) Raise(context.Context, string, string) error            { return nil }
func (w *world) Fence(_ context.Context, _, node, _ string) (string, error) {
	w.note("fence %s", node)
	return "fenced", nil
}
func (w *world) Wipe(_ context.Context, _, node, _ string) (string, error) {
	w.note("wipe %s", node)
	return "wiped", nil
}
func (w *world) Release(_ context.Context, _, node string) error {
	w.note("release %s", node)
	return nil
}

func (w *world) open() *drive.Cluster {
	w.t.Helper()
	c, err := drive.Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func goal(nodes ...string) history.Goal {
	return history.Goal{Model: value.Sum([]byte("model")), Roles: map[string][]string{"m": nodes}, By: "test", Changed: true}
}

func up(node string) history.NodeSeen {
	return history.NodeSeen{Node: node, Incarnation: node + "a", Boot: node + "b", Address: "10.0.0.1", Level: model.Vouched, Online: true}
}

func (w *world) begin(c *drive.Cluster, nodes ...string) {
	w.t.Helper()
	for _, n := range nodes {
		if err := c.Seen(w.t.Context(), up(n)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := c.Pursue(w.t.Context(), goal(nodes...)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) outcome(c *drive.Cluster) (outcome string) {
	w.t.Helper()
	if err := c.Look(w.t.Context(), func(s *history.State, _ *plan.Planner) { outcome = s.Outcome }); err != nil {
		w.t.Fatal(err)
	}
	return outcome
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.done, want) {
		w.t.Errorf("did  %q\nwant %q", w.done, want)
	}
}

func (w *world) failure(c *drive.Cluster, task string) (text string) {
	w.t.Helper()
	if err := c.Look(w.t.Context(), func(s *history.State, _ *plan.Planner) {
		if row := s.Row(history.Target{Task: task, Node: "n1"}); row != nil && row.Failure != nil {
			text = row.Failure.Error
		}
	}); err != nil {
		w.t.Fatal(err)
	}
	return text
}

func TestConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text), task("b", model.Service, text, refer("a"), text))
		c := w.open()
		w.begin(c, "n1")
		synctest.Wait()
		w.expect("apply demo/a[n1]", "apply demo/b[n1]")
		if got := w.outcome(c); got != "converged" {
			t.Errorf("outcome %q", got)
		}
		last := c.Journal().Last()
		if err := c.Seen(t.Context(), up("n1")); err != nil || c.Journal().Last() != last {
			t.Errorf("what was known made an event: %v", err)
		}
		c.Close()
		if err := c.Happen(t.Context()); !errors.Is(err, drive.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestJournalFirst: no effect starts before its intent is durable, and nothing is acknowledged before it is (law 4).
func TestJournalFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text))
		started := false
		gate := make(chan struct{})
		w.store.BeforeCommit = func(b journal.Batch) error {
			if slices.ContainsFunc(b.Records, func(r journal.Record) bool { return r.Kind == "started" }) {
				w.mu.Lock()
				started = len(w.done) > 0
				w.mu.Unlock()
				<-gate
			}
			return nil
		}
		c := w.open()
		if err := c.Seen(t.Context(), up("n1")); err != nil {
			t.Fatal(err)
		}
		acknowledged := make(chan error, 1)
		go func() { acknowledged <- c.Pursue(t.Context(), goal("n1")) }()
		synctest.Wait()
		w.expect()
		select {
		case err := <-acknowledged:
			t.Errorf("acknowledged before it was durable: %v", err)
		default:
		}
		close(gate)
		synctest.Wait()
		if err := <-acknowledged; err != nil || started {
			t.Errorf("%v; effect before the intent: %t", err, started)
		}
		w.expect("apply demo/a[n1]")
		c.Close()
	})
}

// TestCrashAtEveryCommit ends the loop before and after each commit in turn; the next one repeats what was in flight and
// nothing that was finished.
func TestCrashAtEveryCommit(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			crashed := false
			t.Run(fmt.Sprintf("after=%t/%d", after, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, task("a", model.Service, text, refer(""), text), task("b", model.Service, text, refer("a"), text))
					n := 0
					crash := errors.New("crash")
					hook := func(journal.Batch) error {
						if n++; n == at {
							crashed = true
							return crash
						}
						return nil
					}
					if after {
						w.store.AfterCommit = hook
					} else {
						w.store.BeforeCommit = hook
					}
					finished := map[string]int{}
					c := w.open()
					errs := []error{c.Seen(t.Context(), up("n1")), c.Pursue(t.Context(), goal("n1"))}
					synctest.Wait()
					if crashed {
						if !errors.Is(c.Err(), crash) || !errors.Is(c.Happen(t.Context(), history.Ticked{}), crash) {
							t.Errorf("the loop ended with %v", c.Err())
						}
					}
					c.Close()
					flying := w.flying()
					before := len(w.done)
					for _, e := range w.records("succeeded") {
						finished[e]++
					}
					w.store.AfterCommit, w.store.BeforeCommit = nil, nil
					c = w.open()
					synctest.Wait()
					again := slices.Clone(w.done[before:])
					for _, f := range flying {
						if len(again) == 0 || again[0] != "apply demo/"+f {
							t.Errorf("in flight %v, repeated %v", flying, again)
						}
					}
					for f := range finished {
						if slices.Contains(again, "apply demo/"+f) {
							t.Errorf("%s had finished and ran again", f)
						}
					}
					if errors.Join(errs...) != nil {
						w.begin(c, "n1")
						synctest.Wait()
					}
					if got := w.outcome(c); got != "converged" {
						t.Errorf("outcome %q after %v", got, w.done)
					}
					c.Close()
				})
			})
			if !crashed {
				if at < 4 {
					t.Errorf("only %d commits", at)
				}
				break
			}
		}
	}
}

func (w *world) fold() *history.State {
	w.t.Helper()
	s := history.New()
	if err := w.store.Read(w.t.Context(), drive.JournalOf("demo"), 0, func(r journal.Record) error {
		e, err := history.Decode(r)
		s.Fold(r.Seq, r.Time, e)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) flying() []string {
	var list []string
	for name, column := range w.fold().Columns {
		for i, row := range column.Rows {
			if row != nil && row.Flight != nil {
				list = append(list, fmt.Sprintf("%s[n%d]", name, i))
			}
		}
	}
	return list
}

// records gives the targets of the journal's events of a kind.
func (w *world) records(kind string) []string {
	w.t.Helper()
	var list []string
	if err := w.store.Read(w.t.Context(), drive.JournalOf("demo"), 0, func(r journal.Record) error {
		var target history.Target
		if r.Kind == kind {
			if err := json.Unmarshal(r.Data, &target); err != nil {
				return err
			}
			list = append(list, target.String())
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return list
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gate, commits := make(chan struct{}), []int{}
		w.store.BeforeCommit = func(b journal.Batch) error {
			commits = append(commits, len(b.Records))
			if len(commits) == 1 {
				<-gate
			}
			return nil
		}
		c := w.open()
		var wg sync.WaitGroup
		for i := range 101 {
			wg.Go(func() {
				if err := c.Seen(t.Context(), up(fmt.Sprint("n", i))); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(gate)
		wg.Wait()
		if !slices.Equal(commits, []int{1, 100}) {
			t.Errorf("commits of %v records", commits)
		}
		c.Close()
	})
}

func TestServiceFailures(t *testing.T) {
	for name, test := range map[string]struct {
		task   string
		handle func(ctx context.Context, call step.Call) (step.Result, error)
		want   string
		calls  int
	}{
		"error": {"a", func(context.Context, step.Call) (step.Result, error) { return step.Result{}, errors.New("no room") }, "no room", 3},
		"panic": {"a", func(context.Context, step.Call) (step.Result, error) { panic("oops") }, "internal error: a panicked: oops", 3},
		"deadline": {"a", func(ctx context.Context, _ step.Call) (step.Result, error) {
			<-ctx.Done()
			return step.Result{}, ctx.Err()
		}, "no result within its time; the node or service may be cut off", 3},
		"unknown operation": {"missing", nil, `this engine has no service operation "missing"`, 0},
		"undeclared output": {"a", func(context.Context, step.Call) (step.Result, error) {
			return step.Result{Outputs: json.RawMessage(`{"out":"x","more":1}`)}, nil
		}, "step p.a yielded what it does not declare: more", 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, task(test.task, model.Service, text, refer(""), text))
				w.handle = test.handle
				c := w.open()
				w.begin(c, "n1")
				time.Sleep(time.Hour)
				synctest.Wait()
				got := w.failure(c, test.task)
				if got != test.want && !(name == "deadline" && got == context.DeadlineExceeded.Error()) {
					t.Errorf("failure %q, want %q", got, test.want)
				}
				if len(w.done) != test.calls || w.outcome(c) != "stopped" {
					t.Errorf("calls %q, outcome %q", w.done, w.outcome(c))
				}
				c.Close()
			})
		})
	}
}

// TestOneCallAtATime: a handler that outlives its deadline keeps the instance's next call waiting.
func TestOneCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text))
		running, most := 0, 0
		w.handle = func(context.Context, step.Call) (step.Result, error) {
			w.mu.Lock()
			running++
			most = max(most, running)
			w.mu.Unlock()
			time.Sleep(3 * time.Minute) // deaf to its context
			w.mu.Lock()
			running--
			w.mu.Unlock()
			return step.Result{Outputs: json.RawMessage(`{"out":"late"}`)}, nil
		}
		c := w.open()
		w.begin(c, "n1")
		time.Sleep(time.Hour)
		c.Close()
		if most != 1 {
			t.Errorf("%d calls of one owner at once", most)
		}
	})
}

func TestCloseWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text), task("n", model.Node, text, refer(""), text))
		w.handle = func(ctx context.Context, _ step.Call) (step.Result, error) {
			<-ctx.Done()
			return step.Result{}, ctx.Err()
		}
		c := w.open()
		var nodes []string
		for i := range 50 {
			nodes = append(nodes, fmt.Sprint("n", i))
		}
		w.begin(c, nodes...)
		synctest.Wait()
		calls := 0
		for _, d := range w.done {
			if strings.HasPrefix(d, "apply demo/a[") {
				calls++
			}
		}
		if calls != 32 {
			t.Errorf("%d calls at once", calls)
		}
		c.Close()
		if n := len(w.records("failed")); n != 0 {
			t.Errorf("closing failed %d attempts", n)
		}
	})
}

func TestCancelExcusesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text), task("n", model.Node, text, refer(""), text))
		w.handle = func(ctx context.Context, _ step.Call) (step.Result, error) {
			<-ctx.Done()
			return step.Result{}, ctx.Err()
		}
		c := w.open()
		w.begin(c, "n1")
		synctest.Wait()
		if err := c.Happen(t.Context(), history.Cancelled{By: "ada"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !slices.Contains(w.done, "abort n[n1]") || slices.Contains(w.done, "abort a[n1]") {
			t.Errorf("did %q", w.done)
		}
		if got := w.failure(c, "a"); got != "" {
			t.Errorf("a cancelled call is held to have failed: %s", got)
		}
		c.Close()
	})
}

func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("n", model.Node, text, refer(""), text))
		c := w.open()
		w.begin(c, "n1")
		synctest.Wait()
		w.expect("apply demo/n[n1] #3 on n1")
		o := w.orders[0]
		if o.Trust != model.Vouched || string(o.Clear["in"]) != `"constant"` || o.Incarnation != "n1a" || len(o.Secret) != 0 {
			t.Errorf("order %+v", o)
		}
		c.Close()
		c = w.open()
		synctest.Wait()
		w.expect("apply demo/n[n1] #3 on n1", "apply demo/n[n1] #3 on n1")
		if again := w.orders[1]; again.Epoch <= o.Epoch || again.ID != o.ID || string(again.Clear["in"]) != string(o.Clear["in"]) {
			t.Errorf("repeated as %+v", again)
		}
		for _, r := range []run.Report{{ID: 99, Error: "not mine"}, {ID: o.ID, Outputs: json.RawMessage(`{"out":"done"}`)}, {ID: o.ID, Error: "twice"}} {
			if err := c.Report(t.Context(), o.Target, r); err != nil {
				t.Error(err)
			}
		}
		if got := w.outcome(c); got != "converged" {
			t.Errorf("outcome %q", got)
		}
		c.Close()
	})
}

func TestSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text), task("n", model.Node, text, refer("a"), text))
		w.cfg.Snapshots, w.cfg.Every = w.store, 2
		c := w.open()
		w.begin(c, "n1", "n2")
		synctest.Wait()
		c.Close()
		s, err := w.store.Load(t.Context(), drive.JournalOf("demo"))
		if err != nil || s.Seq < 4 {
			t.Fatalf("snapshot up to %d, %v", s.Seq, err)
		}
		orders := len(w.orders)
		c = w.open()
		synctest.Wait()
		if got := len(w.orders) - orders; got != 2 {
			t.Errorf("%d orders were repeated", got)
		}
		var fromSnapshot []byte
		if err := c.Look(t.Context(), func(s *history.State, _ *plan.Planner) { fromSnapshot, err = json.Marshal(s.Columns) }); err != nil {
			t.Fatal(err)
		}
		folded, err := json.Marshal(w.fold().Columns)
		if err != nil || string(fromSnapshot) != string(folded) {
			t.Errorf("%v\nfrom the snapshot %s\nfolded            %s", err, fromSnapshot, folded)
		}
		c.Close()
	})
}

// TestLostValue: an input that cannot be read back fails its attempt, and is never taken for null.
func TestLostValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("n", model.Node, text, large{}, text))
		c := w.open()
		w.begin(c, "n1")
		synctest.Wait()
		if len(w.orders) != 1 || len(w.orders[0].Clear["in"]) != 5002 {
			t.Fatalf("orders %v", w.orders)
		}
		c.Close()
		w.cfg.Blobs = &journal.Memory{} // the values are gone
		c = w.open()
		synctest.Wait()
		if len(w.orders) != 1 {
			t.Errorf("an order was sent without its input: %v", w.orders[1].Clear)
		}
		if got := w.failure(c, "n"); !strings.HasPrefix(got, "input in, a large value kept as ") || !strings.HasSuffix(got, ", cannot be read") {
			t.Errorf("failure %q", got)
		}
		if !strings.Contains(w.logs.String(), "cannot read a large input") {
			t.Errorf("log %s", w.logs)
		}
		c.Close()
	})
}

func TestRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text))
		c := w.open()
		w.begin(c, "n1", "n2")
		synctest.Wait()
		w.done = nil
		if err := c.Pursue(t.Context(), goal("n1")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.expect("remove demo/a[n2]", "release n2")
		if got := w.outcome(c); got != "converged" {
			t.Errorf("outcome %q", got)
		}
		c.Close()
	})
}

func TestManyClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("a", model.Service, text, refer(""), text), task("b", model.Service, text, refer("a"), text))
		var all []*drive.Cluster
		for i := range 50 {
			cfg := w.cfg
			cfg.Cluster = fmt.Sprint("c", i)
			c, err := drive.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		for _, c := range all {
			w.begin(c, "n1", "n2")
		}
		synctest.Wait()
		for i, c := range all {
			if got := w.outcome(c); got != "converged" {
				t.Errorf("cluster %d: %q", i, got)
			}
			c.Close()
		}
		if len(w.done) != 200 {
			t.Errorf("%d calls", len(w.done))
		}
	})
}
