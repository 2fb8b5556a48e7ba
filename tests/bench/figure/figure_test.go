package figure

import (
	"strings"
	"testing"
	"time"
)

func TestAgainst(t *testing.T) {
	for _, test := range []struct {
		unit       string
		ours, peer float64
		want       float64
	}{
		{"s", 2, 10, 5}, {"1/s", 10, 2, 5}, {"MiB/s", 1, 2, 0.5}, {"ms", 4, 2, 0.5}, {"MiB", 1, 4, 4}, {"s", 0, 1, 0}, {"s", 1, 0, 0},
	} {
		if got := (Line{Value: test.ours, Unit: test.unit}).Against("peer", test.peer); got.Ratio != test.want || got.PeerValue != test.peer {
			t.Errorf("%v %s against %v: %+v", test.ours, test.unit, test.peer, got)
		}
	}
}

func TestRound(t *testing.T) {
	for v, want := range map[float64]float64{123456: 123500, 0.00123456: 0.001235, 0: 0, 9.9999: 10} {
		if got := Round(v); got != want {
			t.Errorf("%v rounds to %v, want %v", v, got, want)
		}
	}
}

// bringup is a cluster of two nodes: machines boot for a minute, a step takes 10 s, the engine and a rollout make the next
// wait 3 s, which takes 20 s, of which 5 s were an attempt that failed; then a node is made ready again.
func bringup() Bringup {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	return Bringup{
		Events: []Event{
			{Kind: "node.seen", Time: at(-50), Node: "n1"},
			{Kind: "goal", Time: at(0)},
			{Kind: "node.seen", Time: at(55), Node: "n1"},
			{Kind: "started", Time: at(60), Task: "kube.name", Node: "n1"},
			{Kind: "succeeded", Time: at(70), Task: "kube.name", Node: "n1", Action: "apply"},
			{Kind: "succeeded", Time: at(80), Task: "kube.member", Node: "n2"},
			{Kind: "failed", Time: at(78), Task: "kube.member", Node: "n1"},
			{Kind: "succeeded", Time: at(93), Task: "kube.member", Node: "n1", Action: "apply"},
			{Kind: "succeeded", Time: at(94), Task: "kube.member", Node: "n2", Action: "verify"},
			{Kind: "rested", Time: at(95), Outcome: "converged"},
			{Kind: "goal", Time: at(200)},
			{Kind: "succeeded", Time: at(300), Task: "kube.member", Node: "n2"},
			{Kind: "rested", Time: at(301), Outcome: "converged"},
		},
		Path:  []Stretch{{"kube.name[n1]", at(60), 5, 10, 0}, {"kube.member[n1]", at(73), 3, 20, 5}},
		Ready: "kube.member", Nodes: []string{"n1", "n2"},
		Served: map[string]uint64{"n1": 3 << 20, "n2": 1 << 20},
	}
}

func TestBringup(t *testing.T) {
	got, err := bringup().Compute()
	want := Figures{Ready: 93, Converged: 95, Boot: 60, Overhead: 3, Failed: 5, Bytes: 4 << 20, Steps: 2}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	lines := got.Lines(3)
	if len(lines) != 7 || lines[0] != (Line{Name: "bringup_power_on_to_ready_control_3", Value: 93, Unit: "s"}) || lines[5] != (Line{Name: "bringup_served_control_3", Value: 4, Unit: "MiB"}) {
		t.Errorf("%+v", lines)
	}
}

func TestBringupIncomplete(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Bringup)
		says   string
	}{
		"no goal":             {func(b *Bringup) { b.Events = b.Events[:1] }, "no goal"},
		"not at rest":         {func(b *Bringup) { b.Events = b.Events[:9] }, "not come to rest"},
		"it stopped":          {func(b *Bringup) { b.Events[9].Outcome = "stopped" }, "did not converge: it stopped"},
		"no path":             {func(b *Bringup) { b.Path = nil }, "no critical path"},
		"a node never ready":  {func(b *Bringup) { b.Nodes = append(b.Nodes, "n3") }, "kube.member[n3] did not succeed"},
		"ready by its verify": {func(b *Bringup) { b.Events[5].Action = "verify" }, "kube.member[n2] did not succeed"},
	} {
		b := bringup()
		c.change(&b)
		if _, err := b.Compute(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
