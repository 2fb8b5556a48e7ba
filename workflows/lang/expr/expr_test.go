package expr_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/expr"
)

// scope is a model.Scope backed by a map; what is not there is unknown.
type scope map[model.Ref]value.Value

func (s scope) Lookup(r model.Ref) value.Value { return s[r] }

var kinds = map[string]model.RefKind{"input": model.RefInput, "node": model.RefNode, "role": model.RefRole, "task": model.RefTask, "all": model.RefAll, "host": model.RefHost}

func resolve(t hcl.Traversal) (expr.Source, int) {
	path := expr.StepNames(t, 3)
	kind := kinds[path[0]]
	switch {
	case kind == model.RefNode:
		return expr.Reference{Ref: model.Ref{Kind: kind, Attr: path[1]}}, 2
	case (kind == model.RefTask || kind == model.RefHost) && len(path) == 3:
		return expr.Reference{Ref: model.Ref{Kind: kind, Name: path[1], Attr: path[2]}, Same: path[1] != "front"}, 3
	}
	return expr.Reference{Ref: model.Ref{Kind: kind, Name: path[1]}}, 2
}

func parse(t testing.TB, src string) hclsyntax.Expression {
	t.Helper()
	e, diags := hclsyntax.ParseExpression([]byte(src), "x", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return e
}

func text(s string) value.Value { return value.Text(s) }

func TestEval(t *testing.T) {
	member := func(name string) value.Value {
		return value.Dict(map[string]value.Value{"name": text(name), "address": text("10.0.0.1"), "incarnation": text("i-" + name)})
	}
	object := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{"fqdn": {Type: value.Type{Kind: value.FQDN}}}}
	s := scope{
		{Kind: model.RefInput, Name: "domain"}:             text("demo.lab"),
		{Kind: model.RefNode, Attr: "name"}:                text("n1"),
		{Kind: model.RefTask, Name: "name", Attr: "fqdn"}:  text("n1.demo.lab"),
		{Kind: model.RefTask, Name: "front", Attr: "url"}:  text("https://etcd.demo.lab:2379"),
		{Kind: model.RefHost, Name: "key", Attr: "path"}:   text("/run/key"),
		{Kind: model.RefRole, Name: "member"}:              value.FromCty(cty.MapVal(map[string]cty.Value{"n1": member("n1").Cty(), "n2": member("n2").Cty()})),
		{Kind: model.RefAll, Name: "name"}:                 value.Gather(object, map[string]value.Value{"n1": value.Dict(map[string]value.Value{"fqdn": text("n1.demo.lab")}), "n2": value.Dict(map[string]value.Value{"fqdn": text("n2.demo.lab")})}),
		{Kind: model.RefTask, Name: "gone", Attr: "value"}: value.NullOf(value.Type{}),
	}
	for _, c := range []struct{ src, want string }{
		{`"${node.name}.${input.domain}"`, `"n1.demo.lab"`},
		{`task.name.fqdn`, `"n1.demo.lab"`},
		{`(task["name"].fqdn)`, `"n1.demo.lab"`},
		{`[task.name.fqdn, "etcd.${input.domain}"]`, `["n1.demo.lab","etcd.demo.lab"]`},
		{`{ for n, m in role.member : n => { id = m.incarnation, url = "https://${all.name[n].fqdn}:2380" } }`,
			`{"n1":{"id":"i-n1","url":"https://n1.demo.lab:2380"},"n2":{"id":"i-n2","url":"https://n2.demo.lab:2380"}}`},
		{`[for n, m in all.name : m.fqdn if n != node.name]`, `["n2.demo.lab"]`},
		{`values(all.name)[*].fqdn`, `["n1.demo.lab","n2.demo.lab"]`},
		{`all.name["n2"].fqdn`, `"n2.demo.lab"`},
		{`host.key.path`, `"/run/key"`},
		{`length(all.name) == 2 ? gib(2) : mib(1)`, `2147483648`},
		{`coalesce(task.gone.value, "x")`, `"x"`},
		{`join(",", sort(distinct(concat(["b"], ["a", "b"]))))`, `"a,b"`},
		{`cidrhost("10.1.0.0/24", 5)`, `"10.1.0.5"`},
		{`cidrhost("10.1.0.0/24", -1)`, `"10.1.0.255"`},
		{`cidrsubnet("fd00::/48", 16, 3)`, `"fd00:0:0:3::/64"`},
		{`cidrsubnet("10.0.0.0/16", 8, 3)`, `"10.0.3.0/24"`},
		{`cidrcontains("10.0.0.0/16", "10.0.9.9")`, `true`},
		{`cidrprefix("10.0.0.0/16")`, `16`},
		{`cidrsize("10.0.0.0/16")`, `65536`},
		{`cidrsize("2001:db8::/64")`, `18446744073709551616`},
		{`replace(upper("a.b"), ".", "-")`, `"A-B"`},
		{`format("%s:%d", node.name, 2379)`, `"n1:2379"`},
		{`lookup({ a = 1 }, "b", 2)`, `2`},
		{`jsonencode({ a = [1, true, null] })`, `"{\"a\":[1,true,null]}"`},
		{`length("äö")`, `2`},
		{`toset(["b", "a", "b"])`, `["a","b"]`},
		{`task.front.url`, `"https://etcd.demo.lab:2379"`},
		{`all.unknown`, ``},
		{`"x-${task.other.out}"`, ``},
		{`{ a = node.name, b = task.other.out }`, ``},
		{`[for n, m in all.unknown : m.x]`, ``},
		{`cidrhost("10.1.0.0/24", 256)`, `error: has no host`},
		{`all.name["n9"].fqdn`, `error: x:1:9: Invalid index`},
		{`format("%99999d", 1)`, `error: width`},
		{`"${task.gone.value}"`, `null`},
		{`"a${task.gone.value}"`, `error: null`},
	} {
		v, err := expr.Compile(parse(t, c.src), resolve).Eval(s)
		got := ""
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case v.Known():
			data, err := v.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			got = string(data)
		}
		if want, isErr := strings.CutPrefix(c.want, "error: "); isErr {
			if !strings.HasPrefix(got, "error: ") || !strings.Contains(got, want) {
				t.Errorf("%s\ngot  %s\nwant %s", c.src, got, c.want)
			}
		} else if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.src, got, c.want)
		}
	}
}

// TestDigest: the digest stays for every spelling of one meaning, and differs otherwise.
func TestDigest(t *testing.T) {
	groups := [][]string{
		{`{ a = 1, b = node.name }`, "{\n  b = node.name\n\n  # comment\n  a = (1)\n}", `{ "b" = node.name, a : 1 }`},
		{`{ a = 1, b = node.address }`},
		{`{ a = 1, b = input.name }`},
		{`"x${node.name}y"`, `"x${ node.name }y"`, `"x${(node.name)}y"`},
		{`"x${node.name}z"`},
		{`node.name`, `"${node.name}"`, `((node.name))`},
		{`"node.name"`, "\"node.\\u006eame\""},
		{`[for n, m in all.x : m.y]`, "[ for k, v in all.x :\n v.y ]"},
		{`[for n, m in all.x : n.y]`},
		{`[for n, m in all.x : m.y if true]`},
		{`{for n, m in all.x : n => m.y}`},
		{`{for n, m in all.x : n => m.y...}`},
		{`task.a.b`, `task["a"].b`, `task.a["b"]`},
		{`task.a.c`}, {`host.a.b`}, {`all.a.b`}, {`task.a.b.c`, `task.a.b["c"]`},
		{`1 + 2 * 3`, `1+(2*3)`}, {`(1 + 2) * 3`}, {`1 - 2 * 3`}, {`7`}, {`"7"`}, {`true`}, {`null`}, {`-7`},
		{`min(1, 2)`}, {`min(2, 1)`}, {`max(1, 2)`}, {`min([1, 2]...)`}, {`min([1, 2])`},
		{`[1, 2]`, "[\n1,\n2,\n]"}, {`[2, 1]`}, {`[[1], 2]`}, {`[[1, 2]]`}, {`["1", 2]`},
		{`true ? 1 : 2`}, {`true ? 2 : 1`},
		{`node.facts[0]`}, {`node.facts["0"]`}, {`node.facts[node.name]`}, {`node.facts[*].a`},
	}
	seen := map[value.Digest]string{}
	for _, g := range groups {
		first := expr.Compile(parse(t, g[0]), resolve).Argument("x").Digest
		if other, ok := seen[first]; ok {
			t.Errorf("%s and %s have the same digest", other, g[0])
		}
		seen[first] = g[0]
		for _, same := range g[1:] {
			if expr.Compile(parse(t, same), resolve).Argument("x").Digest != first {
				t.Errorf("%s and %s have different digests", g[0], same)
			}
		}
	}
}

func TestShared(t *testing.T) {
	for src, want := range map[string]bool{
		`all.x`: true, `role.m`: true, `input.x`: true, `task.front.url`: true, `"x"`: true, `[for n, m in all.x : m]`: true,
		`node.name`: false, `task.a.b`: false, `host.a.b`: false, `[all.x, node.name]`: false,
	} {
		if got := expr.Compile(parse(t, src), resolve).Argument("x").Shared; got != want {
			t.Errorf("%s: shared %v", src, got)
		}
	}
}

func TestRefs(t *testing.T) {
	a := expr.Compile(parse(t, `[task.a.b, task.a.b, { for n, m in role.r : n => all.x[n] }]`), resolve).Argument("x")
	want := []model.Ref{{Kind: model.RefTask, Name: "a", Attr: "b"}, {Kind: model.RefRole, Name: "r"}, {Kind: model.RefAll, Name: "x"}}
	if fmt.Sprint(a.Refs) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", a.Refs, want)
	}
}

func TestTypeOf(t *testing.T) {
	for _, src := range []string{"string", "list(address)", "map(object({ id = string, url = optional(url) }))", "secret(string)", "any", "set(number)"} {
		got, err := expr.TypeOf(src)
		if err != nil {
			t.Fatal(err)
		}
		again, err := expr.TypeOf(got.String())
		if err != nil || !again.Equal(got) {
			t.Errorf("%s became %s", src, got)
		}
	}
	for _, src := range []string{"strin", "list", "list()", "object({})x", "list(secret(string))", "optional(string)", `"string"`, "list(string, string)", "object(string)"} {
		if got, err := expr.TypeOf(src); err == nil {
			t.Errorf("%s is read as %s", src, got)
		}
	}
}

// BenchmarkEval: one instance's argument, and a gather over 10,000 nodes.
func BenchmarkEval(b *testing.B) {
	object := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{"fqdn": {Type: value.Type{Kind: value.FQDN}}}}
	for _, n := range []int{1000, 10000, 40000} {
		m := map[string]value.Value{}
		for i := range n {
			m[fmt.Sprintf("n%d", i)] = value.Dict(map[string]value.Value{"fqdn": text(fmt.Sprintf("n%d.demo.lab", i))})
		}
		s := scope{{Kind: model.RefAll, Name: "name"}: value.Gather(object, m), {Kind: model.RefNode, Attr: "name"}: text("n7")}
		for _, src := range []string{`{ for n, m in all.name : n => "https://${m.fqdn}:2380" }`, `all.name[node.name].fqdn`, `"${node.name}.demo.lab"`} {
			e := expr.Compile(parse(b, src), resolve)
			b.Run(fmt.Sprintf("%d/%.9s", n, src), func(b *testing.B) {
				for b.Loop() {
					if _, err := e.Eval(s); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
