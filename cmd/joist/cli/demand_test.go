package cli_test

import (
	"encoding/json"
	"testing"

	"joist/cmd/joist/cli"
	v1 "joist/services/api/v1"
)

// TestOnDemand asks for what runs on demand by the name of all of it, and waits until it has run.
func TestOnDemand(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, nil, "apply", e.file("cluster demo\nnodes n1 n2\ntask member each\ntask smoke.look each demand.smoke\ntask smoke.test service all.smoke.look demand.smoke\n"))
	e.want(cli.OK, []string{"in place", "converged"}, "status", "demo")
	if e.did("smoke.look[n1]")+e.did("smoke.test") != 0 {
		t.Fatal("it ran before anybody asked for it")
	}
	e.want(cli.OK, []string{"nothing to do"}, "plan", "--cluster", "demo")
	e.want(cli.OK, []string{"smoke.test", "absent", "it runs on demand", "joist force demo/smoke\n"}, "show", "demo/smoke.test")
	e.want(cli.OK, []string{"smoke.look[n1] is done after", "smoke.look[n2] is done after", "smoke.test is done after"}, "force", "demo/smoke", "--wait")
	var list []v1.Instance
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "force", "demo/smoke", "--wait", "-o", "json")), &list))
	if len(list) != 3 || e.did("smoke.look[n1]") != 2 || e.did("smoke.test") != 2 || list[2].State != "in place" {
		t.Errorf("%d were done: %+v", len(list), list)
	}
	e.want(cli.Failed, []string{"a part of what runs on demand", "joist force demo/smoke asks for all of it"}, "force", "demo/smoke.look[n2]", "--wait")
	if e.did("smoke.look[n2]") != 2 || e.did("member[n1]") != 1 {
		t.Error("a part was asked for, and ran by itself")
	}
	e.set(func() { e.fail["smoke.test"] = "no answer" })
	e.want(cli.Failed, []string{"smoke.test failed", "no answer", "joist why 'demo/smoke.test'"}, "force", "demo/smoke", "--wait")
	e.set(func() { delete(e.fail, "smoke.test") })
	e.want(cli.OK, nil, "force", "demo/smoke", "--wait", "--reason", "mended")
	e.want(cli.OK, []string{"converged"}, "watch", "demo")
	e.want(cli.OK, []string{"decisions in", "events are the same"}, "replay", "demo")
	e.want(cli.OK, nil, "cancel", "demo")
	e.want(cli.Failed, []string{"cluster demo is cancelled", "joist retry"}, "force", "demo/smoke", "--wait")
	e.want(cli.OK, nil, "retry", "demo")
	e.want(cli.OK, nil, "node", "aside", "n2", "--reason", "disk")
	e.want(cli.OK, []string{"smoke.look[n1] is done", "smoke.test is done"}, "force", "demo/smoke", "--wait")
	e.want(cli.OK, nil, "node", "return", "n2", "--reason", "disk is there")
	e.want(cli.Failed, []string{"no instance smoke[n1]"}, "force", "demo/smoke[n1]")
	e.want(cli.Failed, []string{"no instance smok"}, "force", "demo/smok", "--wait")
}
