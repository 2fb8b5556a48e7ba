package cli_test

import (
	"strings"
	"testing"

	"joist/cmd/joist/cli"
)

// TestForget: destroyed clusters are not listed, can be dropped with their journals, and made again; living ones cannot be dropped.
func TestForget(t *testing.T) {
	e := newEngine(t)
	other := e.file(strings.ReplaceAll(strings.ReplaceAll(demo, "cluster demo", "cluster other"), "n1 n2", "n3"))
	e.want(cli.OK, nil, "apply", e.file(demo))
	e.want(cli.OK, nil, "apply", other)
	e.want(cli.Failed, []string{"cannot forget cluster demo: it is converged", "joist destroy"}, "forget", "demo")
	e.want(cli.Failed, []string{"no cluster"}, "forget", "another")
	e.want(cli.OK, nil, "destroy", "demo", "--yes")
	if out := e.want(cli.OK, []string{"other", "1 cluster destroyed: joist status --all shows them"}, "status"); strings.Contains(out, "demo ") {
		t.Errorf("a destroyed cluster is listed:\n%s", out)
	}
	if out := e.want(cli.OK, nil, "status", "-o", "json"); strings.Contains(out, `"demo"`) || !strings.Contains(out, `"other"`) {
		t.Errorf("a destroyed cluster is listed:\n%s", out)
	}
	e.want(cli.OK, []string{"demo", "destroyed", "other"}, "status", "--all")
	e.want(cli.OK, []string{"demo", "destroyed"}, "status", "demo")
	e.want(cli.Usage, []string{"--all"}, "forget")
	e.want(cli.OK, []string{"forgotten: demo"}, "forget", "--all")
	e.want(cli.OK, []string{"there is no cluster that is destroyed"}, "forget", "--all")
	e.want(cli.OK, []string{`"kind":"cluster.forgotten"`, `"cluster":"demo"`}, "events", "--journal", "site", "-o", "json")
	e.want(cli.Failed, []string{"no cluster"}, "status", "demo")
	if out := e.want(cli.OK, nil, "status", "--all"); strings.Contains(out, "demo ") {
		t.Errorf("a forgotten cluster is listed:\n%s", out)
	}
	e.end()
	e.start() // and is not taken up again
	if out := e.want(cli.OK, []string{"other"}, "status", "--all"); strings.Contains(out, "demo ") {
		t.Errorf("a forgotten cluster is back:\n%s", out)
	}
	e.want(cli.OK, []string{"cluster demo converged"}, "apply", e.file(demo))
	e.want(cli.OK, []string{"all ", "are the same"}, "replay", "demo")
	e.want(cli.OK, nil, "destroy", "demo", "--yes")
	e.want(cli.OK, []string{`"forgotten"`}, "forget", "demo", "-o", "json")
}
