package plan_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/step"
	"joist/engine/value"
)

// one is an expression that is what it refers to.
type one model.Ref

func (e one) Refs() []model.Ref                       { return []model.Ref{model.Ref(e)} }
func (e one) Eval(s model.Scope) (value.Value, error) { return s.Lookup(model.Ref(e)), nil }

// wide is a model of twenty tasks in a chain over all nodes, with one gather that every node reads.
func wide(tasks int) *model.Model {
	m := &model.Model{Cluster: "c", Trust: model.Approved, Digest: value.Sum([]byte("wide"))}
	for i := range tasks {
		s := &model.Step{Name: fmt.Sprintf("p.t%d", i), Scope: model.Node, Digest: value.Sum([]byte{byte(i)}), Outputs: []model.Field{{Name: "out", Type: value.Type{Kind: value.String}}}}
		s.Apply = model.Action{Script: &model.Script{}, Timeout: time.Minute, Attempts: 1}
		s.Remove = &s.Apply
		t := model.Task{Name: fmt.Sprintf("t%d", i), Step: s, Each: []string{"m"}}
		add := func(name string, r model.Ref) {
			shared := r.Kind == model.RefAll
			t.With = append(t.With, model.Argument{Name: name, Expr: one(r), Refs: []model.Ref{r}, Digest: value.Sum([]byte(fmt.Sprint(r))), Shared: shared})
			s.Inputs = append(s.Inputs, model.Field{Name: name})
		}
		add("name", model.Ref{Kind: model.RefNode, Attr: model.NodeName})
		if i > 0 {
			add("up", model.Ref{Kind: model.RefTask, Name: fmt.Sprintf("t%d", i-1), Attr: "out"})
		}
		if i == tasks-1 {
			add("all", model.Ref{Kind: model.RefAll, Name: "t0"})
		}
		m.Tasks = append(m.Tasks, t)
	}
	return m
}

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("n%05d", i)
	}
	return list
}

// converged folds the journal of a cluster that has come to rest.
func converged(tb testing.TB, m *model.Model, nodes []string) *history.State {
	s := history.New()
	at := time.Unix(1_700_000_000, 0).UTC()
	fold := func(e history.Event) { s.Fold(s.Seq+1, at, e) }
	fold(history.Goal{Model: m.Digest, Roles: map[string][]string{"m": nodes}})
	for _, n := range nodes {
		fold(history.NodeSeen{Node: n, Incarnation: n, Boot: n, Address: "10.0.0.1", Level: model.Vouched, Online: true})
	}
	p := plan.New(s, func(int) *model.Model { return m })
	for fresh := p.Fresh(); len(fresh) > 0; fresh = p.Fresh() {
		for _, t := range fresh {
			d := p.Cell(t).Digests()
			inputs, err := p.Inputs(t, "")
			if err != nil {
				tb.Fatal(err)
			}
			kept := map[string]json.RawMessage{}
			for i, a := range m.Task(t.Task).With {
				kept[a.Name], _, _ = p.Kept(t, i, inputs[a.Name])
			}
			data, _ := json.Marshal(kept)
			fold(history.Started{Target: t, Action: step.Apply, Attempt: 1, Step: m.Task(t.Task).Step.Digest, Ref: d.Ref, Input: d.Input, Inputs: data, Incarnation: t.Node, Boot: t.Node, Agent: t.Node})
			out := json.RawMessage(`{"out":"` + t.Task + t.Node + `"}`)
			fold(history.Succeeded{Target: t, Action: step.Apply, Attempt: 1, Outputs: out, Output: value.Sum(out)})
			p.Touch(t)
		}
		p.Update()
	}
	return s
}

func settledAll(tb testing.TB, p *plan.Planner, want int) {
	if n := p.Progress(); n.Open != 0 || n.Total != want {
		tb.Fatalf("progress %+v, want %d instances and none open", n, want)
	}
}

// BenchmarkUnchanged plans 10,000 nodes by 20 tasks of which nothing changed, from a folded state.
func BenchmarkUnchanged(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%dx20", n), func(b *testing.B) {
			m := wide(20)
			s := converged(b, m, names(n))
			b.ReportAllocs()
			for b.Loop() {
				settledAll(b, plan.New(s, func(int) *model.Model { return m }), n*20)
			}
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			b.ReportMetric(float64(mem.HeapSys)/(1<<20), "heap-MiB")
		})
	}
}

// BenchmarkNodeJoins plans the same goal with one node more, keeping the planner.
func BenchmarkNodeJoins(b *testing.B) {
	m := wide(20)
	all := names(10_002)
	s := converged(b, m, all[:10_000])
	p := plan.New(s, func(int) *model.Model { return m })
	n := 0
	for b.Loop() {
		n++
		with := slices.Clone(all[:10_000])
		if n%2 == 1 {
			with = append(with, all[10_000])
		}
		s.Fold(s.Seq+1, s.Now, history.Goal{Model: m.Digest, Roles: map[string][]string{"m": with}})
		if !p.Retarget() {
			b.Fatal("the planner was not kept")
		}
		p.Update()
	}
}

// BenchmarkEvent is the cost of one completion among 10,000 by 20.
func BenchmarkEvent(b *testing.B) {
	m := wide(20)
	s := converged(b, m, names(10_000))
	p := plan.New(s, func(int) *model.Model { return m })
	t := history.Target{Task: "t5", Node: "n00042"}
	out := json.RawMessage(`{"out":"` + t.Task + t.Node + `"}`)
	row := *s.Row(t)
	for b.Loop() {
		s.Fold(s.Seq+1, s.Now, history.Started{Target: t, Action: step.Apply, Attempt: 1, Step: row.Step, Ref: row.Ref, Input: row.Input, Incarnation: t.Node, Boot: t.Node, Agent: t.Node})
		p.Touch(t)
		p.Update()
		s.Fold(s.Seq+1, s.Now, history.Succeeded{Target: t, Action: step.Apply, Attempt: 1, Outputs: out, Output: value.Sum(out)})
		p.Touch(t)
		p.Update()
		p.Fresh()
		p.Done()
	}
}

// BenchmarkLeave plans the removal of half of 10,000 nodes and carries it out, event by event.
func BenchmarkLeave(b *testing.B) {
	m := wide(5)
	all := names(10_000)
	for b.Loop() {
		b.StopTimer()
		s := converged(b, m, all)
		p := plan.New(s, func(int) *model.Model { return m })
		b.StartTimer()
		s.Fold(s.Seq+1, s.Now, history.Goal{Model: m.Digest, Roles: map[string][]string{"m": all[:5_000]}})
		p.Retarget()
		p.Update()
		fold := func(e history.Event, t history.Target) {
			s.Fold(s.Seq+1, s.Now, e)
			p.Touch(t)
			p.Update()
		}
		for fresh := p.Fresh(); len(fresh) > 0; fresh = p.Fresh() {
			for _, t := range fresh {
				if r := p.Removal(t); r != nil && r.Ready {
					fold(history.Discharged{Target: t}, t)
				} else if c := p.Cell(t); c != nil && c.Ready {
					d := c.Digests()
					fold(history.Started{Target: t, Action: step.Apply, Attempt: 1, Step: m.Task(t.Task).Step.Digest, Ref: d.Ref, Input: d.Input, Incarnation: t.Node, Boot: t.Node, Agent: t.Node}, t)
					out := json.RawMessage(`{"out":"` + t.Task + t.Node + `"}`)
					fold(history.Succeeded{Target: t, Action: step.Apply, Attempt: 1, Outputs: out, Output: value.Sum(out)}, t)
				}
			}
		}
		settledAll(b, p, 25_000)
	}
}
