package plan

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// A guard is a task with `during`. Nothing refers to it but what it is in place for, and that only outside its digests. What
// it is in place for is decided as if it were there; the last that keeps it from starting is that the guard has to come in.
// The guard is decided from that in turn.

// applying reports whether an apply of an instance is in flight.
func applying(row *history.Row) bool {
	return row != nil && row.Flight != nil && row.Flight.Action == step.Apply
}

// use is how much an instance needs a guard.
type use uint8

const (
	useless use = iota
	later       // it may run some day
	surely      // it will run
	near        // it starts once the guard is there
	fresh       // it starts now, with the guard that is there
	running
)

// need is what a guard is in place for at the moment.
type need struct {
	use
	of   history.Target
	idle bool // it may not start: a person has cancelled, or its rollout was stopped
}

// useOf says what a guard is in place for. fit says whether it stands as it would be applied now.
func (p *Planner) useOf(c *column, row *history.Row, node int, fit bool) need {
	var most need
	for _, name := range p.presence.Users[c.task.Name] {
		t := p.target(name, node)
		is, halts := useless, false
		up := p.state.Columns[name].Row(node)
		cell := p.Cell(t)
		switch {
		case p.runsWith(t, c.task.Name):
			is = running
		case cell == nil || !slices.Contains(c.task.During, name):
		case cell.near:
			is, halts = near, p.state.Outcome == history.OutcomeCancelled || p.halted[name]
			if fit && (up == nil || row.Started > up.Ended) {
				is = fresh
			}
		case cell.view.standing == pending && (cell.Verdict == Run || cell.Verdict == Replace):
			is = surely
		case cell.view.standing == pending:
			is = later
		}
		if is > most.use || is == most.use && most.idle && !halts {
			most = need{is, t, halts}
		}
	}
	return most
}

// runsWith reports whether an apply of an instance is in flight that a guard was in place for when it started.
func (p *Planner) runsWith(t history.Target, guard string) bool {
	row := p.state.Row(t)
	if !applying(row) {
		return false
	}
	m := p.models(row.Goal)
	return m != nil && m.Task(t.Task) != nil && slices.Contains(m.Task(t.Task).Guards, guard)
}

// fits reports whether a guard stands as it would be applied now.
func (p *Planner) fits(c *column, row *history.Row, node int) bool {
	lives := p.lives(c.task, row, node)
	if !p.valid(c, row, lives) || p.mustReplace(c.task, row, lives).Kind != history.Same {
		return false
	}
	if _, waits := p.upstream(c, node, nil); waits {
		return false
	}
	in, err := p.inputs(c, node)
	return err == nil && in.known && in.input == row.Input
}

// guard is the decision about an instance that is in place only while others run. It is never memoised: what they ran with is
// removed, and applied again for the next one.
func (p *Planner) guard(c *column, row *history.Row, node int, n need) Cell {
	over := Cell{Verdict: Absent, Cause: Cause{Kind: history.Over}, view: view{standing: absent}}
	live := row != nil && row.Phase != history.Absent
	switch {
	case applying(row):
		return p.inFlight(row)
	case live && row.Flight != nil:
		return over
	}
	use, cause, lives := n.use, Cause{Kind: history.During, Of: n.of}, p.lives(c.task, row, node)
	switch {
	case live && row.Phase == history.InPlace && use == running:
		return Cell{Cause: cause, Wait: Cause{Kind: history.Running}, view: view{standing: pending}}
	case live && use == fresh && !n.idle:
		return Cell{Cause: cause, Wait: Cause{Kind: history.Order, Of: n.of}, view: view{standing: pending}}
	case use >= near && use < running && p.startable(c, row, lives, n.idle):
		cell := p.decideWanted(c, node, row, lives)
		if cell.Verdict == Run && cell.Cause.Kind == history.FirstTime {
			cell.Cause = cause
		}
		return cell
	case live || use == useless || use >= near:
		return over
	}
	cell := Cell{Verdict: Run, Cause: cause, Wait: Cause{Kind: history.Order, Of: n.of}, view: view{standing: absent}}
	if use == later {
		cell.Verdict = RunIf
	}
	return cell
}

// startable reports whether a guard that is needed may be applied as it is: nothing stands there that has to be removed
// first. What failed for good stays, so that it is seen.
func (p *Planner) startable(c *column, row *history.Row, lives, idle bool) bool {
	if row == nil || row.Phase == history.Absent {
		return !idle
	}
	if row.Phase == history.InPlace || p.mustReplace(c.task, row, lives).Kind != history.Same {
		return false
	}
	f := row.Failure
	return f == nil && !idle || f != nil && f.Action == step.Apply && (f.Final || !idle)
}

// unguarded finds what has yet to come in before an instance may start.
func (p *Planner) unguarded(task *model.Task, row *history.Row, node int) Cause {
	for _, name := range task.Guards {
		c, of := p.byName[name], p.target(name, node)
		if c == nil {
			continue
		}
		k := c.at(node)
		if k < 0 {
			continue
		}
		guard, cell := c.row(p, node), &c.cells[k]
		if cell.Verdict == Absent && cell.Cause.Kind == history.Same { // its `when` is false
			continue
		}
		if cell.fit && (row == nil || guard.Started > row.Ended) {
			continue
		}
		switch {
		case guard != nil && guard.Flight == nil && guard.Failure != nil && guard.Failure.Final && guard.Failure.Action == step.Remove:
			return Cause{Kind: history.FailedCause, Of: of, Text: guard.Failure.Error}
		case cell.Verdict == Skipped:
			return Cause{Kind: history.SkippedBy, Of: of}
		case cell.Verdict == Blocked:
			return p.root(edge{to: c}, of)
		}
		return Cause{Kind: history.Unguarded, Of: of}
	}
	return Cause{}
}

// guarding finds what still runs that a guard is in place for: until then it is not removed.
func (p *Planner) guarding(r *removal) Cause {
	for _, name := range p.presence.Users[r.Target.Task] {
		if t := (history.Target{Task: name, Node: r.Node}); p.runsWith(t, r.Target.Task) {
			return Cause{Kind: history.During, Of: t}
		}
	}
	return Cause{}
}

// wakeGuards marks what is in place only while an instance runs for a new decision.
func (p *Planner) wakeGuards(t history.Target, node int) {
	for _, name := range p.presence.Guards[t.Task] {
		if c := p.byName[name]; c != nil {
			c.taintAt(c.at(node))
			p.rewind = true
		}
		if r := p.remove.all[history.Target{Task: name, Node: t.Node}]; r != nil {
			p.remove.mark(r)
		}
	}
}

// wakeGuarded marks what an instance is in place for for a new decision.
func (p *Planner) wakeGuarded(t history.Target, node int) {
	for _, name := range p.presence.Users[t.Task] {
		if c := p.byName[name]; c != nil {
			c.taintAt(c.at(node))
			p.rewind, p.again = true, true
		}
	}
}

// wakePresent marks what a changed decision about an instance matters to by `during`.
func (p *Planner) wakePresent(c *column, node int, old, now *Cell) {
	if old.near != now.near || old.Verdict != now.Verdict || old.view.standing != now.view.standing {
		p.wakeGuards(p.target(c.task.Name, node), node)
	}
	if len(c.task.During) > 0 && (old.Verdict != now.Verdict || old.Cause != now.Cause || old.fit != now.fit) {
		p.wakeGuarded(p.target(c.task.Name, node), node)
	}
}

// TouchGuards marks every task with `during` for a new decision: whether anything may start has changed.
func (p *Planner) TouchGuards() {
	for _, c := range p.tasks {
		if len(c.task.During) > 0 {
			c.taint()
		}
	}
}

// Halt says of every task that waits for a guard whether its rollout was stopped. It reports whether that is news.
func (p *Planner) Halt(stopped func(task string) bool) bool {
	news := false
	for _, c := range p.tasks {
		if len(c.task.Guards) == 0 {
			continue
		}
		if now := stopped(c.task.Name); now != p.halted[c.task.Name] {
			p.halted[c.task.Name], news = now, true
		}
	}
	if news {
		p.TouchGuards()
	}
	return news
}

// duringOutput gives an output of a guard as it stands, null where there is none.
func (p *Planner) duringOutput(task string, node int, attr string) value.Value {
	row := p.state.Columns[task].Row(node)
	if row == nil || row.Phase != history.InPlace {
		return value.NullOf(value.Type{})
	}
	m := p.models(row.Goal)
	if m == nil || m.Task(task) == nil {
		return value.NullOf(value.Type{})
	}
	v, err := m.Task(task).Step.OutputType().Parse(outputsOf(row))
	if err != nil {
		return value.NullOf(value.Type{})
	}
	return attribute(v, attr)
}

// hashBeside takes what an input looks at beside a guard into the input digest: only the guard's outputs lie outside. It
// reports false if something of that is not known.
func (p *Planner) hashBeside(h value.Hasher, a *model.Argument, node int) bool {
	if !a.Uses(model.RefDuring) {
		return true
	}
	for _, r := range a.Refs {
		if r.Kind == model.RefDuring || r.Kind == model.RefHost {
			continue
		}
		v := scope{p, node, ""}.Lookup(r)
		if !v.Known() {
			return false
		}
		h.Digest(v.Digest())
	}
	return true
}
