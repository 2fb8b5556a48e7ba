package main

import (
	"context"
	"path/filepath"

	"joist/cmd/joist/author"
	"joist/cmd/system/simulation"
	"joist/content"
	"joist/engine/addr"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
	"joist/workflows/simulate"
)

// simulated runs a cluster file on simulated machines.
func simulated(ctx context.Context, o author.Options) (*author.Simulated, error) {
	cfg := simulation.Config{
		Source: clusters.Source{FileName: o.Source.FileName, File: o.Source.File, Packs: o.Source.Packs},
		Nodes:  o.Nodes, Seed: o.Seed, Faults: o.Faults, Recorded: o.Recorded, Again: o.Again, Check: o.Check,
	}
	if o.Progress != nil {
		cfg.Progress = func(t simulate.Tally) {
			o.Progress(author.Progress{Events: t.Events, Runs: t.Runs, Failures: t.Failures, Crashes: t.Crashes, Virtual: t.Virtual})
		}
	}
	s, journal, err := simulation.Run(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, r := range journal {
		if o.Events == nil {
			break
		}
		if err := o.Events(v1.Event{Journal: "cluster/" + s.Cluster, Seq: r.Seq, Time: r.Time, Kind: r.Kind, Version: r.Version, Data: r.Data}); err != nil {
			return nil, err
		}
	}
	out := &author.Simulated{
		Cluster: s.Cluster, Workflow: s.Workflow, Nodes: s.Nodes, Instances: s.Instances, Seed: s.Seed, Faults: s.Faults, Outcome: s.Outcome, Detail: s.Detail,
		Goals: s.Goals, Events: s.Tally.Events, Runs: s.Tally.Runs, Failures: s.Tally.Failures, Crashes: s.Tally.Crashes, Virtual: s.Virtual, Real: s.Real,
		Path: []author.Link{}, Failed: []v1.Item{}, More: s.More, Blocked: s.Blocked, Diverged: s.Diverged, Digest: s.Digest,
	}
	for _, l := range s.Path {
		out.Path = append(out.Path, author.Link(l))
	}
	for _, it := range s.Failed {
		out.Failed = append(out.Failed, v1.Item{
			Instance: it.Target.String(), Task: addr.Path(it.Task, ""), Node: it.Node, Step: it.Step, Verdict: it.Verdict.String(), State: string(it.State), Error: it.Error, Attempt: it.Attempt,
		})
	}
	return out, nil
}

// testPack runs the tests of the pack in a folder.
func testPack(ctx context.Context, dir, only string) (*author.PackTests, error) {
	files, err := content.Folder(dir)
	if err != nil {
		return nil, err
	}
	results, diags, err := simulation.TestPack(ctx, simulation.PackUnderTest{Files: files, Beside: filepath.Dir(filepath.Clean(dir)), Only: only})
	if err != nil {
		return nil, err
	}
	for i := range diags {
		if diags[i].File != "" {
			diags[i].File = filepath.Join(dir, diags[i].File)
		}
	}
	p := &author.PackTests{Dir: dir, Passed: !diags.HasErrors(), Tests: []author.PackTest{}, Findings: diags}
	for _, r := range results {
		t := author.PackTest(r)
		t.File = filepath.Join(dir, t.File)
		p.Tests = append(p.Tests, t)
	}
	return p, nil
}
