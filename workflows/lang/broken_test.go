package lang_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"joist/workflows/lang"
)

var update = flag.Bool("update", false, "write what is said about broken sources into testdata/broken")

// TestBroken: every broken pack and cluster file is told what is wrong with it, in exactly these words. Each archive holds
// the pack's files, or a cluster.hcl for the packs of testdata and the one beside it, and what is said about them.
func TestBroken(t *testing.T) {
	names, err := filepath.Glob("testdata/broken/*.txtar")
	if err != nil || len(names) < 40 {
		t.Fatalf("only %d broken sources: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := map[string][]byte{}, ""
			a.Files = slicesDelete(a.Files, func(f txtar.File) bool {
				if f.Name != "want" {
					files[f.Name] = f.Data
					return false
				}
				want = string(f.Data)
				return true
			})
			got := said(t, files)
			if got == "" {
				t.Fatal("nothing is said about it")
			}
			if *update {
				a.Files = append(a.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func slicesDelete(files []txtar.File, drop func(txtar.File) bool) []txtar.File {
	var out []txtar.File
	for _, f := range files {
		if !drop(f) {
			out = append(out, f)
		}
	}
	return out
}

// said gives everything that is said about a pack, or about a cluster file.
func said(t *testing.T, files map[string][]byte) string {
	if text, ok := files["cluster.hcl"]; ok {
		delete(files, "cluster.hcl")
		c, ds := lang.LoadCluster("cluster.hcl", text)
		if c != nil {
			packs := map[string]*lang.Pack{"base": load(t, "base"), "etcd": load(t, "etcd")}
			if files["pack.hcl"] != nil {
				p, ds := lang.Load(files, catalogue)
				if len(ds) > 0 {
					t.Fatal(ds.Text())
				}
				packs[p.Name] = p
			}
			var more lang.Diagnostics
			_, more = lang.Compile(lang.Source{Packs: packs, Cluster: c})
			ds = append(ds, more...)
		}
		return ds.Text()
	}
	p, ds := lang.Load(files, catalogue)
	if p != nil {
		p.Folder = ""
		packs := map[string]*lang.Pack{p.Name: p}
		if bytes.Contains(files["pack.hcl"], []byte("base")) {
			packs["base"] = load(t, "base")
		}
		ds = append(ds, lang.Check(packs)...)
	}
	return ds.Text()
}
