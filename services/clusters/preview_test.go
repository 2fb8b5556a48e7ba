package clusters

import (
	"strings"
	"testing"
	"testing/synctest"

	"joist/engine/value"
)

// TestCompare: of a kept plan it is said what would be done otherwise now, and nothing where all is as it was.
func TestCompare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.apply("demo: n1 n2")
		for want, alter := range map[string]func(*Planned){
			"":                                  func(*Planned) {},
			"it is of cluster other":            func(p *Planned) { p.Cluster = "other" },
			"packs, inputs or cluster file are": func(p *Planned) { p.Model = value.Sum([]byte("x")).String() },
			"role m would have n1, n3, not n3":  func(p *Planned) { p.Roles = map[string][]string{"m": {"n3"}} },
			"s[n3] was to be unchanged and now is run (it had": func(p *Planned) { p.Items[0].Verdict = "unchanged" },
			"s[n3] is run for another reason (it":              func(p *Planned) { p.Items[0].Cause = "forced" },
			"s[n3] would run with other inputs":                func(p *Planned) { p.Items[0].Input = value.Sum([]byte("x")).String() },
			"s[n3] is new: run":                                func(p *Planned) { p.Items = p.Items[1:] },
			"node n2 would leave":                              func(p *Planned) { delete(p.Nodes, "n2") },
			"node n1 would not leave":                          func(p *Planned) { p.Nodes["n1"] = NodeChange{Change: Leaves} },
			"s[n9] is gone":                                    func(p *Planned) { p.Items = append(p.Items, PlannedItem{Instance: "s[n9]"}) },
		} {
			now, err := w.Preview(t.Context(), Source{FileName: "c.hcl", File: []byte("demo: n1 n3")})
			if err != nil {
				t.Fatal(err)
			}
			was := Planned{Cluster: now.Cluster, Seq: now.Seq, Model: now.Model.String(), Roles: now.Roles, Nodes: map[string]NodeChange{}}
			for _, n := range now.Nodes {
				was.Nodes[n.Name] = n
			}
			for _, it := range now.Items {
				one := PlannedItem{it.Target.String(), it.Verdict.String(), string(it.Cause.Kind), it.Input.String()}
				if it.Node == "n3" {
					was.Items = append([]PlannedItem{one}, was.Items...)
					continue
				}
				was.Items = append(was.Items, one)
			}
			alter(&was)
			err = was.Compare(now)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), "not what would be done now: "+want) {
				t.Errorf("%v\n\twant %q", err, want)
			}
		}
	})
}
