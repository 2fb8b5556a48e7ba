package plan

import (
	"fmt"

	"joist/engine/history"
	"joist/engine/model"
)

// decide is the decision about one instance from its history and from what it waits for, which is decided already.
func (p *Planner) decide(c *column, node int) Cell {
	row := c.rows.Row(node)
	if c.task.When != nil {
		if cell, decided := p.decideWhen(c, node, row); decided {
			return cell
		}
	}
	lives := p.lives(c.task, row, node)
	if row != nil && row.Flight != nil {
		return p.inFlight(c, row, node)
	}
	if row != nil && row.Phase != history.Absent && p.mustReplace(c.task, row, lives) {
		return Cell{Verdict: Replace, Cause: Cause{Kind: history.Lifetime, Text: "the incarnation it lived by has ended"}, view: view{standing: pending}}
	}
	if node >= 0 && !p.state.Nodes[node].Alive() {
		return Cell{Verdict: Run, Cause: p.because(c, row, lives), Wait: Cause{Kind: history.NotUp, Of: history.Target{Node: p.state.Nodes[node].Name}}, view: view{standing: pending}}
	}
	valid := p.valid(c, row, lives)
	if c.task.Step.Once && row != nil && row.Phase == history.InPlace && lives && !row.Forced {
		return p.decideKept(c, row, node)
	}
	if cell, decided := p.decideUpstream(c, row, node, valid, lives); decided {
		return cell
	}
	return p.decideInputs(c, row, node, decision{valid: valid, lives: lives})
}

type decision struct{ valid, lives bool }

// lives reports whether the row's target still is what it was when the row last started: the same incarnation, and for
// a node step the same root.
func (p *Planner) lives(t *model.Task, row *history.Row, node int) bool {
	if row == nil || row.Phase == history.Absent {
		return true
	}
	if node >= 0 {
		n := p.state.Nodes[node]
		if !n.Alive() || row.Life.Incarnation != n.Incarnation {
			return false
		}
		return t.Step.Scope != model.Node || row.Boot == n.Boot
	}
	if t.On == "" || len(row.Rests) == 0 {
		return true
	}
	for _, r := range row.Rests {
		if p.state.Lives(r) {
			return true
		}
	}
	return false
}

// mustReplace reports whether what stands at the address is another thing than what is wanted there: an effect of an
// ended incarnation, or of another step. A node's reboot alone takes the effect with it.
func (p *Planner) mustReplace(t *model.Task, row *history.Row, lives bool) bool {
	if old := p.models(row.Goal); old != nil {
		if was := old.Task(t.Name); was != nil && was.Step.Name != t.Step.Name {
			return true
		}
	}
	if lives {
		return false
	}
	if row.Life.Node == "" {
		return !t.Step.Pure()
	}
	return !p.state.Lives(row.Life)
}

// valid reports whether the last success may stand if the inputs are the same (law 5).
func (p *Planner) valid(c *column, row *history.Row, lives bool) bool {
	return row != nil && row.Phase == history.InPlace && row.Step == c.task.Step.Digest && lives &&
		!row.Forced && !row.Expired && row.Drifted == ""
}

// because says why an instance that is not valid runs.
func (p *Planner) because(c *column, row *history.Row, lives bool) Cause {
	switch {
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

func (p *Planner) inFlight(c *column, row *history.Row, node int) Cell {
	cell := Cell{Verdict: Run, Wait: Cause{Kind: history.Running}, view: view{standing: pending}, Cause: Cause{Kind: history.Running}}
	if row.Flight.Action != "apply" {
		cell.Verdict = Replace
	}
	return cell
}

func (p *Planner) decideWhen(c *column, node int, row *history.Row) (Cell, bool) {
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
	for _, r := range refs {
		if r.Name == e.to.task.Name && (r.Kind == model.RefAll) == e.all {
			return true
		}
	}
	return false
}

// look gives the standing of what an edge leads to, and the instance that has it.
func (p *Planner) look(e edge, node int) (history.Target, standing) {
	up := e.to
	if !e.all {
		k, ok := up.place[node]
		if len(up.task.Each) == 0 {
			k, ok = 0, true
		}
		if !ok {
			return history.Target{Task: up.task.Name}, absent
		}
		return p.target(up.task.Name, up.targets[k]), up.cells[k].view.standing
	}
	var want standing
	switch {
	case up.agg.blocked > 0:
		want = blocked
	case up.agg.pending > 0:
		want = pending
	default:
		return history.Target{Task: up.task.Name}, settled
	}
	for k := range up.cells {
		if up.cells[k].view.standing == want {
			return p.target(up.task.Name, up.targets[k]), want
		}
	}
	return history.Target{Task: up.task.Name}, want
}

// root follows blocked instances down to the one that failed itself.
func (p *Planner) root(e edge, of history.Target) Cause {
	cell := p.Cell(of)
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
	in, err := p.inputs(c, node)
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
	if row != nil && row.Failure != nil && row.Failure.Final && row.Failure.Action == "apply" && row.Failure.Step == c.task.Step.Digest && row.Failure.Input == in.input {
		self := p.target(c.task.Name, node)
		return Cell{Verdict: Blocked, Cause: Cause{Kind: history.FailedCause, Of: self, Text: row.Failure.Error}, view: view{standing: blocked}, failed: true}
	}
	cell.Wait = p.hindrance(c, row, node)
	if cell.Wait.Kind == history.FailedCause {
		return Cell{Verdict: Blocked, Cause: cell.Wait, view: view{standing: blocked}}
	}
	cell.Ready = cell.Wait.Kind == history.Same
	return cell
}

// hindrance is what keeps an instance with known inputs from starting.
func (p *Planner) hindrance(c *column, row *history.Row, node int) Cause {
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
	if node >= 0 {
		n := p.state.Nodes[node]
		if !model.Suffices(n.Level, p.model.Trust) {
			return Cause{Kind: history.Distrust, Of: history.Target{Node: n.Name}, Text: fmt.Sprintf("its trust is %q, the packs need %q", n.Level, p.model.Trust)}
		}
		if c.task.Step.Scope == model.Node && !n.Online {
			return Cause{Kind: history.Offline, Of: history.Target{Node: n.Name}}
		}
	}
	if c.task.Step.Scope == model.Cluster && !c.task.Step.Pure() {
		if _, why := p.Executor(c.task, node, 1); why.Kind != history.Same {
			return why
		}
	}
	return Cause{}
}

// Executor chooses the node that executes a cluster-scope script for an attempt: alive, online, trusted, wanted by the
// goal, with every `host.` reference in place, and rather another than the target itself. Attempts take turns.
func (p *Planner) Executor(t *model.Task, node, attempt int) (string, Cause) {
	c := p.byName[t.Name]
	var able []string
	target, onlySelf := "", false
	if node >= 0 {
		target = p.state.Nodes[node].Name
	}
	for _, i := range p.roles[t.On] {
		n := p.state.Nodes[i]
		if !n.Alive() || !n.Online || !model.Suffices(n.Level, p.model.Trust) || !p.hostReady(c, t, i) {
			continue
		}
		if n.Name == target {
			onlySelf = true
			continue
		}
		able = append(able, n.Name)
	}
	switch {
	case len(able) > 0:
		return able[(attempt-1)%len(able)], Cause{}
	case onlySelf:
		return target, Cause{}
	}
	return "", Cause{Kind: history.Executor, Text: fmt.Sprintf("no node of role %s can execute it now", t.On)}
}

func (p *Planner) hostReady(c *column, t *model.Task, node int) bool {
	for _, e := range t.Edges() {
		if !e.Host {
			continue
		}
		up := p.byName[e.Task]
		if up == nil {
			return false
		}
		k, ok := up.place[node]
		if !ok || up.cells[k].view.standing != settled {
			return false
		}
	}
	return true
}
