package lang_test

import (
	"strings"
	"testing"

	"joist/workflows/lang"
)

// TestOnDemand: a task on demand is asked for by its name, and all that a call on demand has by the name of the outermost one.
func TestOnDemand(t *testing.T) {
	src := strings.Replace(inner, "step ", `step "look" {
  scope = "node"
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}

workflow "deep" {
  role "m" { min = 1 }
  task "a" {
    step = look
    each = role.m
  }
  task "b" {
    step      = look
    each      = role.m
    after     = [task.a]
    on_demand = true
  }
}

workflow "checked" {
  role "m" { min = 1 }
  task "usual" {
    step  = deep
    roles = { m = role.m }
  }
  task "check" {
    step      = deep
    roles     = { m = role.m }
    on_demand = true
  }
  task "after" {
    step          = look
    each          = role.m
    after         = [task.usual]
  }
  task "way" {
    step          = look
    each          = role.m
    except_during = [task.usual]
  }
  task "items" {
    step      = look
    each      = role.m
    for       = toset(["1", "2"])
    on_demand = true
  }
}

step `, 1)
	file, ds := lang.LoadCluster("c.hcl", []byte(`cluster "c" {
  workflow = inner.checked
  packs    = { inner = { source = "./inner" } }
  nodes    = { m = ["a"] }
}
`))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"inner": packOf(t, src)}, Cluster: file})
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	want := map[string]string{"usual.a": "", "usual.b": "usual.b", "after": "", "way": "", "check.a": "check", "check.b": "check", "items:1": "items", "items:2": "items"}
	for i := range m.Tasks {
		task := &m.Tasks[i]
		asked, known := want[task.Name]
		if !known || task.Asked != asked {
			t.Errorf("%s is asked for by %q, want %q", task.Name, task.Asked, asked)
		}
		delete(want, task.Name)
		for _, a := range task.After { // usual.b, which nobody waits for
			if a.Task == "usual.b" || len(task.Except) > 1 {
				t.Errorf("%s is after %v and makes way for %v", task.Name, task.After, task.Except)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
}
