// Package upkeep is the book of verifies of what is in place: when each instance is due, who is in line for the budget, what
// was found gone once and is looked at again, what people asked for, and how it all ended. Nothing of it is in the journal: a
// verify that finds nothing new leaves no trace.
package upkeep

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/run/timers"
)

// secondLook is how long after a verify that found something it is repeated before that counts as drift: what is just
// being restarted has not drifted.
const secondLook = 5 * time.Second

// Due gives the first time after a moment at which an instance is verified that is verified so often. It depends on nothing
// else, so that a restart of the engine makes no verify more and none less; instances are spread over that time by a hash of
// their addresses.
func Due(t history.Target, every time.Duration, after time.Time) time.Time {
	turn := after.Truncate(every)
	at := turn.Add(offset(t, every))
	if !at.After(after) {
		at = at.Add(every)
	}
	return at
}

func offset(t history.Target, every time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(t.Task + "\x00" + t.Node))
	x := h.Sum64()
	x ^= x >> 33 // FNV mixes the last bytes little, and names differ in their last bytes
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(every))
}

// Book is the book of one cluster. Verifies share lanes: of each lane, such as a node, one is under way at a time.
type Book struct {
	wheel wheel

	queues map[string][]history.Target // what is to be verified, by lane
	queued map[history.Target]bool
	order  []string                  // lanes with something to be verified and nothing that is
	under  map[history.Target]string // what is being verified, with its lane
	busy   map[string]bool           // those lanes
	doubts map[history.Target]bool   // found gone once
	again  timers.Set                // second looks, and ends of the time of what is under way
	count  Counts
	inquiries
}

// Counts is what came of verifies since the engine took the cluster up.
type Counts struct {
	InPlace, Drifted, Silent uint64    // Silent: no answer came, or none that says anything
	Last                     time.Time // when the last one that said something ended
}

// New is an empty book.
func New() Book {
	return Book{queues: map[string][]history.Target{}, queued: map[history.Target]bool{}, under: map[history.Target]string{}, busy: map[string]bool{}, doubts: map[history.Target]bool{}}
}

// Counts says what came of verifies so far.
func (b *Book) Counts() Counts { return b.count }

// Idle reports whether nothing waits for a verify, nor for one to end.
func (b *Book) Idle() bool { return len(b.queued) == 0 && b.again.Next().IsZero() }

// Put has an instance verified as soon as the budget lets it.
func (b *Book) Put(t history.Target, lane string) {
	if b.queued[t] {
		return
	}
	b.queued[t] = true
	b.queues[lane] = append(b.queues[lane], t)
	if len(b.queues[lane]) == 1 {
		b.line(lane)
	}
}

// line puts a lane in order that has something to verify and verifies nothing.
func (b *Book) line(lane string) {
	if len(b.queues[lane]) > 0 && !b.busy[lane] {
		b.order = append(b.order, lane)
	}
}

// Take gives what is to be verified next, if of most at once there is room. Its lane is busy until Leave or End.
func (b *Book) Take(most int) (t history.Target, ok bool) {
	if len(b.order) == 0 || len(b.busy) >= most {
		return t, false
	}
	lane := b.order[0]
	b.order = b.order[1:]
	t = b.queues[lane][0]
	if b.queues[lane] = b.queues[lane][1:]; len(b.queues[lane]) == 0 {
		delete(b.queues, lane)
	}
	delete(b.queued, t)
	b.under[t], b.busy[lane] = lane, true
	return t, true
}

// Leave says that what Take gave is not verified after all.
func (b *Book) Leave(now time.Time, t history.Target, why string) {
	b.free(t)
	delete(b.doubts, t)
	b.ended(t, Look{State: LookLeftOut, Observed: why, At: now})
}

func (b *Book) free(t history.Target) {
	lane, ok := b.under[t]
	if !ok {
		return
	}
	delete(b.under, t)
	delete(b.busy, lane)
	b.line(lane)
}

// Begin says that what Take gave is being verified, and when that is given up.
func (b *Book) Begin(t history.Target, until time.Time) {
	b.again.Add(until, t)
	b.began(t)
}

// Extend has what is under way looked at again at a time.
func (b *Book) Extend(t history.Target, until time.Time) { b.again.Add(until, t) }

// Rings gives what a time has come for: its second look, or the end of its verify.
func (b *Book) Rings(now time.Time) []history.Target { return b.again.Until(now) }

// Doubted reports whether an instance was found gone once, and has yet to be looked at again.
func (b *Book) Doubted(t history.Target) bool { return b.doubts[t] }

// End takes note of what came of a verify. It reports false if that is to be looked at once more before it says anything.
func (b *Book) End(now time.Time, t history.Target, found Look) (final bool) {
	b.free(t)
	found.At = now
	switch {
	case found.State == LookDrifted && !b.doubts[t]:
		b.doubts[t] = true
		b.again.Add(now.Add(secondLook), t)
		return false
	case found.State == LookDrifted:
		b.count.Drifted++
		b.count.Last = now
	case found.State == LookInPlace:
		b.count.InPlace++
		b.count.Last = now
	default:
		b.count.Silent++
	}
	delete(b.doubts, t)
	b.ended(t, found)
	return true
}

// Forget drops what was seen of an instance that something is about to be done to: it is of another effect.
func (b *Book) Forget(now time.Time, t history.Target) {
	doubted := b.doubts[t]
	delete(b.doubts, t)
	if doubted && !b.queued[t] {
		b.ended(t, Look{State: LookLeftOut, Observed: Changed, At: now})
	}
}

// Changed is why what was seen of an instance says nothing any more.
const Changed = "it was changed meanwhile"

// wheel is when each instance is due.
type wheel struct {
	spokes []spoke   // by offset; nil if it has to be made
	build  time.Time // when; zero if nobody asked for it yet: where a goal was just set, there is more to do
	next   int       // spoke
	turn   time.Time // when the turn under way began
}

type spoke struct {
	offset time.Duration
	t      history.Target
}

// Renew says that there may be other instances.
func (b *Book) Renew() { b.wheel.spokes = nil }

// Roll lets the wheel turn up to now and calls due for each instance whose turn has come. What it missed by more than a turn
// is not made up for. Instances gives all that there are, and is called when the wheel has to be made.
func (b *Book) Roll(now time.Time, every time.Duration, instances func() []history.Target, due func(history.Target)) {
	w := &b.wheel
	if every == 0 || w.spokes == nil && (w.build.IsZero() || now.Before(w.build)) {
		return
	}
	if w.spokes == nil || now.Before(w.turn) || !now.Before(w.turn.Add(2*every)) {
		if w.spokes == nil {
			w.spokes, w.build = spokes(instances(), every), time.Time{}
		}
		w.turn = now.Truncate(every)
		w.next, _ = slices.BinarySearchFunc(w.spokes, now.Sub(w.turn)+1, func(s spoke, at time.Duration) int { return cmp.Compare(s.offset, at) })
	}
	for len(w.spokes) > 0 {
		if w.next == len(w.spokes) {
			w.next, w.turn = 0, w.turn.Add(every)
		}
		if w.turn.Add(w.spokes[w.next].offset).After(now) {
			return
		}
		due(w.spokes[w.next].t)
		w.next++
	}
}

func spokes(instances []history.Target, every time.Duration) []spoke {
	list := make([]spoke, len(instances))
	for i, t := range instances {
		list[i] = spoke{offset(t, every), t}
	}
	slices.SortFunc(list, func(a, b spoke) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), strings.Compare(a.t.Task, b.t.Task), strings.Compare(a.t.Node, b.t.Node))
	})
	return list
}

// Next is when Roll or Rings has something to do; zero for never. With every zero the wheel stands still.
func (b *Book) Next(now time.Time, every time.Duration) time.Time {
	w := &b.wheel
	var turns time.Time
	switch {
	case every == 0:
	case w.spokes == nil:
		if w.build.IsZero() || w.build.After(now.Add(time.Second)) {
			w.build = now.Add(time.Second)
		}
		turns = w.build
	case w.next < len(w.spokes):
		turns = w.turn.Add(w.spokes[w.next].offset)
	case len(w.spokes) > 0:
		turns = w.turn.Add(every + w.spokes[0].offset)
	}
	if ring := b.again.Next(); turns.IsZero() || !ring.IsZero() && ring.Before(turns) {
		return ring
	}
	return turns
}
