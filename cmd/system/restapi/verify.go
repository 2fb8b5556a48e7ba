package restapi

import (
	"context"
	"errors"
	"slices"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/run/upkeep"
	"joist/services/api"
	v1 "joist/services/api/v1"
)

// mostLooks bounds what one answer lists of a verification.
const mostLooks = 1000

// Verify implements api.Instances.
func (a *apiClusters) Verify(ctx context.Context, name string, v v1.Verify) (*v1.Verification, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	targets, err := targetsOf(ctx, loop, name, v.Instances)
	if err != nil {
		return nil, err
	}
	id, err := loop.Verify(ctx, v.By, targets)
	if err != nil {
		return nil, api.Fail(v1.Conflict, err, "joist status CLUSTER says how it stands")
	}
	return a.Verified(ctx, name, id, 0)
}

// targetsOf gives the instances of a list in which a task stands for all of its instances.
func targetsOf(ctx context.Context, loop *drive.Cluster, cluster string, names []string) ([]history.Target, error) {
	var targets []history.Target
	unknown := ""
	err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		all := map[string][]history.Target{}
		p.Each(func(t history.Target, _ *model.Task, _ *plan.Cell) { all[t.Task] = append(all[t.Task], t) })
		for _, name := range names {
			t, _ := targetOf(name, s, p)
			switch {
			case t.Node == "" && len(all[t.Task]) > 0:
				targets = append(targets, all[t.Task]...)
			case p.Cell(t) != nil:
				targets = append(targets, t)
			case unknown == "":
				unknown = name
			}
		}
	})
	if err == nil && unknown != "" {
		err = noInstance(ctx, loop, cluster, unknown)
	}
	return targets, err
}

// Verified implements api.Instances.
func (a *apiClusters) Verified(ctx context.Context, name string, id uint64, skip int) (*v1.Verification, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	var q upkeep.Inquiry
	var missing error
	if err := loop.Inspect(ctx, func(m *run.Machine) {
		q, missing = m.Inquiry(id, skip, mostLooks)
		q.Ended = slices.Clone(q.Ended)
		for i := range q.Ended {
			q.Ended[i].Target = m.Plan().Called(q.Ended[i].Target)
		}
	}); err != nil {
		return nil, err
	}
	if errors.Is(missing, upkeep.ErrNoInquiry) {
		return nil, api.Fail(v1.NotFound, missing, "joist verify CLUSTER asks again")
	}
	out := &v1.Verification{ID: q.ID, Cluster: name, By: q.By, Asked: q.Asked, Open: map[string]int{}, Ended: []v1.Look{}}
	for state, n := range q.Open {
		out.Open[string(state)] = n
	}
	for _, l := range q.Ended {
		out.Ended = append(out.Ended, v1.Look{Instance: l.Target.String(), State: string(l.State), Observed: l.Observed, At: l.At.UTC()})
	}
	return out, nil
}

// fillDrift says how what is in place is verified, and what has drifted.
func fillDrift(d *v1.ClusterDetail, m *run.Machine, items []outlook.Item) {
	for i := range items {
		if it := &items[i]; it.Verdict == plan.Kept && it.Cause.Kind == history.Drift && len(d.Drifted) < most {
			d.Drifted = append(d.Drifted, itemOf(m.Plan(), it))
		}
	}
	set, looked := m.Plan().Model().Drift, m.Looked()
	d.Drift = &v1.Drift{Every: set.Every.Seconds(), AtOnce: set.AtOnce, Converge: "itself", InPlace: looked.InPlace, Found: looked.Drifted, Silent: looked.Silent, Last: looked.Last.UTC()}
	if set.Waits {
		d.Drift.Converge = "person"
	}
}
