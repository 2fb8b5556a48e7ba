package packs_test

import (
	"os"
	"slices"
	"testing"

	"joist/cmd/system"
	"joist/cmd/system/simulation"
	"joist/content"
	"joist/services/clusters"
	"joist/workflows/lang"
)

func etcd(t testing.TB) simulation.Config { return simulationOf(t, "etcd.hcl") }

func simulationOf(t testing.TB, name string) simulation.Config {
	t.Helper()
	data, err := os.ReadFile("../../content/examples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	file, diags := lang.LoadCluster(name, data)
	if diags.HasErrors() {
		t.Fatal(diags.Text())
	}
	packs, _, err := content.Gather(content.Wish{File: file, Folder: "../../content/examples", Catalogue: system.Catalogue()})
	if err != nil {
		t.Fatal(err)
	}
	return simulation.Config{Source: clusters.Source{FileName: name, File: data, Packs: packs}, Seed: 9, Again: 3}
}

// TestSimulate: the same simulation gives the same journal, another seed another one; whatever goes wrong, the cluster
// converges in the end, and a replay decides the same.
func TestSimulate(t *testing.T) {
	s := etcd(t)
	s.Check = true
	s.Nodes, s.Faults = 30, []string{"crash", "partition", "slow", "lie", "fail", "lose", "duplicate"}
	first, journal, err := simulation.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	again, other, err := simulation.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if first.Digest != again.Digest || len(journal) != len(other) {
		t.Errorf("the same simulation gave %d events, digest %s, and then %d, %s", len(journal), first.Digest, len(other), again.Digest)
	}
	if first.Outcome != "converged" || first.Diverged > 0 || first.Tally.Crashes < 3 || first.Tally.Failures == 0 || len(first.Path) < 4 || first.Nodes != 30 {
		t.Errorf("%+v", first)
	}
	s.Seed = 10
	different, _, err := simulation.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if different.Digest == first.Digest {
		t.Error("another seed gave the same journal")
	}
	s.Faults, s.Recorded = nil, []byte(`{"kind":"succeeded","data":{"task":"front","action":"apply","outputs":{"url":"https://recorded.demo.lab:1"}}}`)
	recorded, journal, err := simulation.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(journal, func(r record) bool { return r.Kind == "started" && contains(r.Data, "https://recorded.demo.lab:1") }) || recorded.Outcome != "converged" {
		t.Errorf("what was recorded is not used: %+v", recorded)
	}
	s.Nodes = 2
	if _, _, err := simulation.Run(t.Context(), s); err == nil {
		t.Error("three members on two machines")
	}
}

// TestSimulatePolicies: the example's policies are read, and do not keep it from being built.
func TestSimulatePolicies(t *testing.T) {
	s := simulationOf(t, "etcd-policies.hcl")
	s.Nodes = 3
	if done, _, err := simulation.Run(t.Context(), s); err != nil || done.Outcome != "converged" {
		t.Errorf("%+v, %v", done, err)
	}
}

func BenchmarkSimulate(b *testing.B) {
	s := etcd(b)
	s.Nodes, s.Faults = 250, []string{"crash", "partition", "slow", "lie"}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := simulation.Run(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}
