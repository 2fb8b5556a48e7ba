package expr_test

import (
	"testing"

	"github.com/zclconf/go-cty/cty"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/expr"
)

// keeper is the scope of a node that has what does not mention it evaluated by somebody who knows no node.
type keeper struct {
	scope
	asked map[model.Expr]value.Value
}

func (k keeper) Once(e model.Expr) (value.Value, error) {
	if v, ok := k.asked[e]; ok {
		return v, nil
	}
	nobody := scope{}
	for r, v := range k.scope {
		if r.Kind != model.RefNode {
			nobody[r] = v
		}
	}
	v, err := e.Eval(nobody)
	k.asked[e] = v
	return v, err
}

func TestParts(t *testing.T) {
	names := map[string]cty.Value{}
	for _, n := range []string{"n1", "n2"} {
		names[n] = cty.ObjectVal(map[string]cty.Value{"fqdn": cty.StringVal(n + ".lab")})
	}
	of := func(node string) scope {
		return scope{
			{Kind: model.RefNode, Attr: "name"}:    text(node),
			{Kind: model.RefAll, Name: "name"}:     value.FromCty(cty.ObjectVal(names)),
			{Kind: model.RefInput, Name: "domain"}: text("lab"),
		}
	}
	for _, c := range []struct {
		src, want string // for n2
		parts     int
	}{
		{`"${node.name} ${join(",", [for n, x in all.name : x.fqdn])} ${input.domain}"`, `"n2 n1.lab,n2.lab lab"`, 1},
		{`[for n, x in all.name : "${node.name}-${x.fqdn}"]`, `["n2-n1.lab","n2-n2.lab"]`, 1},
		{`all.name[node.name].fqdn`, `"n2.lab"`, 1},
		{`[node.name, keys(all.name), join("", all.name[*].n1.fqdn)]`, `["n2",["n1","n2"],"n1.lab"]`, 2},
		{`"${length(all.name) > 1 ? node.name : "alone"}"`, `"n2"`, 1},
		{`{ (node.name) = length(all.name), all = all.name.n1.fqdn }`, `{"all":"n1.lab","n2":2}`, 2},
		{`node.name == "n1" ? all.name.n3.fqdn : "-"`, `"-"`, 0},               // may not be evaluated
		{`[for x in [node.name] : "${x} ${length(all.name)}"]`, `["n2 2"]`, 0}, // stands in a loop, where names are others
		{`"${node.name}.${input.domain}"`, `"n2.lab"`, 0},
		{`join(",", keys(all.name))`, `"n1,n2"`, 0}, // the whole is the same for all
	} {
		e := expr.Compile(parse(t, c.src), resolve)
		a := e.Argument("in")
		if len(a.Parts) != c.parts {
			t.Errorf("%s has %d parts, want %d", c.src, len(a.Parts), c.parts)
		}
		asked := map[model.Expr]value.Value{}
		for _, node := range []string{"n1", "n2"} {
			if node == "n1" && c.want == `"-"` {
				continue
			}
			plain, err := e.Eval(of(node))
			if err != nil {
				t.Errorf("%s: %v", c.src, err)
				continue
			}
			kept, err := e.Eval(keeper{of(node), asked})
			if err != nil || kept.Digest() != plain.Digest() {
				t.Errorf("%s for %s: %v, %v", c.src, node, err, kept)
			}
			if got, _ := kept.MarshalJSON(); node == "n2" && string(got) != c.want {
				t.Errorf("%s = %s, want %s", c.src, got, c.want)
			}
		}
		if len(asked) != c.parts {
			t.Errorf("%s: %d parts were asked for, want %d", c.src, len(asked), c.parts)
		}
		refs := map[model.Ref]bool{}
		for _, r := range a.Own {
			refs[r] = true
		}
		for _, p := range a.Parts {
			for _, r := range p.Refs() {
				refs[r] = true
				if r.Kind == model.RefNode {
					t.Errorf("%s: a part mentions the node", c.src)
				}
			}
		}
		if c.parts > 0 && len(refs) != len(a.Refs) {
			t.Errorf("%s refers to %v, its parts and itself to %v", c.src, a.Refs, refs)
		}
	}
}
