package expr

import (
	"maps"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/value"
)

// call is the shape of a function's result: as exact as flows need where the function only rearranges.
func (c *checker) call(x *hclsyntax.FunctionCallExpr) Shape {
	args := make([]Shape, len(x.Args))
	var flows Flow
	for i, a := range x.Args {
		args[i] = c.shape(a)
		flows |= args[i].Flows()
	}
	if len(args) == 0 {
		return Shape{}
	}
	first := args[0]
	switch x.Name {
	case "length":
		return Shape{Type: value.Type{Kind: value.Number}}
	case "keys":
		return Shape{Type: value.Of(value.List, value.Type{Kind: value.String}), Made: first.Made}
	case "values":
		s := elem(first)
		return s.of(value.Of(value.List, s.Type))
	case "lookup":
		s := elem(first)
		for _, d := range args[1:] {
			s.Made |= d.Made
		}
		if len(args) == 3 {
			s = either(s, args[2])
		}
		return s
	case "tolist", "toset", "distinct", "sort", "reverse", "compact":
		s := elem(first)
		if x.Name == "toset" {
			return s.of(value.Of(value.Set, s.Type))
		}
		return s.of(value.Of(value.List, s.Type))
	case "merge":
		return merged(args)
	case "concat", "coalesce", "setunion":
		for _, a := range args[1:] {
			first = either(first, a)
		}
		return first
	}
	result := value.Type{}
	if v, diags := c.value(x); !diags.HasErrors() {
		result = typeOf(v.Type())
	}
	return Shape{Type: result, Made: flows}
}

// merged is the shape of several maps or objects in one, later ones first.
func merged(args []Shape) Shape {
	out := args[0]
	for _, a := range args[1:] {
		if out.Type.Kind != value.Object || a.Type.Kind != value.Object {
			out = either(out, a)
			continue
		}
		attrs := maps.Clone(out.Type.Attrs)
		maps.Copy(attrs, a.Type.Attrs)
		out = Shape{value.Type{Kind: value.Object, Attrs: attrs}, out.Path | a.Path, out.Made | a.Made}
	}
	return out
}
