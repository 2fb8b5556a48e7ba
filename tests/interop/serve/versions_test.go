package serve_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// versioned is a pack of which the engine has two versions: the newer one balances at another port, has a second name, and
// calls a workflow of its own.
var versioned = map[string]string{
	"1.4.0": `
workflow "cluster" {
  input "domain" { type = fqdn }
  task "front" {
    step = base.balancer
    with = { name = "www.${input.domain}", port = 443 }
  }
  task "alias" {
    step = base.dns_record
    with = { name = "old.${input.domain}", addresses = ["10.99.0.77"] }
  }
}
`,
	"2.0.0": `
workflow "cluster" {
  input "domain" { type = fqdn }
  task "front" {
    step = base.balancer
    with = { name = "www.${input.domain}", port = 8443 }
  }
  task "names" {
    step = names
    with = { domain = input.domain }
  }
}

workflow "names" {
  input "domain" { type = fqdn }
  task "alias" {
    step = base.dns_record
    with = { name = "new.${input.domain}", addresses = ["10.99.0.78"] }
  }
}
`}

// TestVersions: two clusters of one engine are pinned to different versions of one pack. Each is planned, built, upgraded and
// taken back by its own version, and the other one is as it was.
func TestVersions(t *testing.T) {
	dir := t.TempDir()
	for version, body := range versioned {
		writeFile(t, filepath.Join(dir, "p", version, "pack.hcl"),
			fmt.Appendf(nil, "pack \"p\" {\n  version  = %q\n  summary  = \"In two versions.\"\n  requires = { base = \">= 0.1.0\" }\n}\n%s", version, body))
	}
	declare := func(name, version string) string {
		file := filepath.Join(dir, name+".hcl")
		writeFile(t, file, fmt.Appendf(nil, "cluster %q {\n  workflow = p.cluster\n  packs    = { base = { source = \"builtin\" }, p = { source = \"./p\", version = \"= %s\" } }\n  nodes    = {}\n  with     = { domain = \"%s.lab\" }\n}\n",
			name, version, name))
		return file
	}
	data := filepath.Join(t.TempDir(), "data")
	e := start(t, data)
	one, two := declare("one", "1.4.0"), declare("two", "2.0.0")
	if plan := e.want(0, "", "plan", one); !strings.Contains(plan, "alias") || strings.Contains(plan, "names.alias") {
		t.Errorf("the older version's plan:\n%s", plan)
	}
	if plan := e.want(0, "", "plan", two); !strings.Contains(plan, "names.alias") {
		t.Errorf("the newer version's plan:\n%s", plan)
	}
	e.want(0, "", "apply", one)
	e.want(0, "", "apply", two)
	// did gives what became of instances of a cluster, from its events.
	did := func(cluster string) []string {
		var list []string
		for _, line := range strings.Split(strings.TrimSpace(e.want(0, "", "events", "--cluster", cluster, "-o", "json")), "\n") {
			var v struct {
				Kind string
				Data struct{ Task, Action string }
			}
			must(t, json.Unmarshal([]byte(line), &v))
			if v.Kind == "succeeded" {
				list = append(list, v.Data.Action+" "+v.Data.Task)
			}
		}
		slices.Sort(list)
		return list
	}
	wants := func(cluster string, want ...string) {
		t.Helper()
		if got := did(cluster); !slices.Equal(got, want) {
			t.Errorf("cluster %s did %q, want %q", cluster, got, want)
		}
	}
	wants("one", "apply alias", "apply front")
	wants("two", "apply front", "apply names.alias")
	other := did("two")

	// The older one is upgraded: what only the older version knows is removed by it.
	declare("one", "2.0.0")
	if plan := e.want(0, "", "plan", one); !strings.Contains(plan, "names.alias") || !strings.Contains(plan, "remove") {
		t.Errorf("the upgrade's plan:\n%s", plan)
	}
	e.want(0, "", "apply", one)
	wants("one", "apply alias", "apply front", "apply front", "apply names.alias", "remove alias")
	if !slices.Equal(did("two"), other) {
		t.Error("the other cluster did something")
	}
	// And back, after a restart of the engine: it keeps every version that a cluster was given.
	e.kill()
	e = start(t, data)
	declare("one", "1.4.0")
	e.want(0, "", "apply", one)
	e.want(0, "", "plan", two)
	e.want(0, "destroyed", "destroy", "one", "--yes")
	e.gone("one")
	if !slices.Equal(did("two"), other) {
		t.Error("the other cluster did something")
	}
	e.want(0, "destroyed", "destroy", "two", "--yes")
	e.gone("two")
}
