package cli_test

import (
	"encoding/json"
	"testing"

	"joist/cmd/joist/cli"
	v1 "joist/services/api/v1"
)

// TestFindings: what the engine finds wrong with a cluster file reaches programs as data, and people as text.
func TestFindings(t *testing.T) {
	e := newEngine(t)
	file := e.file("cluster demo\nnodes n1\nwrong\n")
	e.want(cli.Failed, []string{"error: nothing is called wrong\n  --> demo.hcl:3:1\n", "Call it right."}, "apply", file)
	_, out, errs := e.joist("apply", file, "-o", "json")
	var p v1.Problem
	must(t, json.Unmarshal([]byte(errs), &p))
	want := v1.Finding{Severity: "error", Message: "nothing is called wrong", Advice: "Call it right.", File: "demo.hcl", Line: 3, Column: 1, EndLine: 3, EndColumn: 6, Source: "wrong"}
	if out != "" || !p.Of(v1.Refused) || len(p.Findings) != 1 || p.Findings[0] != want {
		t.Errorf("%s%s", out, errs)
	}
}
