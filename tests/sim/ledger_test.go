package sim_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan/sight"
	"joist/engine/step"
	"joist/engine/value"
)

type target = history.Target

// ledger is a second, deliberately dumb reading of the journal. It shares no code with history, plan and run: it keeps
// what was written down, computes everything from scratch whenever it is asked, and says which law an event breaks.
type ledger struct {
	models   map[value.Digest]*model.Model
	goals    []history.Goal
	seqs     []uint64
	seq      uint64
	nodes    map[string]*lnode
	rows     map[target]*lrow
	places   map[string]map[string]bool
	fails    map[string]int
	proven   map[string]map[string]bool
	halted   bool // cancelled
	rested   string
	memo     map[target]bool
	ends     map[history.Rest]bool
	gone     map[target]bool // ever discharged as a cluster-scope effect, or as one that outlasts a boot: it may be there still
	starts   int
	out      map[target][]target           // what came out, and what for
	aside    map[target]bool               // was in place when the commit under way began to take it out
	without  map[string]*history.NodeAside // nodes that are set aside
	given    map[target]history.Approved   // approvals
	asks     map[target]bool               // what a person has asked for, and has not been done since
	blame    map[target]string             // failures that count in a rollout
	policing policing
	ended    map[target]uint64 // event of the last end
	budgets
}

type lnode struct {
	inc, boot, address, level string
	scout                     string // boot in whose discovery image it waits
	facts                     json.RawMessage
	factsAt                   uint64
	ended, online, released   bool
	wiped                     bool // as it ended
}

func (n *lnode) alive() bool { return n != nil && n.inc != "" && !n.ended && !n.released }

type lrow struct {
	there, dirty             bool // there: something may stand
	flight                   *history.Started
	reboot                   *history.Rebooting // its apply is done, and its node is to reboot
	id                       uint64
	start                    history.Started // last start of an apply
	outputs                  json.RawMessage
	goal, stood, since       int // goals of the last start, of the success that stood before it, and of the first start
	inc, boot                string
	rests                    map[history.Rest]bool
	expired, forced, drifted bool
	again                    bool // forced since what is in flight began
	until                    *time.Time
	broke                    bool         // its apply failed for good
	hopeless                 bool         // its last attempt failed for good
	removes                  model.Danger // that its removal began as
	driftedAt                uint64
	tries                    tries
	skip                     *skip       // a person wants the goal without it
	fell                     step.Action // what its last attempt was that failed
}

func newLedger(models map[value.Digest]*model.Model) *ledger {
	return &ledger{budgets: newBudgets(), models: models, nodes: map[string]*lnode{}, rows: map[target]*lrow{}, places: map[string]map[string]bool{}, fails: map[string]int{},
		proven: map[string]map[string]bool{}, ends: map[history.Rest]bool{}, gone: map[target]bool{}, ended: map[target]uint64{}, without: map[string]*history.NodeAside{}, blame: map[target]string{}, given: map[target]history.Approved{}, asks: map[target]bool{}, out: map[target][]target{}, aside: map[target]bool{}}
}

func (l *ledger) goal() *history.Goal {
	if len(l.goals) == 0 {
		return nil
	}
	return &l.goals[len(l.goals)-1]
}

func (l *ledger) wants(node string) bool {
	for _, names := range l.goal().Roles {
		if slices.Contains(names, node) {
			return true
		}
	}
	return false
}

func (l *ledger) model() *model.Model {
	if g := l.goal(); g != nil && !g.Destroy {
		return l.models[g.Model]
	}
	return &model.Model{}
}

func (l *ledger) node(name string) *lnode {
	if l.nodes[name] == nil {
		l.nodes[name] = &lnode{}
	}
	return l.nodes[name]
}

func (l *ledger) row(t target) *lrow {
	if l.rows[t] == nil {
		l.rows[t] = &lrow{}
	}
	return l.rows[t]
}

// begin begins a commit: what is decided in one is decided from the same state.
func (l *ledger) begin() { l.aside = map[target]bool{} }

// take checks an event against the laws and writes it down.
func (l *ledger) take(e history.Event) error {
	l.seq++
	l.memo = map[target]bool{}
	defer func() { l.memo = map[target]bool{} }()
	if err := l.budget(e); err != nil {
		return err
	}
	switch e := e.(type) {
	case history.Goal:
		l.takeGoal(e)
	case history.NodeSeen:
		l.takeSeen(e)
	case history.WipeOrdered:
		l.policing.order(l.goal())
	case history.NodeEnded:
		delete(l.policing.unwiped, e.Node)
		if n := l.node(e.Node); n.inc == e.Incarnation {
			if e.Incarnation != "" && !n.ended { // what waits in scout without one goes on
				n.scout = ""
			}
			n.ended, n.online, n.wiped = true, false, e.Wiped
			l.ends[history.Rest{Node: e.Node, Incarnation: e.Incarnation}] = true
		}
	case history.NodeReleased:
		return l.takeReleased(e)
	case history.Started:
		return l.takeStarted(e)
	case history.Succeeded:
		return l.takeSucceeded(e)
	case history.Rebooting:
		return l.takeRebooting(e)
	case history.Failed:
		r := l.row(e.Target)
		err := l.mayFail(e)
		r.reboot = nil
		delete(l.blame, e.Target)
		l.ended[e.Target] = l.seq
		r.hopeless = e.Final && !e.Excused
		if r.flight != nil && r.flight.Place != "" && e.Final && !e.Excused && l.without[e.Node] == nil {
			l.fails[r.flight.Place]++
			l.blame[e.Target] = r.flight.Place
		}
		r.flight, r.again = nil, false
		r.broke = e.Final && !e.Excused && e.Action == step.Apply
		if r.fell = e.Action; e.Excused {
			r.fell = ""
		}
		return err
	case history.NodeAside:
		return l.takeAside(e)
	case history.NodeReturned:
		delete(l.without, e.Node)
		for t, r := range l.rows {
			if t.Node == e.Node { // a person wants it tried anew
				r.broke, r.tries.until = false, time.Time{}
				delete(l.blame, t)
			}
		}
	case history.Discharged:
		return l.takeDischarged(e)
	case history.PlaceReturned:
		done := l.groupDone(e.Rollout, e.Node) // otherwise it is lent
		if !done && l.flying() {
			return fmt.Errorf("law 8: %s gave its place in %s back before its group was in place", e.Node, e.Rollout)
		}
		delete(l.places[e.Rollout], e.Node)
		if l.proven[e.Rollout] == nil {
			l.proven[e.Rollout] = map[string]bool{}
		}
		if g := l.rolloutNamed(e.Rollout); g != nil && done && l.without[e.Node] == nil && slices.ContainsFunc(g.Tasks, func(task string) bool { t := target{Task: task, Node: e.Node}; return !l.guards(t) && l.current(t) }) {
			l.proven[e.Rollout][e.Node] = true
		}
	case history.BreakerClosed:
		l.fails[e.Rollout] = 0
		for t, rollout := range l.blame {
			if rollout == e.Rollout {
				delete(l.blame, t)
			}
		}
	case history.Forced:
		r := l.row(e.Target)
		r.forced, r.tries.until, r.skip, r.fell = true, time.Time{}, nil, ""
		delete(l.given, e.Target)
		l.asks[e.Target], r.again = true, r.flight != nil
	case history.Skipped:
		r := l.row(e.Target)
		r.skip, r.forced = &skip{removal: r.fell == step.Remove}, false
		delete(l.asks, e.Target)
	case history.Approved:
		l.given[e.Target] = e
	case history.Drifted:
		return l.takeDrifted(e)
	case history.Mended:
		if r := l.row(e.Target); !r.drifted {
			return fmt.Errorf("drift: %s is said to be mended, which had not drifted", e.Target)
		}
		l.row(e.Target).drifted = false
	case history.Expired:
		l.row(e.Target).expired = true
		delete(l.given, e.Target)
	case history.Stirred:
		l.policing.reached = false
	case history.Cancelled:
		l.halted, l.policing.reached = true, false
	case history.Rested:
		return l.takeRested(e)
	}
	return nil
}

// takeReleased is that a node that is given back takes everything of it along.
func (l *ledger) takeReleased(e history.NodeReleased) error {
	if l.wants(e.Node) {
		return nil
	}
	delete(l.without, e.Node)
	delete(l.policing.unwiped, e.Node)
	n := l.node(e.Node)
	n.released, n.online, n.inc, n.boot, n.ended = true, false, "", "", false
	n.scout = ""
	for _, r := range l.rows {
		for rest := range r.rests {
			if rest.Node == e.Node {
				delete(r.rests, rest)
			}
		}
	}
	for _, p := range l.places {
		delete(p, e.Node)
	}
	for t := range l.asks {
		if t.Node == e.Node {
			delete(l.asks, t)
		}
	}
	for t, r := range l.rows {
		if r.there && t.Node == e.Node || r.flight != nil && r.flight.Agent == e.Node {
			return fmt.Errorf("law 11: node %s was released while %s was there", e.Node, t)
		}
	}
	return nil
}

func (l *ledger) takeGoal(e history.Goal) {
	l.policing.goal(e, l.goal(), func(who string) bool {
		for t, r := range l.rows {
			if r.there && r.dirty && r.removes != "" && (t.Node == who || t.Node == "" && t.Task == who) {
				return true
			}
		}
		return false
	})
	l.goals, l.seqs, l.halted, l.rested = append(l.goals, e), append(l.seqs, l.seq), false, ""
	clear(l.out)
	clear(l.blame)
	for name, a := range l.without {
		if a.By == "" || e.Destroy {
			delete(l.without, name)
		}
	}
	for _, r := range l.rows {
		r.broke, r.tries.until, r.fell = false, time.Time{}, ""
		if e.Changed {
			r.skip = nil
		}
		if e.Destroy {
			r.forced = false
		}
	}
	if e.Destroy {
		clear(l.asks)
	}
	for _, names := range e.Roles {
		for _, name := range names {
			l.node(name).released = false
		}
	}
	if e.Changed {
		l.fails, l.proven = map[string]int{}, map[string]map[string]bool{}
	}
}

func (l *ledger) takeSeen(e history.NodeSeen) {
	n := l.node(e.Node)
	if e.Incarnation != "" && e.Incarnation != n.inc {
		if n.inc != "" {
			l.ends[history.Rest{Node: e.Node, Incarnation: n.inc}] = true
		}
		n.inc, n.ended, n.wiped = e.Incarnation, false, false
		delete(l.ends, history.Rest{Node: e.Node, Incarnation: n.inc})
	}
	if n.ended && e.Incarnation != "" && e.Boot != "" && e.Boot != n.boot {
		n.ended, n.wiped = false, false
		delete(l.ends, history.Rest{Node: e.Node, Incarnation: n.inc})
	}
	if e.Boot != "" {
		n.boot = e.Boot
	}
	if e.Address != "" {
		n.address = e.Address
	}
	if e.Facts != nil && string(e.Facts) != string(n.facts) {
		n.facts, n.factsAt = e.Facts, l.seq
	}
	if e.Level != "" {
		n.level = e.Level
	}
	n.online, n.scout = e.Online && !n.ended, e.Scout
}

func (l *ledger) takeStarted(e history.Started) error {
	r := l.row(e.Target)
	if l.halted && !(e.Action == step.Remove && l.guards(e.Target)) {
		return fmt.Errorf("cancel: %s %s started after a person cancelled", e.Action, e.Target)
	}
	if r.flight != nil {
		return fmt.Errorf("law 5: %s started while an attempt of it is in flight", e.Target)
	}
	delete(l.blame, e.Target)
	err := l.restless(e)
	if err == nil {
		err = l.tooSoon(e)
	}
	if err != nil {
		return err
	}
	if e.Action == step.Apply {
		err, r.removes = l.mayApply(e), ""
		delete(l.out, e.Target)
	} else {
		l.aside[e.Target] = l.current(e.Target)
		if err = l.mayRemove(e.Target, ""); err == nil {
			err = l.mayRemoveByPolicy(e)
		}
		l.out[e.Target] = append(l.out[e.Target], l.roots(e.Target)...)
	}
	if err == nil {
		err = l.mayEnter(e)
	}
	if err == nil {
		err = l.undisturbed(e)
	}
	if err == nil {
		err = l.standing(e)
	}
	l.starts++
	r.flight, r.id = &e, l.seq
	if e.Action == step.Apply {
		if !r.there {
			r.since, r.stood = len(l.goals)-1, len(l.goals)-1
		} else if !r.dirty {
			r.stood = r.goal
		}
		r.start, r.goal, r.inc, r.boot = e, len(l.goals)-1, e.Incarnation, e.Boot
	}
	r.dirty, r.there = true, true
	if e.Place != "" && e.Node != "" {
		if l.places[e.Place] == nil {
			l.places[e.Place] = map[string]bool{}
		}
		l.places[e.Place][e.Node] = true
	}
	return err
}

func (l *ledger) takeSucceeded(e history.Succeeded) error {
	r := l.row(e.Target)
	var err error
	if e.Silent != nil {
		err = l.takeStarted(*e.Silent)
	}
	if r.flight == nil {
		return fmt.Errorf("law 4: %s ended without having been started", e.Target)
	}
	if err == nil && e.Action == step.Apply {
		err = l.rebooted(e.Target)
	}
	r.reboot = nil
	if e.Action == step.Remove && r.flight.Cause.Kind == history.Unwanted {
		delete(l.asks, e.Target)
	}
	r.flight, r.hopeless, r.tries, r.fell = nil, false, tries{}, ""
	l.ended[e.Target] = l.seq
	if e.Action == step.Remove {
		delete(l.rows, e.Target)
		delete(l.given, e.Target)
		return err
	}
	r.broke = false
	if !r.again {
		delete(l.asks, e.Target)
	}
	again := r.again
	r.again = false
	r.dirty, r.outputs, r.expired, r.forced, r.drifted, r.stood = false, e.Outputs, false, again, false, r.goal
	if m := l.models[l.goals[r.goal].Model]; err == nil && m != nil {
		if task := m.Task(e.Task); task != nil {
			err = declared(task.Step, e.Outputs)
		}
	}
	r.until = e.ValidUntil
	r.rests = nil
	for _, rest := range e.RestsOn {
		if r.rests == nil {
			r.rests = map[history.Rest]bool{}
		}
		r.rests[rest] = true
	}
	for _, j := range e.Joins {
		if single := l.rows[target{Task: j.Task}]; single != nil && single.there {
			if single.rests == nil {
				single.rests = map[history.Rest]bool{}
			}
			single.rests[j.Rest] = true
		}
	}
	return err
}

// declared is law 1: what a step yields is what it declares.
func declared(s *model.Step, outputs json.RawMessage) error {
	var given map[string]any
	if err := json.Unmarshal(outputs, &given); err != nil {
		return fmt.Errorf("law 1: %s yielded %s", s.Name, outputs)
	}
	for _, f := range s.Outputs {
		if _, ok := given[f.Name].(string); !ok {
			return fmt.Errorf("law 1: %s yielded %s without a string %q", s.Name, outputs, f.Name)
		}
		delete(given, f.Name)
	}
	if len(given) > 0 {
		return fmt.Errorf("law 1: %s yielded undeclared %v", s.Name, given)
	}
	return nil
}

func (l *ledger) takeDischarged(e history.Discharged) error {
	err := l.mayRemove(e.Target, e.Why)
	l.ended[e.Target] = l.seq
	if r := l.rows[e.Target]; r != nil {
		if strings.HasPrefix(e.Why, "skipped by ") {
			if l.gone[e.Target] = true; err == nil && (r.skip == nil || !r.skip.removal) {
				err = fmt.Errorf("skip: the removal of %s is taken for done, and nobody said so", e.Target)
			}
		}
		if m := l.models[l.goals[r.goal].Model]; m != nil && (m.Task(e.Task).Step.Scope == model.Cluster || m.Task(e.Task).Step.Reboots) {
			l.gone[e.Target] = true
		}
	}
	delete(l.rows, e.Target)
	delete(l.given, e.Target)
	delete(l.asks, e.Target)
	return err
}

func (l *ledger) takeRested(e history.Rested) error {
	l.rested, l.policing.reached = e.Outcome, e.Outcome == history.OutcomeConverged || e.Outcome == history.OutcomeDestroyed
	open := l.open()
	if left := l.leftover(); left != "" {
		return fmt.Errorf("during: %s is left at rest", left)
	}
	switch e.Outcome {
	case "converged", "destroyed":
		if open == "" && !l.wiped() {
			open = "something is not wiped"
		}
		if open != "" {
			return fmt.Errorf("rest: %s although %s", e.Outcome, open)
		}
	case "stopped":
		if open == "" && l.wiped() {
			return fmt.Errorf("rest: stopped (%s) although everything is as it should be", e.Detail)
		}
	}
	return nil
}

// open names something that is not as the goal wants it, if there is anything.
func (l *ledger) open() string {
	for _, t := range l.instances() {
		if l.leftOut(t) || l.guards(t) || l.skipped(t) {
			continue
		}
		if exists, known := l.exists(t); !known || exists && !l.current(t) {
			return t.String() + " is not in place"
		}
		if r := l.rows[t]; r != nil && r.drifted {
			return t.String() + " has drifted"
		}
	}
	for _, t := range l.targets() {
		if (!l.wanted(t) || l.guards(t)) && l.rows[t].there {
			return t.String() + " is still there"
		}
	}
	return ""
}

func (l *ledger) targets() []target {
	list := slices.Collect(maps.Keys(l.rows))
	sort.Slice(list, func(i, j int) bool { return list[i].String() < list[j].String() })
	return list
}

// instances lists what the goal may have, `when` aside.
func (l *ledger) instances() []target {
	var list []target
	for i := range l.model().Tasks {
		list = append(list, l.instancesOf(&l.model().Tasks[i])...)
	}
	return list
}

func (l *ledger) instancesOf(t *model.Task) []target {
	if len(t.Each) == 0 {
		return []target{{Task: t.Name}}
	}
	names := map[string]bool{}
	for _, role := range t.Each {
		for _, name := range l.goal().Roles[role] {
			names[name] = true
		}
	}
	var list []target
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, target{Task: t.Name, Node: name})
	}
	return list
}

// exists says whether `when` has the instance, and whether that is known. What a changed fact would remove stays until a
// person accepts it.
func (l *ledger) exists(t target) (exists, known bool) {
	task := l.model().Task(t.Task)
	if task == nil || !slices.Contains(l.instancesOf(task), t) {
		return false, true
	}
	if task.Asked != "" && !l.asked(task, t) {
		return false, true
	}
	if task.When == nil {
		return true, true
	}
	v, err := task.When.Expr.Eval(lscope{l, t.Node})
	if err != nil || !v.Known() {
		return false, false
	}
	if !v.True() && t.Node != "" && l.rows[t] != nil && l.rows[t].there && l.lives(task, t) && l.node(t.Node).factsAt > l.seqs[len(l.seqs)-1] {
		return true, true
	}
	return v.True(), true
}

func (l *ledger) wanted(t target) bool {
	exists, known := l.exists(t)
	return exists || !known
}

func (l *ledger) lives(task *model.Task, t target) bool {
	r := l.rows[t]
	if task.Step.Scout { // as long as the cluster has the machine
		return !l.node(t.Node).released
	}
	if t.Node != "" {
		n := l.node(t.Node)
		return n.alive() && r.inc == n.inc && (task.Step.Scope != model.Node || r.boot == n.boot || task.Step.Reboots)
	}
	if task.On == "" || r.rests == nil {
		return true
	}
	for rest := range r.rests {
		if !l.ends[rest] {
			return true
		}
	}
	return false
}

// replaced reports whether what stands is another thing than what is wanted there.
func (l *ledger) replaced(t target) bool {
	r, task := l.rows[t], l.model().Task(t.Task)
	if !l.wanted(t) || r == nil || !r.there {
		return false
	}
	if l.another(task, t) {
		return true
	}
	if task.Step.Pure() || task.Step.Scout {
		return false
	}
	if t.Node != "" {
		n := l.node(t.Node)
		return !n.alive() || n.inc != r.inc
	}
	return !l.lives(task, t)
}

// current reports whether an instance is in place for the goal: law 5 and law 2, computed by brute force.
func (l *ledger) current(t target) bool {
	if known, ok := l.memo[t]; ok {
		return known
	}
	l.memo[t] = false // graphs have no cycles
	ok := l.computeCurrent(t)
	l.memo[t] = ok
	return ok
}

func (l *ledger) computeCurrent(t target) bool {
	r, task := l.rows[t], l.model().Task(t.Task)
	if task == nil || r == nil || l.skipped(t) || !r.there || r.dirty || r.flight != nil || r.forced || !l.wanted(t) || !l.lives(task, t) || l.replaced(t) {
		return false
	}
	if task.Step.Once || task.Asked != "" {
		return true
	}
	if r.expired || r.drifted && !l.driftWaits(r) || r.start.Step != task.Step.Digest || l.waitsFor(task, t, false) != "" {
		return false
	}
	inputs, known := l.inputs(task, t.Node)
	return known && inputs == string(r.start.Inputs)
}

// waitsFor names something that an instance reads, or is ordered after, and that is not in place.
func (l *ledger) waitsFor(task *model.Task, t target, order bool) string {
	for _, e := range task.Edges() {
		if e.Host || e.Order && !order {
			continue
		}
		n, open := 0, []string{}
		for _, up := range l.reach(l.model(), e, t.Node) {
			if l.skipped(up) {
				if !e.All && !e.Order { // nobody reads what it would have yielded
					return up.String()
				}
				continue
			}
			if l.without[up.Node] != nil && l.without[t.Node] == nil { // who reads it goes on with what it yielded, if anything
				if l.left(up) {
					n++
				}
				continue
			}
			exists, known := l.exists(up)
			if !known || exists {
				n++
			}
			if !known || exists && !l.current(up) {
				open = append(open, up.String())
			}
		}
		need := map[model.Share]int{model.Every: n, model.Most: min(n, n/2+1), model.Any: min(n, 1)}[e.Share]
		if n-len(open) < need {
			return open[0]
		}
	}
	return ""
}

func (l *ledger) reach(m *model.Model, e model.Edge, node string) []target {
	up := m.Task(e.Task)
	switch {
	case up == nil:
		return nil
	case e.All:
		return l.instancesOf(up)
	case len(up.Each) == 0:
		return []target{{Task: e.Task}}
	}
	return []target{{Task: e.Task, Node: node}}
}

// inputs gives the arguments of an instance as the journal has them.
func (l *ledger) inputs(task *model.Task, node string) (string, bool) {
	kept := map[string]json.RawMessage{}
	for _, a := range task.With {
		if a.Outside() {
			continue
		}
		v, err := a.Expr.Eval(lscope{l, node})
		if err != nil || !v.Known() {
			return "", false
		}
		data, err := v.MarshalJSON()
		if err != nil {
			return "", false
		}
		kept[a.Name] = history.Small(data)
	}
	data, err := json.Marshal(kept)
	return string(data), err == nil
}

func (l *ledger) mayApply(e history.Started) error {
	task := l.model().Task(e.Task)
	switch exists, known := l.exists(e.Target); {
	case l.without[e.Node] != nil || l.without[e.Agent] != nil:
		return fmt.Errorf("aside: %s started on %s, and one of its nodes is set aside", e.Target, e.Agent)
	case !known || !exists:
		return fmt.Errorf("law 2: %s started although the goal has none", e.Target)
	case l.skipped(e.Target):
		return fmt.Errorf("skip: %s started although a person skipped it", e.Target)
	case l.current(e.Target):
		return fmt.Errorf("law 5: %s started although it is in place", e.Target)
	case l.replaced(e.Target):
		return fmt.Errorf("removal: %s started although something else stands there", e.Target)
	}
	if err := l.approved(task, e); err != nil {
		return err
	}
	if up := l.waitsFor(task, e.Target, true); up != "" {
		return fmt.Errorf("law 2: %s started before %s was in place", e.Target, up)
	}
	if want, _ := l.inputs(task, e.Node); want != string(e.Inputs) {
		return fmt.Errorf("law 2: %s started with %s, want %s", e.Target, e.Inputs, want)
	}
	if task.Step.Scout || e.Scout {
		return l.inScout(task, e)
	}
	for _, name := range []string{e.Node, e.Agent} {
		if n := l.nodes[name]; name != "" && (!n.alive() || !model.Suffices(n.level, l.model().Trust) || name == e.Agent && !n.online) {
			return fmt.Errorf("law 9: %s started on %s, which is not alive, trusted and online", e.Target, name)
		}
	}
	if n := l.nodes[e.Node]; e.Node != "" && (e.Incarnation != n.inc || e.Boot != n.boot) {
		return fmt.Errorf("lifetime: %s started with incarnation %s boot %s, its node has %s %s", e.Target, e.Incarnation, e.Boot, n.inc, n.boot)
	}
	return nil
}

// mayRemove is the order of removals. discharged is why no remove runs, if none does.
func (l *ledger) mayRemove(t target, discharged string) error {
	r := l.rows[t]
	if r == nil || !r.there {
		return fmt.Errorf("removal: %s was removed, but nothing is there", t)
	}
	replaced := l.replaced(t)
	way := l.waysFor(t)
	if l.wanted(t) && !replaced && len(way) == 0 && !l.guards(t) {
		return fmt.Errorf("law 11: %s was removed (%s) although it is wanted", t, discharged)
	}
	ended := discharged != "" && t.Node != "" && (!l.node(t.Node).alive() || l.node(t.Node).inc != r.inc)
	replaced = replaced || len(way) > 0
	cleared, own := l.cleared(t), l.disturbs(t)
	return l.users(t, func(y target, e model.Edge, once bool) error {
		leaving := !l.wanted(y) || l.replaced(y)
		switch {
		case discharged == "" && slices.Contains(own, y): // out before it starts
		case leaving && replaced && (t.Node != "" && y.Node != t.Node || l.heldByReaders(y)):
		case leaving:
			return fmt.Errorf("removal: %s was removed (%q) before %s, which depends on it", t, discharged, y)
		case l.without[y.Node] != nil: // nobody waits for it
		case e.Order || replaced || ended || once || cleared || l.rows[y].since == len(l.goals)-1: // the last never saw what the goal does not have
		case !l.current(y) && !l.aside[y]:
			return fmt.Errorf("removal: %s was removed (%q) before %s had succeeded without it", t, discharged, y)
		}
		return nil
	})
}

// users calls f for everything that stands and depends on an instance, by the models it was started with.
func (l *ledger) users(t target, f func(y target, e model.Edge, once bool) error) error {
	for _, y := range l.targets() {
		yr := l.rows[y]
		if y == t || !yr.there {
			continue
		}
		goals := []int{yr.goal}
		if yr.dirty {
			goals = append(goals, yr.stood)
		}
		for _, g := range goals {
			m := l.models[l.goals[g].Model]
			if m == nil || m.Task(y.Task) == nil {
				continue
			}
			task := m.Task(y.Task)
			for _, e := range task.Edges() {
				if e.Task != t.Task || e.Host || !e.All && t.Node != "" && y.Node != t.Node {
					continue
				}
				if err := f(y, e, task.Step.Once); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// heldByReaders reports whether a removal waits for readers of its outputs, directly or through other removals: these
// readers may need what is removed and applied again elsewhere.
func (l *ledger) heldByReaders(t target) bool {
	held := fmt.Errorf("held")
	return l.users(t, func(y target, e model.Edge, once bool) error {
		if leaving := !l.wanted(y) || l.replaced(y); leaving && l.heldByReaders(y) || !leaving && !e.Order && !once && l.without[y.Node] == nil && !l.current(y) {
			return held
		}
		return nil
	}) != nil
}

func (l *ledger) rollout(task string) *model.Rollout {
	m := l.model()
	for i := range m.Rollouts {
		if slices.Contains(m.Rollouts[i].Tasks, task) {
			return &m.Rollouts[i]
		}
	}
	return nil
}

// mayEnter is law 8.
func (l *ledger) mayEnter(e history.Started) error {
	g := l.rollout(e.Task)
	if g == nil || e.Node == "" || e.Action == step.Remove && l.guards(e.Target) {
		return nil
	}
	before := l.goal().Roles
	if len(l.goals) > 1 && l.count(g, l.goals[len(l.goals)-2].Roles) > 0 {
		before = l.goals[len(l.goals)-2].Roles
	}
	total := l.count(g, before)
	if l.fails[g.Name] >= places(g.StopAfter, total) {
		return fmt.Errorf("law 8 (breaker): %s started after %d failures", e.Target, l.fails[g.Name])
	}
	if l.places[g.Name][e.Node] || g.Together && !l.founded(g) {
		return nil
	}
	limit := places(g.MaxInFlight, total)
	if proven := len(l.proven[g.Name]); proven < g.Canaries {
		limit = min(limit, g.Canaries-proven)
	}
	if err := l.inWave(g, total); err != nil {
		return err
	}
	limit = waveLimit(g, len(l.proven[g.Name]), total, limit)
	if err := l.spreadOut(g, e.Node, limit); err != nil {
		return err
	}
	if len(l.places[g.Name]) >= limit {
		return fmt.Errorf("law 8: %s started while %v hold all %d places", e.Target, l.places[g.Name], limit)
	}
	return nil
}

func (l *ledger) count(g *model.Rollout, roles map[string][]string) int {
	names := map[string]bool{}
	for _, role := range g.Roles {
		for _, name := range roles[role] {
			names[name] = true
		}
	}
	return len(names)
}

func places(c model.Count, total int) int {
	if c.Percent {
		c.N = total * c.N / 100
	}
	return max(c.N, 1)
}

// founded reports whether a living node has the whole group, or had it in its life.
func (l *ledger) founded(g *model.Rollout) bool {
	for name, n := range l.nodes {
		if !n.alive() {
			continue
		}
		some, all := false, true
		for _, task := range g.Tasks {
			if by := l.model().Task(task); by != nil && (len(by.During) > 0 || slices.ContainsFunc(by.Except, func(name string) bool { return slices.Contains(g.Tasks, name) })) {
				continue
			}
			t := target{Task: task, Node: name}
			if exists, known := l.exists(t); known && !exists && (l.rows[t] == nil || !l.rows[t].there) {
				continue
			}
			r := l.rows[t]
			if r == nil || !r.there || r.outputs == nil || r.inc != n.inc {
				all = false
				break
			}
			some = true
		}
		if some && all {
			return true
		}
	}
	return false
}

func (l *ledger) rolloutNamed(name string) *model.Rollout {
	m := l.model()
	for i := range m.Rollouts {
		if m.Rollouts[i].Name == name {
			return &m.Rollouts[i]
		}
	}
	return nil
}

// flying reports whether anything is in flight; a place is lent only while nothing is.
func (l *ledger) flying() bool {
	for _, r := range l.rows {
		if r.flight != nil {
			return true
		}
	}
	return false
}

func (l *ledger) groupDone(rollout, node string) bool {
	if g := l.rolloutNamed(rollout); g != nil {
		for _, task := range g.Tasks {
			t := target{Task: task, Node: node}
			if l.guards(t) {
				if r := l.rows[t]; r != nil && r.there {
					return false
				}
			} else if l.wanted(t) && l.without[node] == nil {
				if !l.current(t) && !l.skipped(t) {
					return false
				}
			} else if r := l.rows[t]; r != nil && r.there && r.flight != nil {
				return false
			}
		}
	}
	return true
}

// lscope evaluates expressions over the ledger.
type lscope struct {
	l    *ledger
	node string
}

func (s lscope) Lookup(r model.Ref) value.Value {
	l := s.l
	switch r.Kind {
	case model.RefInput:
		return l.model().Inputs[r.Name]
	case model.RefNode:
		v, _ := s.nodeValue(s.node).Attr(r.Attr)
		return v
	case model.RefRole:
		m := map[string]value.Value{}
		for _, name := range l.goal().Roles[r.Name] {
			m[name] = s.nodeValue(name)
		}
		return value.Gather(sight.NodeType(), m)
	case model.RefTask:
		task := l.model().Task(r.Name)
		t := target{Task: r.Name}
		if len(task.Each) > 0 {
			t.Node = s.node
		}
		v, _ := s.outputs(task, t).Attr(r.Attr)
		if l.skipped(t) {
			return value.Unknown(task.Step.OutputType())
		}
		if s.outputs(task, t).Null() {
			return value.NullOf(value.Type{})
		}
		return v
	case model.RefAll:
		task := l.model().Task(r.Name)
		m := map[string]value.Value{}
		for _, t := range l.instancesOf(task) {
			if v := s.outputs(task, t); !v.Null() {
				m[t.Node] = v
			}
		}
		return value.Gather(task.Step.OutputType(), m)
	}
	return value.Value{}
}

func (s lscope) nodeValue(name string) value.Value {
	n := s.l.node(name)
	text := func(s string) value.Value {
		if s == "" {
			return value.Unknown(value.Type{Kind: value.String})
		}
		return value.Text(s)
	}
	attrs := map[string]value.Value{model.NodeName: text(name), model.NodeAddress: text(n.address), model.NodeIncarnation: text(""), model.NodeBoot: text(""), model.NodeFacts: {}, model.NodeStorage: value.Text("")}
	if n.alive() {
		attrs[model.NodeIncarnation], attrs[model.NodeBoot] = text(n.inc), text(n.boot)
	}
	var facts value.Value
	if n.facts != nil && facts.UnmarshalJSON(n.facts) == nil {
		attrs[model.NodeFacts] = facts
	}
	return value.Dict(attrs)
}

func (s lscope) outputs(task *model.Task, t target) value.Value {
	switch exists, known := s.l.exists(t); {
	case known && !exists:
		return value.NullOf(value.Type{})
	case s.l.skipped(t):
		return value.NullOf(value.Type{})
	case s.l.without[t.Node] != nil && s.l.without[s.node] == nil:
		if !s.l.left(t) {
			return value.NullOf(value.Type{})
		}
	case !known || !s.l.current(t):
		return value.Unknown(task.Step.OutputType())
	}
	v, err := task.Step.OutputType().Parse(s.l.rows[t].outputs)
	if err != nil {
		return value.Unknown(task.Step.OutputType())
	}
	return v
}

// disturbs lists what makes way for an instance: as the goal's model says, or, for a task that the goal does not have, as
// the model says that it was started with.
func (l *ledger) disturbs(t target) []target {
	var list []target
	for _, y := range l.targets() {
		m := l.model()
		if m.Task(t.Task) == nil {
			m = l.models[l.goals[l.rows[y].goal].Model]
		}
		if by := m.Task(y.Task); y != t && y.Node == t.Node && by != nil && slices.Contains(by.Except, t.Task) {
			list = append(list, y)
		}
	}
	return list
}

// undisturbed is presence: what makes way for an instance is out before an action of it starts.
func (l *ledger) undisturbed(e history.Started) error {
	for _, y := range l.disturbs(e.Target) {
		if l.rows[y].there {
			return fmt.Errorf("presence: %s of %s started while %s was there", e.Action, e.Target, y)
		}
	}
	return nil
}

// waysFor lists what an instance has to make way for: that is about to run, and nothing else is in its way.
func (l *ledger) waysFor(t target) []target {
	var ways []target
	for _, of := range append(l.instances(), l.targets()...) {
		if !slices.Contains(l.disturbs(of), t) || slices.Contains(ways, of) {
			continue
		}
		task := l.model().Task(of.Task)
		if r := l.rows[of]; r != nil && r.there && (!l.wanted(of) || l.replaced(of) || len(l.waysFor(of)) > 0) {
			if l.mayRemove(of, "") == nil {
				ways = append(ways, of)
			}
			continue
		}
		if task == nil {
			continue
		}
		if l.skipped(of) {
			continue
		}
		exists, known := l.exists(of)
		if _, complete := l.inputs(task, of.Node); known && exists && complete && !l.current(of) && l.waitsFor(task, of, true) == "" {
			ways = append(ways, of)
		}
	}
	return ways
}

// roots lists what an instance makes way for in the end.
func (l *ledger) roots(t target) []target {
	var roots []target
	for _, of := range l.waysFor(t) {
		if r := l.rows[of]; r != nil && r.there && l.wanted(of) && !l.replaced(of) && len(l.waysFor(of)) > 0 {
			roots = append(roots, l.roots(of)...)
		} else {
			roots = append(roots, of)
		}
	}
	return roots
}

// cleared reports whether something came out to let an instance be removed: those that wait for what came out do not
// hold that up.
func (l *ledger) cleared(t target) bool {
	for _, roots := range l.out {
		if slices.Contains(roots, t) {
			return true
		}
	}
	return false
}
