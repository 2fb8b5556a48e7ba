package sim_test

import (
	"fmt"
	"slices"
	"testing"

	"joist/providers/sim"
)

// grown is a cluster that converges, gains a node, loses another, has an input changed and is destroyed, with nothing going wrong
// but one crash of the engine. Every third one has all that random clusters have but what a person has to see to.
func grown(seed uint64, crashAt int) *lab {
	sh := shape{tasks: 6, roles: []string{"a", "b"}, rollouts: true}
	switch seed % 3 {
	case 1:
		sh.reboots = 0.6
	case 2:
		sh = full
		sh.valid, sh.approve, sh.except, sh.during, sh.scout, sh.budgets = false, 0, 0.3, 0.3, 0.2, true
	}
	l := newLab(seed, sh)
	l.checks, l.crashAt = 0, crashAt
	for _, name := range []string{"n1", "n2", "n3"} {
		l.world.Add(name)
	}
	l.sketch = l.gen.sketch()
	l.roles = map[string][]string{"a": {"n1", "n2"}, "b": {"n2"}}
	l.pursue()
	l.roles = map[string][]string{"a": {"n1", "n3"}, "b": {"n1", "n3"}}
	l.sketch.inputs["x"] = "2"
	l.pursue()
	l.destroy = true
	l.pursue()
	return l
}

// pursue sets a goal, once more if a crash took it, and lets the cluster come to rest.
func (l *lab) pursue() {
	before := l.machine.State().GoalSeq
	l.goal(true)
	if l.err == nil && l.machine.State().GoalSeq == before {
		l.goal(true)
	}
	l.throughScout()
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
	i := slices.IndexFunc(l.world.Runs, func(r sim.Run) bool { return r.Agent != "" })
	if i < 0 {
		t.Fatal("nothing ran on a node")
	}
	l.world.Runs = slices.Insert(l.world.Runs, i, l.world.Runs[i])
	if ranTwice(l.world) == nil {
		t.Error("an action that ran twice was not found")
	}
}
