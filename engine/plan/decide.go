package plan

import (
	"encoding/json"
	"fmt"
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// decide is the decision about one instance from its history and from what it waits for, which is decided already.
func (p *Planner) decide(c *column, node int) Cell {
	cell := p.decideBy(c, node)
	if node >= 0 && p.state.Nodes[node].Aside != nil && len(c.task.During) == 0 {
		return p.setAside(c, node, cell)
	}
	return cell
}

// setAside is the decision about an instance on a node that the goal is pursued without, given what it would be otherwise.
// What is in place stays, and what has yet to be does not come. What it yielded last its readers go on with; if it never
// yielded anything it is not there for them. What ended with an incarnation goes all the same.
func (p *Planner) setAside(c *column, node int, cell Cell) Cell {
	row := c.row(p, node)
	lives := p.lives(c.task, row, node)
	drifted := cell.Verdict == Kept && cell.Cause.Kind == history.Drift // nobody is waited for on such a node
	if !cell.Open() && !drifted || row != nil && (row.Flight != nil || cell.Verdict == Replace && !lives) {
		return cell
	}
	n := p.state.Nodes[node]
	aside := Cell{Verdict: Aside, Cause: Cause{Kind: history.OnAside, Of: history.Target{Node: n.Name}, Text: n.Aside.Says()}, view: view{standing: absent}}
	if row != nil && row.Phase != history.Absent && !row.Done.IsZero() && lives {
		if _, err := c.out.Parse(outputsOf(row)); err == nil {
			aside.view = view{standing: settled, out: row.Output}
		}
	}
	return aside
}

func (p *Planner) decideBy(c *column, node int) Cell {
	row := c.row(p, node)
	lives := p.lives(c.task, row, node)
	accept := false
	cell, rests := p.unasked(c.task, row, lives)
	if c.task.When != nil {
		cell, decided := p.decideWhen(c, node)
		if decided && cell.Verdict == Absent {
			accept = row != nil && row.Phase != history.Absent && lives && p.told(c, node) > p.state.GoalSeq
			decided = !accept
		} else {
			decided = decided && !rests // what its `when` cannot say yet is of no account until somebody asks
		}
		if decided {
			return cell
		}
	}
	if rests && cell.Verdict == Absent {
		return cell
	}
	if len(c.task.During) > 0 {
		fit := p.fits(c, row, node)
		cell := p.guard(c, row, node, p.useOf(c, row, node, fit))
		cell.fit = fit
		return cell
	}
	if !rests {
		cell = p.present(c.task, row, node, p.decideWanted(c, node, row, lives))
	}
	if accept && cell.Verdict == Unchanged {
		cell.Verdict, cell.Cause = Kept, Cause{Kind: history.Accept, Text: "its `when` is false since a fact changed; apply again to remove it"}
	}
	if row != nil && row.Drifted != "" && cell.Settled() { // otherwise it is to run for that
		cell.Verdict, cell.Cause = Kept, Cause{Kind: history.Drift, Text: row.Drifted}
	}
	return cell
}

// unasked is the decision about an instance that runs on demand while nobody asks for it: what it did when it was asked for stays as
// long as its target, whatever its inputs are since. What it only began goes.
func (p *Planner) unasked(t *model.Task, row *history.Row, lives bool) (Cell, bool) {
	switch {
	case t.Asked == "" || row != nil && (row.Forced || row.Flight != nil && row.Flight.Action == step.Apply):
		return Cell{}, false
	case row == nil || row.Phase != history.InPlace || !lives || p.mustReplace(t, row, lives).Kind != history.Same:
		return Cell{Verdict: Absent, Cause: Cause{Kind: history.Unasked}, view: view{standing: absent}}, true
	}
	return Cell{Verdict: Kept, Cause: Cause{Kind: history.Unasked}, view: view{standing: settled, out: row.Output}}, true
}

// driftWaits reports whether what a verify found waits for a person, and no goal was set since.
func (p *Planner) driftWaits(row *history.Row) bool {
	return p.model.Drift.Waits && row.DriftedAt > p.state.GoalSeq
}

// decideWanted is for an instance that the goal has.
func (p *Planner) decideWanted(c *column, node int, row *history.Row, lives bool) Cell {
	if row != nil && row.Flight != nil {
		return p.inFlight(row)
	}
	if row != nil && row.Phase != history.Absent {
		if cause := p.mustReplace(c.task, row, lives); cause.Kind != history.Same {
			return Cell{Verdict: Replace, Cause: cause, view: view{standing: pending}}
		}
	}
	if node >= 0 && !p.state.Nodes[node].Alive() && !c.task.Step.Scout {
		return Cell{Verdict: Run, Cause: p.because(c, row, lives), Wait: Cause{Kind: history.NotUp, Of: history.Target{Node: p.state.Nodes[node].Name}}, view: view{standing: pending}}
	}
	valid := p.valid(c, row, lives)
	if row != nil && row.Skipped != nil && !row.Skipped.Removal {
		return Cell{Verdict: Skipped, Cause: Cause{Kind: history.SkippedBy, Text: row.Skipped.By + ": " + row.Skipped.Reason}, view: view{standing: absent}}
	}
	if c.task.Step.Once && row != nil && row.Phase == history.InPlace && lives && !row.Forced {
		return p.decideKept(c, row, node)
	}
	if cell, decided := p.decideUpstream(c, row, node, valid, lives); decided {
		return cell
	}
	return p.decideInputs(c, row, node, decision{valid: valid, lives: lives})
}

// row gives the history of the instance for a node index, or nil.
func (c *column) row(p *Planner, node int) *history.Row {
	if c.rows == nil {
		c.rows = p.state.Columns[c.task.Name]
	}
	return c.rows.Row(node)
}

// told gives the event that last changed the facts that a `when` looks at.
func (p *Planner) told(c *column, node int) uint64 {
	var last uint64
	if node >= 0 {
		last = p.state.Nodes[node].Told
	}
	for _, r := range c.task.When.Refs {
		if r.Kind == model.RefRole {
			for _, i := range p.roleNodes(r.Name) {
				last = max(last, p.state.Nodes[i].Told)
			}
		}
	}
	return last
}

type decision struct{ valid, lives bool }

// lives reports whether the row's target still is what it was when the row last started: the same incarnation, and for
// a node step the same root, unless it is one whose effect outlasts a reboot.
func (p *Planner) lives(t *model.Task, row *history.Row, node int) bool {
	if row == nil || row.Phase == history.Absent {
		return true
	}
	if t.Step.Scout {
		return p.state.Stands(row)
	}
	if node >= 0 {
		n := p.state.Nodes[node]
		if !n.Alive() || row.Life.Incarnation != n.Incarnation {
			return false
		}
		return t.Step.Scope != model.Node || row.Boot == n.Boot || t.Step.Reboots
	}
	return t.On == "" || row.Rests == nil || p.state.Rests(row)
}

// mustReplace says why what stands at the address is another thing than what is wanted there, if it is: an effect of an
// ended incarnation, or of another step. A node's reboot alone takes the effect with it.
func (p *Planner) mustReplace(t *model.Task, row *history.Row, lives bool) Cause {
	if old := p.models(row.Goal); old != nil && old != p.model {
		if was := old.Task(t.Name); was != nil && (!t.Step.Is(was.Step.Name) || was.Step.Scope != t.Step.Scope || row.Scout != t.Step.Scout) {
			return Cause{Kind: history.StepChanged, Text: "it was " + was.Step.Name}
		}
	}
	if lives || t.Step.Pure() || t.Step.Scout || row.Life.Node != "" && p.state.Lives(row.Life) {
		return Cause{}
	}
	return Cause{Kind: history.Lifetime, Text: "the incarnation it lived by has ended"}
}

// valid reports whether the last success may stand if the inputs are the same (law 5).
func (p *Planner) valid(c *column, row *history.Row, lives bool) bool {
	return row != nil && row.Phase == history.InPlace && row.Step == c.task.Step.Digest && lives &&
		!row.Forced && !row.Expired && (row.Drifted == "" || p.driftWaits(row))
}

// because says why an instance that is not valid runs.
func (p *Planner) because(c *column, row *history.Row, lives bool) Cause {
	switch {
	case c.task.Asked != "" && row != nil && row.Forced:
		return Cause{Kind: history.ForcedCause}
	case (row == nil || row.Phase == history.Absent) && row != nil && row.Cause.Kind == history.MakesWay:
		return Cause{Kind: history.WayMade}
	case row == nil || row.Phase == history.Absent:
		return Cause{Kind: history.FirstTime}
	case !lives:
		return Cause{Kind: history.Lifetime, Text: "its node has another root or incarnation since"}
	case row.Forced:
		return Cause{Kind: history.ForcedCause}
	case row.Phase == history.Dirty:
		return Cause{Kind: history.Interrupted, Text: "it was started and has not succeeded since"}
	case row.Step != c.task.Step.Digest:
		return Cause{Kind: history.StepChanged}
	case row.Drifted != "":
		return Cause{Kind: history.Drift, Text: row.Drifted}
	case row.Expired:
		return Cause{Kind: history.ExpiredCause}
	}
	return Cause{Kind: history.InputChanged}
}

func (p *Planner) inFlight(row *history.Row) Cell {
	cell := Cell{Verdict: Run, Wait: Cause{Kind: history.Running}, view: view{standing: pending}, Cause: Cause{Kind: history.Running}}
	if row.Flight.Action != step.Apply {
		cell.Verdict = Replace
	}
	if row.Flight.Reboot != nil {
		cell.Wait.Text = "its node reboots"
	}
	return cell
}

func (p *Planner) decideWhen(c *column, node int) (Cell, bool) {
	if cell, decided := p.upstream(c, node, c.task.When.Refs); decided {
		cell.Verdict = RunIf
		if cell.view.standing == blocked {
			cell.Verdict = Blocked
		}
		return cell, true
	}
	v, err := c.task.When.Expr.Eval(scope{p, node, ""})
	switch {
	case err != nil:
		return Cell{Verdict: Blocked, Cause: Cause{Kind: history.Undecidable, Text: err.Error()}, view: view{standing: blocked}}, true
	case !v.Known():
		return Cell{Verdict: RunIf, Cause: Cause{Kind: history.NotUp, Text: "decided after enrolment"}, Wait: Cause{Kind: history.NotUp}, view: view{standing: pending}}, true
	case !v.True():
		return Cell{Verdict: Absent, view: view{standing: absent}}, true
	}
	return Cell{}, false
}

// decideKept is for a step whose first success holds: changes are shown, and change nothing.
func (p *Planner) decideKept(c *column, row *history.Row, node int) Cell {
	cell := Cell{Verdict: Unchanged, view: view{standing: settled, out: row.Output}}
	if _, waits := p.upstream(c, node, nil); waits {
		return cell
	}
	if in, err := p.inputs(c, node); row.Step != c.task.Step.Digest || err == nil && in.known && in.input != row.Input {
		cell.Verdict = Kept
		cell.Cause = Cause{Kind: history.InputChanged, Text: "once = true: the first success holds"}
	}
	return cell
}

// upstream looks at everything the instance reads. It decides if something there is blocked or about to run. With refs
// it looks at what those refer to only.
func (p *Planner) upstream(c *column, node int, refs []model.Ref) (Cell, bool) {
	var wait *Cell
	for _, e := range c.waits {
		if e.order || e.host || refs != nil && !mentions(refs, e) {
			continue
		}
		of, standing := p.look(e, node)
		if standing == absent && p.skipped(of) {
			return Cell{Verdict: Blocked, Cause: Cause{Kind: history.SkippedBy, Of: of}, view: view{standing: blocked}}, true
		}
		switch standing {
		case blocked:
			root := p.root(e, of)
			return Cell{Verdict: Blocked, Cause: root, view: view{standing: blocked}}, true
		case pending:
			if wait == nil {
				wait = &Cell{Cause: Cause{Kind: history.Upstream, Of: of}, Wait: Cause{Kind: history.Upstream, Of: of}, view: view{standing: pending}}
			}
		}
	}
	if wait != nil {
		return *wait, true
	}
	return Cell{}, false
}

func mentions(refs []model.Ref, e edge) bool {
	return slices.ContainsFunc(refs, func(r model.Ref) bool { return r.Name == e.to.task.Name && (r.Kind == model.RefAll) == e.all })
}

// look gives the standing of what an edge leads to, and the instance that has it. All instances of a task together are
// named by the task alone: which of them it is, is looked up for people only.
func (p *Planner) look(e edge, node int) (history.Target, standing) {
	up := e.to
	if e.all {
		return history.Target{Task: up.task.Name}, up.agg.standing(e.share)
	}
	if len(up.task.Each) == 0 {
		node = -1
	}
	k := up.at(node)
	if k < 0 {
		return history.Target{Task: up.task.Name}, absent
	}
	return p.target(up.task.Name, node), up.cells[k].view.standing
}

// skipped reports whether a person wants the goal without an instance, whose outputs nobody can read then.
func (p *Planner) skipped(t history.Target) bool {
	cell := p.Cell(t)
	return cell != nil && cell.Verdict == Skipped
}

// root follows blocked instances down to the one that failed itself.
func (p *Planner) root(e edge, of history.Target) Cause {
	cell := p.Cell(of)
	if cell != nil && cell.Cause.Kind == history.SkippedBy {
		return cell.Cause
	}
	if cell == nil || cell.failed || cell.Cause.Kind != history.FailedCause {
		if cell != nil && cell.Cause.Kind == history.Undecidable {
			return Cause{Kind: history.FailedCause, Of: of, Text: cell.Cause.Text}
		}
		return Cause{Kind: history.FailedCause, Of: of}
	}
	return cell.Cause
}

func (p *Planner) decideUpstream(c *column, row *history.Row, node int, valid, lives bool) (Cell, bool) {
	cell, decided := p.upstream(c, node, nil)
	if !decided {
		return cell, false
	}
	if cell.view.standing == blocked {
		return cell, true
	}
	if valid {
		cell.Verdict = RunIf
		return cell, true
	}
	cell.Verdict, cell.Cause = Run, p.because(c, row, lives)
	return cell, true
}

// decideInputs is for an instance whose inputs can all be known.
func (p *Planner) decideInputs(c *column, row *history.Row, node int, d decision) Cell {
	ref := p.reference(c, node)
	if d.valid && row.Ref == ref {
		return Cell{view: view{standing: settled, out: row.Output}}
	}
	in, err := p.inputsOf(c, node, ref)
	if err != nil {
		return Cell{Verdict: Blocked, Cause: Cause{Kind: history.Undecidable, Text: err.Error()}, view: view{standing: blocked}, failed: true}
	}
	if !in.known {
		cell := Cell{Verdict: Run, Cause: p.because(c, row, d.lives), Wait: Cause{Kind: history.NotUp, Text: fmt.Sprintf("input %s is known once every node it looks at has come up", in.open)}, view: view{standing: pending}}
		if d.valid {
			cell.Verdict, cell.Cause = RunIf, cell.Wait
		}
		return cell
	}
	if d.valid && row.Input == in.input {
		return Cell{view: view{standing: settled, out: row.Output}}
	}
	cell := Cell{Verdict: Run, Cause: p.because(c, row, d.lives), view: view{standing: pending}, ref: ref, input: in.input}
	if d.valid {
		cell.Cause.Input = p.changedInput(c, row, node)
	}
	if row != nil && row.Failure.Of(c.task.Step.Digest, in.input) && row.Failure.Final {
		self := p.target(c.task.Name, node)
		return Cell{Verdict: Blocked, Cause: Cause{Kind: history.FailedCause, Of: self, Text: row.Failure.Error}, view: view{standing: blocked}, failed: true}
	}
	cell.Wait = p.hindrance(c, row, node, in.input)
	if ask := c.task.Step.Apply.Approve; ask != nil && cell.Wait.Kind == history.Same && (row == nil || !row.Approval.Of(c.task.Step.Digest, in.input)) {
		cell.Wait = Cause{Kind: history.AskedFor, Of: p.target(c.task.Name, node), Text: p.question(ask, c, node)}
	}
	if cell.Wait.Kind == history.Same && len(p.presence.Over) > 0 {
		cell.Wait = p.obstacle(c.task.Name, node)
		cell.way = true
	}
	if cell.Wait.Kind == history.Same && len(c.task.Guards) > 0 {
		cell.Wait = p.unguarded(c.task, row, node)
		cell.near = true
	}
	if cell.Wait.Kind == history.FailedCause || cell.Wait.Kind == history.SkippedBy {
		return Cell{Verdict: Blocked, Cause: cell.Wait, view: view{standing: blocked}, way: cell.way, near: cell.near}
	}
	cell.Ready = cell.Wait.Kind == history.Same
	return cell
}

// hindrance is what keeps an instance with known inputs from starting.
func (p *Planner) hindrance(c *column, row *history.Row, node int, input value.Digest) Cause {
	if of, about := p.comingOut(c, node, true); about {
		return Cause{Kind: history.Upstream, Of: of}
	}
	for _, e := range c.waits {
		if !e.order {
			continue
		}
		switch of, standing := p.look(e, node); standing {
		case blocked:
			return p.root(e, of)
		case pending:
			return Cause{Kind: history.Order, Of: of}
		}
	}
	if cause := p.absentFor(c.task.Name, node); cause.Kind != history.Same {
		return cause
	}
	step := c.task.Step
	if node >= 0 {
		n := p.state.Nodes[node]
		switch {
		case step.Scout && n.Scout == "":
			return n.OutOfScout()
		case !model.Suffices(n.Level, p.model.Trust):
			return p.distrust(n)
		case step.Scout:
		case step.Scope == model.Node && !n.Online:
			return Cause{Kind: history.Offline, Of: history.Target{Node: n.Name}}
		}
	}
	if c.pool != nil && c.pool.Count() == 0 {
		return p.noExecutor(c.task.On)
	}
	if node < 0 && c.task.On != "" && !slices.ContainsFunc(p.roleNodes(c.task.On), func(i int) bool { return p.state.Nodes[i].Alive() }) {
		return Cause{Kind: history.NotUp, Text: "no node of role " + p.CalledRole(c.task.On) + " has come up"}
	}
	if row != nil && row.Failure.Of(step.Digest, input) && !row.Failure.Final && row.Failure.Retry.After(p.now) {
		return row.Failure.Waiting()
	}
	return Cause{}
}

// question is what a person is asked.
func (p *Planner) question(ask *model.Argument, c *column, node int) string {
	inputs, err := p.Inputs(p.target(c.task.Name, node), "")
	if err != nil {
		return err.Error()
	}
	v, err := ask.Expr.Eval(body(inputs))
	var text string
	if data, bad := v.MarshalJSON(); err == nil && bad == nil && json.Unmarshal(data, &text) == nil {
		return text
	}
	return "its question cannot be put"
}

// body is the scope of a step's own expressions.
type body map[string]value.Value

// Lookup implements model.Scope.
func (b body) Lookup(r model.Ref) value.Value { return b[r.Name] }

func (p *Planner) distrust(n *history.Node) Cause {
	return Cause{Kind: history.Distrust, Of: history.Target{Node: n.Name}, Text: fmt.Sprintf("its trust is %q, the packs need %q", n.Level, p.model.Trust)}
}
