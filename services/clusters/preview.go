package clusters

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/policy"
	"joist/engine/value"
)

// Plan is a plan for people and programs: every instance, what it rests on, and what it does to nodes.
type Plan struct {
	Cluster  string
	Destroy  bool
	Seq      uint64              // last event of the cluster's journal that it looked at; 0 for a cluster that has none
	Model    value.Digest        // of the goal
	Roles    map[string][]string // of the goal, the machines it would claim included
	Items    []outlook.Item
	Whole    outlook.Forecast
	Tasks    []outlook.Forecast
	Nodes    []NodeChange
	Refused  []policy.Refusal // what policies refuse of it, if it were begun now
	Missing  []Missing        // machines that there would have to be
	Warnings string
}

// NodeChange is what becomes of a node.
type NodeChange struct {
	Name   string
	Roles  []string // in the goal
	Change string   // joins, stays, leaves
	Wiped  bool     // its durable state is destroyed, with the cluster, as it leaves, or because somebody ordered it
}

// What becomes of a node.
const (
	Joins  = "joins"
	Stays  = "stays"
	Leaves = "leaves"
)

// Preview plans a declaration, as it would be if policies were overridden. It changes nothing: neither a journal nor a claim.
// Where there are not the machines for it, the plan says what is missing, and is as it would be with machines of which nothing is
// known.
func (c *Clusters) Preview(ctx context.Context, s Source, overrides ...history.Override) (*Plan, error) {
	s.Tentative = true
	compiled, err := c.compile(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := policy.CheckOverrides(compiled.Model, overrides); err != nil {
		return nil, err
	}
	loop, err := c.Get(compiled.Model.Cluster)
	var unknown *UnknownError
	if err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	if compiled, err = c.stand(ctx, loop, compiled); err != nil {
		return nil, err
	}
	if err := c.refuse(ctx, loop, compiled); err != nil {
		return nil, err
	}
	return c.preview(ctx, compiled, loop, history.Goal{Overrides: overrides})
}

// preview plans what is compiled for a cluster as it stands now: a nil loop is one that has no journal yet. Of the goal it is
// given the roles, which are chosen if they are nil, and what overrides policies.
func (c *Clusters) preview(ctx context.Context, compiled *Compiled, loop *drive.Cluster, want history.Goal) (*Plan, error) {
	m := compiled.Model
	state, models, err := copyOf(ctx, loop)
	if err != nil {
		return nil, err
	}
	before, roles := state.Goal(), want.Roles
	var missing []Missing
	if roles == nil {
		if roles, missing, err = c.choose(ctx, compiled, before); err != nil {
			return nil, err
		}
	}
	seq := state.Seq
	for _, name := range nodesOf(roles) {
		if seen, ok := c.cfg.Site.Seen(name); ok && !isMissing(missing, name) {
			state.Fold(state.Seq+1, state.Now, seen)
		}
	}
	goal := history.Goal{Model: m.Digest, Roles: roles, By: "preview", Changed: changed(before, m.Digest, roles), Overrides: want.Overrides}
	models[m.Digest] = m
	p := planned(m.Cluster, compiled.Warnings, c.foresee(state, models, seq, goal))
	p.Missing = missing
	return p, nil
}

// PreviewDestroy plans what destroying a cluster does, as it would be if policies were overridden. It changes nothing.
func (c *Clusters) PreviewDestroy(ctx context.Context, name string, overrides ...history.Override) (*Plan, error) {
	loop, err := c.Get(name)
	if err != nil {
		return nil, err
	}
	if len(overrides) > 0 {
		var wrong error
		err := loop.Look(ctx, func(_ *history.State, p *plan.Planner) { wrong = policy.CheckOverrides(p.Model(), overrides) })
		if err = errors.Join(err, wrong); err != nil {
			return nil, err
		}
	}
	return c.previewDestroy(ctx, name, loop, overrides)
}

func (c *Clusters) previewDestroy(ctx context.Context, name string, loop *drive.Cluster, overrides []history.Override) (*Plan, error) {
	state, models, err := copyOf(ctx, loop)
	if err != nil {
		return nil, err
	}
	g := state.Goal()
	if g == nil {
		return nil, fmt.Errorf("cannot plan the destruction of cluster %s: it was never given a goal", name)
	}
	goal := history.Goal{Model: g.Model, Source: g.Source, Destroy: true, By: "preview", Changed: true, Overrides: overrides}
	return planned(name, "", c.foresee(state, models, state.Seq, goal)), nil
}

// copyOf gives a state that can be folded further, with the models of its goals.
func copyOf(ctx context.Context, loop *drive.Cluster) (*history.State, map[value.Digest]*model.Model, error) {
	state, models := history.New(), map[value.Digest]*model.Model{}
	if loop == nil {
		return state, models, nil
	}
	err := loop.Look(ctx, func(live *history.State, p *plan.Planner) {
		state = live.Clone()
		for i := range state.Goals {
			models[state.Goals[i].Model] = p.ModelOf(i)
		}
	})
	return state, models, err
}

// view is a state with its plan.
type view struct {
	seq   uint64
	state *history.State
	plan  *plan.Planner
	now   time.Time
}

// foresee gives the state and the plan that a goal would lead to. The state is its own.
func (c *Clusters) foresee(state *history.State, models map[value.Digest]*model.Model, seq uint64, goal history.Goal) view {
	state.Fold(state.Seq+1, state.Now, goal)
	return view{seq, state, plan.New(state, func(goal int) *model.Model { return models[state.Goals[goal].Model] }), c.cfg.Drive.Now()}
}

// Current gives the plan of the goal that the cluster pursues.
func (c *Clusters) Current(ctx context.Context, name string) (*Plan, error) {
	loop, err := c.Get(name)
	if err != nil {
		return nil, err
	}
	var result *Plan
	err = loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		result = planned(name, "", view{s.Seq, s, p, c.cfg.Drive.Now()})
	})
	return result, err
}

func planned(cluster, warnings string, v view) *Plan {
	p := &Plan{Cluster: cluster, Seq: v.seq, Items: outlook.Items(v.plan), Warnings: warnings}
	p.Whole, p.Tasks = outlook.Forecasts(v.plan, p.Items)
	goal := v.state.Goal()
	if goal == nil {
		return p
	}
	p.Model, p.Destroy, p.Roles = goal.Model, goal.Destroy, v.plan.CalledRoles(goal.Roles)
	for i := range p.Items {
		p.Items[i] = p.Items[i].Called(v.plan)
	}
	for i := range p.Tasks {
		p.Tasks[i].Task = v.plan.Called(history.Target{Task: p.Tasks[i].Task}).Task
	}
	p.Refused = policy.Of(v.plan).Refusals(v.now, v.plan)
	plays := map[string][]string{}
	for _, role := range slices.Sorted(maps.Keys(p.Roles)) {
		for _, name := range p.Roles[role] {
			plays[name] = append(plays[name], role)
		}
	}
	for _, n := range v.state.Nodes {
		had := len(n.Played) > 0 && !n.Released
		_, ordered := v.state.Wiping[n.Name]
		change := NodeChange{Name: n.Name, Roles: plays[n.Name], Change: Stays, Wiped: ordered}
		switch wanted := v.plan.Wants(n.Name); {
		case !wanted && !had:
			continue
		case !wanted:
			change.Change, change.Wiped = Leaves, n.Holds()
		case !n.Alive() || !hasAny(v, n.Name):
			change.Change = Joins
		}
		p.Nodes = append(p.Nodes, change)
	}
	slices.SortFunc(p.Nodes, func(a, b NodeChange) int { return strings.Compare(a.Name, b.Name) })
	return p
}

// hasAny reports whether anything of the cluster was ever started for a node that is left of it.
func hasAny(v view, node string) bool {
	i, ok := v.state.Find(node)
	if !ok {
		return false
	}
	for _, c := range v.state.Columns {
		if row := c.Row(i); row != nil && row.Phase != history.Absent {
			return true
		}
	}
	return false
}

// Planned is what a person was shown and wants done: exactly that, or nothing.
type Planned struct {
	Cluster string
	Seq     uint64 // of the journal, for people
	Model   string // digest of the goal's model
	Roles   map[string][]string
	Nodes   map[string]NodeChange // what becomes of a node, by its name
	Items   []PlannedItem
}

// PlannedItem is one instance of it.
type PlannedItem struct {
	Instance string
	Verdict  string
	Cause    string // kind of the verdict's cause
	Input    string // digest of the inputs it is to run with; empty if they were not known
}

// ChangedError reports that a plan is not what would be done now any more.
type ChangedError struct {
	Cluster string
	Since   uint64   // event at which the plan was made
	Changes []string // what is different now, the first few
}

// Error implements error.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("this plan of cluster %s, made at event %d, is not what would be done now: %s", e.Cluster, e.Since, strings.Join(e.Changes, "; "))
}

// mostChanges bounds how many differences an error names.
const mostChanges = 12

// Compare says what is different now from what was planned.
func (w *Planned) Compare(now *Plan) error {
	var changes []string
	say := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	if w.Cluster != now.Cluster {
		say("it is of cluster %s", w.Cluster)
	}
	if w.Model != now.Model.String() {
		say("packs, inputs or cluster file are others")
	}
	for _, role := range slices.Sorted(maps.Keys(unite(w.Roles, now.Roles))) {
		if was, is := w.Roles[role], now.Roles[role]; !slices.Equal(was, is) {
			say("role %s would have %s, not %s", role, nodeList(is), nodeList(was))
		}
	}
	for _, n := range now.Nodes {
		switch was, known := w.Nodes[n.Name]; {
		case n.Change == Leaves && was.Change != Leaves:
			say("node %s would leave", n.Name)
		case n.Change != Leaves && known && was.Change == Leaves:
			say("node %s would not leave", n.Name)
		case n.Wiped && !was.Wiped:
			say("node %s would be wiped", n.Name)
		}
	}
	had := make(map[string]*PlannedItem, len(w.Items))
	for i := range w.Items {
		had[w.Items[i].Instance] = &w.Items[i]
	}
	for i := range now.Items {
		it := &now.Items[i]
		name := it.Target.String()
		was := had[name]
		delete(had, name)
		switch {
		case was == nil:
			say("%s is new: %s", name, it.Verdict)
		case was.Verdict != it.Verdict.String():
			say("%s was to be %s and now is %s%s", name, was.Verdict, it.Verdict, becauseOf(it.Cause))
		case was.Cause != string(it.Cause.Kind) && it.Verdict != plan.Unchanged:
			say("%s is %s for another reason%s", name, it.Verdict, becauseOf(it.Cause))
		case was.Input != it.Input.String():
			say("%s would run with other inputs", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(had)) {
		say("%s is gone", name)
	}
	if len(changes) == 0 {
		return nil
	}
	if n := len(changes); n > mostChanges {
		changes = append(changes[:mostChanges], fmt.Sprintf("and %d more differences", n-mostChanges))
	}
	return &ChangedError{Cluster: now.Cluster, Since: w.Seq, Changes: changes}
}

func becauseOf(c plan.Cause) string {
	if c.Kind == history.Same {
		return ""
	}
	return " (" + c.Because() + ")"
}

func unite(a, b map[string][]string) map[string]bool {
	all := map[string]bool{}
	for name := range a {
		all[name] = true
	}
	for name := range b {
		all[name] = true
	}
	return all
}

func nodeList(names []string) string {
	if len(names) == 0 {
		return "no node"
	}
	return strings.Join(names, ", ")
}

// ApplyPlan is Apply of exactly what was planned: a *ChangedError says what is different now, and then nothing has
// changed.
func (c *Clusters) ApplyPlan(ctx context.Context, s Source, want Planned, said Said) (*Accepted, error) {
	return c.apply(ctx, s, history.Goal{By: said.By, Overrides: said.Overrides}, &want)
}

// mostTries bounds how often a plan is compared again because something happened meanwhile.
const mostTries = 20

// pursueExactly sets the goal at the very event at which what it leads to is what was planned.
func (c *Clusters) pursueExactly(ctx context.Context, loop *drive.Cluster, what claiming, g history.Goal) error {
	for range mostTries {
		p, err := c.preview(ctx, what.compiled, loop, g)
		if err != nil {
			return err
		}
		if err := what.want.Compare(p); err != nil {
			return err
		}
		if done, err := loop.PursueAt(ctx, g, p.Seq); done || err != nil {
			return err
		}
	}
	return fmt.Errorf("cannot apply the plan of cluster %s: events come in faster than it can be compared; try again when less is under way", what.compiled.Model.Cluster)
}
