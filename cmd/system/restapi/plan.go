package restapi

import (
	"context"
	"errors"
	"fmt"

	"joist/cmd/system/findings"
	"joist/engine/addr"
	"joist/engine/history"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
)

// itemOf gives an instance of a plan the form in which it travels.
func itemOf(p *plan.Planner, it *outlook.Item) v1.Item {
	called := it.Called(p)
	return itemForm(&called)
}

// itemForm is itemOf for an item that has the names that people know.
func itemForm(it *outlook.Item) v1.Item {
	item := v1.Item{
		Instance: it.Target.String(), Task: addr.Path(it.Task, ""), Node: it.Node, Step: it.Step, Verdict: it.Verdict.String(), State: string(it.State),
		Attempt: it.Attempt, Error: it.Error, Seconds: it.Seconds, Agent: it.Agent,
		Cause: causeOf(it.Cause), Wait: causeOf(it.Wait), Inputs: it.Input.String(), Expected: it.Expected, Asked: it.Asked,
	}
	if it.Verdict == plan.Remove || it.Verdict == plan.Replace {
		item.Danger = v1.DangerRemoval
	}
	if it.Reboots {
		item.Danger = v1.DangerReboot
	}
	if it.Cause.Kind != history.Same {
		item.Because = it.Cause.Because()
	}
	if it.Cause.Of.Task != "" {
		item.Of = it.Cause.Of.String()
	}
	if it.Wait.Kind != history.Same {
		item.Waits = it.Wait.Because()
	}
	for _, u := range it.Known {
		one := v1.Pending{Input: u.Input, Count: u.Count}
		if u.After.Task == "" {
			one.Node = u.After.Node
		} else {
			one.After = u.After.String()
		}
		item.Known = append(item.Known, one)
	}
	return item
}

func causeOf(c plan.Cause) *v1.Cause {
	if c.Kind == history.Same {
		return nil
	}
	out := &v1.Cause{Kind: string(c.Kind), Input: c.Input, Text: c.Text}
	if c.Of.Task != "" {
		out.Instance = c.Of.String()
	} else {
		out.Node = c.Of.Node
	}
	return out
}

func planForm(p *clusters.Plan) *v1.Plan {
	out := &v1.Plan{
		Format: v1.PlanFormat, Cluster: p.Cluster, Destroy: p.Destroy, Counts: p.Whole.Counts, Runs: v1.Bounds(p.Whole.Runs), Seconds: p.Whole.Seconds,
		Base:  v1.PlanBase{Seq: p.Seq, Model: p.Model.String(), Roles: p.Roles},
		Tasks: []v1.PlanTask{}, Nodes: []v1.PlanNode{}, Items: make([]v1.Item, len(p.Items)), Warnings: p.Warnings,
	}
	if out.Base.Roles == nil {
		out.Base.Roles = map[string][]string{}
	}
	for _, m := range p.Missing {
		out.Missing = append(out.Missing, v1.Missing{Role: m.Role, Nodes: m.Nodes, Says: inShort(m.Err)})
	}
	for i := range p.Refused {
		out.Refused = append(out.Refused, refusalOf(&p.Refused[i]))
	}
	for _, t := range p.Tasks {
		out.Tasks = append(out.Tasks, v1.PlanTask{Task: addr.Path(t.Task, ""), Step: t.Step, Counts: t.Counts, Runs: v1.Bounds(t.Runs), Seconds: t.Seconds})
	}
	for _, n := range p.Nodes {
		node := v1.PlanNode{Node: n.Name, Roles: n.Roles, Change: n.Change}
		if n.Wiped {
			node.Danger = v1.DangerWipe
		}
		out.Nodes = append(out.Nodes, node)
		out.Changes = out.Changes || n.Change == clusters.Leaves
	}
	outlook.SortForPeople(p.Items)
	for i := range p.Items {
		out.Items[i] = itemForm(&p.Items[i])
		switch p.Items[i].Verdict {
		case plan.Unchanged, plan.Kept, plan.Absent, plan.Skipped, plan.Aside:
		default:
			out.Changes = true
		}
	}
	return out
}

func (a *apiClusters) Plan(ctx context.Context, name string, destroy bool, overrides []v1.Override) (*v1.Plan, error) {
	look := a.Clusters.Current
	if destroy {
		look = func(ctx context.Context, name string) (*clusters.Plan, error) {
			return a.Clusters.PreviewDestroy(ctx, name, overridesOf(overrides)...)
		}
	}
	p, err := look(ctx, name)
	if err != nil {
		return nil, a.told(err)
	}
	return planForm(p), nil
}

func (a *apiClusters) Preview(ctx context.Context, in v1.Apply) (*v1.Plan, error) {
	p, err := a.Clusters.Preview(ctx, sourceOf(in.Source), overridesOf(in.Overrides)...)
	if err != nil {
		return nil, a.refused(err)
	}
	return planForm(p), nil
}

// applyPlan makes a declaration the goal if that does exactly what was planned.
func (a *apiChanges) applyPlan(ctx context.Context, in v1.Apply) (*clusters.Accepted, error) {
	if in.Plan.Format != v1.PlanFormat {
		return nil, api.Fail(v1.Malformed, fmt.Errorf("the plan's format is %.40q, this engine knows %q", in.Plan.Format, v1.PlanFormat), "plan again with this release")
	}
	want := clusters.Planned{Cluster: in.Plan.Cluster, Seq: in.Plan.Base.Seq, Model: in.Plan.Base.Model, Roles: in.Plan.Base.Roles, Nodes: map[string]clusters.NodeChange{}}
	for _, n := range in.Plan.Nodes {
		want.Nodes[n.Node] = clusters.NodeChange{Name: n.Node, Change: n.Change, Wiped: n.Danger == v1.DangerWipe}
	}
	for i := range in.Plan.Items {
		it := &in.Plan.Items[i]
		one := clusters.PlannedItem{Instance: it.Instance, Verdict: it.Verdict, Input: it.Inputs}
		if it.Cause != nil {
			one.Cause = it.Cause.Kind
		}
		want.Items = append(want.Items, one)
	}
	done, err := a.Clusters.ApplyPlan(ctx, sourceOf(in.Source), want, said(in))
	var changed *clusters.ChangedError
	if errors.As(err, &changed) {
		return nil, api.Fail(v1.Conflict, err, "nothing was changed; plan again, look, and apply the new plan")
	}
	return done, err
}

// inShort gives an error as one sentence, with its place and without the source there.
func inShort(err error) string {
	if found := findings.Of(err); len(found) > 0 {
		return fmt.Sprintf("%s:%d:%d: %s", found[0].File, found[0].Line, found[0].Column, found[0].Message)
	}
	return err.Error()
}
