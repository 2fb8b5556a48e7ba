package replay_test

import (
	"encoding/json"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/replay"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// cluster is a machine with its journal: two nodes, each with an entry `a` of a service and a script `z`.
type cluster struct {
	t       *testing.T
	machine *run.Machine
	model   *model.Model
	now     time.Time
	journal []journal.Record
}

func (c *cluster) Model(history.Goal) *model.Model { return c.model }
func (c *cluster) Blob(value.Digest) []byte        { return nil }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	action := model.Action{Timeout: time.Minute, Attempts: 3, Backoff: time.Second}
	entry, script := action, action
	entry.Call, script.Script = "x.put", &model.Script{}
	m := &model.Model{Cluster: "c", Trust: model.Claimed, Digest: value.Sum([]byte("m")), Tasks: []model.Task{
		{Name: "a", Each: []string{"m"}, Step: &model.Step{Name: "p.a", Scope: model.Service, Digest: value.Sum([]byte("a")), Apply: entry}},
		{Name: "z", Each: []string{"m"}, Step: &model.Step{Name: "p.z", Scope: model.Node, Digest: value.Sum([]byte("z")), Apply: script, Remove: &script}},
	}}
	c := &cluster{t: t, model: m, now: time.Unix(1_000_000, 0).UTC()}
	c.machine = run.New(history.New(), c)
	c.tell(history.Goal{Model: m.Digest, Roles: map[string][]string{"m": {"n1", "n2"}}, Changed: true})
	for _, n := range []string{"n1", "n2"} {
		c.tell(history.NodeSeen{Node: n, Incarnation: n + "-a", Boot: n + "-a", Address: "10.0.0.1", Level: "vouched", Online: true})
		c.report("a", n, "")
		c.report("z", n, "")
	}
	if got := c.machine.State().Outcome; got != history.OutcomeConverged {
		t.Fatalf("outcome %q", got)
	}
	return c
}

// tell lets the machine advance, and writes down what comes of it.
func (c *cluster) tell(events ...history.Event) {
	c.t.Helper()
	for _, e := range c.machine.Advance(c.now, events...).Events {
		r, err := history.Encode(e, c.now)
		if err != nil {
			c.t.Fatal(err)
		}
		r.Seq = uint64(len(c.journal) + 1)
		c.journal = append(c.journal, r)
	}
}

// report ends the attempt that is in flight.
func (c *cluster) report(task, node, failure string) {
	c.t.Helper()
	t := history.Target{Task: task, Node: node}
	r := run.Report{ID: c.machine.State().Row(t).Started, Error: failure}
	if f := c.machine.State().Row(t).Flight; failure == "" && f != nil && f.Action == step.Apply {
		r.Outputs = json.RawMessage(`{}`)
	}
	e, ok := c.machine.Conclude(c.now, t, r)
	if !ok {
		c.t.Fatalf("%s is not in flight", t)
	}
	c.tell(e)
}

func (c *cluster) ended(node string) history.Event {
	return history.NodeEnded{Node: node, Incarnation: node + "-a", Why: "wiped", Wiped: true}
}

// kinds lists what stands in the journal after a number of records.
func (c *cluster) kinds(after int) []string {
	var list []string
	for _, r := range c.journal[after:] {
		list = append(list, r.Kind)
	}
	return list
}

func (c *cluster) replays() {
	c.t.Helper()
	r := replay.New(c, 0)
	for _, rec := range c.journal {
		if err := r.Take(rec); err != nil {
			c.t.Fatal(err)
		}
	}
	if report := r.End(); report.Diverged > 0 || report.Decisions == 0 {
		c.t.Errorf("%d of %d decisions diverge: %v", report.Diverged, report.Decisions, report.Divergences)
	}
}

// TestWokenWhileWiping has a retry come due while nothing may start: that leaves no event, and the order in which things
// start afterwards must not follow from it.
func TestWokenWhileWiping(t *testing.T) {
	c := newCluster(t)
	c.tell(history.Forced{Target: history.Target{Task: "z", Node: "n1"}, By: "p"})
	c.tell(history.WipeOrdered{By: "p"})
	c.report("z", "n1", "broken")
	c.now = c.now.Add(time.Minute)
	before := len(c.journal)
	c.tell()
	if got := c.kinds(before); len(got) > 0 {
		t.Fatalf("decided %v while the nodes are wiped", got)
	}
	c.tell(c.ended("n1"))
	c.tell(c.ended("n2"))
	if got := c.kinds(before); len(got) != 6 {
		t.Errorf("decided %v", got)
	}
	c.replays()
}

// TestToldTogether has the ends of two nodes told together, late, when an attempt's time is over as well.
func TestToldTogether(t *testing.T) {
	c := newCluster(t)
	c.tell(history.Forced{Target: history.Target{Task: "a", Node: "n1"}, By: "p"})
	c.tell(history.WipeOrdered{By: "p"})
	c.now = c.now.Add(time.Hour)
	before := len(c.journal)
	c.tell(c.ended("n1"), c.ended("n2"))
	if got := c.kinds(before); len(got) < 4 || got[0] != "failed" || got[1] != "node.ended" || got[2] != "node.ended" {
		t.Errorf("decided %v", got)
	}
	c.replays()
}
