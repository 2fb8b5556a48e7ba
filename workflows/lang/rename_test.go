package lang_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"joist/engine/history"
	"joist/engine/model"
	"joist/workflows/lang"
)

const renamedPack = `pack "p" {
  version = "1.0.0"
  summary = "A pack whose tasks and roles are renamed."
}
step "make" {
  scope = "node"
  input "name" { type = fqdn }
  output "fqdn" { type = fqdn }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
step "other" {
  scope = "node"
  input "name" { type = fqdn }
  output "fqdn" { type = fqdn }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
step "seat" {
  scope = "cluster"
  input "at" { type = fqdn }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}
workflow "inner" {
  role "$x" {
    min = 1
    $x.was
  }
  task "$deep" {
    step = make
    each = role.$x
    with = { name = "d.lab" }
    $deep.was
  }
  rollout "slow" { tasks = [task.$deep] }
}
workflow "flow" {
  role "$m" {
    min = 1
    $m.was
  }
  slot "$base" {
    step = $step
    each = role.$m
    with = { name = "${node.name}.lab" }
    $base.was
  }
  task "$many" {
    step = make
    each = role.$m
    for  = toset(["k1", "k2"])
    with = { name = "${item.key}.lab" }
    $many.was
  }
  task "seat" {
    step  = seat
    each  = role.$m
    on    = role.$m
    with  = { at = host.$base.fqdn }
    after = [task.$many]
  }
  task "$call" {
    step  = inner
    roles = { $x = role.$m }
    $call.was
  }
  task "reader" {
    step  = make
    each  = role.$m
    with  = { name = [for n, o in all.$base : o.fqdn if n == node.name][0] }
    after = [task.$call]
  }
  rollout "r" {
    tasks         = [task.$base, task.seat]
    max_in_flight = 1
  }
}
`

// renamed makes a version of the pack: names that differ, as "now" or "now was old old".
func renamed(t *testing.T, names ...string) *lang.Pack {
	t.Helper()
	text := renamedPack
	words := map[string]string{"step": "make"}
	for _, n := range names {
		key, name, _ := strings.Cut(n, "=")
		words[key] = name
	}
	for _, key := range []string{"x", "deep", "base", "many", "call", "m", "step"} { // what begins like another comes first
		if words[key] == "" {
			words[key] = key
		}
		now, was, _ := strings.Cut(words[key], " was ")
		list := ""
		if was != "" {
			list = fmt.Sprintf("was = [%q]", strings.Fields(was))
			list = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(list, "[[", "["), "]]", "]"), `" "`, `", "`)
		}
		text = strings.ReplaceAll(text, "$"+key+".was", list)
		if key == "m" { // $many and $make are gone by now
			text = strings.ReplaceAll(text, "$m", now)
			continue
		}
		text = strings.ReplaceAll(text, "$"+key, now)
	}
	p, ds := lang.Load(map[string][]byte{"files/run.sh": []byte("#!/bin/sh\n"), "pack.hcl": []byte(text)}, catalogue)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	return p
}

// become sets a version as the goal as an engine does: what was renamed stands by the name that it had first.
func (n *nodes) become(p *lang.Pack, role, slots string) (*model.Model, string) {
	n.t.Helper()
	file, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, "cluster \"demo\" {\n  workflow = p.flow\n  packs = { p = { source = \"builtin\" } }\n  nodes = { %s = [\"n1\", \"n2\"] }\n  %s\n}\n", role, slots))
	if len(ds) > 0 {
		n.t.Fatal(ds.Text())
	}
	src := lang.Source{Packs: map[string]*lang.Pack{"p": p}, Cluster: file}
	var before []*model.Model
	for _, g := range slices.Backward(n.m.State().Goals) {
		before = append(before, n.models[g.Model])
	}
	m, ds := lang.CompileAfter(src, before)
	if m == nil {
		n.t.Fatal(ds.Text())
	}
	n.ran = nil
	n.models[m.Digest] = m
	n.do(history.Goal{Model: m.Digest, Roles: map[string][]string{m.Roles[0].Name: {"n1", "n2"}}, Changed: true})
	return m, ds.Text()
}

// TestRename: a task or a role that has another name now is the same one, whoever reads it, is ordered after it, or rolls it
// out: nothing is removed, nothing runs again, whatever way the cluster went through the pack's versions.
func TestRename(t *testing.T) {
	first := func() *lang.Pack { return renamed(t) }
	second := func() *lang.Pack {
		return renamed(t, "base=ground was base", "many=lots was many", "deep=low was deep", "call=sub was call", "m=member was m", "x=y was x")
	}
	third := func() *lang.Pack {
		return renamed(t, "base=soil was base ground", "many=heap was many lots", "deep=down was deep low", "call=under was call sub", "m=node was m member", "x=z was x y")
	}
	forgetful := func() *lang.Pack { // which lists nothing from before any more
		return renamed(t, "base=soil", "many=heap", "deep=down", "call=under", "m=node", "x=z")
	}
	type version struct {
		p    *lang.Pack
		role string
	}
	all := "base[n1] base[n2] call.deep[n1] call.deep[n2] many:k1[n1] many:k1[n2] many:k2[n1] many:k2[n2] reader[n1] reader[n2] seat[n1] seat[n2]"
	for name, way := range map[string][]version{
		"one by one":            {{first(), "m"}, {second(), "member"}, {third(), "node"}, {forgetful(), "node"}},
		"over one":              {{first(), "m"}, {third(), "node"}, {forgetful(), "node"}},
		"by the old role":       {{first(), "m"}, {second(), "m"}, {third(), "member"}},
		"and back":              {{first(), "m"}, {second(), "member"}, {third(), "node"}, {first(), "m"}},
		"never called so first": {{first(), "m"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNodes(t)
			for i, v := range way {
				_, said := n.become(v.p, v.role, "")
				n.up("n1", "n2")
				slices.Sort(n.ran)
				want := ""
				if i == 0 {
					want = all
				}
				if got := strings.Join(n.ran, " "); got != want || n.m.State().Outcome != "converged" {
					t.Fatalf("version %d ran %q, want %q; %s", i, got, want, n.m.State().Outcome)
				}
				if old := name == "by the old role" && i > 0; old != strings.Contains(said, "is called") {
					t.Errorf("version %d: it was said %q", i, said)
				}
			}
		})
	}
}

// TestRenameChanges: what is another thing under a new name is replaced, what takes a former name is new, and what is not
// said to have been renamed is removed.
func TestRenameChanges(t *testing.T) {
	n := newNodes(t)
	n.become(renamed(t), "m", "")
	n.up("n1", "n2")
	if _, said := n.become(renamed(t, "base=ground was base", "step=other"), "m", ""); said != "" {
		t.Error(said)
	}
	// Another step at the same place: it is taken away and made anew, and so is what reads it.
	if got := strings.Join(n.ran, " "); !strings.Contains(got, "remove base[n1] base[n1]") || strings.Contains(got, "many") {
		t.Errorf("another step: ran %q", got)
	}
	m, _ := n.become(renamed(t, "base=ground", "step=other", "many=base"), "m", "")
	if got := strings.Join(n.ran, " "); !strings.Contains(got, "remove many:k1[n1]") || !strings.Contains(got, "base~2:k1[n1]") || strings.Contains(got, "base[n1]") {
		t.Errorf("a former name is used again: ran %q", got)
	}
	if task, now := m.TaskCalled("ground"); task == nil || task.Name != "base" || !now {
		t.Errorf("ground stands by %+v", task)
	}
	if task, now := m.TaskCalled("base"); task == nil || task.CalledNow() != "ground" || now {
		t.Errorf("base is called %+v", task)
	}
	n.become(renamed(t, "base=floor", "step=other", "many=base"), "m", "")
	if got := strings.Join(n.ran, " "); !strings.Contains(got, "remove base[n1]") || !strings.Contains(got, "floor[n1]") {
		t.Errorf("nobody says that it was renamed: ran %q", got)
	}
	p := n.m.Plan()
	if got := p.Called(history.Target{Task: "floor", Node: "n1"}).String(); got != "floor[n1]" {
		t.Error(got)
	}
}

// TestRenamePolicies: a policy is about what it names, by whatever name that stands; also about what a renamed call no longer has.
func TestRenamePolicies(t *testing.T) {
	const about = `policy "p" {
    refuse = "removal"
    roles  = [role.%s]
    tasks  = [%s]
  }
`
	n := newNodes(t)
	n.become(renamed(t), "m", fmt.Sprintf(about, "m", "task.base, task.call"))
	n.up("n1", "n2")
	m, _ := n.become(renamed(t, "base=ground was base", "call=sub was call", "m=member was m"), "member", fmt.Sprintf(about, "member", "task.ground, task.sub"))
	p := m.Policies[0]
	if m, _ := n.become(renamed(t, "base=ground was base", "deep=low was deep", "call=sub was call", "m=member was m"), "member", fmt.Sprintf(about, "member", "task.sub.low")); !m.Policies[0].About("call.deep", []string{"m"}, []string{"m"}) {
		t.Error("a policy is not about a task of a call, by what both were called before")
	}
	for task, want := range map[string]bool{"base": true, "call.deep": true, "call.gone": true, "many": false, "reader": false} {
		if got := p.About(task, []string{"m"}, []string{"m"}); got != want {
			t.Errorf("the policy is about %s: %t", task, got)
		}
	}
}

// TestPolicyGone: a policy names what only the cluster has still, for as long as it says so; what never was is an error.
func TestPolicyGone(t *testing.T) {
	about := func(role, task string) string {
		return fmt.Sprintf("policy \"p\" {\n    refuse = \"removal\"\n    roles  = [role.%s]\n    tasks  = [%s]\n  }\n", role, task)
	}
	n := newNodes(t)
	n.become(renamed(t), "m", about("m", "task.base"))
	n.up("n1", "n2")
	was := renamed(t, "base=ground was base", "m=member was m")
	n.become(was, "member", about("member", "task.ground"))
	dropped := renamed(t, "base=floor", "call=under", "m=member was m")
	for range 2 { // also once the policies are all that knows of it
		m, _ := n.become(dropped, "member", about("m", "task.ground, task.call"))
		for task, want := range map[string]bool{"base": true, "call.deep": true, "floor": false, "many": false} {
			if got := m.Policies[0].About(task, []string{"m"}, []string{"m"}); got != want {
				t.Errorf("the policy %+v is about %s: %t", m.Policies[0], task, got)
			}
		}
	}
	if got := strings.Join(n.ran, " "); strings.Contains(got, "remove base") {
		t.Errorf("held, and all the same it ran %q", got)
	}
	for _, wrong := range []string{about("m", "task.grund"), about("n", "task.ground")} {
		file, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, "cluster \"demo\" {\n workflow = p.flow\n packs = { p = { source = \"builtin\" } }\n nodes = { member = [\"n1\", \"n2\"] }\n %s}\n", wrong))
		if len(ds) > 0 {
			t.Fatal(ds.Text())
		}
		if m, ds := lang.CompileAfter(lang.Source{Packs: map[string]*lang.Pack{"p": dropped}, Cluster: file}, []*model.Model{n.m.Plan().Model()}); m != nil || !strings.Contains(ds.Text(), "does not have") {
			t.Errorf("%s: %+v\n%s", wrong, m, ds.Text())
		}
	}
}
