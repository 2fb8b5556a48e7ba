package run

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// fleet answers every effect at once, and loses nothing.
type fleet struct {
	model *model.Model
	m     *Machine
	now   time.Time
	queue []Effect
	count int
}

func (f *fleet) Model(history.Goal) *model.Model { return f.model }
func (f *fleet) Blob(value.Digest) []byte        { return nil }

func (f *fleet) do(events ...history.Event) {
	f.queue = append(f.queue, f.m.Advance(f.now, events...).Effects...)
}

// drain answers until nothing is in flight.
func (f *fleet) drain() {
	for len(f.queue) > 0 {
		e := f.queue[0]
		f.queue = f.queue[1:]
		switch e := e.(type) {
		case Dispatch:
			f.finish(e.Target, e.ID)
		case Call:
			f.finish(e.Target, e.ID)
		}
	}
}

func (f *fleet) finish(t history.Target, id uint64) {
	if e, ok := f.m.Conclude(f.now, t, Report{ID: id, Outputs: json.RawMessage(`{"out":"x"}`)}); ok {
		f.count++
		f.do(e)
	}
}

// newFleet is a cluster of n nodes by tasks in a chain, the last of which gathers the first, in a rollout.
func newFleet(n, tasks int, rollouts ...model.Rollout) (*fleet, []string) {
	m := mod()
	for i := range tasks {
		line := fmt.Sprintf("t%d each=m: node.name", i)
		if i > 0 {
			line += fmt.Sprintf(" task.t%d", i-1)
		}
		if i == tasks-1 {
			line += " all.t0"
		}
		m.Tasks = append(m.Tasks, task(line))
	}
	m.Digest, m.Trust, m.Rollouts = value.Sum([]byte("fleet")), model.Claimed, rollouts
	f := &fleet{model: m, now: time.Unix(1_700_000_000, 0)}
	f.m = New(history.New(), f)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%05d", i)
	}
	return f, names
}

func (f *fleet) converge(names []string) {
	f.do(history.Goal{Model: f.model.Digest, Roles: map[string][]string{"m": names}})
	for _, n := range names {
		f.do(history.NodeSeen{Node: n, Incarnation: n, Boot: n, Address: "10.0.0.1", Level: model.Vouched, Online: true})
		f.drain()
	}
}

// BenchmarkConverge is the pure core's share of a first run: nodes come up one by one, every effect is answered at once.
func BenchmarkConverge(b *testing.B) {
	group := model.Rollout{Name: "r", Tasks: []string{"t1", "t2"}, Roles: []string{"m"}, MaxInFlight: model.Count{N: 10, Percent: true}, Together: true}
	for _, n := range []int{500, 1_000, 2_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			completions := 0
			for b.Loop() {
				f, names := newFleet(n, 20, group)
				f.converge(names)
				if s := f.m.State(); s.Outcome != history.OutcomeConverged {
					b.Fatalf("%s: %s", s.Outcome, s.Detail)
				}
				completions += f.count
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(completions), "us/completion")
		})
	}
}

// BenchmarkJoin is a goal with one node more, and with it gone again, on 10,000 nodes by 20 tasks.
func BenchmarkJoin(b *testing.B) {
	f, names := newFleet(10_001, 20)
	f.converge(names[:10_000])
	for i := 0; b.Loop(); i++ {
		f.do(history.Goal{Model: f.model.Digest, Roles: map[string][]string{"m": names[:10_000+i%2]}})
	}
}
