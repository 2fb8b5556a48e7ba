package upkeep

import (
	"errors"
	"time"

	"joist/engine/history"
)

// LookState says what came of a verify.
type LookState string

// The states.
const (
	LookWaiting LookState = "waiting" // the budget for verifies has no room yet, or it is looked at a second time
	LookRunning LookState = "running"
	LookInPlace LookState = "in place"
	LookDrifted LookState = "drifted"
	LookSilent  LookState = "no answer" // or none that says anything
	LookLeftOut LookState = "left out"  // Observed says why
)

// Look is what came of the verify of one instance.
type Look struct {
	history.Target
	State    LookState
	Observed string    // what was found, or why nothing was
	At       time.Time // when it ended
}

// Inquiry is a person's wish that instances be verified now.
type Inquiry struct {
	ID    uint64
	By    string
	Asked int               // instances
	Open  map[LookState]int // those that have not ended, by state
	Ended []Look            // the others, in the order in which they ended
}

// mostInquiries bounds how many inquiries are remembered.
const mostInquiries = 16

// inquiries are those of late, oldest first.
type inquiries struct {
	list []*inquiry
	made uint64
}

type inquiry struct {
	id    uint64
	by    string
	open  map[history.Target]LookState
	asked int
	ended []Look
}

// ErrNoInquiry is returned for an inquiry that is not remembered, or was made before the engine was started.
var ErrNoInquiry = errors.New("no such inquiry: the engine was started anew, or there were others since; ask again")

// Inquire has instances verified as soon as the budget lets them. Left says why one is not verified now, if so, which is said
// at once, and under whether one is being verified already; lane gives the lane of one.
func (b *Book) Inquire(now time.Time, by string, targets []history.Target, of Asked) uint64 {
	b.made++
	q := &inquiry{id: b.made, by: by, open: map[history.Target]LookState{}}
	b.list = append(b.list, q)
	if len(b.list) > mostInquiries {
		b.list = b.list[1:]
	}
	for _, t := range targets {
		if _, twice := q.open[t]; twice {
			continue
		}
		q.asked++
		if why := of.Left(t); why != "" {
			q.ended = append(q.ended, Look{Target: t, State: LookLeftOut, Observed: why, At: now})
			continue
		}
		q.open[t] = LookWaiting
		if _, under := b.under[t]; !under && !b.doubts[t] {
			b.Put(t, of.Lane(t))
		}
	}
	return q.id
}

// Asked is what the book asks about an instance.
type Asked struct {
	Left func(history.Target) string // why it is not verified now; empty if it is
	Lane func(history.Target) string // where it is verified, one at a time
}

// Inquiry says how far an inquiry is; of what has ended it leaves out as many as skip, and gives at most the number asked for.
func (l *inquiries) Inquiry(id uint64, skip, most int) (Inquiry, error) {
	for _, q := range l.list {
		if q.id != id {
			continue
		}
		out := Inquiry{ID: q.id, By: q.by, Asked: q.asked, Open: map[LookState]int{}}
		for _, state := range q.open {
			out.Open[state]++
		}
		from := min(max(skip, 0), len(q.ended))
		out.Ended = append(out.Ended, q.ended[from:min(from+most, len(q.ended))]...)
		return out, nil
	}
	return Inquiry{}, ErrNoInquiry
}

func (l *inquiries) began(t history.Target) {
	for _, q := range l.list {
		if _, ok := q.open[t]; ok {
			q.open[t] = LookRunning
		}
	}
}

func (l *inquiries) ended(t history.Target, found Look) {
	found.Target = t
	for _, q := range l.list {
		if _, ok := q.open[t]; ok {
			delete(q.open, t)
			q.ended = append(q.ended, found)
		}
	}
}

// Asker gives who asked last for a verify of an instance; nobody if its inquiry has ended.
func (l *inquiries) Asker(t history.Target) string {
	for i := len(l.list) - 1; i >= 0; i-- {
		if n := len(l.list[i].ended); n > 0 && l.list[i].ended[n-1].Target == t {
			return l.list[i].by
		}
	}
	return ""
}
