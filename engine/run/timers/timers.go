// Package timers is what a pursuit waits for by the clock. It knows no clock: time is an argument.
package timers

import (
	"container/heap"
	"slices"
	"time"

	"joist/engine/history"
)

// Timers is what waits for a time: a heap with the earliest first. An entry may be stale; whoever is rung looks again.
type Timers struct {
	heap timerHeap
	set  map[history.Target]time.Time // the earliest of each, so that none is set twice
}

type timer struct {
	at time.Time
	t  history.Target
}

// Add has an instance rung at a time, unless it is rung before; the zero time never comes.
func (ts *Timers) Add(at time.Time, t history.Target) {
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

// Until takes out everything due by now, in a fixed order.
func (ts *Timers) Until(now time.Time) []history.Target {
	var due []history.Target
	for len(ts.heap) > 0 && !ts.heap[0].at.After(now) {
		t := heap.Pop(&ts.heap).(timer)
		if ts.set[t.t].Equal(t.at) {
			delete(ts.set, t.t)
			due = append(due, t.t)
		}
	}
	Sort(due)
	return slices.Compact(due)
}

// Len counts what waits, stale entries included.
func (ts *Timers) Len() int { return len(ts.heap) }

// Next gives the time of the earliest entry; zero if there is none.
func (ts *Timers) Next() time.Time {
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

// Sort puts instances in the order in which they are rung at one moment: by task, then by node.
func Sort(list []history.Target) {
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
