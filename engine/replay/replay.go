// Package replay runs the pure core again over a cluster's journal: what somebody told the engine is told to the core once
// more, and what the core decides is compared with what the journal says was decided (law 3). It is pure: whoever calls
// it reads the journal and finds the models.
package replay

import (
	"encoding/json"
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/run"
	"joist/engine/step"
)

// Decision is an event in the form that journals keep.
type Decision struct {
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data"`
}

// Divergence is a place where the core decides otherwise than the journal says.
type Divergence struct {
	Seq      uint64    `json:"seq"`                // event of the journal; one past its end where the core decides more
	Time     time.Time `json:"time"`               // of that event
	Expected *Decision `json:"expected,omitempty"` // what the journal has; nil at its end
	Got      *Decision `json:"got,omitempty"`      // what the core decides instead; nil for nothing
}

// String says where the two part, for people.
func (d Divergence) String() string {
	show := func(x *Decision) string {
		if x == nil {
			return "nothing"
		}
		return x.Kind + " " + string(x.Data)
	}
	return fmt.Sprintf("event %d: expected %s\n  got %s", d.Seq, show(d.Expected), show(d.Got))
}

// Report is what came of a replay.
type Report struct {
	Events      uint64       `json:"events"`      // records taken
	Decisions   int          `json:"decisions"`   // of them compared with what the core decides
	Restarts    int          `json:"restarts"`    // times the engine took the journal up anew
	Older       int          `json:"older"`       // decisions that the engine of that time did not keep in the journal
	Skipped     int          `json:"skipped"`     // decisions that could not be compared, because they follow a divergence in its commit
	Divergences []Divergence `json:"divergences"` // in order; at most Most
	Diverged    int          `json:"diverged"`    // how many there are
}

// Most bounds the divergences that a report lists.
const Most = 100

// Replay takes the records of one journal in order. It is not safe for concurrent use.
type Replay struct {
	library run.Library
	from    uint64
	state   *history.State // what the journal says up to the last record
	machine *run.Machine   // nil: to be made from state
	pending []history.Event
	at      time.Time // of the commit under way
	lost    bool      // what is left of that commit cannot be compared
	asks    bool      // the engine that wrote this kept in the journal that it asked for the verifies of a watch
	report  Report
}

// New begins a replay. The library has to have the model of every goal before its record is taken. Events before from are
// replayed like all others, and what they diverge in is not reported.
func New(library run.Library, from uint64) *Replay {
	return &Replay{library: library, from: from, state: history.New(), report: Report{Divergences: []Divergence{}}}
}

// State gives what the journal says up to the last record taken. It must not be changed.
func (r *Replay) State() *history.State { return r.state }

// Report gives what has come of the replay so far. The divergences must not be changed.
func (r *Replay) Report() Report { return r.report }

// Take replays the next record. An error means that the record cannot be read; that the core decides otherwise is none.
func (r *Replay) Take(rec journal.Record) error {
	if rec.Seq != r.state.Seq+1 {
		return fmt.Errorf("cannot replay event %d: the one before it was %d", rec.Seq, r.state.Seq)
	}
	e, err := history.Decode(rec)
	if err != nil {
		return err
	}
	if rec.Seq >= r.from {
		r.report.Events++
	}
	r.compare(rec, e)
	r.state.Fold(rec.Seq, rec.Time, e)
	return nil
}

// Within reports whether the last record taken is followed by others that were decided with it.
func (r *Replay) Within() bool { return len(r.pending) > 0 }

// End ends the replay and gives what came of it.
func (r *Replay) End() Report {
	if len(r.pending) > 0 && !r.older(journal.Record{Seq: r.state.Seq + 1, Time: r.at}, r.pending[0]) {
		r.diverge(r.state.Seq+1, r.at, nil, r.pending[0])
	}
	r.pending = nil
	return r.report
}

func (r *Replay) compare(rec journal.Record, e history.Event) {
	told := r.told(e)
	if r.lost && !told && rec.Time.Equal(r.at) {
		r.report.Skipped++
		return
	}
	r.lost = false
	if _, asked := e.(history.Asked); asked {
		r.asks = true
	}
	got, ok := r.compared(rec.Time, e, told)
	for !ok && r.older(rec, got) {
		got, ok = r.compared(rec.Time, e, told)
	}
	r.at = rec.Time
	if !ok {
		r.diverge(rec.Seq, rec.Time, e, got)
		r.machine, r.pending, r.lost = nil, nil, true
		return
	}
	if !told && rec.Seq >= r.from {
		r.report.Decisions++
	}
}

// compared compares an event with what the core makes of what happened, or of a start of the engine. got is what the core has in
// place of it.
func (r *Replay) compared(now time.Time, e history.Event, told bool) (got history.Event, ok bool) {
	if r.machine == nil {
		r.machine = r.recalled()
	}
	began := len(r.pending) == 0
	if _, resumed := e.(history.Resumed); !resumed || !began {
		got, ok = r.decide(now, e, told)
	}
	if !ok && began && r.restarted(now, e, told) {
		r.report.Restarts++
		ok = true
	}
	return got, ok
}

// older takes in a decision that engines did not keep in the journal before one was written that did: that the verifies at the
// end of a watch were asked for. They were when the watch was over. It reports false for everything else.
func (r *Replay) older(rec journal.Record, got history.Event) bool {
	asked, ok := got.(history.Asked)
	if !ok || r.asks {
		return false
	}
	b := r.state.Budgets[asked.Rollout]
	if b == nil || b.Settling[asked.Node].Asked > 0 {
		return false
	}
	w, watching := b.Settling[asked.Node]
	if !watching {
		return false
	}
	if late := rec.Time.Sub(w.Until); late > 0 {
		asked.Until = asked.Until.Add(-late)
	}
	r.state.Fold(r.state.Seq, r.state.Now, asked)
	r.machine, r.pending = nil, nil
	if rec.Seq >= r.from {
		r.report.Older++
	}
	return true
}

// told reports whether an event stands at the head of a commit because somebody said so. An attempt that ends, and a verify,
// may have been reported, or given up by the core itself.
func (r *Replay) told(e history.Event) bool {
	switch e := e.(type) {
	case history.Failed:
		row := r.state.Row(e.Target)
		return row != nil && row.Flight != nil && e.Error != run.TimedOut && e.Error != run.NotBack
	case history.Watched:
		return e.OK || e.Observed != run.Unanswered
	}
	return history.Told(e)
}

// decide has the core take in what was told, or decide, and compares. got is what the core has in place of e.
func (r *Replay) decide(now time.Time, e history.Event, told bool) (got history.Event, ok bool) {
	if len(r.pending) == 0 {
		if told {
			if e, ok := r.concluded(now, e); !ok {
				return e, false
			}
			r.pending = r.machine.Advance(now, e).Events
		} else {
			r.pending = r.machine.Advance(now).Events
		}
	}
	if len(r.pending) == 0 {
		return nil, false
	}
	got, r.pending = r.pending[0], r.pending[1:]
	return got, same(got, e)
}

// concluded compares the end of an attempt with what the core makes of the report behind it.
func (r *Replay) concluded(now time.Time, e history.Event) (got history.Event, ok bool) {
	var t history.Target
	var report run.Report
	switch e := e.(type) {
	case history.Succeeded:
		t, report.Outputs = e.Target, e.Outputs
		if e.ValidUntil != nil {
			report.ValidUntil = *e.ValidUntil
		}
	case history.Rebooting:
		t, report.Outputs = e.Target, e.Outputs
		if e.ValidUntil != nil {
			report.ValidUntil = *e.ValidUntil
		}
	case history.Failed:
		t, report.Error, report.Excused = e.Target, e.Error, e.Excused
		if e.Later != "" && e.Retry != nil {
			report.Later = &step.Later{Kind: e.Later, After: e.Retry.Sub(now), Reason: e.Error}
		}
	default:
		return e, true
	}
	if row := r.machine.State().Row(t); row != nil {
		report.ID = r.machine.Asked(row)
		if row.Flight != nil && row.Flight.Reboot != nil { // an excuse alone ends no such attempt: it was cancelled, and had failed
			report.Excused = false
		}
	}
	if got, ok = r.machine.Conclude(now, t, report); !ok {
		return nil, false
	}
	return got, same(got, e)
}

// restarted tries whether the engine was started anew before this event, which leaves a trace only where something was in
// flight.
func (r *Replay) restarted(now time.Time, e history.Event, told bool) bool {
	r.pending = nil
	if told {
		r.machine = r.recalled()
		_, ok := r.decide(now, e, told)
		return ok
	}
	r.machine = run.New(r.state.Clone(), r.library)
	r.pending = r.machine.Resume(now).Events
	if len(r.pending) == 0 {
		return false
	}
	first := r.pending[0]
	r.pending = r.pending[1:]
	return same(first, e)
}

// recalled is a core that takes the journal up where it stands, with everything that it waits for.
func (r *Replay) recalled() *run.Machine {
	m := run.New(r.state.Clone(), r.library)
	m.Recall(r.state.Now)
	return m
}

func (r *Replay) diverge(seq uint64, at time.Time, expected, got history.Event) {
	if seq < r.from {
		return
	}
	r.report.Diverged++
	if len(r.report.Divergences) < Most {
		r.report.Divergences = append(r.report.Divergences, Divergence{Seq: seq, Time: at, Expected: decision(expected, at), Got: decision(got, at)})
	}
}

func decision(e history.Event, at time.Time) *Decision {
	if e == nil {
		return nil
	}
	rec, err := history.Encode(e, at)
	if err != nil {
		return &Decision{Kind: fmt.Sprintf("%T", e), Data: json.RawMessage(`{}`)}
	}
	return &Decision{Kind: rec.Kind, Data: rec.Data}
}

// same compares events in the form that this program writes, whatever form the journal has them in.
func same(a, b history.Event) bool {
	x, err := history.Encode(a, time.Time{})
	if err != nil {
		return false
	}
	y, err := history.Encode(b, time.Time{})
	return err == nil && x.Kind == y.Kind && string(x.Data) == string(y.Data)
}
