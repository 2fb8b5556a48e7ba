package replay_test

import (
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/replay"
	"joist/engine/run"
	"joist/engine/value"
)

// watched is a cluster whose rollout watches its nodes one after the other, until both are proven.
func watched(t *testing.T) *cluster {
	t.Helper()
	action := model.Action{Timeout: time.Minute, Attempts: 1, Backoff: time.Second, Script: &model.Script{}}
	m := &model.Model{Cluster: "c", Trust: model.Claimed, Digest: value.Sum([]byte("m")), Roles: []model.Role{{Name: "m"}},
		Rollouts: []model.Rollout{{Name: "r", Tasks: []string{"z"}, Roles: []string{"m"}, MaxInFlight: model.Count{N: 1}, StopAfter: model.Count{N: 1}, Settle: time.Minute}},
		Tasks: []model.Task{
			{Name: "z", Each: []string{"m"}, Step: &model.Step{Name: "p.z", Scope: model.Node, Digest: value.Sum([]byte("z")), Apply: action, Remove: &action, Verify: &action}},
		}}
	c := &cluster{t: t, model: m, now: time.Unix(1_000_000, 0).UTC()}
	c.machine = run.New(history.New(), c)
	c.tell(history.Goal{Model: m.Digest, Roles: map[string][]string{"m": {"n1", "n2"}}, Changed: true})
	for _, n := range []string{"n1", "n2"} {
		c.tell(history.NodeSeen{Node: n, Incarnation: n + "-a", Boot: n + "-a", Address: "10.0.0.1", Level: "vouched", Online: true})
	}
	for _, n := range []string{"n1", "n2"} {
		c.now = c.now.Add(time.Second)
		c.report("z", n, "")
		c.now = c.now.Add(time.Minute)
		c.tell(history.NodeSeen{Node: n, Incarnation: n + "-a", Boot: n + "-a", Address: "10.0.0.2", Level: "vouched", Online: true})
		c.now = c.now.Add(2 * time.Second)
		c.tell(history.Watched{Target: history.Target{Task: "z", Node: n}, Rollout: "r", OK: true})
	}
	if got := c.machine.State().Outcome; got != history.OutcomeConverged {
		t.Fatalf("outcome %q after %v", got, c.kinds(0))
	}
	return c
}

// without gives the journal without some of its events that ask for verifies, the first of which is 0.
func (c *cluster) without(drop func(nth int) bool) *cluster {
	older, nth := &cluster{t: c.t, model: c.model}, 0
	for _, r := range c.journal {
		if r.Kind == "watch.asked" {
			nth++
			if drop(nth - 1) {
				continue
			}
		}
		r.Seq = uint64(len(older.journal) + 1)
		older.journal = append(older.journal, r)
	}
	if nth != 2 {
		c.t.Fatalf("asked %d times: %v", nth, c.kinds(0))
	}
	return older
}

func (c *cluster) take() replay.Report {
	c.t.Helper()
	r := replay.New(c, 0)
	for _, rec := range c.journal {
		if err := r.Take(journal.Record{Seq: rec.Seq, Time: rec.Time, Kind: rec.Kind, Version: rec.Version, Data: rec.Data}); err != nil {
			c.t.Fatal(err)
		}
	}
	return r.End()
}

// TestOlderJournal: a journal from before the asking for verifies was kept in it replays without a divergence, and says so; in
// one that has such events, a missing one is a divergence.
func TestOlderJournal(t *testing.T) {
	c := watched(t)
	c.replays()
	for name, test := range map[string]struct {
		drop     func(nth int) bool
		older    int
		diverges bool
	}{
		"as it is":         {func(int) bool { return false }, 0, false},
		"from before":      {func(int) bool { return true }, 2, false},
		"taken up by now":  {func(nth int) bool { return nth == 0 }, 1, false},
		"tampered with it": {func(nth int) bool { return nth == 1 }, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.without(test.drop).take()
			if r.Older != test.older || (r.Diverged > 0) != test.diverges {
				t.Errorf("%d older, %d diverged: %v", r.Older, r.Diverged, r.Divergences)
			}
		})
	}
}
