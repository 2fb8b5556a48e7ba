package expr

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"joist/engine/value"
	"joist/workflows/lang/diag"
)

// Constant evaluates an expression that refers to nothing. It reports false, with a diagnostic, if it cannot.
func Constant(bag *diag.Bag, e hclsyntax.Expression, want value.Type) (value.Value, bool) {
	for _, t := range hclsyntax.Variables(e) {
		bag.Errorf(t.SourceRange(), "Write the value itself; only functions can be used here.", "nothing can be referred to here")
		return value.Value{}, false
	}
	before := bag.Count()
	c := &checker{Env: Env{Bag: bag}, ctx: &hcl.EvalContext{Functions: table}, items: map[*hclsyntax.AnonSymbolExpr]Shape{}}
	if want.Kind == value.Secret {
		bag.Errorf(e.Range(), "Let a step make or fetch it.", "a secret never stands in a file")
		return value.Value{}, false
	}
	c.check(e, want)
	c.evaluate(e)
	if bag.Count() > before {
		return value.Value{}, false
	}
	v, _ := c.value(e)
	if v.IsNull() && want.Kind != value.Any {
		bag.Errorf(e.Range(), "Write a value.", "the value is null")
		return value.Value{}, false
	}
	if want.Kind == value.Any && v.Type().IsTupleType() {
		if l, err := convert.Convert(v, cty.List(cty.DynamicPseudoType)); err == nil {
			v = l
		}
	}
	checked, err := want.Check(value.FromCty(v))
	if err != nil {
		bag.Errorf(e.Range(), "The value must be "+Article(want)+".", "%s", err)
		return value.Value{}, false
	}
	return checked, true
}
