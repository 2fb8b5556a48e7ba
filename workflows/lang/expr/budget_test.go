package expr_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// lists gives input.l, a list of as many texts of so many bytes each, and input.m, lists of as many in a list.
func lists(n, long int) scope {
	l, m := make([]cty.Value, n), make([]cty.Value, 1000)
	for i := range l {
		l[i] = cty.StringVal(fmt.Sprintf("%0*d", long, i))
	}
	for i := range m {
		m[i] = cty.ListVal(l)
	}
	return scope{{Kind: model.RefInput, Name: "l"}: value.FromCty(cty.ListVal(l)), {Kind: model.RefInput, Name: "m"}: value.FromCty(cty.ListVal(m))}
}

// TestGrows: what would end the engine for want of memory is an error at its place, before it has grown.
func TestGrows(t *testing.T) {
	s := lists(3000, 100)
	for _, c := range []struct{ src, at string }{
		{`[for a in input.l : [for b in input.l : b]]`, "x:1:31"},
		{`[for a in input.l : [for b in input.l : "${a}${b}" if false]]`, "x:1:31"},
		{`[for a in input.l : [for b in input.l : [for c in input.l : 1]]]`, "x:1:51"},
		{`{ for a in input.l : a => { for b in input.l : b => 1 } }`, "x:1:48"},
		{`[for a in input.l : input.l]`, "x:1:1"},
		{`[for a in input.l : true ? input.l : [1]]`, "x:1:21"},
		{`[for a in input.l : input.l[*]]`, "x:1:21"},
		{`length(flatten([for a in input.l : input.l]))`, "x:1:16"},
		{`jsonencode([for a in input.l : input.l])`, "x:1:12"},
		{`[for a in input.l : concat(input.l, input.l)]`, "x:1:"},
		{`[for a in input.l : join("", input.l)]`, "x:1:30"},
		{`[for a in input.l : a if input.l == input.l]`, "x:1:"},
		{`[for a in [join("", input.l)] : [for b in ["${a}${a}${a}${a}"] : [for c in ["${b}${b}${b}${b}"] : [for d in ["${c}${c}${c}${c}"] : [for e in ["${d}${d}${d}${d}"] : 1]]]]]`, "x:1:1"},
		{`[for a in input.l : [` + strings.Repeat("1,", 10_000) + `]]`, "x:1:21"},
		{`[for a in input.l : { ` + wide(1000) + ` }]`, "x:1:21"},
		{`[for a in input.l : "` + strings.Repeat("x", 50_000) + `${a}"]`, "x:1:22"},
		{`[input.m, input.m, input.m]`, "x:1:1"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := expr.Compile(parse(t, c.src), resolve).Eval(s)
		runtime.ReadMemStats(&after)
		short := c.src[:min(len(c.src), 60)]
		if err == nil || !strings.HasPrefix(err.Error(), c.at) || !strings.Contains(err.Error(), "grows too large") {
			t.Errorf("%s: %v\n\twant %s", short, err, c.at)
		}
		if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 2500 {
			t.Errorf("%s: %d MiB were made", short, took)
		}
	}
}

func wide(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d = 1, ", i)
	}
	return b.String()
}

// TestGrowsNot: a gather over many nodes is far from the limits, and so is looking one up in it for each of them.
func TestGrowsNot(t *testing.T) {
	s := lists(2000, 20)
	for _, src := range []string{
		`{ for a in input.l : a => { name = a, url = "https://${a}.demo.lab:2380", port = 2380 } }`,
		`join(" ", [for a in input.l : "${a}=https://${a}.demo.lab" if a != "x"])`,
		`[for i, a in input.l : a if length(input.l) > i]`,
		`jsonencode({ for a in input.l : a => [a, a] })`,
		`input.m`,
	} {
		if v, err := expr.Compile(parse(t, src), resolve).Eval(s); err != nil || !v.Known() {
			t.Errorf("%s: %v", src, err)
		}
	}
}

// TestGrowsInFile: what needs nothing but the file is found when that is read.
func TestGrowsInFile(t *testing.T) {
	long := "[" + strings.Repeat("1,", 30_000) + "]"
	for _, src := range []string{
		`[for a in ` + long + ` : [for b in ` + long + ` : b]]`,
		`{ for a in ["x"] : a => [for b in ` + long + ` : [for c in ` + long + ` : c]] }`,
	} {
		for name, check := range map[string]func(*diag.Bag){
			"check":    func(b *diag.Bag) { expr.Check(expr.Env{Bag: b}, parse(t, src), value.Type{}) },
			"constant": func(b *diag.Bag) { expr.Constant(b, parse(t, src), value.Type{}) },
		} {
			bag := diag.NewBag(map[string][]byte{"x": []byte(src)})
			if check(bag); !strings.Contains(fmt.Sprint(bag.Done("")), "grows too large") {
				t.Errorf("%s of %s: %v", name, src[:40], bag.Done(""))
			}
		}
	}
}
