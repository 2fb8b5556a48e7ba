package restapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"joist/engine/addr"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/policy"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/certs"
	"joist/services/clusters"
)

// apiChanges implements api.Changes.
type apiChanges struct{ *apiClusters }

func (a *apiChanges) Apply(ctx context.Context, in v1.Apply) (*v1.Accepted, error) {
	var done *clusters.Accepted
	var err error
	switch {
	case in.Plan != nil && in.TTL != 0, in.TTL < 0, in.TTL > longestLife.Seconds():
		err = api.Fail(v1.Malformed, fmt.Errorf("a time of %.0f s does not fit", in.TTL), fmt.Sprintf("give a cluster file, and at most %s", longestLife))
	case in.Plan != nil && in.Run != "", len(in.Run) > longestRun:
		err = api.Fail(v1.Malformed, errors.New("a run's identity does not fit"), fmt.Sprintf("give at most %d bytes, and no plan", longestRun))
	case in.Plan != nil:
		done, err = a.applyPlan(ctx, in)
	default:
		done, err = a.Clusters.ApplyAs(ctx, sourceOf(in.Source), said(in))
	}
	if err != nil {
		return nil, a.refused(err)
	}
	out, err := a.accepted(ctx, done.Cluster)
	if err == nil {
		out.Warnings = done.Warnings
		if out.Seq != done.Seq { // another goal has taken its place meanwhile
			out.Goal, out.Seq, out.Roles = done.Goal, done.Seq, done.Roles
		}
	}
	return out, err
}

// longestLife bounds the time after which a cluster is destroyed by itself.
const longestLife = 30 * 24 * time.Hour

// longestRun bounds a run's identity, in bytes.
const longestRun = 64

// accepted says which goal a cluster has now.
func (a *apiChanges) accepted(ctx context.Context, name string) (*v1.Accepted, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	out := &v1.Accepted{Cluster: name}
	err = loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		if g := s.Goal(); g != nil {
			out.Goal, out.Seq, out.Last, out.Roles = g.Model.String(), g.Seq, s.Seq, p.CalledRoles(g.Roles)
		}
	})
	return out, err
}

func (a *apiChanges) Destroy(ctx context.Context, name string, d v1.Destroy) (*v1.Accepted, error) {
	if err := a.Clusters.DestroyAs(ctx, name, clusters.Said{By: d.By, Overrides: overridesOf(d.Overrides), Run: d.Run}); err != nil {
		return nil, a.refused(err)
	}
	return a.accepted(ctx, name)
}

func (a *apiChanges) Act(ctx context.Context, name string, act v1.Action) (*v1.Accepted, error) {
	if act.Action == v1.Forget {
		if err := a.Clusters.Drop(ctx, name, act.By); err != nil {
			return nil, a.told(err)
		}
		return &v1.Accepted{Cluster: name}, nil
	}
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	var forced []string
	switch act.Action {
	case v1.Retry:
		err = a.Clusters.Retry(ctx, name, act.By, act.Reason)
	case v1.Cancel:
		err = loop.Happen(ctx, history.Cancelled{By: act.By, Reason: act.Reason})
	case v1.CloseBreaker:
		err = a.closeBreaker(ctx, name, loop, act)
	case v1.Skip:
		err = skip(ctx, loop, name, act)
	case v1.Force:
		forced, err = force(ctx, loop, name, act)
	case v1.Approval:
		err = approve(ctx, loop, name, act)
	case v1.Aside, v1.Return:
		err = aside(ctx, loop, act)
	case v1.WipeAll:
		err = a.wipeAll(ctx, name, loop, act)
	default:
		err = api.Fail(v1.Unsupported, fmt.Errorf("there is no action %q", act.Action), "")
	}
	if err != nil {
		return nil, a.told(err)
	}
	out, err := a.accepted(ctx, name)
	if err == nil {
		out.Forced = forced
	}
	return out, err
}

// wipeAll orders that every machine of the cluster be wiped. The goal stays, so that the cluster is then built anew.
func (a *apiChanges) wipeAll(ctx context.Context, name string, loop *drive.Cluster, act v1.Action) error {
	order := history.WipeOrdered{By: act.By, Overrides: overridesOf(act.Overrides)}
	wanted, empty := false, false
	var refused error
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		g := s.Goal()
		empty = len(nodesOf(s, p)) == 0
		if wanted = g != nil && !g.Destroy && s.Outcome != history.OutcomeCancelled; wanted {
			if refused = policy.CheckOverrides(p.Model(), order.Overrides); refused == nil {
				refused = policy.RefuseWipe(s, p, order, a.Now())
			}
		}
	}); err != nil {
		return err
	}
	if !wanted {
		return api.Fail(v1.Conflict, errors.New("this cluster has no goal that is pursued"), "joist apply FILE, or joist retry CLUSTER, gives it one")
	}
	if refused != nil {
		return Refused(refused)
	}
	if empty {
		return api.Fail(v1.Conflict, fmt.Errorf("cluster %s has no machines: there is nothing to wipe", name), "joist force CLUSTER/TASK runs a single task again")
	}
	return loop.Happen(ctx, order)
}

// Wipe implements api.Changes.
func (a *apiChanges) Wipe(ctx context.Context, machine, by string) (*v1.Wiped, error) {
	if a.Parts.Wipe == nil {
		return nil, api.Fail(v1.Unsupported, errors.New("this engine wipes no machines"), "")
	}
	proof, err := a.Parts.Wipe(ctx, machine, by)
	if err != nil {
		return nil, Refused(err)
	}
	return &v1.Wiped{Machine: machine, Proof: proof}, nil
}

// closeBreaker lets a stopped rollout go on, and then tries again what failed: a closed breaker alone starts nothing that
// failed for good.
func (a *apiChanges) closeBreaker(ctx context.Context, name string, loop *drive.Cluster, act v1.Action) error {
	var names []string
	stands := ""
	if err := loop.Look(ctx, func(_ *history.State, p *plan.Planner) {
		for i := range p.Model().Rollouts {
			names = append(names, p.Model().Rollouts[i].CalledNow())
		}
		if r := p.Rollout(act.Rollout); r != nil {
			stands = r.Name
		}
	}); err != nil {
		return err
	}
	if stands == "" {
		return api.Fail(v1.NotFound, fmt.Errorf("this cluster has no rollout %.80q", act.Rollout), meant(act.Rollout, names, "joist status CLUSTER names those that have stopped"))
	}
	return a.Clusters.Retry(ctx, name, act.By, act.Reason, history.BreakerClosed{Rollout: stands, By: act.By, Reason: act.Reason})
}

// skip pursues the goal without an instance that is not in place; a removal that fails is taken for done on the person's word.
func skip(ctx context.Context, loop *drive.Cluster, cluster string, act v1.Action) error {
	if strings.TrimSpace(act.Reason) == "" {
		return api.Fail(v1.Malformed, errors.New("cannot skip an instance without a reason"), "say why: what is skipped is not done")
	}
	var t history.Target
	known := false
	var refused error
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		t, _ = targetOf(act.Instance, s, p)
		cell, removal := p.Cell(t), p.Removal(t)
		known = cell != nil || removal != nil
		row := s.Row(t)
		switch {
		case !known:
		case row != nil && row.Flight != nil:
			refused = api.Fail(v1.Conflict, fmt.Errorf("cannot skip %s: an attempt is in flight", p.Called(t)), "joist cancel stops it")
		case removal != nil && !removal.Failed:
			refused = api.Fail(v1.Conflict, fmt.Errorf("cannot skip the removal of %s: it has not failed", p.Called(t)), "")
		case removal == nil && (cell.Settled() || cell.Verdict == plan.Absent):
			refused = api.Fail(v1.Conflict, fmt.Errorf("cannot skip %s: it is %s", p.Called(t), cell.Verdict), "")
		}
	}); err != nil {
		return err
	}
	switch {
	case !known:
		return noInstance(ctx, loop, cluster, act.Instance)
	case refused != nil:
		return refused
	}
	return loop.Happen(ctx, history.Skipped{Target: t, By: act.By, Reason: act.Reason})
}

// aside has the goal pursued without a node, or with it again.
func aside(ctx context.Context, loop *drive.Cluster, act v1.Action) error {
	if act.Action == v1.Aside && strings.TrimSpace(act.Reason) == "" {
		return api.Fail(v1.Malformed, errors.New("cannot set a node aside without a reason"), "say why: what is to be done there is not done")
	}
	var refused error
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		n := s.Node(act.Node)
		switch {
		case !p.Wants(act.Node):
			refused = api.Fail(v1.NotFound, fmt.Errorf("this cluster has no node %.80q", act.Node), meant(act.Node, nodesOf(s, p), "joist status CLUSTER lists its nodes"))
		case act.Action == v1.Aside && n.Aside != nil:
			refused = api.Fail(v1.Conflict, fmt.Errorf("node %s is set aside already: %s", n.Name, n.Aside.Says()), "")
		case act.Action == v1.Return && n.Aside == nil:
			refused = api.Fail(v1.Conflict, fmt.Errorf("node %s is not set aside", n.Name), "")
		}
	}); err != nil {
		return err
	}
	switch {
	case refused != nil:
		return refused
	case act.Action == v1.Return:
		return loop.Happen(ctx, history.NodeReturned{Node: act.Node, By: act.By, Reason: act.Reason})
	}
	return loop.Happen(ctx, history.NodeAside{Node: act.Node, By: act.By, Reason: act.Reason})
}

// nodesOf lists the nodes that a cluster's goal has.
func nodesOf(s *history.State, p *plan.Planner) []string {
	var names []string
	for _, n := range s.Nodes {
		if p.Wants(n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}

// unforceable says why an instance cannot be made to run, if it cannot.
func unforceable(s *history.State, p *plan.Planner, t history.Target) error {
	task, cell, node := p.Task(t.Task), p.Cell(t), s.Node(t.Node)
	switch {
	case node != nil && node.Aside != nil:
		return api.Fail(v1.Conflict, fmt.Errorf("cannot force %s: its node is set aside", p.Called(t)), "joist node return NODE comes first")
	case cell.Verdict != plan.Absent || cell.Cause.Kind == history.Unasked:
		return nil
	case cell.Cause.Kind == history.Over:
		return api.Fail(v1.Conflict, fmt.Errorf("cannot force %s: it is in place only while %s runs", p.Called(t), strings.Join(task.During, " or ")), "force what it is in place for")
	}
	return api.Fail(v1.Conflict, fmt.Errorf("cannot force %s: it is not in the goal, because its when (of the task at %s:%d) is false", p.Called(t), task.Range.File, task.Range.Line),
		"set the input that its when looks at in the cluster file, and joist apply it; joist force runs it again from then on")
}

// force has an instance run again, or all those that a name on demand stands for. It lists them as people call them.
func force(ctx context.Context, loop *drive.Cluster, cluster string, act v1.Action) ([]string, error) {
	var events []history.Event
	var names []string
	var refused error
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		if s.Outcome == history.OutcomeCancelled {
			refused = api.Fail(v1.Conflict, fmt.Errorf("cannot force %s: cluster %s is cancelled, and nothing starts there", act.Instance, cluster), "joist retry CLUSTER goes on; force it then")
			return
		}
		for _, t := range asked(act.Instance, s, p) {
			task := p.Task(t.Task)
			own, _, _ := addr.CutItem(task.CalledNow())
			if task.Asked != "" && task.Asked != own && act.Instance != task.Asked {
				refused = api.Fail(v1.Conflict, fmt.Errorf("cannot force %s: it is a part of what runs on demand, and uses what the others say", p.Called(t)), fmt.Sprintf("joist force %s/%s asks for all of it", cluster, task.Asked))
				return
			}
			if refused = unforceable(s, p, t); refused != nil {
				continue
			}
			events, names = append(events, history.Forced{Target: t, By: act.By, Reason: act.Reason}), append(names, p.Called(t).String())
		}
	}); err != nil {
		return nil, err
	}
	switch {
	case len(events) > 0:
	case refused != nil:
		return nil, refused
	default:
		return nil, noInstance(ctx, loop, cluster, act.Instance)
	}
	for _, e := range events { // a word each: what follows from one is decided before the next
		if err := loop.Happen(ctx, e); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// asked lists the instances of the goal that a name stands for: one, or what runs when somebody asks for a task or a workflow of that
// name.
func asked(name string, s *history.State, p *plan.Planner) []history.Target {
	if t, _ := targetOf(name, s, p); p.Cell(t) != nil {
		return []history.Target{t}
	}
	task, node, ok := addr.ParsePath(name)
	if !ok || node != "" {
		return nil
	}
	return outlook.Asked(p, task)
}

func (a *apiChanges) Certify(ctx context.Context, name string, r v1.CertificateRequest, ttl time.Duration) (*v1.Certificate, error) {
	if _, err := a.Clusters.Get(name); err != nil {
		return nil, a.told(err)
	}
	if a.Operator == nil {
		return nil, api.Fail(v1.Unsupported, errors.New("this engine issues no certificates"), "")
	}
	if ttl > certs.OperatorValidity {
		return nil, api.Fail(v1.Unsupported, fmt.Errorf("operator certificates live for at most %s", certs.OperatorValidity), "ask for less, or leave ttl out")
	}
	c, err := a.Operator(ctx, name, certs.Person{CSR: []byte(r.CSR), Authority: r.Authority, Groups: r.Groups, Validity: ttl})
	if err != nil {
		return nil, a.refused(err)
	}
	return &v1.Certificate{Leaf: c.Leaf, Chain: c.Chain, Root: c.Root, NotAfter: c.NotAfter.UTC()}, nil
}
