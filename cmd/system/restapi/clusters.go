package restapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
)

// apiClusters implements api.Clusters and api.Instances.
type apiClusters struct{ Parts }

// most bounds the lists of a cluster's detail.
const most = 200

func (a *apiClusters) List(ctx context.Context) ([]v1.Cluster, error) {
	list := []v1.Cluster{}
	for _, name := range a.Clusters.Names() {
		c, err := a.summary(ctx, name, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, *c)
	}
	return list, nil
}

// summary looks at one cluster. more is called with the plan's items, inside the loop, where state and plan stand still.
func (a *apiClusters) summary(ctx context.Context, name string, more func(*history.State, *plan.Planner, []plan.Item)) (*v1.Cluster, error) {
	loop, err := a.Clusters.Get(name)
	var unknown *clusters.UnknownError
	if err != nil && !errors.As(err, &unknown) { // the others are listed all the same
		return &v1.Cluster{Name: name, Outcome: "failed", Detail: err.Error(), Counts: map[string]int{}, States: map[string]int{}}, nil
	}
	if err != nil {
		return nil, a.told(err)
	}
	c := &v1.Cluster{Name: name, Counts: map[string]int{}, States: map[string]int{}, Events: loop.Journal().Last()}
	err = loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		items := p.Items()
		fillSummary(c, s, p, items)
		if more != nil {
			more(s, p, items)
		}
	})
	if err != nil && loop.Err() != nil {
		c.Outcome, c.Detail = "failed", "its loop ended: "+loop.Err().Error()
		return c, nil
	}
	return c, err
}

func fillSummary(c *v1.Cluster, s *history.State, p *plan.Planner, items []plan.Item) {
	c.Counts = plan.Count(items)
	for i := range items {
		c.States[items[i].State]++
	}
	c.Workflow = p.Model().Workflow
	fillGoal(c, s)
	for _, n := range s.Nodes {
		if p.Wants(n.Name) {
			c.Nodes++
			if n.Online {
				c.Online++
			}
		}
	}
	c.Breakers = openBreakers(s, p)
}

func fillGoal(c *v1.Cluster, s *history.State) {
	g := s.Goal()
	if g == nil {
		c.Outcome = "idle"
		return
	}
	c.Outcome, c.Detail = s.Outcome, s.Detail
	if c.Outcome == "" {
		c.Outcome = "converging"
	}
	c.Goal = v1.Goal{Model: g.Model.String(), Seq: g.Seq, By: g.By, Roles: maps.Clone(g.Roles), Destroy: g.Destroy}
}

// openBreakers lists the rollouts in which failures have stopped everything further.
func openBreakers(s *history.State, p *plan.Planner) []v1.Breaker {
	var open []v1.Breaker
	for _, r := range p.Model().Rollouts {
		if b := s.Budgets[r.Name]; b != nil && b.Failures > 0 && b.Failures >= allowed(r, p) {
			open = append(open, v1.Breaker{Rollout: r.Name, Failures: b.Failures})
		}
	}
	return open
}

func allowed(r model.Rollout, p *plan.Planner) int {
	n := r.StopAfter.N
	if r.StopAfter.Percent {
		nodes := 0
		for _, role := range r.Roles {
			nodes += len(p.Role(role))
		}
		n = nodes * n / 100
	}
	return max(n, 1)
}

func (a *apiClusters) Get(ctx context.Context, name string) (*v1.ClusterDetail, error) {
	d := &v1.ClusterDetail{Members: []v1.Member{}, Running: []v1.Item{}, Failed: []v1.Item{}, Waiting: []v1.Wait{}}
	c, err := a.summary(ctx, name, func(s *history.State, p *plan.Planner, items []plan.Item) { fillDetail(d, s, p, items) })
	if err != nil {
		return nil, err
	}
	d.Cluster = *c
	if d.Digests, err = a.Digests(ctx, name); err != nil {
		return nil, err
	}
	if d.Goal.Seq > 0 {
		d.Goal.At = a.timesOf(ctx, name, map[uint64]bool{d.Goal.Seq: true})[d.Goal.Seq]
	}
	for i := range d.Members {
		if m, ok := a.Site.Lookup(d.Members[i].Name); ok {
			d.Members[i].Boot = a.Phase(m).Sentence
		}
	}
	return d, nil
}

func fillDetail(d *v1.ClusterDetail, s *history.State, p *plan.Planner, items []plan.Item) {
	states := map[string]map[string]int{}
	waits := map[string]int{}
	var blocked []v1.Item
	for i := range items {
		it := &items[i]
		if it.Node != "" {
			if states[it.Node] == nil {
				states[it.Node] = map[string]int{}
			}
			states[it.Node][it.State]++
		}
		switch it.State {
		case "running", "removing":
			d.Running = append(d.Running, itemOf(it))
		case "failed":
			d.Failed = append(d.Failed, itemOf(it))
		case "blocked":
			blocked = append(blocked, itemOf(it))
		case "waiting":
			if it.Wait.Kind != history.Same {
				waits[it.Wait.Because()]++
			}
		}
	}
	d.Running = d.Running[:min(len(d.Running), most)]
	d.Failed = append(d.Failed, blocked...)
	d.Failed = d.Failed[:min(len(d.Failed), most)]
	for says, n := range waits {
		d.Waiting = append(d.Waiting, v1.Wait{Says: says, Count: n})
	}
	slices.SortFunc(d.Waiting, func(a, b v1.Wait) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Says, b.Says))
	})
	d.Waiting = d.Waiting[:min(len(d.Waiting), most)]
	var roles map[string][]string
	if g := s.Goal(); g != nil {
		roles = g.Roles
	}
	for _, n := range s.Nodes {
		wanted := p.Wants(n.Name)
		if !wanted && (n.Released || states[n.Name] == nil) {
			continue
		}
		m := v1.Member{Name: n.Name, Online: n.Online, Since: n.Since, Address: n.Address, Incarnation: n.Incarnation, Level: n.Level, Leaving: !wanted, States: states[n.Name]}
		if m.States == nil {
			m.States = map[string]int{}
		}
		for role, names := range roles {
			if slices.Contains(names, n.Name) {
				m.Roles = append(m.Roles, role)
			}
		}
		slices.Sort(m.Roles)
		d.Members = append(d.Members, m)
	}
	slices.SortFunc(d.Members, func(a, b v1.Member) int { return strings.Compare(a.Name, b.Name) })
}

func itemOf(it *plan.Item) v1.Item {
	item := v1.Item{
		Instance: it.Target.String(), Task: it.Task, Node: it.Node, Step: it.Step, Verdict: it.Verdict.String(), State: it.State,
		Attempt: it.Attempt, Error: it.Error, Seconds: it.Seconds, Agent: it.Agent,
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
	return item
}

func planForm(p *clusters.Plan) *v1.Plan {
	out := &v1.Plan{Cluster: p.Cluster, Counts: p.Counts, Items: make([]v1.Item, len(p.Items)), Warnings: p.Warnings}
	plan.SortForPeople(p.Items)
	for i := range p.Items {
		out.Items[i] = itemOf(&p.Items[i])
		switch p.Items[i].Verdict {
		case plan.Unchanged, plan.Kept, plan.Absent:
		default:
			out.Changes = true
		}
	}
	return out
}

func (a *apiClusters) Plan(ctx context.Context, name string) (*v1.Plan, error) {
	p, err := a.Clusters.Current(ctx, name)
	if err != nil {
		return nil, a.told(err)
	}
	return planForm(p), nil
}

func (a *apiClusters) Preview(ctx context.Context, s v1.Source) (*v1.Plan, error) {
	p, err := a.Clusters.Preview(ctx, sourceOf(s))
	if err != nil {
		return nil, a.refused(err)
	}
	return planForm(p), nil
}

func sourceOf(s v1.Source) clusters.Source {
	return clusters.Source{FileName: s.FileName, File: s.File, Packs: s.Packs}
}

func (a *apiClusters) Outputs(ctx context.Context, name string) (*v1.Outputs, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	out := &v1.Outputs{Cluster: name, Values: map[string]json.RawMessage{}}
	err = loop.Look(ctx, func(_ *history.State, p *plan.Planner) {
		secret := secretOutputs(p.Model())
		for name, v := range p.Yield() {
			data, err := v.MarshalJSON()
			if err != nil { // not wholly known yet
				data = []byte("null")
			}
			if secret[name] {
				data = []byte(`"(secret)"`)
			}
			out.Values[name] = data
		}
	})
	return out, err
}

// secretOutputs names the outputs of a workflow that may carry a secret: those that read a step's output which holds one.
func secretOutputs(m *model.Model) map[string]bool {
	secret := map[string]bool{}
	for i := range m.Outputs {
		for _, r := range m.Outputs[i].Refs {
			if r.Kind != model.RefTask && r.Kind != model.RefAll && r.Kind != model.RefHost {
				continue
			}
			task := m.Task(r.Name)
			if task == nil {
				continue
			}
			for _, f := range task.Step.Outputs {
				if (r.Attr == "" || r.Attr == f.Name) && f.Type.Holds(value.Secret) {
					secret[m.Outputs[i].Name] = true
				}
			}
		}
	}
	return secret
}

// targetOf reads task[node] or task.
func targetOf(instance string) history.Target {
	task, node, _ := strings.Cut(instance, "[")
	return history.Target{Task: task, Node: strings.TrimSuffix(node, "]")}
}

func (a *apiClusters) Why(ctx context.Context, name, instance string) (*v1.Why, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	t := targetOf(instance)
	why := &v1.Why{Instance: instance}
	seqs := map[uint64]bool{}
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		if p.Cell(t) == nil && s.Row(t) == nil {
			return
		}
		for _, l := range p.Why(t) {
			link := v1.Link{Says: l.Says, Seq: l.Seq}
			if l.Of != (history.Target{}) {
				link.Instance = l.Of.String()
			}
			seqs[l.Seq] = l.Seq > 0
			why.Chain = append(why.Chain, link)
		}
	}); err != nil {
		return nil, err
	}
	if why.Chain == nil {
		return nil, noInstance(ctx, loop, name, instance)
	}
	times := a.timesOf(ctx, name, seqs)
	for i := range why.Chain {
		why.Chain[i].At = times[why.Chain[i].Seq]
	}
	return why, nil
}

var errFound = errors.New("found")

// timesOf gives the times of events. One that cannot be read has none: it decorates an answer, no more.
func (a *apiClusters) timesOf(ctx context.Context, cluster string, seqs map[uint64]bool) map[uint64]time.Time {
	times := map[uint64]time.Time{}
	for seq, wanted := range seqs {
		if !wanted {
			continue
		}
		_ = a.Store.Read(ctx, drive.JournalOf(cluster), seq-1, func(r journal.Record) error {
			times[r.Seq] = r.Time.UTC()
			return errFound
		})
	}
	return times
}

func (a *apiClusters) Instance(ctx context.Context, name, instance string) (*v1.Instance, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	t := targetOf(instance)
	var out *v1.Instance
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		for _, it := range p.Items() {
			if it.Target == t {
				out = &v1.Instance{Item: itemOf(&it)}
			}
		}
		if out != nil {
			fillRow(out, s.Row(t), p)
		}
	}); err != nil {
		return nil, err
	}
	if out == nil {
		return nil, noInstance(ctx, loop, name, instance)
	}
	out.Log = a.Log(name, instance)
	return out, nil
}

func fillRow(out *v1.Instance, row *history.Row, p *plan.Planner) {
	if row == nil {
		return
	}
	out.Started, out.Ended, out.Begun, out.Done, out.Due = row.Started, row.Ended, row.Begun.UTC(), row.Done.UTC(), row.Due.UTC()
	out.Incarnation, out.StepDigest, out.InputDigest = row.Life.Incarnation, row.Step.String(), row.Input.String()
	if row.Phase != history.InPlace {
		return
	}
	var task *model.Task
	if m := p.ModelOf(row.Goal); m != nil {
		task = m.Task(out.Task)
	}
	out.Outputs = withoutSecrets(row.Outputs, task)
}

// withoutSecrets leaves out what is, or holds, a secret; all of it where the types are not known any more.
func withoutSecrets(data json.RawMessage, task *model.Task) json.RawMessage {
	var values map[string]json.RawMessage
	if task == nil || len(data) == 0 || json.Unmarshal(data, &values) != nil {
		return nil
	}
	shown := map[string]json.RawMessage{}
	for _, f := range task.Step.Outputs {
		v, ok := values[f.Name]
		switch {
		case !ok:
		case f.Type.Holds(value.Secret):
			shown[f.Name] = json.RawMessage(`"(secret)"`)
		default:
			shown[f.Name] = v
		}
	}
	out, err := json.Marshal(shown)
	if err != nil {
		return nil
	}
	return out
}
