// Package policy weighs what is dangerous against the policies of a goal: when it is planned, and again when it would begin.
// Everything here is a function of the model, the history and the time that it is given.
package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// Judge weighs by the policies of the newest goal.
type Judge struct {
	state    *history.State
	policies []model.Policy
}

// Of gives the judge over a plan.
func Of(p *plan.Planner) Judge {
	s := p.State()
	if len(s.Goals) == 0 {
		return Judge{state: s}
	}
	return New(s, p.ModelOf(len(s.Goals)-1))
}

// New gives the judge by the policies of a model; nil has none.
func New(s *history.State, m *model.Model) Judge {
	if m == nil {
		return Judge{state: s}
	}
	return Judge{s, m.Policies}
}

// Idle reports whether there is no policy at all.
func (j Judge) Idle() bool { return len(j.policies) == 0 }

// Open says of each policy whether its windows let something pass now.
func (j Judge) Open(now time.Time) []bool {
	open := make([]bool, len(j.policies))
	for i := range j.policies {
		open[i] = j.policies[i].Open(now)
	}
	return open
}

// Opens gives the next time at which a window opens that is not open now; zero if there is none.
func (j Judge) Opens(now time.Time) time.Time {
	var first time.Time
	for i := range j.policies {
		if at := j.policies[i].Opens(now); at.After(now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// Verdict is what the policies make of something that would begin.
type Verdict struct {
	Counts []string   // policies under which it counts
	Held   plan.Cause // why it does not begin; the zero cause if it may
	Opens  time.Time  // when it may; zero if no time lets it
}

// Removal weighs a removal that would begin. One that began before, and is only repeated, passes.
func (j Judge) Removal(now time.Time, r *plan.Removal) Verdict {
	d := dangerOf(r)
	if d == "" || j.Idle() {
		return Verdict{}
	}
	return j.weigh(now, j.removal(r, d))
}

// removal gives a removal as what policies weigh. One that began as just that is only repeated, also for another goal; one that
// began as something else, such as to make way for a while, was never weighed as this.
func (j Judge) removal(r *plan.Removal, d model.Danger) thing {
	row := j.state.Row(r.Target)
	return thing{d, r.Target, r.Task.Each, j.played(r.Node), row != nil && row.Removes == string(d)}
}

// Danger says what a removal is weighed as; empty if no policy looks at it.
func (j Judge) Danger(r *plan.Removal) string {
	if j.Idle() {
		return ""
	}
	return string(dangerOf(r))
}

// End weighs that all on a node be ended with it, by wiping or fencing it: every removal there. It counts under what they count
// under, and is held by what holds one of them.
func (j Judge) End(now time.Time, node string, p *plan.Planner) Verdict {
	var all Verdict
	if j.Idle() {
		return all
	}
	for _, r := range p.Removals() {
		if r.Node != node {
			continue
		}
		v := j.Removal(now, &r)
		if v.Held.Kind != history.Same && all.Held.Kind == history.Same {
			all.Held, all.Opens = v.Held, v.Opens
		}
		for _, name := range v.Counts {
			if !slices.Contains(all.Counts, name) {
				all.Counts = append(all.Counts, name)
			}
		}
	}
	slices.Sort(all.Counts)
	return all
}

// Reboot weighs an apply that would begin, whose step reboots its node; it passes if it is another one.
func (j Judge) Reboot(now time.Time, t history.Target, task *model.Task) Verdict {
	if !task.Step.Reboots || j.Idle() {
		return Verdict{}
	}
	return j.weigh(now, thing{model.Rebooting, t, task.Each, j.played(t.Node), false})
}

// Wipe weighs the wipe of a node that would begin.
func (j Judge) Wipe(now time.Time, node string) Verdict {
	return j.weigh(now, thing{model.Wiping, history.Target{Node: node}, nil, j.played(node), false})
}

// Wipes weighs the wipes of nodes that would begin together, each after those before it. The verdict is of the first that is held;
// otherwise begins are those that count and have not begun.
func (j Judge) Wipes(now time.Time, nodes []string) (begins []history.WipeBegun, held Verdict) {
	ahead := *j.state
	ahead.Begun = map[string]map[string]bool{}
	for name, begun := range j.state.Begun {
		ahead.Begun[name] = maps.Clone(begun)
	}
	for _, node := range nodes {
		v := Judge{&ahead, j.policies}.Wipe(now, node)
		if v.Held.Kind != history.Same {
			return nil, v
		}
		fresh := false
		for _, name := range v.Counts {
			if ahead.Begun[name] == nil {
				ahead.Begun[name] = map[string]bool{}
			}
			fresh = fresh || !ahead.Begun[name][node]
			ahead.Begun[name][node] = true
		}
		if fresh {
			begins = append(begins, history.WipeBegun{Node: node, Policies: v.Counts})
		}
	}
	return begins, Verdict{}
}

// thing is something that policies may be about.
type thing struct {
	danger       model.Danger
	target       history.Target
	each, played []string
	repeated     bool
}

func (j Judge) played(node string) []string {
	if n := j.state.Node(node); n != nil {
		return n.Played
	}
	return nil
}

// dangerOf says which danger a removal is; none if nothing is taken away, or what comes out comes back
// as it was, or was never there to stay.
func dangerOf(r *plan.Removal) model.Danger {
	switch {
	case r.Task == nil || r.Discharge != "" || r.Cause.Kind == history.MakesWay || len(r.Task.During) > 0:
		return ""
	case r.Replaced:
		return model.Replacement
	}
	return model.Removal
}

func (j Judge) weigh(now time.Time, x thing) Verdict {
	var v Verdict
	for i := range j.policies {
		p := &j.policies[i]
		if p.Refuse != x.danger || !p.About(x.target.Task, x.each, x.played) {
			continue
		}
		if p.Bounded {
			v.Counts = append(v.Counts, p.Name)
		}
		if x.repeated || j.overridden(p) {
			continue
		}
		begun := j.state.Begun[p.Name]
		switch opens := p.Opens(now); {
		case len(p.Outside) == 0 && !p.Bounded:
			v.hold(p, "it lets none pass", time.Time{})
		case p.Bounded && !begun[x.target.Counted()] && len(begun) >= p.Beyond:
			v.hold(p, fmt.Sprintf("it lets %s pass in a run, and so many have begun", p.Limit()), time.Time{})
		case opens.After(now):
			v.hold(p, fmt.Sprintf("it lets that pass at %s, next at %s", p.Says(), opens.UTC().Format(time.RFC3339)), opens)
		}
	}
	return v
}

// hold takes the first policy that holds for what people are told.
func (v *Verdict) hold(p *model.Policy, why string, opens time.Time) {
	if v.Held.Kind == history.Same {
		v.Held, v.Opens = plan.Cause{Kind: history.PolicyHeld, Text: fmt.Sprintf("held by policy %s: %s", p.Name, why)}, opens
	}
}

func (j Judge) overridden(p *model.Policy) bool {
	_, said := j.state.Overridden(p.Name)
	return said && p.Override
}

// Refusal is what a policy refuses of a plan.
type Refusal struct {
	Policy *model.Policy
	Has    []string          // what counts, sorted: nodes, or instances that have none; with what has begun in this run already
	Opens  time.Time         // when it would let that pass; zero if no time lets it
	Whole  bool              // the goal destroys the cluster: there are no smaller steps
	By     *history.Override // a person's word that it does not hold; nil for none
}

// Refusals lists what policies refuse of a plan at a time, in the order of the cluster file.
func (j Judge) Refusals(now time.Time, p *plan.Planner) []Refusal {
	if j.Idle() {
		return nil
	}
	var list []Refusal
	things := j.things(p)
	for i := range j.policies {
		of := &j.policies[i]
		fresh := map[string]bool{}
		for _, x := range things {
			if x.repeated && !of.Bounded { // which passes at any time
				continue
			}
			if of.Refuse == x.danger && of.About(x.target.Task, x.each, x.played) && !j.state.Begun[of.Name][x.target.Counted()] {
				fresh[x.target.Counted()] = true
			}
		}
		opens := of.Opens(now)
		beyond := (of.Bounded || len(of.Outside) == 0) && len(fresh)+len(j.state.Begun[of.Name]) > of.Beyond
		if len(fresh) == 0 || !beyond && !opens.After(now) {
			continue
		}
		r := Refusal{Policy: of, Whole: j.state.Goal() != nil && j.state.Goal().Destroy}
		if !beyond {
			r.Opens = opens
		}
		maps.Copy(fresh, j.state.Begun[of.Name])
		r.Has = slices.Sorted(maps.Keys(fresh))
		if said, ok := j.state.Overridden(of.Name); ok && of.Override {
			r.By = &said
		}
		list = append(list, r)
	}
	return list
}

// things lists what a plan has in store that policies may be about, and that has not begun.
func (j Judge) things(p *plan.Planner) []thing {
	var list []thing
	for _, r := range p.Removals() {
		if d := dangerOf(&r); d != "" && !r.Failed && r.Wait.Kind != history.Running {
			list = append(list, j.removal(&r, d))
		}
	}
	p.Each(func(t history.Target, task *model.Task, cell *plan.Cell) {
		if task.Step.Reboots && (cell.Verdict == plan.Run || cell.Verdict == plan.Replace) && cell.Wait.Kind != history.Running {
			list = append(list, thing{model.Rebooting, t, task.Each, j.played(t.Node), false})
		}
	})
	for _, n := range j.state.Nodes {
		if n.Holds() && !p.Wants(n.Name) || j.wiping(n.Name) {
			list = append(list, thing{model.Wiping, history.Target{Node: n.Name}, nil, n.Played, false})
		}
	}
	return list
}

func (j Judge) wiping(node string) bool {
	_, ordered := j.state.Wiping[node]
	return ordered
}

// Says tells what the plan has that the policy refuses.
func (r *Refusal) Says() string {
	has := fmt.Sprintf("the plan has a %s of %s", r.Policy.Refuse, some(r.Has))
	switch {
	case !r.Opens.IsZero():
		return fmt.Sprintf("%s, and that passes at %s only", has, r.Policy.Says())
	case r.Policy.Bounded:
		return fmt.Sprintf("%s, and %s in a run may pass", has, r.Policy.Limit())
	}
	return has + ", and none may pass"
}

// Advice says what to change.
func (r *Refusal) Advice() string {
	var parts []string
	switch {
	case !r.Opens.IsZero():
		parts = append(parts, "apply it from "+r.Opens.UTC().Format(time.RFC3339)+" on")
	case r.Whole: // a person's word, or another policy
	case r.Policy.Beyond > 0:
		parts = append(parts, "go in smaller steps, each until the cluster has converged")
	default:
		parts = append(parts, "leave it out")
	}
	if r.Policy.Override {
		parts = append(parts, fmt.Sprintf("override it with --override %s --reason WHY", r.Policy.Name))
	} else {
		parts = append(parts, "change the policy")
	}
	return strings.Join(parts, ", or ")
}

// some names the first few.
func some(names []string) string {
	if n := len(names) - 5; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), n)
	}
	return strings.Join(names, ", ")
}

// RefusedError reports a plan that policies refuse. Nothing of it was started.
type RefusedError struct {
	Cluster  string
	Refusals []Refusal // those that no person overrode, at least one
}

// Error implements error.
func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policies of cluster %s refuse this:", e.Cluster)
	for i := range e.Refusals {
		r := &e.Refusals[i]
		at := r.Policy.Range
		fmt.Fprintf(&b, "\n  policy %s (%s:%d:%d): %s; %s", r.Policy.Name, at.File, at.Line, at.Col, r.Says(), r.Advice())
	}
	return b.String()
}

// RefuseWipe gives the error of an order to wipe every node of the goal that policies refuse; nil for none.
func RefuseWipe(s *history.State, p *plan.Planner, order history.WipeOrdered, now time.Time) error {
	ordered := s.Clone()
	ordered.Fold(s.Seq+1, s.Now, order)
	left := slices.DeleteFunc(New(ordered, p.ModelOf(len(s.Goals)-1)).Refusals(now, p), func(r Refusal) bool { return r.By != nil || r.Policy.Refuse != model.Wiping })
	if len(left) == 0 {
		return nil
	}
	return &RefusedError{p.Model().Cluster, left}
}

// CheckOverrides refuses overrides of policies that are not there, or that nobody may override, and those without a reason.
func CheckOverrides(m *model.Model, given []history.Override) error {
	for _, o := range given {
		i := slices.IndexFunc(m.Policies, func(p model.Policy) bool { return p.Name == o.Policy })
		switch {
		case i < 0:
			var names []string
			for _, p := range m.Policies {
				names = append(names, p.Name)
			}
			return fmt.Errorf("cannot override policy %.80q: cluster %s has no policy of that name; it has: %s", o.Policy, m.Cluster, strings.Join(names, ", "))
		case !m.Policies[i].Override:
			at := m.Policies[i].Range
			return fmt.Errorf("cannot override policy %s (%s:%d:%d): it does not say override = true; change what is asked for, or the policy", o.Policy, at.File, at.Line, at.Col)
		case strings.TrimSpace(o.Reason) == "":
			return fmt.Errorf("cannot override policy %s without a reason: say why", o.Policy)
		}
	}
	return nil
}
