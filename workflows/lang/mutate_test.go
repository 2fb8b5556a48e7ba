package lang_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/workflows/lang"
)

// TestMutations takes whole packs and changes one or two words each time: what stands there then is a pack or is told what is
// wrong with it, and nothing panics. Changing bytes, as fuzzing does, seldom gets past the parser.
func TestMutations(t *testing.T) {
	words := []string{"task", "all", "host", "node", "role", "input", "member", "seat", "null", "[]", "{}", "1", "true", `"x"`, "secret(string)", "path", "any",
		"each", "on", "with", "step", "cluster", "when", "value", "map(any)", "task.seat", "all.key", "role.member", "base", "(1)", `"${node.name}"`,
		"[for x in all.name : x]", "{ for k, v in all.key : k => v... }", "all.key[*].path", "host.key.path", "task.founders.value", "merge({}, all.key)", "-1", "!true", "if", "\n"}
	rng := rand.New(rand.NewPCG(1, 2))
	base, small := load(t, "base"), packOf(t, inner)
	taken := 0
	for _, src := range []string{string(mustRead(t, "testdata/etcd/pack.hcl")), outer, inner} {
		tokens, _ := hclsyntax.LexConfig([]byte(src), "x", hcl.InitialPos)
		for range 60 {
			i := rng.IntN(len(tokens))
			for kind := range 4 {
				parts := make([]string, 0, len(tokens))
				for j, tok := range tokens {
					text := string(tok.Bytes)
					switch {
					case j != i:
					case kind == 0:
						text = ""
					case kind == 1:
						text += " " + text
					default:
						text = words[rng.IntN(len(words))]
					}
					if kind == 3 && rng.IntN(len(tokens)) == 0 {
						text = words[rng.IntN(len(words))]
					}
					if j > 0 {
						gap := tok.Range.Start.Byte - tokens[j-1].Range.End.Byte
						parts = append(parts, strings.Repeat(" ", gap))
					}
					parts = append(parts, text)
				}
				if tryPack(strings.Join(parts, ""), base, small) {
					taken++
				}
			}
		}
	}
	if taken == 0 {
		t.Error("no changed pack compiles: the test changes too much")
	}
}

func tryPack(src string, others ...*lang.Pack) bool {
	files := map[string][]byte{"pack.hcl": []byte(src)}
	for _, name := range []string{"run", "seat-add", "seat-remove", "promote", "member", "healthy", "stop-and-erase"} {
		files["files/"+name+".sh"] = []byte("#!/bin/sh\n")
	}
	p, ds := lang.Load(files, catalogue)
	if p == nil {
		return false
	}
	packs := map[string]*lang.Pack{}
	for _, o := range others {
		packs[o.Name] = o
	}
	packs[p.Name] = p
	more := lang.Check(packs)
	_ = append(ds, more...).Text()
	name := "cluster"
	if p.Name == "outer" {
		name = "all"
	}
	nodes := "{ member = select(true, 3) }"
	if name == "all" {
		nodes = "{ control = select(true, 3), worker = [] }"
	}
	file, fds := lang.LoadCluster("c.hcl", []byte("cluster \"c\" {\n  workflow = "+p.Name+"."+name+"\n  packs = { "+p.Name+" = { source = \"x\" } }\n  nodes = "+nodes+"\n  with = { domain = \"demo.lab\" }\n}\n"))
	if file == nil {
		_ = fds.Text()
		return false
	}
	m, cds := lang.Compile(lang.Source{Packs: packs, Cluster: file})
	_ = cds.Text()
	if (m == nil) != cds.HasErrors() {
		panic("a model with errors, or none without")
	}
	if m == nil {
		return false
	}
	if ds.HasErrors() || more.HasErrors() {
		panic("a pack with errors compiles")
	}
	for i := range m.Tasks { // nothing is known: everything must be unknown rather than an error
		for _, a := range m.Tasks[i].With {
			_, _ = a.Expr.Eval(scope{})
		}
	}
	return true
}
