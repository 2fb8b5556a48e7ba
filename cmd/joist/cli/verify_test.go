package cli_test

import (
	"encoding/json"
	"testing"

	"joist/cmd/joist/cli"
	"joist/cmd/joist/verify"
)

// TestForceAbsent: what the goal has not is not forced in silence.
func TestForceAbsent(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file("cluster demo\nnodes n1\ntask member each unwanted\n"))
	before := e.journals()
	e.want(cli.Failed, []string{"cannot force member[n1]: it is not in the goal", "when (of the task at test.hcl:7) is false", "set the input", "joist apply it"}, "force", "demo/member[n1]")
	if e.journals() != before || e.did("member[n1]") != 0 {
		t.Error("it was forced nevertheless")
	}
}

// TestVerify has instances looked at: what is in place, what has drifted and waits for a person, and what is left out.
func TestVerify(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file("cluster demo\nnodes n1 n2\ndrift\ntask name each service\ntask member each task.name verify\n"))
	e.want(cli.OK, []string{"member[n1]  in place", "member[n2]  in place", "2 in place, 0 drifted"}, "verify", "demo")
	e.want(cli.OK, []string{"name[n1]  left out: its step has no verify", "1 in place, 0 drifted, 0 without an answer, 1 left out"}, "verify", "demo", "name[n1]", "member[n1]")
	e.want(cli.Failed, []string{"no instance membre"}, "verify", "demo", "membre")
	e.want(cli.Failed, []string{"no cluster"}, "verify", "other")
	e.set(func() { e.gone["member[n2]"] = "the step's script ended with exit code 1\nlooking\nnot running" })
	var r verify.Report
	must(t, json.Unmarshal([]byte(e.want(cli.HasChanges, nil, "verify", "demo", "member", "-o", "json")), &r))
	if r.Asked != 2 || r.Counts["drifted"] != 1 || r.Counts["in place"] != 1 || len(r.Looks) != 2 || r.Looks[1].Observed != "the step's script ended with exit code 1: not running" {
		t.Errorf("verified %+v", r)
	}
	e.want(cli.OK, []string{"stopped (1 of 4 instances have drifted and wait for a person)", "waiting for approval: member[n2]: drift", "not running", "verified every 1h"}, "status", "demo")
	e.want(cli.OK, []string{"is kept: drift", "not running"}, "why", "demo/member[n2]")
	e.want(cli.OK, []string{"member[n2]", "not running"}, "plan", "--cluster", "demo")
	e.set(func() { delete(e.gone, "member[n2]") })
	e.want(cli.OK, nil, "force", "demo/member[n2]")
	e.want(cli.OK, []string{"converged"}, "watch", "demo")
	if got := e.did("member[n2]"); got != 2 {
		t.Errorf("member[n2] ran %d times", got)
	}
}
