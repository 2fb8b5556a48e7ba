package restapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"joist/engine/addr"
	"slices"
	"strings"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/run"
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
		var unknown *clusters.UnknownError
		if _, gone := a.Clusters.Get(name); err != nil && errors.As(gone, &unknown) {
			continue // it was forgotten meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, *c)
	}
	return list, nil
}

// summary looks at one cluster. more is called inside the loop, where everything stands still: it has to be quick.
func (a *apiClusters) summary(ctx context.Context, name string, more func(*run.Machine, outlook.Tally)) (*v1.Cluster, error) {
	loop, err := a.Clusters.Get(name)
	var unknown *clusters.UnknownError
	if err != nil && !errors.As(err, &unknown) { // the others are listed all the same
		return &v1.Cluster{Name: name, Outcome: "failed", Detail: err.Error(), Counts: map[string]int{}, States: map[string]int{}}, nil
	}
	if err != nil {
		return nil, a.told(err)
	}
	c := &v1.Cluster{Name: name, Counts: map[string]int{}, States: map[string]int{}, Events: loop.Journal().Last()}
	err = loop.Inspect(ctx, func(m *run.Machine) {
		tally := outlook.Count(m.Plan())
		fillSummary(c, m, tally)
		if more != nil {
			more(m, tally)
		}
	})
	if err != nil && loop.Err() != nil {
		c.Outcome, c.Detail = "failed", "its loop ended: "+loop.Err().Error()
		return c, nil
	}
	return c, err
}

func fillSummary(c *v1.Cluster, m *run.Machine, tally outlook.Tally) {
	s, p := m.State(), m.Plan()
	c.Counts, c.States = tally.Verdicts, tally.States
	c.Workflow = p.Model().Workflow
	fillGoal(c, s, p)
	for _, n := range s.Nodes {
		if p.Wants(n.Name) {
			c.Nodes++
			if n.Online {
				c.Online++
			}
		}
	}
	for _, b := range m.Rollouts() {
		if b.Stopped {
			c.Breakers = append(c.Breakers, v1.Breaker{Rollout: rolloutName(p, b.Name), Failures: b.Failures})
		}
	}
}

func fillGoal(c *v1.Cluster, s *history.State, p *plan.Planner) {
	g := s.Goal()
	if g == nil {
		c.Outcome = "idle"
		return
	}
	c.Outcome, c.Detail = s.Outcome, s.Detail
	if c.Outcome == "" {
		c.Outcome = "converging"
	}
	c.Goal = v1.Goal{Model: g.Model.String(), Seq: g.Seq, By: g.By, Roles: p.CalledRoles(g.Roles), Destroy: g.Destroy, Expires: g.Expires, Run: g.Run}
}

func (a *apiClusters) Get(ctx context.Context, name string) (*v1.ClusterDetail, error) {
	d := &v1.ClusterDetail{Members: []v1.Member{}, Running: []v1.Item{}, Failed: []v1.Item{}, Waiting: []v1.Wait{}, Blocked: []v1.Blockage{}, Rollouts: []v1.Rollout{}}
	c, err := a.summary(ctx, name, func(m *run.Machine, tally outlook.Tally) { fillDetail(d, m, tally) })
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

func fillDetail(d *v1.ClusterDetail, m *run.Machine, tally outlook.Tally) {
	s, p := m.State(), m.Plan()
	items := outlook.OpenItems(p)
	waits := map[string]int{}
	var blocked []v1.Item
	for i := range items {
		it := &items[i]
		switch it.State {
		case outlook.Running, outlook.Removing:
			d.Running = append(d.Running, itemOf(p, it))
		case outlook.Failed:
			d.Failed = append(d.Failed, itemOf(p, it))
		case outlook.Skipped:
			d.Skipped = append(d.Skipped, itemOf(p, it))
		case outlook.Blocked:
			blocked = append(blocked, itemOf(p, it))
		case outlook.Waiting:
			if it.Wait.Kind != history.Same {
				waits[p.CalledCause(it.Wait).Because()]++
			}
		}
	}
	d.Running = d.Running[:min(len(d.Running), most)]
	d.Skipped = d.Skipped[:min(len(d.Skipped), most)]
	d.Failed = append(d.Failed, blocked...)
	d.Failed = d.Failed[:min(len(d.Failed), most)]
	for says, n := range waits {
		d.Waiting = append(d.Waiting, v1.Wait{Says: says, Count: n})
	}
	slices.SortFunc(d.Waiting, func(a, b v1.Wait) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Says, b.Says))
	})
	d.Waiting = d.Waiting[:min(len(d.Waiting), most)]
	d.Blocked = Blockages(m, items)
	for _, a := range outlook.Approvals(p) {
		if len(d.Asking) < most {
			d.Asking = append(d.Asking, v1.Asked{Instance: p.Called(a.Target).String(), Asks: a.Asks, Digest: a.Input.String()})
		}
	}
	for _, r := range m.Rollouts() {
		d.Rollouts = append(d.Rollouts, rolloutOf(p, r))
	}
	d.Members = members(s, p, tally)
	fillDrift(d, m, items)
}

// Blockages collects what waits, of these items, by what is at the bottom of it.
func Blockages(m *run.Machine, items []outlook.Item) []v1.Blockage {
	list := []v1.Blockage{}
	for _, g := range outlook.RootsOf(m).Groups(items) {
		if len(list) == most {
			break
		}
		g.Root = g.Called(m.Plan())
		b := v1.Blockage{By: string(g.By), Says: g.Says(), Cause: causeOf(g.Cause), Count: g.Count}
		if g.Root.Of.Task != "" {
			b.Instance = g.Root.Of.String()
		} else {
			b.Node = g.Root.Of.Node
		}
		for _, t := range g.Instances {
			b.Instances = append(b.Instances, m.Plan().Called(t).String())
		}
		list = append(list, b)
	}
	return list
}

// rolloutName gives what people call a rollout.
func rolloutName(p *plan.Planner, name string) string {
	for i := range p.Model().Rollouts {
		if r := &p.Model().Rollouts[i]; r.Name == name {
			return r.CalledNow()
		}
	}
	return name
}

func rolloutOf(p *plan.Planner, r run.Rollout) v1.Rollout {
	tasks := slices.Clone(r.Tasks)
	for i, task := range tasks {
		tasks[i] = p.Called(history.Target{Task: task}).Task
	}
	out := v1.Rollout{Name: rolloutName(p, r.Name), Tasks: tasks, Nodes: r.Total, Limit: r.Limit, Places: r.Places, Settling: r.Settling, Proven: r.Proven, Failures: r.Failures, StopAfter: r.StopAfter, Stopped: r.Stopped}
	if r.Broke.Task != "" {
		out.Broke = p.Called(r.Broke).String()
	}
	return out
}

func members(s *history.State, p *plan.Planner, tally outlook.Tally) []v1.Member {
	var roles map[string][]string
	if g := s.Goal(); g != nil {
		roles = p.CalledRoles(g.Roles)
	}
	list := []v1.Member{}
	for _, n := range s.Nodes {
		wanted := p.Wants(n.Name)
		if !wanted && (n.Released || tally.Nodes[n.Name] == nil) {
			continue
		}
		m := v1.Member{Name: n.Name, Online: n.Online, Since: n.Since, Address: n.Address, Incarnation: n.Incarnation, Level: n.Level, Leaving: !wanted, States: tally.Nodes[n.Name]}
		if n.Aside != nil {
			m.Aside = n.Aside.Says()
		}
		if m.States == nil {
			m.States = map[string]int{}
		}
		for role, names := range roles {
			if _, plays := slices.BinarySearch(names, n.Name); plays {
				m.Roles = append(m.Roles, role)
			}
		}
		slices.Sort(m.Roles)
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b v1.Member) int { return strings.Compare(a.Name, b.Name) })
	return list
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
		for name, v := range outlook.Yield(p) {
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

// targetOf reads task[node], task, or one item of a task. What a shell takes the quotes from is an item all the same, if
// there is no such node. What was renamed is found by its former names too; the notice says so.
func targetOf(instance string, s *history.State, p *plan.Planner) (t history.Target, notice string) {
	task, node, ok := addr.ParsePath(instance)
	if !ok {
		task, node, _ = strings.Cut(instance, "[")
		node = strings.TrimSuffix(node, "]")
	}
	t, now := p.Standing(history.Target{Task: task, Node: node})
	known := func(t history.Target) bool { return p.Cell(t) != nil || s.Row(t) != nil }
	if bare, ok := addr.BareItem(task, node); ok && !known(t) {
		if item, called := p.Standing(history.Target{Task: bare}); known(item) {
			t, now = item, called
		}
	}
	if !now && known(t) {
		notice = fmt.Sprintf("%s is called %s now", instance, p.Called(t))
	}
	return t, notice
}

func (a *apiClusters) Why(ctx context.Context, name, instance string) (*v1.Why, error) {
	loop, err := a.Clusters.Get(name)
	if err != nil {
		return nil, a.told(err)
	}
	var t history.Target
	why := &v1.Why{Instance: instance}
	seqs := map[uint64]bool{}
	var retried []history.Target
	var tries map[history.Target]try
	look := func(s *history.State, p *plan.Planner) {
		if t, why.Notice = targetOf(instance, s, p); instance == "" {
			if t = lastInPlace(s, p); t.Task != "" {
				why.Instance = p.Called(t).String()
			}
		}
		if p.Cell(t) == nil && s.Row(t) == nil {
			return
		}
		var links []outlook.Link
		links, retried = outlook.Why(p, t, firstsOf(tries))
		why.Chain, seqs = nil, map[uint64]bool{}
		for _, l := range links {
			link := v1.Link{Says: l.Says, Seq: l.Seq}
			if row := s.Row(l.Of); row != nil && row.Phase == history.InPlace && l.Seq == row.Started {
				link.Begun, link.Done = row.Begun.UTC(), row.Done.UTC()
				if first, ok := tries[l.Of]; ok && row.Cause.Kind == history.Interrupted {
					link.Tried, link.Attempts = first.at.UTC(), first.attempts
				}
			}
			if l.Of != (history.Target{}) {
				link.Instance = p.Called(l.Of).String()
			}
			seqs[l.Seq] = l.Seq > 0
			why.Chain = append(why.Chain, link)
		}
	}
	if err := loop.Look(ctx, look); err != nil {
		return nil, err
	}
	if len(retried) > 0 { // why they were tried at first is told by the journal alone
		if tries, err = a.tries(ctx, name); err == nil {
			err = loop.Look(ctx, look)
		}
		if err != nil {
			return nil, err
		}
	}
	if why.Chain == nil && instance == "" {
		return why, nil // nothing is in place yet
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

// lastInPlace is the instance that came to be in place last: where the way that took longest ends.
func lastInPlace(s *history.State, p *plan.Planner) history.Target {
	var last history.Target
	var at uint64
	for _, it := range outlook.Items(p) {
		if row := s.Row(it.Target); row != nil && row.Phase == history.InPlace && row.Ended > at {
			at, last = row.Ended, it.Target
		}
	}
	return last
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
	var out *v1.Instance
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		t, notice := targetOf(instance, s, p)
		instance = t.String()
		if it, ok := outlook.One(p, t); ok {
			out = &v1.Instance{Item: itemOf(p, &it), Notice: notice}
		}
		if out != nil {
			fillRow(out, t, p)
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

func fillRow(out *v1.Instance, t history.Target, p *plan.Planner) {
	row := p.State().Row(t)
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
		task = m.Task(t.Task)
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
