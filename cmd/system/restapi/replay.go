package restapi

import (
	"context"

	"joist/engine/history"
	"joist/engine/plan"
	"joist/engine/replay"
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
	var look func(*history.State, *plan.Planner)
	var moment *v1.Moment
	if q.At > 0 {
		look = func(s *history.State, p *plan.Planner) { moment = momentOf(name, s, p) }
	}
	r, err := c.Replay(ctx, name, clusters.ReplayRequest{Run: q.Run, At: q.At}, look)
	if err != nil {
		return nil, err
	}
	out := &v1.Replay{
		Cluster: name, Last: r.Last, Runs: []v1.Run{}, Events: r.Report.Events, Decisions: r.Report.Decisions, Restarts: r.Report.Restarts,
		Skipped: r.Report.Skipped, Diverged: r.Report.Diverged, Divergences: []v1.Divergence{}, At: moment,
	}
	for _, run := range r.Runs {
		out.Runs = append(out.Runs, v1.Run{
			Goal: v1.Goal{Model: run.Goal.Model.String(), Seq: run.Goal.Seq, By: run.Goal.By, At: run.Time, Roles: run.Goal.Roles, Destroy: run.Goal.Destroy},
			Last: run.Last, Decisions: run.Decisions, Diverged: run.Diverged, Outcome: run.Outcome,
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
func momentOf(name string, s *history.State, p *plan.Planner) *v1.Moment {
	m := &v1.Moment{ClusterDetail: v1.ClusterDetail{
		Cluster: v1.Cluster{Name: name, Counts: map[string]int{}, States: map[string]int{}, Events: s.Seq},
		Members: []v1.Member{}, Running: []v1.Item{}, Failed: []v1.Item{}, Waiting: []v1.Wait{},
	}, Items: []v1.Item{}}
	items := p.Items()
	fillSummary(&m.Cluster, s, p, items)
	fillDetail(&m.ClusterDetail, s, p, items)
	plan.SortForPeople(items)
	for i := range items {
		m.Items = append(m.Items, itemOf(&items[i]))
	}
	return m
}
