package restapi

import (
	"context"

	"joist/engine/outlook"
	"joist/engine/replay"
	"joist/engine/run"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
)

// Replay implements api.Instances.
func (a *apiClusters) Replay(ctx context.Context, name string, q v1.ReplayQuery) (*v1.Replay, error) {
	r, err := Replay(ctx, a.Clusters, name, q)
	if err != nil {
		return nil, a.refused(err)
	}
	return r, nil
}

// Replay runs the core again over a cluster's journal and compares. It needs of the clusters their store, blobs and
// compiler, and that they were started not at all.
func Replay(ctx context.Context, c *clusters.Clusters, name string, q v1.ReplayQuery) (*v1.Replay, error) {
	var look func(*run.Machine)
	var moment *v1.Moment
	if q.At > 0 {
		look = func(m *run.Machine) { moment = momentOf(name, m) }
	}
	r, err := c.Replay(ctx, name, clusters.ReplayRequest{Run: q.Run, At: q.At}, look)
	if err != nil {
		return nil, err
	}
	out := &v1.Replay{
		Cluster: name, Last: r.Last, Runs: []v1.Run{}, Events: r.Report.Events, Decisions: r.Report.Decisions, Restarts: r.Report.Restarts,
		Older: r.Report.Older, Skipped: r.Report.Skipped, Diverged: r.Report.Diverged, Divergences: []v1.Divergence{}, At: moment,
	}
	for _, one := range r.Runs {
		out.Runs = append(out.Runs, v1.Run{
			Goal: v1.Goal{Model: one.Goal.Model.String(), Seq: one.Goal.Seq, By: one.Goal.By, At: one.Time, Roles: one.Goal.Roles, Destroy: one.Goal.Destroy},
			Last: one.Last, Decisions: one.Decisions, Diverged: one.Diverged, Outcome: one.Outcome,
		})
	}
	for _, d := range r.Report.Divergences {
		out.Divergences = append(out.Divergences, v1.Divergence{Seq: d.Seq, Time: d.Time, Expected: decisionOf(d.Expected), Got: decisionOf(d.Got)})
	}
	if moment != nil {
		moment.Event.Seq, moment.Event.Time = r.Last, r.Time
	}
	return out, nil
}

func decisionOf(d *replay.Decision) *v1.Decision {
	if d == nil {
		return nil
	}
	return &v1.Decision{Kind: d.Kind, Data: d.Data}
}

// momentOf is the state of a cluster in the form that its present state has.
func momentOf(name string, machine *run.Machine) *v1.Moment {
	m := &v1.Moment{ClusterDetail: v1.ClusterDetail{
		Cluster: v1.Cluster{Name: name, Counts: map[string]int{}, States: map[string]int{}, Events: machine.State().Seq},
		Members: []v1.Member{}, Running: []v1.Item{}, Failed: []v1.Item{}, Waiting: []v1.Wait{},
	}, Items: []v1.Item{}}
	items, tally := outlook.Items(machine.Plan()), outlook.Count(machine.Plan())
	fillSummary(&m.Cluster, machine, tally)
	fillDetail(&m.ClusterDetail, machine, tally)
	outlook.SortForPeople(items)
	for i := range items {
		m.Items = append(m.Items, itemOf(machine.Plan(), &items[i]))
	}
	return m
}
