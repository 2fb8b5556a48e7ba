package lang_test

import (
	"strings"
	"testing"

	"joist/engine/model"
	"joist/workflows/lang"
)

const policyPack = `pack "p" {
  version = "0.1.0"
  summary = "Something."
}
step "one" {
  scope = "node"
  apply { script = "files/x.sh" }
  remove { script = "files/x.sh" }
}
workflow "inner" {
  role "m" {}
  task "member" {
    step = one
    each = role.m
  }
}
workflow "w" {
  role "control" {}
  input "extras" {
    type    = set(string)
    default = []
  }
  task "extra" {
    step = one
    each = role.control
    for  = input.extras
  }
  task "seat" {
    step = one
    each = role.control
  }
  task "etcd" {
    step  = inner
    roles = { m = role.control }
  }
}
`

// TestPolicies reads policies, and reports what they refer to that is not there, with its place.
func TestPolicies(t *testing.T) {
	pack, diags := lang.Load(map[string][]byte{"pack.hcl": []byte(policyPack), "files/x.sh": []byte("#!/bin/sh\n")}, lang.Catalogue{})
	if diags.HasErrors() {
		t.Fatal(diags.Text())
	}
	for text, want := range map[string]string{
		`refuse = "removal"`: "",
		`refuse = "removal" | roles = [role.control] | tasks = [task.seat, task.etcd, task.etcd.member] | beyond = 1`: "",
		`refuse = "wipe" | outside = ["Sat 02:00-06:00", "Sun"] | zone = "+02:00" | override = true`:                  "",
		`refuse = "removal" | tasks = [task.extra]`:                                                                   "", // which has no items
		`beyond = 1`:          `policy "p" has no refuse`,
		`refuse = "removals"`: `Did you mean "removal"?`,
		`refuse = "reboot" | tasks = [task.seat]`:                         "",
		`refuse = "reboots"`:                                              `Did you mean "reboot"?`,
		`refuse = "wipe" | tasks = [task.seat]`:                           "a wipe is of a whole node",
		`refuse = "wipe" | roles = [role.contro]`:                         `c.hcl:7:12: policy "p" is about a role "contro"`,
		`refuse = "removal" | tasks = [task.sea]`:                         `Did you mean "seat"?`,
		`refuse = "removal" | tasks = [task.etcd.memb]`:                   `is about a task "etcd.memb"`,
		`refuse = "removal" | tasks = [seat]`:                             "expected a task",
		`refuse = "removal" | beyond = -1`:                                "beyond is not a number of that kind",
		`refuse = "removal" | outside = ["Sat 2-6"]`:                      `"2-6" is not a time of the day`,
		`refuse = "removal" | outside = []`:                               "outside names no time of the week",
		`refuse = "removal" | zone = "+02:00"`:                            "a zone without times of the week",
		`refuse = "removal" | outside = ["Sat"] | zone = "Europe/Berlin"`: `"Europe/Berlin" is not a zone`,
		`refuse = "removal" | within = 1`:                                 `no attribute of policy "p" is called "within"`,
	} {
		src := "cluster \"c\" {\n workflow = p.w\n packs = { p = { source = \"builtin\" } }\n nodes = {}\n policy \"p\" {\n " + strings.ReplaceAll(text, " | ", "\n ") + "\n }\n}\n"
		file, diags := lang.LoadCluster("c.hcl", []byte(src))
		var m *model.Model
		if file != nil {
			var more lang.Diagnostics
			m, more = lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": pack}, Cluster: file})
			diags = append(diags, more...)
		}
		switch said := diags.Text(); {
		case want == "" && (m == nil || len(m.Policies) != 1 || m.Policies[0].Range.Line != 5):
			t.Errorf("%s: %+v\n%s", text, m, said)
		case want != "" && !strings.Contains(said, strings.TrimPrefix(want, "c.hcl:7:12: ")):
			t.Errorf("%s: does not say %q\n%s", text, want, said)
		case strings.HasPrefix(want, "c.hcl:") && !strings.Contains(said, "c.hcl:7:"):
			t.Errorf("%s: does not say where\n%s", text, said)
		}
	}
}
