package replay_test

import (
	"encoding/json"
	"testing"
	"time"

	"joist/cmd/system"
	"joist/content"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/value"
	"joist/providers/sim"
	"joist/workflows/lang"
	"joist/workflows/simulate"
)

// scripts are what may be recorded, by the last part of the name, besides a simulation of content/examples/etcd.hcl: what people do to
// a cluster, one thing after the other came to rest.
func scripts() map[string]func(*studio) {
	return map[string]func(*studio){"growth": growth, "approval": approval, "drift": drift}
}

// growth: a cluster of etcd grows by two, loses the first of its members and one that dies, and is taken back.
func growth(s *studio) {
	file := func(nodes string) string {
		return "cluster \"demo\" {\n  workflow = etcd.cluster\n  packs = {\n    base = { source = \"builtin\" }\n    etcd = { source = \"builtin\" }\n  }\n" +
			"  nodes = { member = [" + nodes + "] }\n  with  = { domain = \"demo.lab\" }\n}\n"
	}
	s.goal(file(`"n1", "n2", "n3"`))
	s.goal(file(`"n1", "n2", "n3", "n4", "n5"`))
	s.goal(file(`"n2", "n3", "n4", "n5"`))
	s.world.Crash("n3", false)
	s.settle()
	s.world.Kill("n5")
	s.goal(file(`"n2", "n3", "n4"`))
	s.destroy()
}

// team is a cluster of the pack in testdata/team, with what else is in its cluster file.
func team(version, nodes, more string) string {
	return "cluster \"demo\" {\n  workflow = team.cluster\n  packs    = { team = { source = \"./team\" } }\n" +
		"  nodes    = { node = [" + nodes + "] }\n  with     = { version = \"" + version + "\" }\n" + more + "}\n"
}

// approval: an update that a person approves fails on one node, which is skipped; a policy refuses that two nodes leave at once.
func approval(s *studio) {
	policy := "  policy \"slowly\" {\n    refuse = \"removal\"\n    roles  = [role.node]\n    beyond = 1\n  }\n"
	s.goal(team("1", `"n1", "n2", "n3", "n4"`, policy))
	s.world.Break(history.Target{Task: "serve", Node: "n2"})
	s.goal(team("2", `"n1", "n2", "n3", "n4"`, policy))
	s.say(history.Skipped{Target: history.Target{Task: "serve", Node: "n2"}, By: "test", Reason: "n2 is to be repaired"})
	s.say(history.BreakerClosed{Rollout: "all", By: "test", Reason: "n2 is skipped"})
	s.world.Mend()
	s.goal(team("2", `"n1", "n4"`, policy))
	s.say(history.Cancelled{By: "test", Reason: "enough"})
	s.goal(team("3", `"n1", "n4"`, policy))
	s.destroy()
}

// drift: what a schedule finds gone is put in place again by itself, and waits for a person in another goal.
func drift(s *studio) {
	itself, person := "  drift = { every = \"10m\", converge = \"itself\" }\n", "  drift = { every = \"10m\", converge = \"person\" }\n"
	gone := history.Target{Task: "serve", Node: "n1"}
	s.goal(team("1", `"n1", "n2"`, itself))
	s.lose(gone)
	s.goal(team("1", `"n1", "n2"`, person))
	s.lose(gone)
	s.say(history.Forced{Target: gone, By: "test", Reason: "somebody stopped it"})
	s.lose(gone)
	s.goal(team("2", `"n1", "n2"`, person))
}

// studio records a cluster of simulated machines.
type studio struct {
	t     *testing.T
	sim   *simulate.Simulation
	world *world
	steps map[string]*model.Step
	tape  tape
}

// world is a world for package simulate, in which people say things too.
type world struct {
	*sim.World
	said []history.Event
}

// Hear implements simulate.World.
func (w *world) Hear() (out []simulate.Notice) {
	for _, e := range w.said {
		out = append(out, simulate.Notice{Event: e})
	}
	w.said = nil
	for _, n := range w.World.Hear() {
		out = append(out, simulate.Notice{Event: n.Event, Target: n.Target, Report: n.Report})
	}
	return out
}

// Add, Crash and Restart implement simulate.Machines.
func (w *world) Add(name string, facts json.RawMessage) {
	if w.Node(name) == nil {
		w.World.Add(name)
	}
	w.Node(name).Level, w.Node(name).Facts = model.Attested, facts
}

func (w *world) Crash(name string, forGood bool) {
	if forGood {
		w.Kill(name)
	} else {
		w.PowerOff(name)
	}
}

func (w *world) Restart() {
	w.Forget()
	w.Announce()
}

// act has a script done, and gives what is to be kept of it.
func act(t *testing.T, script func(*studio)) (tape, []journal.Record) {
	t.Helper()
	answers, err := simulate.NewAnswers(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &studio{t: t, steps: map[string]*model.Step{}, tape: tape{Packs: map[string][]byte{}, Goals: map[string]string{}}}
	s.world = &world{World: sim.New(sim.Config{Seed: 5, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Scout: true, Answer: func(a sim.Ask) (json.RawMessage, error) {
		if a.Action != "apply" {
			return nil, nil
		}
		return answers.Answer(s.steps[a.Task], simulate.Ask{Target: a.Target, Action: a.Action, Attempt: a.Attempt, Inputs: a.Inputs, Agent: a.Agent})
	}})}
	if s.sim, err = simulate.New(simulate.Config{World: s.world, Machines: s.world, Seed: 5}); err != nil {
		t.Fatal(err)
	}
	script(s)
	return s.tape, s.sim.Journal()
}

func (s *studio) goal(file string) {
	s.t.Helper()
	cluster, ds := lang.LoadCluster("etcd.hcl", []byte(file))
	if ds.HasErrors() {
		s.t.Fatal(ds.Text())
	}
	archives, _, err := content.Gather(content.Wish{File: cluster, Folder: "testdata", Catalogue: system.Catalogue()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.tape.Packs = archives
	packs, ds, err := content.Unpack(archives, system.Catalogue())
	if err != nil || ds.HasErrors() {
		s.t.Fatal(err, ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: packs, Cluster: cluster})
	if ds.HasErrors() {
		s.t.Fatal(ds.Text())
	}
	var facts value.Value
	if err := facts.UnmarshalJSON([]byte(simulate.DefaultFacts)); err != nil {
		s.t.Fatal(err)
	}
	roles, err := simulate.Cast(simulate.RolesOf(m, cluster, facts), 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, names := range roles {
		for _, name := range names {
			s.world.Add(name, json.RawMessage(simulate.DefaultFacts))
		}
	}
	for i := range m.Tasks {
		s.steps[m.Tasks[i].Name] = m.Tasks[i].Step
	}
	s.tape.Goals[m.Digest.String()] = file
	if err := s.sim.Goal(m, roles); err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

func (s *studio) destroy() {
	s.t.Helper()
	if err := s.sim.Goal(nil, nil); err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

// say has a person say something.
func (s *studio) say(e history.Event) {
	s.t.Helper()
	s.world.said = append(s.world.said, e)
	s.settle()
}

// lose undoes the effect of an instance behind the engine's back, and lets half an hour pass.
func (s *studio) lose(t history.Target) {
	s.t.Helper()
	if !s.world.Lose(t) {
		s.t.Fatalf("%s has no effect to lose", t)
	}
	s.sim.Later(30*time.Minute, func() {})
	s.settle()
}

func (s *studio) settle() {
	s.t.Helper()
	if err := s.sim.Settle(func() error { return nil }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%s after %d events: %s", s.sim.State().Outcome, s.sim.State().Seq, s.sim.State().Detail)
}
