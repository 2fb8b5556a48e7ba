package cli_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"joist/cmd/joist/cli"
	"joist/engine/journal"
	v1 "joist/services/api/v1"
)

var update = flag.Bool("update", false, "write the golden files of plans anew")

// journals digests every journal of the engine.
func (e *engine) journals() string {
	e.t.Helper()
	h := sha256.New()
	store := e.db.Journals()
	list, err := store.List(e.t.Context())
	must(e.t, err)
	for _, info := range list {
		must(e.t, store.Read(context.Background(), info.Journal, 0, func(r journal.Record) error {
			fmt.Fprintf(h, "%s %d %s %s\n", info.Journal, r.Seq, r.Kind, r.Data)
			return nil
		}))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

var sequence = regexp.MustCompile(`"seq": [1-9][0-9]*`)

var seconds = regexp.MustCompile(`"(seconds|expected)": [0-9.e-]+`)

// TestPlanFormat holds the form of joist plan -o json to what docs/plan-format.md promises, and that planning changes no
// journal.
func TestPlanFormat(t *testing.T) {
	e := newEngine(t)
	doc, err := os.ReadFile("../../../docs/plan-format.md")
	must(t, err)
	check := func(name string, args ...string) {
		t.Helper()
		before := e.journals()
		out := e.want(cli.OK, nil, append([]string{"plan", "-o", "json"}, args...)...)
		if e.journals() != before {
			t.Errorf("%s: planning changed a journal", name)
		}
		var indented map[string]any
		must(t, json.Unmarshal([]byte(out), &indented))
		documented(t, string(doc), indented)
		data, err := json.MarshalIndent(indented, "", "  ")
		must(t, err)
		data = sequence.ReplaceAll(data, []byte(`"seq": 12`))
		got := seconds.ReplaceAllString(string(data), `"$1": 1.5`) + "\n"
		path := filepath.Join("testdata", name+".json")
		if *update {
			must(t, os.WriteFile(path, []byte(got), 0o600))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if got != string(want) {
			t.Errorf("%s: the plan's form has changed; if fields were only added, run go test -update and say so in docs/plan-format.md. Got\n%s", name, got)
		}
	}
	check("plan-first", e.file(demo))
	e.want(cli.OK, nil, "apply", e.file(demo))
	check("plan-unchanged")
	check("plan-mixed", e.file(strings.ReplaceAll(demo, "n1 n2", "n1 n3")+"task late each : task.member\n"))
	check("plan-destroy", "--cluster", "demo", "--destroy")
	e.want(cli.OK, []string{"wipe: node n1, node n2", "removal: member[n1]", "n2    -      leaves, wipe"}, "plan", "--destroy")
}

// documented looks for every name of a field in the document.
func documented(t *testing.T, doc string, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if name != "counts" && name != "roles" {
				documented(t, doc, inner)
			}
			if !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("docs/plan-format.md does not mention %q", name)
			}
		}
	case []any:
		for _, inner := range v {
			documented(t, doc, inner)
		}
	}
}

// TestPlanFile: a kept plan is run exactly, or refused with what has changed.
func TestPlanFile(t *testing.T) {
	e := newEngine(t)
	kept := filepath.Join(t.TempDir(), "demo.plan")
	file := e.file(demo)
	e.want(cli.OK, []string{"joins", "it had never run", "runs exactly this, or refuses"}, "plan", file, "--out", kept)
	info, err := os.Stat(kept)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("a kept plan has mode %v", info.Mode())
	}
	must(t, os.Remove(file)) // the plan has all that it needs
	e.want(cli.OK, []string{"cluster demo converged"}, "apply", kept)

	before := e.journals()
	out := e.want(cli.Failed, []string{"this plan of cluster demo, made at event 0, is not what would be done now", "name[n1] was to be run and now is unchanged", "nothing was changed; plan again"}, "apply", kept)
	if out != "" || e.journals() != before {
		t.Errorf("a refused plan changed a journal, or said %q", out)
	}

	grown := e.file(strings.ReplaceAll(demo, "n1 n2", "n1 n2 n3"))
	e.want(cli.OK, []string{"TASK", "NODE", "n3", "joins", "2 more nodes stay as they are"}, "plan", grown, "--out", kept)
	e.want(cli.OK, nil, "force", "demo/member[n1]")
	e.want(cli.OK, nil, "watch")
	e.want(cli.OK, []string{"converged"}, "apply", kept) // what was forced is done: the plan is the same again
	e.want(cli.OK, []string{"nothing to do: 6 unchanged"}, "plan")

	e.want(cli.OK, nil, "plan", e.file(demo), "--out", kept)
	e.set(func() { e.hold["member[n2]"] = true })
	e.want(cli.OK, nil, "force", "demo/member[n2]")
	e.want(cli.Failed, []string{"member[n2] was to be unchanged and now is run"}, "apply", kept)

	damaged := filepath.Join(t.TempDir(), "damaged.plan")
	must(t, os.WriteFile(damaged, []byte(`{"format":"joist-plan-file/1","plan":{"items":[`+strings.Repeat(" ", 100)), 0o600))
	e.want(cli.Failed, []string{"cannot read the plan", "it is damaged"}, "apply", damaged)
	future := filepath.Join(t.TempDir(), "future.plan")
	must(t, os.WriteFile(future, []byte(`{"format":"joist-plan-file/2","plan":{"items":[]},"source":{"file_name":"a","file":"YQ=="}}`), 0o600))
	e.want(cli.Failed, []string{"its format is joist-plan-file/2", v1.PlanFileFormat}, "apply", future)
	e.want(cli.Usage, []string{"name FILE"}, "plan", "--out", kept)
}
