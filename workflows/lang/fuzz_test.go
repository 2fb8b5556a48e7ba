package lang_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"joist/workflows/lang"
)

func mustRead(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withPack gives the files of a pack of testdata with another pack.hcl.
func withPack(t testing.TB, name, src string) map[string][]byte {
	t.Helper()
	files, err := lang.ReadFS(os.DirFS(filepath.Join("testdata", name)))
	if err != nil {
		t.Fatal(err)
	}
	files["pack.hcl"] = []byte(src)
	return files
}

var hostile = []string{
	"pack \"p\" {\n version = " + strings.Repeat("(", 200_000),
	"a = " + strings.Repeat("!", 50_000) + "true",
	"a = " + strings.Repeat("-", 50_000) + "1",
	"a = " + strings.Repeat("1+", 50_000) + "1",
	"a = " + strings.Repeat("true?1:", 25_000) + "1",
	"a = \"" + strings.Repeat("${\"", 50_000),
	"a = \"" + strings.Repeat("%{if true}", 50_000),
	"a = x" + strings.Repeat("[x]", 25_000),
	"a = x" + strings.Repeat("[*]", 25_000),
	"a = x" + strings.Repeat("\n[x]", 1000),
	"a = (" + strings.Repeat("1+\n", 50_000) + "1)",
	"a = {for x in y : x => " + strings.Repeat("1+\n", 50_000) + "1}",
	strings.Repeat("a {\n", 50_000),
	"a = <<E\n" + strings.Repeat("${<<E\n", 10_000),
	"a = " + strings.Repeat("[for x in ", 50_000),
	"a = " + strings.Repeat("f(", 25_000),
	"a = x" + strings.Repeat(".a", 50_000),
	"\xff\xfe", "\x00", "a = 1e999999999", "a = \"${1e99999999}\"",
}

// TestHostile: sources that would end the process in HCL's own parser are refused.
func TestHostile(t *testing.T) {
	for _, src := range hostile {
		if p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(src)}, catalogue); p != nil || !ds.HasErrors() {
			t.Errorf("%.40q is taken", src)
		}
		if c, ds := lang.LoadCluster("c.hcl", []byte(src)); c != nil || !ds.HasErrors() {
			t.Errorf("%.40q is taken", src)
		}
	}
}

func seeds(f *testing.F, want func(name string) bool) {
	for _, src := range hostile {
		if len(src) < 5000 {
			f.Add([]byte(src))
		}
	}
	names, err := filepath.Glob("testdata/broken/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var all []byte
		for _, file := range a.Files {
			if want(file.Name) {
				all = append(all, file.Data...)
			}
		}
		f.Add(all)
	}
}

// FuzzLoad: whatever stands in a pack, loading and checking it ends, with diagnostics that have places within the source.
func FuzzLoad(f *testing.F) {
	f.Add(mustRead(f, "testdata/etcd/pack.hcl"))
	f.Add(mustRead(f, "testdata/base/pack.hcl"))
	f.Add([]byte(inner))
	f.Add([]byte(outer))
	seeds(f, func(name string) bool { return strings.HasSuffix(name, ".hcl") && name != "cluster.hcl" })
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 20_000 {
			return
		}
		p, ds := lang.Load(map[string][]byte{"pack.hcl": src, "files/run.sh": []byte("#!/bin/sh\n")}, catalogue)
		if p == nil {
			if !ds.HasErrors() {
				t.Fatal("neither a pack nor an error")
			}
			return
		}
		packs := map[string]*lang.Pack{p.Name: p}
		ds = append(ds, lang.Check(packs)...)
		_ = ds.Text()
		for _, d := range ds {
			if d.Summary == "" || d.File != "" && d.Line == 0 {
				t.Fatalf("%+v", d)
			}
		}
	})
}

func FuzzLoadCluster(f *testing.F) {
	f.Add(mustRead(f, "testdata/demo.hcl"))
	seeds(f, func(name string) bool { return name == "cluster.hcl" })
	packs := map[string]*lang.Pack{"base": load(f, "base"), "etcd": load(f, "etcd")}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 20_000 {
			return
		}
		c, ds := lang.LoadCluster("c.hcl", src)
		if c == nil {
			if !ds.HasErrors() {
				t.Fatal("neither a cluster nor an error")
			}
			return
		}
		m, ds := lang.Compile(lang.Source{Packs: packs, Cluster: c})
		if (m == nil) != ds.HasErrors() {
			t.Fatalf("model %v with %s", m != nil, ds.Text())
		}
	})
}
