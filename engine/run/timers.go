package run

import (
	"container/heap"
	"hash/fnv"
	"slices"
	"time"

	"joist/engine/history"
)

// timers is what waits for a time: a heap with the earliest first. An entry may be stale; whoever is rung looks again.
type timers struct {
	heap timerHeap
	set  map[history.Target]time.Time // the earliest of each, so that none is set twice
}

type timer struct {
	at time.Time
	t  history.Target
}

func (ts *timers) add(at time.Time, t history.Target) {
	if at.IsZero() {
		return
	}
	if set, ok := ts.set[t]; ok && !at.Before(set) {
		return
	}
	if ts.set == nil {
		ts.set = map[history.Target]time.Time{}
	}
	ts.set[t] = at
	heap.Push(&ts.heap, timer{at, t})
}

// until takes out everything due by now, in a fixed order.
func (ts *timers) until(now time.Time) []history.Target {
	var due []history.Target
	for len(ts.heap) > 0 && !ts.heap[0].at.After(now) {
		t := heap.Pop(&ts.heap).(timer)
		if ts.set[t.t].Equal(t.at) {
			delete(ts.set, t.t)
			due = append(due, t.t)
		}
	}
	sortTargets(due)
	return slices.Compact(due)
}

func (ts *timers) next() time.Time {
	if len(ts.heap) == 0 {
		return time.Time{}
	}
	return ts.heap[0].at
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

func sortTargets(list []history.Target) {
	slices.SortFunc(list, func(a, b history.Target) int {
		switch {
		case a.Task < b.Task:
			return -1
		case a.Task > b.Task:
			return 1
		case a.Node < b.Node:
			return -1
		case a.Node > b.Node:
			return 1
		}
		return 0
	})
}

// shortestLife is how soon after a success it is renewed at the earliest, whatever its life.
const shortestLife = 10 * time.Second

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// renewal is when a success with a limited life expires: when a third of that life is left, less a jitter of up to a
// tenth of it hashed from the address, so that what was issued together is not renewed together.
func renewal(t history.Target, row *history.Row) time.Time {
	life := row.Due.Sub(row.Done)
	h := fnv.New32a()
	h.Write([]byte(t.Task + "\x00" + t.Node))
	jitter := time.Duration(float64(life) / 10 * float64(h.Sum32()%1000) / 1000)
	return later(row.Due.Add(-life/3-jitter), row.Done.Add(shortestLife))
}
