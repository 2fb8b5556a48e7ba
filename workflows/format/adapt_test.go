package format_test

import (
	"strings"
	"testing"

	"joist/workflows/format"
	"joist/workflows/lang"
)

func TestAdapt(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"in a line":  {"cluster \"demo\" {\n  with = { domain = \"a.lab\", size = 3 }\n}\n", "cluster \"ci-1\" {\n  with = { smoke = true, domain = \"b.lab\", size = 3 }\n}\n"},
		"in several": {"# kept\ncluster \"demo\" {\n  with = {\n    domain = \"a.lab\" # why\n  }\n}\n", "# kept\ncluster \"ci-1\" {\n  with = { smoke = true,\n    domain = \"b.lab\" # why\n  }\n}\n"},
		"empty":      {"cluster \"demo\" {\n  with = {}\n}\n", "cluster \"ci-1\" {\n  with = { domain = \"b.lab\", smoke = true }\n}\n"},
		"none":       {"cluster \"demo\" {\n}\n", "cluster \"ci-1\" {\n  with = { domain = \"b.lab\", smoke = true }\n}\n"},
	} {
		out, ds := format.Adapt("c.hcl", []byte(c.src), format.Cluster{Name: "ci-1", With: map[string]string{"domain": "b.lab", "smoke": "true"}})
		if len(ds) > 0 || string(out) != c.want {
			t.Errorf("%s: %s\n%s", name, ds.Text(), out)
		}
	}
	const src = "cluster \"demo\" {\n  workflow = p.c\n  packs    = { p = { source = \"./p\" } }\n  nodes    = { m = [\"a\"] }\n  with     = { x = \"1\" }\n}\n"
	out, _ := format.Adapt("c.hcl", []byte(src), format.Cluster{With: map[string]string{"x": `${input.y} "%{" \`}})
	if f, ds := lang.LoadCluster("c.hcl", out); f == nil || f.Name != "demo" || !strings.Contains(string(out), `"$${input.y} \"%%{\" \\"`) {
		t.Errorf("%s\n%s", ds.Text(), out)
	}
	for value, want := range map[string]string{
		`["a", "b"]`: `["a", "b"]`, `{"cpu": 2, "of": [1, true]}`: "{ cpu = 2, of = [1, true] }", `"1.30"`: `"1.30"`, `"$${x}"`: `"$${x}"`, `{}`: `{}`, `[{"a": {"b": "x y"}, "c": null}]`: `[{ a = { b = "x y" }, c = null }]`, `[]`: `[]`, "[1, # }\n2]": `[1, 2]`, `[1] # x`: `[1]`,
	} {
		out, ds := format.Adapt("c.hcl", []byte(src), format.Cluster{With: map[string]string{"x": value}})
		if f, more := lang.LoadCluster("c.hcl", out); f == nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), "{ x = "+strings.Join(strings.Fields(want), " ")+" }") {
			t.Errorf("%s: %s%s\n%s", value, ds.Text(), more.Text(), out)
		}
	}
	for _, c := range []struct {
		src, want string
		with      map[string]string
	}{
		{src, "[1, begins as a list", map[string]string{"x": "[1,"}},
		{src, "cannot change input x: [input.y] begins as", map[string]string{"x": "[input.y]"}},
		{src, "with no references and functions in it", map[string]string{"x": `{ a = file("b") }`}},
		{src, "cannot be read as one", map[string]string{"x": `"a" }`}},
		{"x = 1\n", "there is no cluster block", nil},
		{"cluster \"demo\" {", "", nil},
		{"cluster \"demo\" {\n  with = merge({}, {})\n}\n", "with is not written as", map[string]string{"a": "b"}},
		{"cluster \"demo\" {\n}\n", "not the name of an input", map[string]string{"a b": "b"}},
		{"cluster \"demo\" {\n}\n", "not printable ASCII", map[string]string{"a": "\n"}},
	} {
		if out, ds := format.Adapt("c.hcl", []byte(c.src), format.Cluster{Name: "n", With: c.with}); out != nil || !ds.HasErrors() || !strings.Contains(ds.Text(), c.want) {
			t.Errorf("%s: %s", c.src, ds.Text())
		}
	}
}
