package lang_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/format"
	"joist/workflows/lang"
)

// scope is a model.Scope backed by a map; what is not there is unknown.
type scope map[model.Ref]value.Value

func (s scope) Lookup(r model.Ref) value.Value { return s[r] }

const inner = `pack "inner" {
  version = "1.2.3"
  summary = "A workflow to be called."
  trust   = "vouched"
}

step "member" {
  scope = "node"
  input "name" { type = string }
  input "port" { type = number }
  input "peers" { type = list(string) }
  output "url" { type = url }
  apply { script = "files/run.sh" }
  irreversible = "a test"
}

step "once" {
  scope = "cluster"
  input "value" { type = any }
  output "value" { type = any }
  apply { outputs = { value = input.value } }
}

workflow "cluster" {
  role "member" {
    min    = 3
    memory = gib(2)
  }
  input "domain" { type = fqdn }
  input "port" {
    type    = number
    default = 2379
  }
  input "extra" {
    type    = bool
    default = true
  }
  task "peers" {
    step = once
    with = { value = [for n, m in role.member : "${n}.${input.domain}"] }
  }
  task "member" {
    step = member
    each = role.member
    when = input.extra
    with = { name = node.name, port = input.port, peers = task.peers.value }
  }
  output "domain" { value = upper(input.domain) }
  output "url" {
    each  = role.member
    value = "${task.member.url}/${node.name}/${input.port}"
  }
  rollout "members" {
    tasks         = [task.member]
    max_in_flight = [1, 2, "25%"]
    spread        = node.facts.rack
  }
}
`

const outer = `pack "outer" {
  version  = "1.0.0"
  summary  = "Calls another pack's workflow."
  requires = { inner = "~> 1.2" }
}

step "use" {
  scope = "node"
  input "urls" { type = map(url) }
  input "mine" { type = url }
  input "domain" { type = string }
  apply { script = "files/run.sh" }
  irreversible = "a test"
}

step "wait" {
  scope = "cluster"
  apply { when = true }
}

workflow "all" {
  role "control" { tolerate = "40%" }
  role "worker" {}
  input "domain" { type = fqdn }
  task "gate" { step = wait }
  task "store" {
    step  = inner.cluster
    roles = { member = role.control }
    with  = { domain = "store.${input.domain}" }
    after = [task.gate]
    when  = input.domain != "x.y"
  }
  task "control" {
    step  = use
    each  = role.control
    with  = { urls = { for n, m in all.store : n => m.url }, mine = task.store.url, domain = task.store.domain }
    after = [task.store]
  }
  task "worker" {
    step  = use
    each  = role.worker
    with  = { urls = {}, mine = "http://x", domain = "d" }
    after = [task.store, task.control]
  }
}
`

func packOf(t testing.TB, src string) *lang.Pack {
	t.Helper()
	p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(src), "files/run.sh": []byte("#!/bin/sh\n")}, catalogue)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	return p
}

func composed(t testing.TB, nodes string) (*model.Model, lang.Diagnostics) {
	t.Helper()
	file, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, `cluster "c" {
  workflow = outer.all
  packs    = { outer = { source = "./outer" } }
  nodes    = %s
  with     = { domain = "demo.lab" }
  storage  = "disk"
}
`, nodes))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	src := strings.Replace(outer, `after = [task.store, task.control]`, `after = [task.store]`, 1)
	return lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"inner": packOf(t, inner), "outer": packOf(t, src)}, Cluster: file})
}

func argument(t testing.TB, m *model.Model, task, name string) model.Argument {
	t.Helper()
	tk := m.Task(task)
	if tk == nil {
		t.Fatalf("no task %s", task)
	}
	for _, a := range tk.With {
		if a.Name == name {
			return a
		}
	}
	t.Fatalf("task %s has no input %s", task, name)
	return model.Argument{}
}

func evaluated(t testing.TB, a model.Argument, s model.Scope) string {
	t.Helper()
	v, err := a.Expr.Eval(s)
	if err != nil {
		return "error: " + err.Error()
	}
	if !v.Known() {
		return "unknown"
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestComposition: a called workflow becomes tasks of its own, and references to its inputs and outputs become what those
// stand for.
func TestComposition(t *testing.T) {
	m, ds := composed(t, `{ control = ["a", "b", "c"], worker = ["d"] }`)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	var names []string
	for _, task := range m.Tasks {
		names = append(names, fmt.Sprintf("%s%v%v%v", task.Name, task.Each, task.After, task.When != nil))
	}
	want := "[gate[][]false store.peers[][{gate false 0}]true store.member[control][{gate false 0}]true" +
		" control[control][{store.peers false 0} {store.member false 0}]false worker[worker][{store.peers false 0} {store.member true 0}]false]"
	if fmt.Sprint(names) != want {
		t.Errorf("tasks\n%v\nwant\n%v", names, want)
	}
	if m.Trust != model.Vouched || m.Storage != "disk" {
		t.Errorf("trust %s, storage %s", m.Trust, m.Storage)
	}
	if r := m.Roles[0]; r.Name != "control" || r.Min != 3 || r.Memory != 2<<30 || (r.Tolerate != model.Count{N: 40, Percent: true}) {
		t.Errorf("role %+v", r)
	}
	if r := m.Rollouts[0]; fmt.Sprint([]any{r.Name, r.Tasks, r.Roles, r.Canaries, r.Waves, r.MaxInFlight, r.StopAfter, r.Settle, r.Together}) != "[store.members [store.member] [control] 0 [{1 false} {2 false}] {25 true} {0 false} 0s false]" || r.Spread == nil {
		t.Errorf("rollout %v", r)
	}

	url := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{"url": {Type: value.Type{Kind: value.URL}}}}
	member := func(u string) value.Value { return value.Dict(map[string]value.Value{"url": value.Text(u)}) }
	node := func(n string) value.Value { return value.Dict(map[string]value.Value{"name": value.Text(n)}) }
	nodeType := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{"name": {Type: value.Type{Kind: value.String}}}}
	s := scope{
		{Kind: model.RefInput, Name: "domain"}:                   value.Text("demo.lab"),
		{Kind: model.RefNode, Attr: "name"}:                      value.Text("a"),
		{Kind: model.RefTask, Name: "store.member", Attr: "url"}: value.Text("http://a"),
		{Kind: model.RefAll, Name: "store.member"}:               value.Gather(url, map[string]value.Value{"a": member("http://a"), "b": member("http://b")}),
		{Kind: model.RefRole, Name: "control"}:                   value.Gather(nodeType, map[string]value.Value{"a": node("a"), "b": node("b")}),
	}
	for _, c := range []struct{ task, input, want string }{
		{"control", "mine", `"http://a/a/2379"`},
		{"control", "urls", `{"a":"http://a/a/2379","b":"http://b/b/2379"}`},
		{"control", "domain", `"STORE.DEMO.LAB"`},
		{"store.member", "port", `2379`},
		{"store.peers", "value", `["a.store.demo.lab","b.store.demo.lab"]`},
	} {
		if got := evaluated(t, argument(t, m, c.task, c.input), s); got != c.want {
			t.Errorf("%s of %s is %s, want %s", c.input, c.task, got, c.want)
		}
	}
	if !argument(t, m, "control", "urls").Shared || argument(t, m, "control", "mine").Shared || !argument(t, m, "control", "domain").Shared {
		t.Error("what is the same for every instance is not told apart from what is not")
	}
	when := m.Task("store.member").When
	for domain, want := range map[string]string{"demo.lab": "true", "x.y": "false"} {
		if got := evaluated(t, *when, scope{{Kind: model.RefInput, Name: "domain"}: value.Text(domain)}); got != want {
			t.Errorf("when is %s for %s", got, domain)
		}
	}
	if got := evaluated(t, *when, scope{}); got != "unknown" {
		t.Errorf("when is %s before its inputs are known", got)
	}
	s[model.Ref{Kind: model.RefInput, Name: "domain"}] = value.Text("not a domain")
	if got := evaluated(t, argument(t, m, "control", "domain"), s); !strings.Contains(got, "is not a domain name") {
		t.Errorf("a called workflow's input is not checked: %s", got)
	}
}

func TestRolesOfCalledWorkflow(t *testing.T) {
	m, ds := composed(t, `{ control = ["a", "b"], worker = [] }`)
	if m != nil || !strings.Contains(ds.Text(), `role "control" of workflow outer.all has too few nodes: 2`) {
		t.Errorf("said: %s", ds.Text())
	}
}

// digests gives what identifies a compiled pack: every step and argument.
func digests(t *testing.T, files map[string]string) map[string]value.Digest {
	t.Helper()
	raw := map[string][]byte{}
	for name, text := range files {
		raw[name] = []byte(text)
	}
	p, ds := lang.Load(raw, catalogue)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	file, ds := lang.LoadCluster("c.hcl", []byte("cluster \"c\" {\n  workflow = inner.cluster\n  packs = { inner = { source = \"x\" } }\n  nodes = { member = select(true, 3) }\n  with = { domain = \"demo.lab\" }\n}\n"))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"inner": p}, Cluster: file})
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	out := map[string]value.Digest{}
	for _, task := range m.Tasks {
		out[task.Name] = task.Step.Digest
		for _, a := range task.With {
			out[task.Name+"."+a.Name] = a.Digest
		}
	}
	return out
}

// TestDigests: changes of form change no digest, changes of meaning change exactly those that they concern.
func TestDigests(t *testing.T) {
	base := map[string]string{"pack.hcl": inner, "files/run.sh": "#!/bin/sh\n", "files/lib.sh": "lib\n"}
	before := digests(t, base)
	for _, c := range []struct {
		name, old, new string
		changed        string
	}{
		{"layout", "  input \"domain\" { type = fqdn }\n", "\n# a comment\n\n  input \"domain\" {\n type=fqdn\n}\n", ""},
		{"doc", "  scope = \"node\"\n", "  scope = \"node\"\n  doc = \"What it does.\"\n", ""},
		{"version", "1.2.3", "1.2.4", ""},
		{"timeout", "apply { script = \"files/run.sh\" }", "apply {\n script = \"files/run.sh\"\n timeout = \"9m\"\n attempts = 7\n}", ""},
		{"verify", "  irreversible = \"a test\"\n", "  irreversible = \"another\"\n  verify { script = \"files/run.sh\" }\n", ""},
		{"loop variable", "[for n, m in role.member : \"${n}.", "[for name, m in role.member : \"${name}.", ""},
		{"order of inputs", "name = node.name, port = input.port", "port = input.port, name = node.name", ""},
		{"reference", "name = node.name", "name = node.address", "member.name"},
		{"constant", "\"${n}.${input.domain}\"", "\"${n}-${input.domain}\"", "peers.value"},
		{"further file", "script = \"files/run.sh\"", "script = \"files/run.sh\"\n    files = [\"files/lib.sh\"]\n", "member"},
		{"input type", "input \"port\" { type = number }\n  input \"peers\" { type = list(string) }", "input \"port\" { type = number }\n  input \"peers\" { type = set(string) }", "member"},
		{"pure body", "outputs = { value = input.value }", "outputs = { value = [input.value][0] }", "peers"},
	} {
		src := strings.Replace(inner, c.old, c.new, 1)
		if src == inner {
			t.Fatalf("%s changes nothing", c.name)
		}
		if c.name == "further file" { // one line blocks cannot hold two attributes
			src = strings.Replace(src, "apply { script", "apply {\n    script", 1)
		}
		after := digests(t, map[string]string{"pack.hcl": src, "files/run.sh": base["files/run.sh"], "files/lib.sh": "lib\n"})
		var changed []string
		for name, d := range before {
			if after[name] != d {
				changed = append(changed, name)
			}
		}
		if strings.Join(changed, " ") != c.changed {
			t.Errorf("%s changed %v, want %q", c.name, changed, c.changed)
		}
	}
	after := digests(t, map[string]string{"pack.hcl": inner, "files/run.sh": "#!/bin/bash\n", "files/lib.sh": "other\n"})
	if after["member"] == before["member"] || after["peers"] != before["peers"] {
		t.Error("the content of a script is not in its step's digest, or in that of another")
	}
}

// TestFormattedSame: formatting changes no digest of what it formats.
func TestFormattedSame(t *testing.T) {
	messy := strings.ReplaceAll(strings.ReplaceAll(inner, " = ", "="), "  ", "      ")
	tidy, ds := format.Format("pack.hcl", []byte(messy))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	a := digests(t, map[string]string{"pack.hcl": messy, "files/run.sh": "#!/bin/sh\n"})
	b := digests(t, map[string]string{"pack.hcl": string(tidy), "files/run.sh": "#!/bin/sh\n"})
	for name := range a {
		if a[name] != b[name] {
			t.Errorf("formatting changed %s", name)
		}
	}
}

func TestModelDigest(t *testing.T) {
	a, _ := composed(t, `{ control = ["a", "b", "c"], worker = ["d"] }`)
	b, _ := composed(t, `{ worker = ["d"], control = ["c", "b", "a"] }`)
	c, _ := composed(t, `{ control = ["a", "b", "c"], worker = ["e"] }`)
	if a.Digest != b.Digest || a.Digest == c.Digest {
		t.Errorf("digests %s %s %s", a.Digest, b.Digest, c.Digest)
	}
}

func TestArchive(t *testing.T) {
	p := load(t, "etcd")
	data := p.Archive()
	files, err := lang.FromArchive(data)
	if err != nil {
		t.Fatal(err)
	}
	again, ds := lang.Load(files, catalogue)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	if !bytes.Equal(again.Archive(), data) || again.Digest() != p.Digest() {
		t.Error("a pack differs after it was archived and read again")
	}
	for _, s := range again.Steps() {
		if s.Archive != p.Digest() {
			t.Errorf("step %s names another archive", s.Name)
		}
	}
	for _, bad := range [][]byte{data[:700], []byte("no archive"), bytes.Replace(data, []byte("files/"), []byte("../../"), 1)} {
		if _, err := lang.FromArchive(bad); err == nil {
			t.Error("a broken archive is taken")
		}
	}
}

func TestSelect(t *testing.T) {
	s := source(t).Cluster.Nodes["member"]
	if s.Count != 3 || s.Text != "select(facts.memory >= gib(2), 3)" {
		t.Errorf("selection %+v", s)
	}
	for facts, want := range map[string]string{
		`{"memory": 4294967296}`: "true <nil>",
		`{"memory": 1024}`:       "false <nil>",
		`{}`:                     "false cannot decide whether to select m1: demo.hcl:4:",
		`{"memory": null}`:       "false cannot decide whether to select m1: demo.hcl:4:",
	} {
		var v value.Value
		if err := json.Unmarshal([]byte(facts), &v); err != nil {
			t.Fatal(err)
		}
		ok, err := s.Predicate("m1", v)
		if got := fmt.Sprint(ok, " ", err); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", facts, got, want)
		}
	}
	if ok, err := s.Predicate("m1", value.Value{}); ok || err == nil {
		t.Error("a machine without facts is selected")
	}
}

// TestStepDefaults: what a step does not say is what the language promises.
func TestStepDefaults(t *testing.T) {
	s := load(t, "etcd").Steps()["member"]
	if s.Apply.Timeout.String() != "2m0s" || s.Apply.Attempts != 3 || s.Remove.Timeout.String() != "5m0s" || s.Remove.Attempts != 1 ||
		s.Remove.Backoff.String() != "5s" || s.Verify.Timeout.String() != "10s" {
		t.Errorf("apply %+v verify %+v remove %+v", s.Apply, s.Verify, s.Remove)
	}
}

// TestFounders: an output of type any has the type of what was given, across a step in between.
func TestFounders(t *testing.T) {
	src := strings.Replace(string(mustRead(t, "testdata/etcd/pack.hcl")), "id = m.incarnation", "id = [m.incarnation]", 1)
	p, ds := lang.Load(withPack(t, "etcd", src), catalogue)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	ds = lang.Check(map[string]*lang.Pack{"etcd": p, "base": load(t, "base")})
	if !strings.Contains(ds.Text(), "id: list(string) cannot stand where string is wanted") {
		t.Errorf("said: %s", ds.Text())
	}
}

func BenchmarkCompile(b *testing.B) {
	src := source(b)
	for b.Loop() {
		if _, ds := lang.Compile(src); len(ds) > 0 {
			b.Fatal(ds.Text())
		}
	}
}

// BenchmarkInstances evaluates every argument of every task for 10,000 nodes as the planner does: shared ones once.
func BenchmarkInstances(b *testing.B) {
	m := compile(b)
	const nodes = 10_000
	out := map[string]value.Value{}
	types := map[string]value.Type{}
	for i := range m.Tasks {
		types[m.Tasks[i].Name] = m.Tasks[i].Step.OutputType()
	}
	all := map[string]map[string]value.Value{}
	for _, name := range []string{"name"} {
		all[name] = map[string]value.Value{}
		for i := range nodes {
			all[name][fmt.Sprintf("n%d", i)] = value.Dict(map[string]value.Value{"fqdn": value.Text(fmt.Sprintf("n%d.demo.lab", i))})
		}
	}
	roles := map[string]value.Value{}
	for i := range nodes {
		roles[fmt.Sprintf("n%d", i)] = value.Dict(map[string]value.Value{"name": value.Text("n"), "address": value.Text("10.0.0.1"), "incarnation": value.Text("i")})
	}
	nodeType := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{"name": {Type: value.Type{Kind: value.String}}, "address": {Type: value.Type{Kind: value.Address}}, "incarnation": {Type: value.Type{Kind: value.String}}}}
	s := lookup{
		all: value.Gather(types["name"], all["name"]), role: value.Gather(nodeType, roles), out: out,
	}
	for b.Loop() {
		n := 0
		for i := range m.Tasks {
			for _, a := range m.Tasks[i].With {
				times := nodes
				if a.Shared {
					times = 1
				}
				for range times {
					if _, err := a.Expr.Eval(s); err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
		}
		b.ReportMetric(float64(n), "evaluations")
	}
}

type lookup struct {
	all, role value.Value
	out       map[string]value.Value
}

// Lookup implements model.Scope.
func (l lookup) Lookup(r model.Ref) value.Value {
	switch r.Kind {
	case model.RefAll:
		return l.all
	case model.RefRole:
		return l.role
	}
	return value.Text("demo.lab")
}

// TestExceptDuring: who makes way for a called workflow makes way for what it does on the same nodes, and takes places of
// its rollout.
func TestExceptDuring(t *testing.T) {
	src := strings.Replace(outer, `after = [task.store, task.control]`, `after = [task.store]`, 1)
	src = strings.Replace(src, `  task "worker" {`, `  task "front" {
    step          = serve
    each          = role.control
    except_during = [task.store, task.control]
  }
  task "worker" {`, 1)
	src = strings.Replace(src, `step "wait" {`, `step "serve" {
  scope = "node"
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}

step "wait" {`, 1)
	file, ds := lang.LoadCluster("c.hcl", []byte(`cluster "c" {
  workflow = outer.all
  packs    = { outer = { source = "./outer" } }
  nodes    = { control = ["a", "b", "c"], worker = ["d"] }
  with     = { domain = "demo.lab" }
}
`))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"inner": packOf(t, inner), "outer": packOf(t, src)}, Cluster: file})
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	if got := fmt.Sprint(m.Task("front").Except); got != "[store.member control]" {
		t.Errorf("front makes way for %s", got)
	}
	if got := fmt.Sprint(m.Rollouts[0].Tasks); got != "[store.member front]" {
		t.Errorf("the rollout is over %s", got)
	}
}

const slotted = `pack "net" {
  version = "1.0.0"
  summary = "A workflow with slots."
}

step "routes" {
  scope = "node"
  input "name" { type = string }
  input "peers" { type = list(string) }
  input "address" { type = address }
  output "device" { type = string }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}

step "use" {
  scope = "node"
  input "device" { type = string }
  apply { script = "files/run.sh" }
  irreversible = "a test"
}

workflow "cluster" {
  role "node" { min = 1 }
  slot "network" {
    step = routes
    each = role.node
    with = { name = "net", peers = [for n, m in role.node : n], address = node.address }
  }
  task "use" {
    step = use
    each = role.node
    with = { device = task.network.device }
  }
  task "other" {
    step = use
    each = role.node
    with = { device = node.name }
  }
}

workflow "outer" {
  role "node" { min = 1 }
  task "inner" {
    step  = cluster
    roles = { node = role.node }
  }
}
`

const overlay = `pack "overlay" {
  version = "1.0.0"
  summary = "What a slot may be filled with."
  trust   = "vouched"
}

step "tunnel" {
  scope = "node"
  input "name" { type = string }
  input "port" {
    type    = number
    default = 51820
  }
  output "device" { type = string }
  output "more" { type = string }
  apply { script = "files/run.sh" }
  remove { script = "files/run.sh" }
}

workflow "mesh" {
  role "member" { min = 1 }
  input "name" { type = string }
  input "address" {
    type     = string
    each     = role.member
    optional = true
  }
  task "tunnel" {
    step = tunnel
    each = role.member
    with = { name = "${input.name}-${node.name}${input.address == null ? "" : input.address}" }
  }
  output "device" {
    each  = role.member
    value = task.tunnel.device
  }
}
`

// filledWith compiles the slotted workflow with slots filled.
func filledWith(t *testing.T, workflow, slots string) *model.Model {
	t.Helper()
	file, ds := lang.LoadCluster("c.hcl", fmt.Appendf(nil, `cluster "c" {
  workflow = net.%s
  packs    = { net = { source = "x" }, overlay = { source = "y" } }
  nodes    = { node = ["a", "b"] }
  slots    = %s
}
`, workflow, slots))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	m, ds := lang.Compile(lang.Source{Packs: map[string]*lang.Pack{"net": packOf(t, slotted), "overlay": packOf(t, overlay)}, Cluster: file})
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	return m
}

// TestSlots: what fills a slot stands at the slot's address and is given what it takes; nothing else becomes different.
func TestSlots(t *testing.T) {
	before := filledWith(t, "cluster", "{}")
	tunnel := filledWith(t, "cluster", `{ network = { step = overlay.tunnel, with = { port = 1 } } }`)
	if s := tunnel.Task("network"); s.Step.Name != "overlay.tunnel" || fmt.Sprint(s.Each) != "[node]" || len(s.With) != 2 || tunnel.Trust != model.Vouched {
		t.Errorf("the slot holds %+v, trust %s", s, tunnel.Trust)
	}
	if got := evaluated(t, argument(t, tunnel, "network", "port"), scope{}); got != "1" {
		t.Errorf("port is %s", got)
	}
	for _, name := range []string{"use", "other"} {
		if a, b := argument(t, before, name, "device"), argument(t, tunnel, name, "device"); a.Digest != b.Digest || before.Task(name).Step.Digest != tunnel.Task(name).Step.Digest {
			t.Errorf("task %s is another one", name)
		}
	}
	if before.Digest == tunnel.Digest || tunnel.Digest == filledWith(t, "cluster", `{ network = overlay.tunnel }`).Digest {
		t.Error("the model's digest does not cover what fills the slots")
	}
	mesh := filledWith(t, "outer", `{ "inner.network" = overlay.mesh }`)
	if s := mesh.Task("inner.network.tunnel"); s == nil || fmt.Sprint(s.Each) != "[node]" || mesh.Task("inner.network") != nil {
		t.Fatalf("a workflow in the slot: %+v", s)
	}
	in := scope{{Kind: model.RefNode, Attr: "name"}: value.Text("a"), {Kind: model.RefNode, Attr: "address"}: value.Text("10.0.0.1")}
	if a := argument(t, mesh, "inner.network.tunnel", "name"); a.Shared || evaluated(t, a, in) != `"net-a10.0.0.1"` {
		t.Errorf("an input that is given node by node: %s", evaluated(t, a, in))
	}
	refs := argument(t, mesh, "inner.use", "device").Refs
	if want := (model.Ref{Kind: model.RefTask, Name: "inner.network.tunnel", Attr: "device"}); len(refs) != 1 || refs[0] != want {
		t.Errorf("what reads the slot refers to %v", refs)
	}
}
