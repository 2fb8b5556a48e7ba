package arch_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rules are all the rules, by the name that their violations bear.
var rules = map[string]func(*tree) []violation{
	"tiers": checkTiers, "homes": checkHomes, "names": checkNames, "pure": checkPure, "init": checkInit, "state": checkState,
	"sizes": checkSizes, "docs": checkDocs,
}

// TestRules: nothing in the repository breaks a rule.
func TestRules(t *testing.T) {
	tree := repository(t)
	for name, check := range rules {
		t.Run(name, func(t *testing.T) {
			for _, v := range sorted(check(tree)) {
				t.Error(v)
			}
		})
	}
}

// The tree as a whole keeps its budgets.
func TestSpread(t *testing.T) {
	s := repository(t).spread()
	t.Logf("%d lines, %d %% of them tests; p95: functions %d, files %d lines", s.lines, s.tests*100/s.lines, p95(s.functions), p95(s.files))
	if p95(s.functions) > p95Function {
		t.Errorf("5 of 100 functions are longer than %d lines; the budget is %d", p95(s.functions)-1, p95Function)
	}
	if p95(s.files) > p95File {
		t.Errorf("5 of 100 files are longer than %d lines; the budget is %d", p95(s.files)-1, p95File)
	}
}

// want is a planted violation: a comment on its line names the rules that must see it.
var want = regexp.MustCompile(`// want ([a-z ]+)$`)

// Every rule sees what was planted for it, and nothing else there.
func TestRulesSeeWhatIsPlanted(t *testing.T) {
	planted, err := load("testdata/planted")
	if err != nil {
		t.Fatal(err)
	}
	var wanted, got []string
	seen := map[string]int{}
	for _, p := range planted.pkgs {
		for _, f := range p.files {
			src, err := os.ReadFile(filepath.Join("testdata/planted", f.name))
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(src), "\n") {
				if m := want.FindStringSubmatch(line); m != nil {
					for _, rule := range strings.Fields(m[1]) {
						wanted = append(wanted, fmt.Sprintf("%s:%d: %s", f.name, i+1, rule))
						seen[rule]++
					}
				}
			}
		}
	}
	for _, check := range rules {
		for _, v := range check(planted) {
			t.Log(v)
			got = append(got, fmt.Sprintf("%s:%d: %s", v.at.Filename, v.at.Line, v.rule))
		}
	}
	slices.Sort(wanted)
	slices.Sort(got)
	for _, w := range wanted {
		if !slices.Contains(got, w) {
			t.Errorf("not seen: %s", w)
		}
	}
	for _, g := range slices.Compact(got) {
		if !slices.Contains(wanted, g) {
			t.Errorf("seen where nothing is wrong: %s", g)
		}
	}
	for name := range rules {
		if seen[name] == 0 {
			t.Errorf("nothing is planted for %s", name)
		}
	}
}

// agentWithout lists what the program on the nodes must not link.
var agentWithout = []string{"github.com/cloudflare/cfssl", "gorm.io/", "github.com/glebarez/", "modernc.org/", "github.com/hashicorp/hcl", "github.com/zclconf/go-cty"}

// The agent stays small: no SQL, no certificate authority, no language.
func TestAgentLinksLittle(t *testing.T) {
	if heavy := linked(t, "../..", "./cmd/joist-agent"); len(heavy) > 0 {
		t.Errorf("cmd/joist-agent links %s", heavy)
	}
	if heavy := linked(t, "../..", "./engine/journal/sqlstore"); len(heavy) == 0 {
		t.Error("the check does not see SQL where it is")
	}
}

func linked(t *testing.T, dir, target string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", target)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cannot list what %s links: %v\n%s", target, err, out)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(dep string) bool {
		return !slices.ContainsFunc(agentWithout, func(prefix string) bool { return strings.HasPrefix(dep, prefix) })
	})
}

func sorted(v []violation) []violation {
	slices.SortFunc(v, func(a, b violation) int {
		return cmp.Or(cmp.Compare(a.at.Filename, b.at.Filename), cmp.Compare(a.at.Line, b.at.Line))
	})
	return v
}
