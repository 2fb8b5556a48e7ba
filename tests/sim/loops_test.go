package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// vault is what stands around real loops over one journal in memory: a service that yields a secret, a keeper of secrets, and
// nodes of different trust that need it. Its nodes answer at once, and everything that leaves the loops is kept.
type vault struct {
	plain  string
	model  *model.Model // as it is
	taken  *model.Model // as the loops take it to be
	memory *journal.Memory
	logs   lockedBuffer
	orders chan drive.Order
	sealed sync.Map // handle to secret
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func newVault(rng *rand.Rand, f fault) *vault {
	v := &vault{plain: fmt.Sprintf("plain-%016x", rng.Uint64()), memory: &journal.Memory{}, orders: make(chan drive.Order, 64)}
	secret := value.Of(value.Secret, value.Type{Kind: value.String})
	draw := &model.Step{Name: "p.draw", Scope: model.Service, Digest: value.Sum([]byte("draw")), Outputs: []model.Field{{Name: "out", Type: secret}},
		Apply: model.Action{Call: "draw", Timeout: time.Minute, Attempts: 1}}
	use := &model.Step{Name: "p.use", Scope: model.Node, Digest: value.Sum([]byte("use")), Inputs: []model.Field{{Name: "in", Type: secret}},
		Apply: model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1}}
	use.Remove = &use.Apply
	v.model = &model.Model{Cluster: "c", Digest: value.Sum([]byte(v.plain)), Trust: model.Vouched, Roles: []model.Role{{Name: "m"}}, Tasks: []model.Task{
		{Name: "draw", Step: draw},
		{Name: "use", Step: use, Each: []string{"m"}, With: []model.Argument{argument("in", only{model.Ref{Kind: model.RefTask, Name: "draw", Attr: "out"}})}},
	}}
	if v.taken = v.model; f.skew != nil {
		v.taken = f.skew(*v.model)
	}
	return v
}

// only is what one reference refers to.
type only struct{ ref model.Ref }

func (o only) Refs() []model.Ref                                               { return []model.Ref{o.ref} }
func (o only) Eval(s model.Scope) (value.Value, error)                         { return s.Lookup(o.ref), nil }
func (v *vault) Model(context.Context, history.Goal) (*model.Model, error)     { return v.taken, nil }
func (v *vault) Abort(context.Context, drive.Order) error                      { return nil }
func (v *vault) HandOver(context.Context, string, string, string) error        { return nil }
func (v *vault) Raise(context.Context, string, string) error                   { return nil }
func (v *vault) Fence(context.Context, string, string, string) (string, error) { return "fenced", nil }
func (v *vault) Wipe(context.Context, string, string, string) (string, error)  { return "wiped", nil }
func (v *vault) Release(context.Context, string, string) error                 { return nil }

// Perform implements drive.Nodes.
func (v *vault) Perform(_ context.Context, o drive.Order) error {
	v.orders <- o
	return nil
}

// Call implements step.Handler: the secret is drawn.
func (v *vault) Call(context.Context, step.Call) (step.Result, error) {
	out, err := json.Marshal(map[string]string{"out": v.plain})
	return step.Result{Outputs: out}, err
}

// Seal implements drive.Secrets.
func (v *vault) Seal(_ context.Context, _ string, plain []byte) (value.Handle, error) {
	h := value.HandleOf(value.Sum([]byte("key"), plain))
	v.sealed.Store(h, bytes.Clone(plain))
	return h, nil
}

// Open implements drive.Secrets.
func (v *vault) Open(_ context.Context, _ string, h value.Handle) ([]byte, error) {
	plain, ok := v.sealed.Load(h)
	if !ok {
		return nil, errors.New("no such secret")
	}
	return plain.([]byte), nil
}

func (v *vault) open(ctx context.Context, store journal.Store) (*drive.Cluster, error) {
	return drive.Open(ctx, drive.Config{Cluster: "c", Holder: "sim", Store: store, Blobs: v.memory, Library: v, Services: map[string]step.Handler{"draw": v},
		Nodes: v, Site: v, Secrets: v, Log: slog.New(slog.NewTextHandler(&v.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))})
}

func (v *vault) goal(nodes ...string) history.Goal {
	return history.Goal{Model: v.taken.Digest, Roles: map[string][]string{"m": nodes}, By: "sim", Changed: true}
}

func vaultNode(name, level string) history.NodeSeen {
	return history.NodeSeen{Node: name, Incarnation: name + "-1", Boot: name + "-1", Address: "10.0.0.1", Level: level, Online: true}
}

// patience bounds what a seed may wait for.
const patience = time.Minute

// secrecy is law 9: a secret that a service drew reaches nodes that are trusted enough, and nothing else.
func secrecy(seed uint64, f fault) error {
	rng := rand.New(rand.NewPCG(seed, 17))
	v := newVault(rng, f)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := v.open(ctx, v.memory)
	if err != nil {
		return err
	}
	defer c.Close()
	levels := map[string]string{"n1": model.Vouched}
	nodes := []string{"n1", "n2", "n3"}
	for _, n := range nodes[1:] {
		levels[n] = pick(rng, []string{model.Claimed, model.Approved, model.Vouched, model.Attested})
	}
	want := 0
	if err := c.Pursue(ctx, v.goal(nodes...)); err != nil {
		return err
	}
	for _, n := range nodes {
		if model.Suffices(levels[n], v.taken.Trust) {
			want++
		}
		if err := c.Happen(ctx, vaultNode(n, levels[n])); err != nil {
			return err
		}
	}
	for range want {
		var o drive.Order
		select {
		case o = <-v.orders:
		case <-ctx.Done():
			return fmt.Errorf("seed %d: an order that was due never came", seed)
		}
		if clear := string(o.Clear["in"]); strings.Contains(clear, v.plain) && !model.Suffices(levels[o.Agent], v.model.Trust) {
			return fmt.Errorf("seed %d: law 9 (trust): node %s, which is %s, was given a secret that asks for %s", seed, o.Agent, levels[o.Agent], v.model.Trust)
		} else if !strings.Contains(clear, v.plain) {
			return fmt.Errorf("seed %d: node %s was given %s and not the secret", seed, o.Agent, clear)
		}
		failure := ""
		if rng.IntN(3) == 0 {
			failure = "it broke"
		}
		if err := c.Report(ctx, o.Target, run.Report{ID: o.ID, Error: failure, Outputs: json.RawMessage(`{}`)}); err != nil {
			return err
		}
	}
	return v.search(ctx, c, seed)
}

// search looks for the secret in everything that people, logs and disks are shown.
func (v *vault) search(ctx context.Context, c *drive.Cluster, seed uint64) error {
	leak := func(where string, data []byte) error {
		if bytes.Contains(data, []byte(v.plain)) {
			return fmt.Errorf("seed %d: law 9 (secret): %s has a secret in clear", seed, where)
		}
		return nil
	}
	var shown [][]byte
	err := c.Look(ctx, func(s *history.State, p *plan.Planner) {
		_, snapshot, err := s.Snapshot()
		shown = append(shown, snapshot, fmt.Append(nil, err))
		items, err := json.Marshal(outlook.Items(p))
		shown = append(shown, items, fmt.Append(nil, err))
	})
	for i, data := range shown {
		err = errors.Join(err, leak([]string{"a snapshot", "an error", "the plan", "an error"}[i], data))
	}
	records := 0
	err = errors.Join(err, v.memory.Read(ctx, drive.JournalOf("c"), 0, func(r journal.Record) error {
		records++
		return leak("the journal's event "+r.Kind, r.Data)
	}))
	c.Close()
	v.logs.mu.Lock()
	defer v.logs.mu.Unlock()
	if err == nil && records < 5 {
		err = fmt.Errorf("seed %d: only %d events", seed, records)
	}
	return errors.Join(err, leak("a log", v.logs.Bytes()))
}

// twoLoops is law 10 with two loops over one journal at once: what the first was not told before the second took the journal
// it never acknowledges, and it ends; the second goes on with everything that was acknowledged.
func twoLoops(seed uint64, f fault) error {
	rng := rand.New(rand.NewPCG(seed, 19))
	v := newVault(rng, fault{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var store journal.Store = v.memory
	if f.early {
		store = &unfenced{Store: v.memory}
	}
	first, err := v.open(ctx, store)
	if err != nil {
		return err
	}
	defer first.Close()
	told := []history.Event{v.goal("n1", "n2"), vaultNode("n1", model.Vouched), vaultNode("n2", model.Vouched)}
	begun := rng.IntN(len(told))
	for _, e := range told[:begun] {
		if err := tell(ctx, first, e); err != nil {
			return err
		}
	}
	second, err := v.open(ctx, store)
	if err != nil {
		return err
	}
	defer second.Close()
	stray := vaultNode("n9", model.Vouched)
	if err := first.Happen(ctx, stray); err == nil {
		return fmt.Errorf("seed %d: law 10: the first loop took in an event after a second took the journal", seed)
	}
	select {
	case <-first.Done():
	case <-ctx.Done():
		return fmt.Errorf("seed %d: law 10: the first loop goes on after a second took the journal", seed)
	}
	for _, e := range told[begun:] {
		if err := tell(ctx, second, e); err != nil {
			return fmt.Errorf("seed %d: law 10: the second loop does not go on: %w", seed, err)
		}
	}
	epoch := uint64(0)
	for done := map[target]bool{}; len(done) < 2; {
		select {
		case o := <-v.orders:
			if o.Epoch < epoch { // agents and services refuse those
				continue
			}
			epoch = o.Epoch
			if err := second.Report(ctx, o.Target, run.Report{ID: o.ID, Outputs: json.RawMessage(`{}`)}); err != nil {
				return err
			}
			done[o.Target] = true
		case <-ctx.Done():
			return fmt.Errorf("seed %d: law 10: the second loop does not come to its end", seed)
		}
	}
	look := second.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if s.Outcome != history.OutcomeConverged || s.Node("n9") != nil {
			err = fmt.Errorf("seed %d: law 10: the second loop ended as %q, with a node of the first: %v", seed, s.Outcome, s.Node("n9") != nil)
		}
	})
	return errors.Join(look, err)
}

func tell(ctx context.Context, c *drive.Cluster, e history.Event) error {
	if g, ok := e.(history.Goal); ok {
		return c.Pursue(ctx, g)
	}
	return c.Happen(ctx, e)
}

// loopProperties are laws that only whole loops can break.
func loopProperties() []property {
	return []property{
		{law: "law 9: Secrecy (values)", does: "the core takes a secret output for a plain one", seeds: 20, try: secrecy, faults: map[string]fault{"law 9 (secret)": {skew: func(m model.Model) *model.Model {
			m.Tasks = append([]model.Task(nil), m.Tasks...)
			for i := range m.Tasks {
				s := *m.Tasks[i].Step
				s.Inputs, s.Outputs = plainly(s.Inputs), plainly(s.Outputs)
				m.Tasks[i].Step = &s
			}
			return &m
		}}}},
		{law: "law 9: Secrecy (nodes)", does: "every node that was claimed may have secrets", seeds: 20, try: secrecy, faults: map[string]fault{"law 9 (trust)": {skew: func(m model.Model) *model.Model {
			m.Trust = model.Claimed
			return &m
		}}}},
		{law: "law 10: One writer (loops)", does: "a second loop gets the epoch of the first", seeds: 20, try: twoLoops, faults: map[string]fault{"law 10": {early: true}}},
	}
}

func plainly(fields []model.Field) []model.Field {
	out := append([]model.Field(nil), fields...)
	for i := range out {
		out[i].Type = out[i].Type.Clear()
	}
	return out
}
