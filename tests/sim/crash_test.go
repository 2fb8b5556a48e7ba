package sim_test

import (
	"fmt"
	"slices"
	"testing"

	"joist/engine/model"
	"joist/providers/sim"
)

// grown is a cluster that converges, gains a node, loses another and has an input changed, with nothing going wrong but
// one crash of the engine.
func grown(seed uint64, crashAt int) *lab {
	sh := shape{tasks: 6, roles: []string{"a", "b"}, rollouts: true}
	if seed%3 == 1 {
		sh.reboots = 0.6
	}
	l := newLab(seed, sh)
	l.checks, l.crashAt = 0, crashAt
	for _, name := range []string{"n1", "n2", "n3"} {
		l.world.Add(name)
	}
	l.sketch = l.gen.sketch()
	l.roles = map[string][]string{"a": {"n1", "n2"}, "b": {"n2"}}
	l.goal(true)
	l.again()
	l.roles = map[string][]string{"a": {"n1", "n3"}, "b": {"n1", "n3"}}
	l.sketch.inputs["x"] = "2"
	l.goal(true)
	l.again()
	return l
}

// again sets the goal once more if a crash took it, and lets the cluster come to rest.
func (l *lab) again() {
	if g := l.machine.State().Goal(); l.err == nil && (g == nil || fmt.Sprint(g.Roles) != fmt.Sprint(l.roles)) {
		l.goal(true)
	}
	l.settle()
}

// TestCrashAtEveryWrite crashes the engine before and after every single write of a run. It always resumes and
// finishes, and nothing that a node had finished runs there again.
func TestCrashAtEveryWrite(t *testing.T) {
	tried := 0
	for seed := *firstFlag; seed < *firstFlag+uint64(seeds(15)); seed++ {
		whole := grown(seed, 0)
		if whole.err != nil {
			t.Fatal(whole.report())
		}
		for at := -whole.writes; at <= whole.writes; at++ {
			l := grown(seed, at)
			if l.err == nil {
				l.err = ranTwice(l.world)
			}
			if l.err != nil {
				t.Fatalf("crash at write %d: %s", at, l.report())
			}
			tried += l.crashes
		}
	}
	t.Logf("%d crashes", tried)
}

// ranTwice finds an action that went well twice on the same boot with the same inputs, one right after the other.
func ranTwice(w *sim.World) error {
	last := map[target]sim.Run{}
	for _, r := range w.Runs {
		was, ok := last[r.Target]
		if ok && r.Agent != "" && r.Action == was.Action && r.Inputs == was.Inputs && r.Boot == was.Boot {
			return fmt.Errorf("law 4: %s ran again: %s after %s", r.Target, r, was)
		}
		last[r.Target] = r
	}
	return nil
}

// TestRanTwiceIsFound gives the check above what it has to find.
func TestRanTwiceIsFound(t *testing.T) {
	l := grown(1, 0)
	i := slices.IndexFunc(l.world.Runs, func(r sim.Run) bool {
		task := l.ledger.model().Task(r.Task)
		return r.Agent != "" && task != nil && task.Step.Scope == model.Node
	})
	if i < 0 {
		t.Fatal("nothing ran on a node")
	}
	l.world.Runs = slices.Insert(l.world.Runs, i, l.world.Runs[i])
	if ranTwice(l.world) == nil {
		t.Error("an action that ran twice was not found")
	}
}
