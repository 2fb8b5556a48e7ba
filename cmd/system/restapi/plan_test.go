package restapi

import (
	"testing"

	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/services/clusters"
)

// TestChanges: a plan in which nothing would be done says so, also where a node is set aside for now.
func TestChanges(t *testing.T) {
	for verdict, want := range map[plan.Verdict]bool{
		plan.Unchanged: false, plan.Kept: false, plan.Absent: false, plan.Skipped: false, plan.Aside: false,
		plan.Run: true, plan.RunIf: true, plan.Replace: true, plan.Blocked: true,
	} {
		if got := planForm(&clusters.Plan{Items: []outlook.Item{{Verdict: verdict}}}).Changes; got != want {
			t.Errorf("%s: changes is %v", verdict, got)
		}
	}
}
