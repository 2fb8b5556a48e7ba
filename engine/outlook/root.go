package outlook

import (
	"slices"
	"strings"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/run/circle"
)

// Word says what sort of thing is at the bottom of a wait, by what ends it.
type Word string

// The words, what needs a person first.
const (
	ByFailure    Word = "failure"    // something failed for good, or cannot be decided: mend it and retry, or skip it
	ByApproval   Word = "approval"   // a person has to approve a key, or to accept a change
	ByTrust      Word = "trust"      // a node has to prove more than a person's word: be vouched for, or attested
	ByPolicy     Word = "policy"     // a policy of the cluster file refuses it: wait for its hours, change it, or override it
	ByBudget     Word = "budget"     // a rollout has no place, or was stopped by failures
	ByCancel     Word = "cancel"     // a person stopped the pursuit
	ByTransition Word = "transition" // something is under way and ends by itself: an attempt, a node that comes up, a time
)

func (w Word) rank() int {
	return slices.Index([]Word{ByFailure, ByApproval, ByTrust, ByPolicy, ByBudget, ByCancel, ByTransition}, w)
}

// Root is what is at the bottom of a wait: not the nearest reason, but the one that has none itself.
type Root struct {
	By    Word
	Of    history.Target // the instance, or node, that is the root
	Cause plan.Cause     // what is with it
}

// Says gives the root as a phrase.
func (r Root) Says() string {
	text := r.Cause.Because()
	if of := r.Of.String(); of != "" && !strings.Contains(text, of) {
		text = of + ": " + text
	}
	return text
}

// Roots finds the roots of what waits. It remembers what it found: all together cost what all instances cost once.
type Roots struct {
	m     *run.Machine
	p     *plan.Planner
	found map[history.Target]Root
	tasks map[string]Root
	kept  map[string]history.Target // by task of a rollout, what keeps its places
}

// RootsOf looks at a machine, which must not change meanwhile.
func RootsOf(m *run.Machine) *Roots {
	return &Roots{m: m, p: m.Plan(), found: map[history.Target]Root{}, tasks: map[string]Root{}}
}

// Of gives the root of an instance that is not as it should be.
func (r *Roots) Of(t history.Target) Root {
	if root, ok := r.found[t]; ok {
		return root
	}
	r.found[t] = Root{By: ByTransition, Of: t, Cause: plan.Cause{Kind: history.Running}} // if it should lead back here
	root := r.find(t)
	r.found[t] = root
	return root
}

func (r *Roots) find(t history.Target) Root {
	if removal := r.p.Removal(t); removal != nil {
		if removal.Failed {
			return r.failed(t, removal.Wait)
		}
		return r.follow(t, removal.Wait)
	}
	cell := r.p.Cell(t)
	switch {
	case cell == nil && t.Node == "" && r.p.Task(t.Task) != nil:
		return r.together(t.Task)
	case cell == nil:
		return Root{By: ByTransition, Of: t}
	case cell.Verdict == plan.Blocked:
		return r.failed(t, cell.Cause)
	case cell.Verdict == plan.Kept && cell.Cause.Kind == history.Accept || Drifted(cell):
		return Root{By: ByApproval, Of: t, Cause: cell.Cause}
	}
	return r.follow(t, cell.Wait)
}

// failed is the root of what is blocked: the plan has followed failures down to the first already, or to a task that failed on
// some nodes, where something looks at all of them.
func (r *Roots) failed(t history.Target, cause plan.Cause) Root {
	of := cause.Of
	if of == (history.Target{}) || cause.Kind == history.Undecidable {
		of = t
	}
	up := r.p.Cell(of)
	if up == nil && of.Node == "" && of != t && r.p.Task(of.Task) != nil {
		if root := r.together(of.Task); root.By == ByFailure {
			return root
		}
	}
	if up != nil && of != t && up.Failed() {
		cause = up.Cause
	}
	return Root{By: ByFailure, Of: of, Cause: cause}
}

// follow goes from what an instance waits for to what that waits for.
func (r *Roots) follow(t history.Target, wait plan.Cause) Root {
	switch wait.Kind {
	case history.Same: // ready: only a rollout, or a person, keeps it
		if wait = r.m.Held(t); wait.Kind == history.Same {
			return Root{By: ByTransition, Of: t, Cause: plan.Cause{Kind: history.Running, Text: "about to start"}}
		}
		if wait.Kind == history.PolicyHeld {
			return Root{By: ByPolicy, Of: t, Cause: wait}
		}
		return r.held(t, wait)
	case history.FailedCause, history.Undecidable, history.SkippedBy:
		return r.failed(t, wait)
	case history.Distrust:
		if need := r.p.Model().Trust; need == model.Approved || need == "" || need == model.Claimed {
			return Root{By: ByApproval, Of: wait.Of, Cause: wait}
		}
		return Root{By: ByTrust, Of: wait.Of, Cause: wait}
	case history.Accept, history.AskedFor:
		return Root{By: ByApproval, Of: t, Cause: wait}
	case history.Upstream, history.Order, history.Consumer, history.InTheWay, history.Unguarded:
		if wait.Of.Task != "" && wait.Of != t {
			return r.below(wait.Of)
		}
	case history.Executor:
		if says := circle.Says(r.p, t); says != "" {
			return Root{By: ByFailure, Of: t, Cause: plan.Cause{Kind: history.Executor, Text: says}}
		}
	case history.Wiping:
		if held := r.m.Policed(wait.Of); held.Kind != history.Same {
			return Root{By: ByPolicy, Of: wait.Of, Cause: held}
		}
	case history.NotUp, history.Offline, history.InScout:
		if wait.Of.Node != "" {
			return Root{By: ByTransition, Of: wait.Of, Cause: wait}
		}
	}
	return Root{By: ByTransition, Of: t, Cause: wait}
}

// held is for what a rollout keeps: if failures keep all its places, as nobody gives one back then, the first of them is the root.
func (r *Roots) held(t history.Target, wait plan.Cause) Root {
	if wait.Kind != history.NoPlace {
		return Root{By: ByCancel, Cause: wait}
	}
	if r.kept == nil {
		r.keepers()
	}
	if of := r.kept[t.Task]; of.Task != "" && wait.Of.Task == "" {
		wait.Of, wait.Text = of, wait.Text+", and kept by failures"
	}
	return Root{By: ByBudget, Of: wait.Of, Cause: wait}
}

// keepers finds the rollouts of which every place is held by a node where something failed for good, and the first such failure.
func (r *Roots) keepers() {
	r.kept = map[string]history.Target{}
	for _, g := range r.m.Rollouts() {
		var first history.Target
		for i, node := range g.Places {
			at := slices.IndexFunc(g.Tasks, func(task string) bool {
				t := history.Target{Task: task, Node: node}
				cell, removal := r.p.Cell(t), r.p.Removal(t)
				return removal != nil && removal.Failed || cell != nil && cell.Failed()
			})
			if at < 0 {
				first = history.Target{}
				break
			}
			if i == 0 {
				first = history.Target{Task: g.Tasks[at], Node: node}
			}
		}
		for _, task := range g.Tasks {
			r.kept[task] = first
		}
	}
}

// below is the root of what is waited for, which may be all instances of a task.
func (r *Roots) below(t history.Target) Root {
	if t.Node == "" && r.p.Cell(t) == nil && r.p.Removal(t) == nil {
		return r.together(t.Task)
	}
	return r.Of(t)
}

// together is the root of all instances of a task: of those that keep it waiting, what needs a person most.
func (r *Roots) together(task string) Root {
	if root, ok := r.tasks[task]; ok {
		return root
	}
	root := Root{By: ByTransition, Of: history.Target{Task: task}, Cause: plan.Cause{Kind: history.Running}}
	r.tasks[task] = root
	first := true
	look := func(t history.Target) {
		if one := r.Of(t); first || one.By.rank() < root.By.rank() {
			root, first = one, false
		}
	}
	if def := r.p.Task(task); def != nil {
		for _, name := range r.p.Targets(task) {
			if cell := r.p.Cell(history.Target{Task: task, Node: name}); cell != nil && cell.Open() {
				look(history.Target{Task: task, Node: name})
			}
		}
	}
	for _, removal := range r.p.Removals() {
		if removal.Target.Task == task {
			look(removal.Target)
		}
	}
	r.tasks[task] = root
	return root
}

// Group is instances with one root.
type Group struct {
	Root
	Instances []history.Target // the first few
	Count     int
}

// mostInstances bounds how many instances a group names.
const mostInstances = 20

// Groups collects everything that is not as it should be by root, what needs a person first, then the largest.
func (r *Roots) Groups(items []Item) []Group {
	type key struct {
		by Word
		of history.Target
	}
	at := map[key]int{}
	var groups []Group
	for i := range items {
		it := &items[i]
		if it.State == Running || it.State == Removing || it.State == Skipped {
			continue
		}
		root := r.Of(it.Target)
		k := key{root.By, root.Of}
		n, ok := at[k]
		if !ok {
			n = len(groups)
			at[k] = n
			groups = append(groups, Group{Root: root})
		}
		g := &groups[n]
		if g.Count++; len(g.Instances) < mostInstances {
			g.Instances = append(g.Instances, it.Target)
		}
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		if a.By != b.By {
			return a.By.rank() - b.By.rank()
		}
		return b.Count - a.Count
	})
	return groups
}
