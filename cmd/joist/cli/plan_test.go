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
	mixed := e.file(strings.ReplaceAll(demo, "n1 n2", "n1 n3") + "task late each : task.member\n")
	check("plan-mixed", mixed)
	e.want(cli.OK, []string{"wipe: node n2\n", "n2    -      leaves, wipe"}, "plan", mixed)
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

// TestPlanUnknown: what is not known yet is shown with what it is known after, and how many of those are to go; what hangs on it is
// counted between bounds, and decided in the same run.
func TestPlanUnknown(t *testing.T) {
	e := newEngine(t)
	file := e.file("cluster demo\nnodes n1 n2 n3\ntask member each\ntask late each : task.member\ntask hosts each : all.member\n")
	plan := func(least, most int, instance, after string, count int, args ...string) {
		t.Helper()
		var p v1.Plan
		must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, append([]string{"plan", "-o", "json"}, args...)...)), &p))
		if p.Runs != (v1.Bounds{Least: least, Most: most}) {
			t.Errorf("it runs %+v, want %d to %d", p.Runs, least, most)
		}
		for _, it := range p.Items {
			if it.Instance == instance && (len(it.Known) != 1 || it.Known[0] != (v1.Pending{Input: "i0", After: after, Count: count})) {
				t.Errorf("%s: %+v", instance, it.Known)
			}
		}
	}
	plan(9, 9, "hosts[n2]", "member", 3, file)
	e.want(cli.OK, []string{"i0 known after member[n2]", "i0 known after all of member (3 to go)", "9 run"}, "plan", file)
	e.want(cli.OK, nil, "apply", file)
	e.set(func() { e.hold["member[n2]"] = true })
	e.want(cli.OK, nil, "force", "demo/member[n2]")
	plan(1, 5, "late[n2]", "member[n2]", 1)
	plan(1, 5, "hosts[n3]", "member", 1)
	e.want(cli.OK, []string{"run if changed", "i0 known after member[n2]", "between 1 and 5 instances will run"}, "plan")
	e.want(cli.OK, nil, "cancel", "demo")
	e.set(func() { clear(e.hold) })
	e.want(cli.OK, []string{"converged"}, "retry", "demo")
	if e.did("member[n2]") != 2 || e.did("late[n2]") != 1 || e.did("hosts[n1]") != 1 {
		t.Errorf("%d, %d, %d runs", e.did("member[n2]"), e.did("late[n2]"), e.did("hosts[n1]"))
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

// TestPlanWithoutMachines: a plan of what there are no machines for says what is missing, and what would run on them; it
// cannot be kept or applied, and changes nothing.
func TestPlanWithoutMachines(t *testing.T) {
	e := newEngine(t)
	before := e.journals()
	few := e.file("cluster demo\nselect 5\ntask name each service\ntask member each : task.name\n")
	e.want(cli.OK, []string{
		"missing: 2 machines for role m: cannot find 5 machines for role m of cluster demo: only 3 will do (there are no other machines)", "joist node list",
		"member[n1]", "10 run", "missing-1  m      missing", "n3         m      joins",
	}, "plan", few)
	var p v1.Plan
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "plan", few, "-o", "json")), &p))
	if len(p.Missing) != 1 || p.Missing[0].Role != "m" || strings.Join(p.Missing[0].Nodes, " ") != "missing-1 missing-2" || len(p.Items) != 10 {
		t.Errorf("%+v", p)
	}
	doc, err := os.ReadFile("../../../docs/plan-format.md")
	must(t, err)
	documented(t, string(doc), map[string]any{"missing": map[string]any{"role": "", "nodes": "", "says": ""}})
	named := e.file("cluster demo\nnodes n1 n8 n9\ntask name each service\n")
	e.want(cli.OK, []string{"missing: 2 machines for role m: cannot give n8 to role m of cluster demo: there is no machine of that name; cannot give n9", "n9    m      missing"}, "plan", named)
	e.want(cli.Failed, []string{"cannot keep this plan", "cannot find 5 machines"}, "plan", few, "--out", filepath.Join(t.TempDir(), "p"))
	e.want(cli.Failed, []string{"cannot find 5 machines"}, "apply", few)
	e.want(cli.Failed, []string{"cannot give n8"}, "apply", named)
	if e.journals() != before {
		t.Error("something was changed")
	}
}
