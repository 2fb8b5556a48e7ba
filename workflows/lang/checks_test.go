package lang_test

import (
	"fmt"
	"strings"
	"testing"

	"joist/workflows/lang"
)

const checkedPack = `pack "p" {
  version = "1.0.0"
  summary = "A pack with conditions."
}
step "use" {
  scope = "cluster"
  input "domain" { type = string }
  output "domain" { type = string }
  apply { outputs = { domain = input.domain } }
}
workflow "inner" {
  role "member" {}
  input "domain" { type = string }
  task "use" {
    step = use
    with = { domain = input.domain }
  }
  check "short" {
    that    = length(input.domain) < 10
    message = "The domain ${input.domain} is too long: shorten it."
  }
}
workflow "all" {
  role "control" {}
  role "worker" {}
  input "domain" { type = fqdn }
  input "services" {
    type    = cidr
    default = "10.32.0.0/16"
  }
  input "pods" {
    type    = cidr
    default = "10.200.0.0/16"
  }
  task "use" {
    step  = inner
    roles = { member = role.control }
    with  = { domain = input.domain }
  }
  check "odd" {
    that    = length(role.control) % 2 == 1
    message = "An even number of members (${length(role.control)}) is no safer than one fewer: give control an odd number of machines."
  }
  check "apart" {
    that    = !cidrcontains(input.services, cidrhost(input.pods, 0)) && !cidrcontains(input.pods, cidrhost(input.services, 0))
    message = "Services (${input.services}) and pods (${input.pods}) overlap: change one of them."
  }
}
`

func TestChecks(t *testing.T) {
	for _, test := range []struct{ nodes, with, want string }{
		{`["a"]`, `domain = "a.lab"`, ""},
		{`select(true, 3)`, `domain = "a.lab"`, ""},
		{`["a", "b"]`, `domain = "a.lab"`, "error: An even number of members (2) is no safer than one fewer: give control an odd number of machines.\n  --> c.hcl:5:16"},
		{`select(true, 4)`, `domain = "a.lab"`, "An even number of members (4)"},
		{`["a"]`, `domain = "a.lab", pods = "10.32.4.0/24"`, "error: Services (10.32.0.0/16) and pods (10.32.4.0/24) overlap: change one of them.\n  --> c.hcl:4:34"},
		{`["a"]`, `domain = "a.lab", services = "10.0.0.0/8"`, "overlap: change one of them."},
		{`["a"]`, `domain = "a.very.long.lab"`, "The domain a.very.long.lab is too long: shorten it."},
	} {
		file, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, `cluster "c" {
  workflow = p.all
  packs    = { p = { source = "./p" } }
  with     = { %s }
  nodes    = { control = %s, worker = ["w"] }
}
`, test.with, test.nodes))
		if len(ds) > 0 {
			t.Fatal(ds.Text())
		}
		m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": packOf(t, checkedPack)}, Cluster: file})
		if got := ds.Text(); (test.want == "") != (got == "") || !strings.Contains(got, test.want) || (m == nil) != (test.want != "") {
			t.Errorf("%s, %s: want %q\n%s", test.nodes, test.with, test.want, got)
		}
	}
}

func TestCheckOfLaterValues(t *testing.T) {
	late := strings.Replace(checkedPack, "with  = { domain = input.domain }", "with  = { domain = task.first.domain }", 1)
	late = strings.Replace(late, "  check \"odd\"", "  task \"first\" {\n    step = use\n    with = { domain = input.domain }\n  }\n  check \"odd\"", 1)
	file, ds := lang.LoadCluster("c.hcl", []byte("cluster \"c\" {\n  workflow = p.all\n  packs = { p = { source = \"./p\" } }\n  with = { domain = \"a.lab\" }\n  nodes = { control = [\"a\"], worker = [\"w\"] }\n}\n"))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	_, ds = lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"p": packOf(t, late)}, Cluster: file})
	if !strings.Contains(ds.Text(), "a check rests on what is known only later") {
		t.Error(ds.Text())
	}
}
