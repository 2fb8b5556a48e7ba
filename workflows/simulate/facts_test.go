package simulate_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"joist/engine/agent/scout"
	"joist/workflows/simulate"
)

// TestFactNames: a simulated machine has the facts that an agent reports, by the same names and of the same types.
func TestFactNames(t *testing.T) {
	var f scout.Facts
	d := json.NewDecoder(bytes.NewReader([]byte(simulate.DefaultFacts)))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	real, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	names := func(data []byte) []string {
		var v map[string]any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		all := slices.Collect(maps.Keys(v))
		for name, inner := range v {
			if o, ok := inner.(map[string]any); ok {
				for of := range o {
					all = append(all, name+"."+of)
				}
			}
		}
		slices.Sort(all)
		return all
	}
	if want, got := names(real), names([]byte(simulate.DefaultFacts)); !slices.Equal(want, got) {
		t.Errorf("a simulated machine has %v; an agent reports %v", got, want)
	}
	if f.CPU.Arch != "x86_64" || f.CPU.Threads == 0 || f.Memory == 0 {
		t.Errorf("%+v", f)
	}
}
