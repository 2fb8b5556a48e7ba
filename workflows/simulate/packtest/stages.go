package packtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/addr"
	"joist/engine/value"
	"joist/workflows/lang"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/simulate"
)

// scenario reads a test block.
func (f *file) scenario(b *hclsyntax.Block) {
	t := &scenario{title: b.Labels[0], at: b.LabelRanges[0], seed: 1, facts: []byte(simulate.DefaultFacts)}
	attrs := maps.Clone(b.Body.Attributes)
	if a := take(attrs, "seed"); a != nil {
		if v, ok := expr.Constant(f.bag, a.Expr, value.Type{Kind: value.Number}); ok {
			t.seed, _ = v.Cty().AsBigFloat().Uint64()
		}
	}
	if a := take(attrs, "facts"); a != nil {
		if v, ok := expr.Constant(f.bag, a.Expr, value.Type{}); ok {
			data, err := v.MarshalJSON()
			if err != nil {
				f.bag.Errorf(a.Expr.Range(), "Write facts = { memory = gib(4) }.", "%s", err)
			}
			t.facts = data
		}
	}
	if a := take(attrs, "faults"); a != nil {
		var names []string
		for _, n := range f.names(a.Expr) {
			names = append(names, n.name)
		}
		var err error
		if t.faults, t.odds, err = simulate.ParseFaults(names); err != nil {
			f.bag.Errorf(a.Expr.Range(), "", "%s", err)
		}
	}
	cluster := hclsyntax.Attributes{}
	fakes := maps.Clone(f.fakes)
	first := f.stage(b, attrs, cluster, fakes)
	t.stages = append(t.stages, first)
	for _, c := range b.Body.Blocks {
		switch c.Type {
		case "fake":
		case "change":
			if len(c.Labels) != 1 {
				f.bag.Errorf(c.DefRange(), `Write change "what happens" { … }.`, "a change has one name, this one has %d", len(c.Labels))
				continue
			}
			cluster, fakes = maps.Clone(cluster), maps.Clone(fakes)
			t.stages = append(t.stages, f.stage(c, maps.Clone(c.Body.Attributes), cluster, fakes))
		default:
			f.bag.Errorf(c.TypeRange, diag.Suggest(c.Type, []string{"fake", "change"}), "no block of a test is called %q", c.Type)
		}
	}
	f.tests = append(f.tests, t)
}

func take(attrs hclsyntax.Attributes, name string) *hclsyntax.Attribute {
	a := attrs[name]
	delete(attrs, name)
	return a
}

// stage reads what a test, or one of its changes, says of the cluster, the machines and what is expected. cluster and
// fakes are those of the stage before, and become those of this one.
func (f *file) stage(b *hclsyntax.Block, attrs, cluster hclsyntax.Attributes, fakes map[string]*fake) *stage {
	s := &stage{title: b.Labels[0], at: b.LabelRanges[0], fakes: fakes, mishaps: map[string][]named{}, expect: map[string]expectation{}}
	for _, inner := range b.Body.Blocks {
		switch {
		case inner.Type == "fake":
			f.addFake(inner, fakes)
		case b.Type == "change":
			f.bag.Errorf(inner.TypeRange, "Only fake blocks stand in a change.", "a change has no %s", inner.Type)
		}
	}
	for _, word := range mishaps {
		if a := take(attrs, word); a != nil {
			s.mishaps[word] = f.names(a.Expr)
		}
	}
	if a := take(attrs, "asks"); a != nil {
		s.asked = f.names(a.Expr)
	}
	for _, word := range lists {
		if a := take(attrs, word); a != nil {
			s.expect[word] = expectation{at: a.Expr.Range(), names: f.names(a.Expr)}
		}
	}
	for _, word := range objects {
		if a := take(attrs, word); a != nil {
			s.expect[word] = expectation{at: a.Expr.Range(), pairs: f.pairs(word, a.Expr)}
		}
	}
	if a := take(attrs, "outcome"); a != nil {
		text, _ := f.word(a.Expr)
		s.expect["outcome"] = expectation{at: a.Expr.Range(), text: text}
		if known := []string{"converged", "stopped", "destroyed"}; !slices.Contains(known, text) {
			f.bag.Errorf(a.Expr.Range(), diag.Suggest(text, known), "no outcome is called %q", text)
		}
	}
	destroy := false
	if a := take(attrs, "destroy"); a != nil {
		v, _ := expr.Constant(f.bag, a.Expr, value.Type{Kind: value.Bool})
		destroy = v.True()
	}
	maps.Copy(cluster, attrs)
	if destroy {
		return s
	}
	s.cluster = f.cluster(cluster, s)
	return s
}

// cluster makes a cluster file of attributes that stand in a test as they would in a cluster block, each at its own place.
func (f *file) cluster(attrs hclsyntax.Attributes, s *stage) *lang.ClusterFile {
	for _, need := range []string{"workflow", "nodes"} {
		if attrs[need] == nil {
			f.bag.Errorf(s.at, "Write workflow = pack.NAME and nodes = { ROLE = [\"n1\"] }.", "the test says no %s", need)
			return nil
		}
	}
	var b strings.Builder
	b.WriteString("cluster \"test\" {\n  packs = { ")
	for i, name := range slices.Sorted(maps.Keys(f.packs)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s = { source = \"test\" }", name)
	}
	b.WriteString(" }\n")
	line, shift := 3, 0
	for i, a := range ordered(attrs) {
		at := a.SrcRange
		if i == 0 && at.Start.Line < line { // two lines stand before it
			shift = line - at.Start.Line
		}
		b.WriteString(strings.Repeat("\n", max(at.Start.Line+shift-line, 0)) + strings.Repeat(" ", at.Start.Column-1))
		b.Write(at.SliceBytes(f.src))
		b.WriteString("\n")
		line = at.End.Line + shift + 1
	}
	b.WriteString("}\n")
	c, ds := lang.LoadCluster(f.name, []byte(b.String()))
	for _, d := range ds {
		f.from(d, s.at, shift)
	}
	s.shift = shift
	return c
}

// from takes over what the language says of a cluster that cluster has made: of its head at the test's name.
func (f *file) from(d diag.Diagnostic, head hcl.Range, shift int) {
	if d.Line <= 2 && d.Severity == diag.Error {
		f.bag.Errorf(head, d.Detail, "%s", d.Summary)
		return
	}
	d.Line, d.EndLine = d.Line-shift, d.EndLine-shift
	f.add(d)
}

// add takes over what the language says of a part of this file.
func (f *file) add(d diag.Diagnostic) {
	if d.Severity != diag.Error {
		return
	}
	at := hcl.Range{Filename: f.name, Start: hcl.Pos{Line: d.Line, Column: d.Column}, End: hcl.Pos{Line: d.EndLine, Column: d.EndCol}}
	f.bag.Errorf(at, d.Detail, "%s", d.Summary)
}

// names reads a list of texts.
func (f *file) names(e hclsyntax.Expression) []named {
	t, ok := e.(*hclsyntax.TupleConsExpr)
	if !ok {
		f.bag.Errorf(e.Range(), `Write ["…", "…"].`, "expected a list")
		return nil
	}
	out := []named{}
	for _, x := range t.Exprs {
		if text, ok := f.word(x); ok {
			out = append(out, named{text, x.Range()})
		}
	}
	return out
}

// pairs reads { "name" = value }. Of given the values are taken one by one: { "hosts[n1]" = { entries = … } } is the pair
// hosts[n1].entries.
func (f *file) pairs(word string, e hclsyntax.Expression) []pair {
	o, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		f.bag.Errorf(e.Range(), `Write { "…" = … }.`, "expected an object")
		return nil
	}
	var out []pair
	for _, item := range o.Items {
		key, fixed := expr.KeyName(item.KeyExpr)
		if !fixed {
			if v, ok := expr.Constant(f.bag, item.KeyExpr, value.Type{Kind: value.String}); ok {
				key, fixed = v.Cty().AsString(), true
			}
		}
		if !fixed {
			continue
		}
		at := named{key, item.KeyExpr.Range()}
		inner, nested := item.ValueExpr.(*hclsyntax.ObjectConsExpr)
		if word == "given" && nested {
			for _, in := range inner.Items {
				name, fixed := expr.KeyName(in.KeyExpr)
				if v, ok := expr.Constant(f.bag, in.ValueExpr, value.Type{}); ok && fixed {
					out = append(out, pair{named{key + "." + name, in.KeyExpr.Range()}, v, in.ValueExpr.Range()})
				}
			}
			continue
		}
		if v, ok := expr.Constant(f.bag, item.ValueExpr, value.Type{}); ok {
			out = append(out, pair{at, v, item.ValueExpr.Range()})
		}
	}
	return out
}

// matches reports whether an instance is one that a pattern means: its name, that of a single item with its quotes or without, with *
// for any run of characters.
func matches(pattern, instance string) bool {
	before, path := "", instance
	if rest, removal := strings.CutPrefix(instance, "remove "); removal {
		before, path = "remove ", rest
	}
	return fits(pattern, instance) || fits(pattern, before+addr.Bare(path))
}

// fits reports whether text is what a pattern says, with * for any run of characters.
func fits(pattern, instance string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == instance
	}
	rest, ok := strings.CutPrefix(instance, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, p)
		if i < 0 {
			return false
		}
		rest = rest[i+len(p):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
