// Package timers keeps what waits for a time, and the order in which several are told that theirs has come.
package timers

import (
	"container/heap"
	"slices"
	"time"

	"joist/engine/history"
)

// Set is what waits for a time: a heap with the earliest first. An entry may be stale; whoever is rung looks again. The zero
// value is empty.
type Set struct {
	heap timerHeap
	set  map[history.Target]time.Time // the earliest of each, so that none is set twice
}

type timer struct {
	at time.Time
	t  history.Target
}

// Add has t told at a time, unless it is told sooner. Of the zero time it takes no note.
func (ts *Set) Add(at time.Time, t history.Target) {
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
func (ts *Set) Until(now time.Time) []history.Target {
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

// Next is when the earliest is due; zero for never.
func (ts *Set) Next() time.Time {
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

// Sort puts instances in a fixed order, by task and node.
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
