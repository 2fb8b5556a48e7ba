package outlook_test

import (
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/outlook"
)

// why is the chain of an instance as text, without what is decided about it now.
func (b *bed) why(instance string, firsts map[history.Target]outlook.First) string {
	chain, _ := outlook.Why(b.m.Plan(), target(instance), firsts)
	var lines []string
	for _, l := range chain {
		if strings.HasPrefix(l.Says, "is ") {
			continue
		}
		lines = append(lines, strings.TrimSpace(l.Of.String()+" "+l.Says))
	}
	return strings.Join(lines, "\n")
}

// TestWhyHadItsPlace: what had its node's place all along waited for nobody to give one back, though others came to be in place
// meanwhile.
func TestWhyHadItsPlace(t *testing.T) {
	two := func(tasks ...string) func(*model.Model) {
		return func(m *model.Model) {
			m.Rollouts = []model.Rollout{{Name: "r", Tasks: tasks, Roles: []string{"m"}, MaxInFlight: model.Count{N: 2}, StopAfter: model.Count{N: 9}}}
			for i := range m.Tasks {
				m.Tasks[i].Step.Apply.Attempts, m.Tasks[i].Step.Apply.Backoff = 3, time.Minute
			}
		}
	}
	t.Run("a second attempt", func(t *testing.T) {
		b := newBed(t)
		b.goal("n1 n2", two("store"), "store each")
		b.fail["store[n1]"] = "not yet"
		b.up(model.Vouched, "n1")
		first := outlook.First{Cause: b.m.State().Row(target("store[n1]")).Cause, Seq: b.m.State().Row(target("store[n1]")).Started}
		b.up(model.Vouched, "n2")
		delete(b.fail, "store[n1]")
		b.now = b.now.Add(time.Hour)
		b.do()
		if got := b.why("store[n1]", map[history.Target]outlook.First{target("store[n1]"): first}); strings.Contains(got, "place") || !strings.Contains(got, "and at first because") || !strings.HasSuffix(got, "node n1 came up with incarnation n1") {
			t.Errorf("it says\n%s", got)
		}
	})
	t.Run("a node that was silent", func(t *testing.T) {
		b := newBed(t)
		b.goal("n1 n2", two("entry", "store"), "entry each service", "store each task.entry")
		b.hold["entry[n1]"] = true
		b.up(model.Vouched, "n1")
		b.do(history.NodeSeen{Node: "n1", Incarnation: "n1", Boot: "n1", Level: model.Vouched})
		b.answer("entry[n1]")
		b.up(model.Vouched, "n2")
		b.up(model.Vouched, "n1")
		if got := b.why("store[n1]", nil); strings.Contains(got, "place") || !strings.Contains(got, "\nentry[n1] last started") {
			t.Errorf("it says\n%s", got)
		}
	})
}

// TestWhyOnlyWhatWasBefore: a chain has nothing that came after what it explains.
func TestWhyOnlyWhatWasBefore(t *testing.T) {
	b := newBed(t)
	b.goal("n1", nil, "entry each service", "store each service task.entry", "other each service")
	b.up(model.Vouched, "n1")
	set := "node n1 came up with incarnation n1"
	if got := b.why("store[n1]", nil); !strings.HasSuffix(got, set) {
		t.Errorf("at first it says\n%s", got)
	}
	b.do(history.NodeSeen{Node: "n1", Incarnation: "n1", Boot: "another", Address: "10.0.0.1", Level: model.Vouched, Online: true})
	chain, _ := outlook.Why(b.m.Plan(), target("other[n1]"), nil)
	if row, last := b.m.State().Row(target("other[n1]")), chain[len(chain)-1]; last.Seq >= row.Started {
		t.Errorf("after another boot the chain of what started in event %d ends with event %d: %s", row.Started, last.Seq, last.Says)
	}
	b.do(history.Forced{Target: target("entry[n1]"), By: "test"})
	if got := b.why("store[n1]", nil); !strings.Contains(got, "entry[n1] has started again since") || strings.Contains(got, "force") {
		t.Errorf("after what it reads was forced it says\n%s", got)
	}
}

// TestWhyGone: what was removed was so for the goal that was in force then, not for the oldest one that is known.
func TestWhyGone(t *testing.T) {
	b := newBed(t)
	b.goal("n1", nil, "entry service", "other service")
	first := b.m.State().Goal().Model.Short()
	b.goal("n1", nil, "other service")
	if got := b.why("entry", nil); !strings.HasSuffix(got, "test set goal "+b.m.State().Goal().Model.Short()) {
		t.Errorf("it says\n%s", got)
	}
	b.goal("n1", nil, "other service", "late service")
	if got := b.why("entry", nil); strings.Contains(got, "goal "+first) || !strings.Contains(got, "replaced since") {
		t.Errorf("after another goal it says\n%s", got)
	}
}
