package limit

import (
	"testing"

	"pgregory.net/rapid"

	"joist/engine/model"
)

func counts(list ...any) []model.Count {
	var out []model.Count
	for _, x := range list {
		switch x := x.(type) {
		case int:
			out = append(out, model.Count{N: x})
		case float64:
			out = append(out, model.Count{N: int(x), Percent: true})
		}
	}
	return out
}

func TestLimit(t *testing.T) {
	waves := counts(1, 5, 20.0) // 1, then 5, then a fifth at a time
	for _, test := range []struct {
		waves                   []model.Count
		canaries, proven, total int
		want                    int
	}{
		{waves, 0, 0, 100, 1},
		{waves, 0, 1, 100, 5}, {waves, 0, 4, 100, 2}, {waves, 0, 5, 100, 1}, // nobody starts that belongs to the next wave
		{waves, 0, 6, 100, 20}, {waves, 0, 99, 100, 20},
		{waves, 2, 1, 100, 1}, {waves, 3, 1, 100, 2}, // canaries within the waves
		{counts(3), 0, 0, 100, 3}, {counts(3), 1, 0, 100, 1}, {counts(3), 1, 1, 100, 3},
		{counts(50.0), 0, 0, 3, 1}, {counts(50.0), 0, 0, 200, 100}, {counts(1.0), 0, 0, 3, 1}, {counts(99.0), 0, 0, 1, 1},
		{[]model.Count{{}}, 0, 0, 10, 1}, // the default
	} {
		n := len(test.waves)
		r := &model.Rollout{Waves: test.waves[:n-1], MaxInFlight: test.waves[n-1], Canaries: test.canaries}
		if got := Of(r, test.proven, test.total); got != test.want {
			t.Errorf("%v, %d canaries, %d proven of %d: %d places, want %d", test.waves, test.canaries, test.proven, test.total, got, test.want)
		}
	}
}

// TestLimitHolds compares with a count by hand: node after node is given a place and proven, in any order.
func TestLimitHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 6), 1, 4).Draw(t, "waves")
		r := &model.Rollout{MaxInFlight: model.Count{N: sizes[len(sizes)-1]}, Canaries: rapid.IntRange(0, 3).Draw(t, "canaries")}
		for _, n := range sizes[:len(sizes)-1] {
			r.Waves = append(r.Waves, model.Count{N: n})
		}
		taken, proven := 0, 0
		for range 60 {
			if rapid.Bool().Draw(t, "take") || taken == 0 {
				if taken < Of(r, proven, 50) {
					taken++
				} else if taken == 0 {
					t.Fatalf("no place is free and none is taken, %d proven", proven)
				}
			} else {
				taken, proven = taken-1, proven+1
			}
			// which wave has the node that was let in last?
			begun, wave := taken+proven, 0
			end := sizes[0]
			for wave < len(sizes)-1 && begun > end {
				wave++
				end += sizes[wave]
			}
			before := end - sizes[wave]
			if taken > sizes[wave] && wave == len(sizes)-1 || wave > 0 && taken > 0 && proven < before && begun > before {
				t.Fatalf("waves %v: %d taken with %d proven: wave %d began before those ahead of it were done", sizes, taken, proven, wave)
			}
			if proven < r.Canaries && begun > r.Canaries {
				t.Fatalf("%d begun, %d proven of %d canaries", begun, proven, r.Canaries)
			}
		}
	})
}

func TestShare(t *testing.T) {
	for _, test := range [][3]int{{6, 3, 2}, {7, 3, 3}, {1, 5, 1}, {5, 1, 5}, {5, 0, 5}, {2, 9, 1}} {
		if got := Share(test[0], test[1]); got != test[2] {
			t.Errorf("%d places over %d domains: %d each, want %d", test[0], test[1], got, test[2])
		}
	}
}
