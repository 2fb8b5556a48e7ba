package planview_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"joist/cmd/joist/layout"
	"joist/cmd/joist/planview"
	v1 "joist/services/api/v1"
)

// TestEveryInstance: what is not unchanged is named one by one, items included, and each with its own reason.
func TestEveryInstance(t *testing.T) {
	p := &v1.Plan{Cluster: "demo", Changes: true, Counts: map[string]int{"run": 12, "unchanged": 3}}
	var names []string
	for _, item := range []string{"data", "logs"} {
		for n := range 6 {
			name := fmt.Sprintf("volume[n%d][%s]", n, item)
			why := "its step changed"
			if n == 5 {
				why = "input size changed"
			}
			p.Items = append(p.Items, v1.Item{Instance: name, Task: fmt.Sprintf("volume[%q]", item), Node: fmt.Sprint("n", n), Verdict: "run", Because: why})
			names = append(names, name)
		}
	}
	for n := range 3 {
		p.Items = append(p.Items, v1.Item{Instance: fmt.Sprintf("name[n%d]", n), Task: "name", Node: fmt.Sprint("n", n), Verdict: "unchanged"})
	}
	var out strings.Builder
	planview.Write(planview.Config{Out: &out, Err: io.Discard, Ink: layout.Paint(false)}, p)
	text := out.String()
	for _, name := range names {
		if strings.Count(text, name) != 1 {
			t.Errorf("%s is not named once", name)
		}
	}
	for _, want := range []string{"volume[n3][data] its step changed volume[n4][data] + ", `volume["data"] run volume[n5][data] input size changed`, "12 run, 3 unchanged"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("there is no %q", want)
		}
	}
	if strings.Contains(text, "name[") || strings.Contains(text, "more") || strings.Contains(text, "other reasons") {
		t.Error("what is unchanged is not counted alone")
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
}

// TestManyInstances: a plan for thousands of machines stays one that can be read.
func TestManyInstances(t *testing.T) {
	p := &v1.Plan{Cluster: "demo", Changes: true, Counts: map[string]int{"run": 3000}}
	for n := range 3000 {
		p.Items = append(p.Items, v1.Item{Instance: fmt.Sprintf("a[n%d]", n), Task: "a", Verdict: "run", Because: "its step changed"})
	}
	var out strings.Builder
	planview.Write(planview.Config{Out: &out, Err: io.Discard, Ink: layout.Paint(false)}, p)
	if lines := strings.Count(out.String(), "\n"); lines > 40 || !strings.Contains(out.String(), "and 2900 more") {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
}
