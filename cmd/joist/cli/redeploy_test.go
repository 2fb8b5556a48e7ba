package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"joist/cmd/joist/cli"
)

// TestRedeploy wipes and builds a cluster anew, as often as it is told, and stops at the first round that fails.
func TestRedeploy(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file(demo))
	e.want(cli.Failed, []string{"nothing was changed", "--yes"}, "redeploy", "demo")
	e.want(cli.Usage, []string{"--times is 0"}, "redeploy", "demo", "--times", "0", "--yes")
	e.want(cli.OK, []string{"round 1 of 2", "wants every machine of cluster demo wiped", "node n1 ended: wiped", "round 2 converged", "the plan is empty (4 unchanged)"}, "redeploy", "demo", "--times", "2", "--yes")
	for i, want := range map[string]int{"member[n1]": 3, "member[n2]": 3, "name[n1]": 5} { // what is in a service is removed in between
		if got := e.did(i); got != want {
			t.Errorf("%s ran %d times, want %d", i, got, want)
		}
	}
	// It ran before its machine was wiped, and why does not say otherwise.
	if out := e.want(cli.OK, []string{"last started because nothing is left of what it did before, since event"}, "why", "demo/member[n1]"); strings.Contains(out, "never run") {
		t.Error(out)
	}
	type rounds struct {
		Cluster string
		Times   int
		Good    bool
		Rounds  []struct {
			Round   int
			Outcome string
			Changes bool
			Plan    map[string]int
			Phases  []struct{ Name string }
			Failed  []struct{ Instance string }
		}
	}
	var r rounds
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "redeploy", "demo", "--yes", "-o", "json")), &r))
	if !r.Good || len(r.Rounds) != 1 || r.Rounds[0].Outcome != "converged" || r.Rounds[0].Plan["unchanged"] != 4 || r.Rounds[0].Phases[0].Name != "wiped" {
		t.Errorf("redeployed %+v", r)
	}
	e.set(func() { e.fail["member[n2]"] = "no disk" })
	e.want(cli.Stopped, []string{"round 1 of 3 did not converge", "member[n2] failed: no disk", "joist retry demo"}, "redeploy", "demo", "--times", "3", "--yes")
	if got := e.did("member[n1]"); got != 5 {
		t.Errorf("member[n1] ran %d times: there was a round after the one that failed", got)
	}
	e.want(cli.Failed, []string{"cluster demo is stopped", "starts from one that has converged"}, "redeploy", "demo", "--yes")
	e.set(func() { delete(e.fail, "member[n2]") })
	e.want(cli.OK, nil, "retry", "demo")
	e.want(cli.OK, []string{"converged"}, "watch", "demo")
	e.set(func() { e.fail["member[n1]"] = "no memory" })
	r = rounds{}
	out := e.want(cli.Stopped, nil, "redeploy", "demo", "--times", "2", "--yes", "-o", "json")
	must(t, json.Unmarshal([]byte(out[:strings.LastIndex(out, "}")+1]), &r))
	if r.Good || len(r.Rounds) != 1 || r.Rounds[0].Outcome != "stopped" || len(r.Rounds[0].Failed) == 0 {
		t.Errorf("redeployed %+v", r)
	}
}

func TestNodeWipe(t *testing.T) {
	e := newEngine(t)
	e.want(cli.Failed, []string{"erases the data disks of machine n3", "nothing was changed"}, "node", "wipe", "n3")
	e.want(cli.OK, []string{"machine n3 is wiped: vda was discarded"}, "node", "wipe", "n3", "--yes")
	e.want(cli.Failed, []string{"no machine"}, "node", "wipe", "n9", "--yes")
}

// TestRedeployOverride: a policy refuses the wipe, a person's word lets it pass, and holds for no longer than that.
func TestRedeployOverride(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file(demo+"policy hours\n"))
	refused := []string{"policies of cluster demo refuse this", "policy hours", "a wipe of n1, n2", "--override hours --reason WHY"}
	e.want(cli.Failed, refused, "redeploy", "demo", "--yes")
	e.want(cli.Usage, []string{"--override NAME and --reason WHY go together"}, "redeploy", "demo", "--yes", "--override", "hours")
	e.want(cli.Failed, []string{`no policy of that name; it has: hours`}, "redeploy", "demo", "--yes", "--override", "days", "--reason", "it burns")
	if got := e.did("member[n1]"); got != 1 {
		t.Fatalf("member[n1] ran %d times", got)
	}
	e.want(cli.OK, []string{"round 2 converged", "the plan is empty"}, "redeploy", "demo", "--yes", "--times", "2", "--override", "hours", "--reason", "it burns")
	e.want(cli.OK, []string{`"policy":"hours","reason":"it burns"`}, "events", "--cluster", "demo", "-o", "json")
	e.want(cli.Failed, refused, "redeploy", "demo", "--yes")
	if got := e.did("member[n1]"); got != 3 {
		t.Errorf("member[n1] ran %d times", got)
	}
}
