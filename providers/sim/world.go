// Package sim is a world of simulated nodes and services in virtual time, for tests of the engine and for authors who
// want to see what a workflow would do. Everything it does follows from its seed. Nodes crash, reboot, fall silent and
// lie as they are told; each counts, outside the spool that its agent answers from, what really ran.
package sim

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// Config describes a world.
type Config struct {
	Seed  uint64
	Start time.Time
	// Validity gives how long a success of a step of that name holds; nothing for ever.
	Validity map[string]time.Duration
	// Disk reports whether a node has a disk that keeps its incarnation through a reboot; nil for none.
	Disk func(node string) bool
	// Scout has every machine boot into a discovery image first, and wait there for the hand-over. Else nothing can run there.
	Scout bool
	// Answer says what an action that goes well yields, or why it fails all the same. Nil: every step yields what Outputs
	// says.
	Answer func(Ask) (outputs json.RawMessage, err error)
}

// Ask is an action that a node or a service is performing.
type Ask struct {
	history.Target
	Action  step.Action
	Attempt int
	Name    string // of the step, or of the service's operation
	Agent   string // node that performs it; empty for a service
	Inputs  map[string]value.Value
}

// Faults are the probabilities, from 0 to 1, of what may go wrong. They may be changed at any time.
type Faults struct {
	Fail      float64 // an action fails, having done its work or half of it
	Lie       float64 // an apply yields outputs that its step does not declare, or not all
	Lose      float64 // a request or a result is lost and has to be sent again, which takes a minute
	Vanish    float64 // a request is lost for good
	Duplicate float64 // a request or a result arrives twice
	Slow      float64 // an action takes ten times as long
	Later     float64 // an action comes to no end yet: it asks to be tried again later, or waits for something outside
}

// Notice is something the engine hears of: an event, or what became of an attempt.
type Notice struct {
	Event  history.Event // nil for a report
	Target history.Target
	Report run.Report
	Agent  string // that reports; empty for a service
}

// World is what exists outside the engine. It is not safe for concurrent use.
type World struct {
	Faults Faults
	cfg    Config
	rng    *rand.Rand
	now    time.Time
	queue  queue
	order  uint64
	nodes  map[string]*Node
	heard  []Notice
	tables map[history.Target]json.RawMessage // entries of the services, by owner
	fabric map[history.Target]json.RawMessage // effects of cluster-scope scripts
	calls  map[request]func()                 // service calls under way in the engine's process
	broken map[history.Target]bool
	Runs   []Run // everything that really ran, in order
}

// Reboot is the action of a node that reboots because it was ordered to; its run names the node, and the order.
const Reboot = "reboot"

// Run is one execution of an action.
type Run struct {
	history.Target
	ID     uint64
	Action string
	Agent  string // empty for a service
	Boot   string // of the agent
	Inputs string
	Good   bool
}

// New makes a world without nodes.
func New(cfg Config) *World {
	return &World{
		cfg: cfg, now: cfg.Start, rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)), nodes: map[string]*Node{},
		tables: map[history.Target]json.RawMessage{}, fabric: map[history.Target]json.RawMessage{}, calls: map[request]func(){}, broken: map[history.Target]bool{},
	}
}

// Now is the virtual time.
func (w *World) Now() time.Time { return w.now }

// Next gives the time of the next thing that happens by itself.
func (w *World) Next() (time.Time, bool) {
	if len(w.queue) == 0 {
		return time.Time{}, false
	}
	return w.queue[0].at, true
}

// Until lets time pass up to a moment, and at least to what happens at that moment.
func (w *World) Until(at time.Time) {
	for len(w.queue) > 0 && !w.queue[0].at.After(at) {
		it := heap.Pop(&w.queue).(item)
		w.now = it.at
		it.do()
	}
	if at.After(w.now) {
		w.now = at
	}
}

// Hear takes out what the engine has heard since it was last asked.
func (w *World) Hear() []Notice {
	heard := w.heard
	w.heard = nil
	return heard
}

// Tables gives the entries of the services, by owner, as their inputs.
func (w *World) Tables() map[history.Target]json.RawMessage { return w.tables }

// Fabric gives the effects of cluster-scope scripts, by owner.
func (w *World) Fabric() map[history.Target]json.RawMessage { return w.fabric }

// Break makes every action of an instance fail until Mend.
func (w *World) Break(t history.Target) { w.broken[t] = true }

// Mend makes everything work again that Break broke.
func (w *World) Mend() { clear(w.broken) }

// Forget is a crash of the engine: service calls under way lose their answers, whether they had their effect or not.
func (w *World) Forget() {
	for _, id := range slices.SortedFunc(maps.Keys(w.calls), request.compare) {
		if w.chance(0.5) {
			w.calls[id]()
		}
	}
	clear(w.calls)
	w.heard = nil
}

func (w *World) notice(n Notice) { w.heard = append(w.heard, n) }

func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

func (w *World) delay(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rng.Int64N(int64(to-from)))
}

func (w *World) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, item{at: w.now.Add(d), order: w.order, do: do})
}

type item struct {
	at    time.Time
	order uint64
	do    func()
}

type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

// String describes a run in one line.
func (r Run) String() string {
	return fmt.Sprintf("%s %s on %q (%s) id %d good %v", r.Action, r.Target, r.Agent, r.Boot, r.ID, r.Good)
}
