package addr_test

import (
	"encoding/json"
	"testing"

	"joist/engine/addr"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]addr.Instance{
		"demo/task":               {Cluster: "demo", Task: "task"},
		"demo/etcd.member[n1]":    {Cluster: "demo", Task: "etcd.member", Node: "n1"},
		`demo/volume[n1][data.1]`: {Cluster: "demo", Task: addr.WithItem("volume", "data.1"), Node: "n1"},
		`demo/zone["lab:1"]`:      {Cluster: "demo", Task: addr.WithItem("zone", "lab:1")},
	} {
		got, err := addr.Parse(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		var back struct{ I addr.Instance }
		data, err := json.Marshal(struct{ I addr.Instance }{want})
		if err != nil || json.Unmarshal(data, &back) != nil || back.I != want {
			t.Errorf("%s through JSON: %s, %+v, %v", text, data, back, err)
		}
	}
	for _, bad := range []string{"", "demo", "/task", "demo/", "demo/t[]", "demo/t[n", "demo/t]", "demo/t[a]b]", "demo/t[a][b][c]", `demo/t["a]`, `demo/t[a"]`, `demo/t[a]["b"]`, `demo/t[""]`, "demo/t[][a]", "demo/t[a][]", "demo/t:a", "a/b/c", "de[mo/t", "demo/t[n#1]", "demo/t#1", "demo/t [n]", "d/t\n", "d/\xff"} {
		if i, err := addr.Parse(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, i)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"demo/task", "demo/etcd.member[n1]", "a/b[c]]", `a/b["c"]`, "a/b[c][d]", "a[b/c", "d/t#1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := addr.Parse(s)
		if err != nil {
			return
		}
		if i.String() != s {
			t.Fatalf("%q is written %q", s, i)
		}
		if again, err := addr.Parse(i.String()); err != nil || again != i {
			t.Fatalf("%q: %+v, %v", s, again, err)
		}
	})
}

func TestBare(t *testing.T) {
	for path, want := range map[string]string{`zone["lab"]`: "zone[lab]", "zone[n1]": "zone[n1]", "zone": "zone", "zone[n1][lab]": "zone[n1][lab]", `zone["lab`: `zone["lab`} {
		bare := addr.Bare(path)
		if bare != want {
			t.Errorf("%s is %s, want %s", path, bare, want)
		}
		if bare == path {
			continue
		}
		task, node, _ := addr.ParsePath(bare)
		if item, ok := addr.BareItem(task, node); !ok || addr.Path(item, "") != path {
			t.Errorf("%s is not read as %s: %q, %v", bare, path, item, ok)
		}
	}
	for _, alone := range [][2]string{{"zone", ""}, {addr.WithItem("zone", "lab"), "n1"}} {
		if item, ok := addr.BareItem(alone[0], alone[1]); ok {
			t.Errorf("%q is read as the item %q", alone, item)
		}
	}
}
