package expr

import (
	"fmt"
	"math"
	"reflect"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Limits of one evaluation. HCL has none: a loop inside a loop over a long list multiplies, and ends the whole engine
// for want of memory. Whatever goes through something, or makes something, charges for it; and what came of it is charged
// for once more as a whole, since one thing may stand in it many times.
const (
	maxElements = 2 << 20  // that loops and calls go through, and that are written out
	maxWhole    = 8 << 20  // elements within what may be copied whole, and of the result
	maxText     = 64 << 20 // bytes of text that are put together, and of the result
	maxWork     = 64 << 20 // elements within what functions look through in loops
	maxChecked  = maxElements / 16
)

// budget is what is left of the limits during one evaluation.
type budget struct {
	elements, whole, text, work int
	spent                       bool
}

// budgetName is where an evaluation's budget stands among the variables. No name in a source looks like it.
const budgetName = "\x00budget"

var budgetType = cty.Capsule("budget", reflect.TypeFor[budget]())

// with gives the context in which an expression is evaluated within a budget.
func (b *budget) with(ctx *hcl.EvalContext) *hcl.EvalContext {
	inner := ctx.NewChild()
	inner.Variables = map[string]cty.Value{budgetName: cty.CapsuleVal(budgetType, b)}
	return inner
}

func budgetOf(ctx *hcl.EvalContext) *budget {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[budgetName]; ok {
			return v.EncapsulatedValue().(*budget)
		}
	}
	return nil
}

// bounded evaluates an expression within a budget of as many elements. What it makes has to be bounded too.
func bounded(e hclsyntax.Expression, ctx *hcl.EvalContext, elements int) (cty.Value, hcl.Diagnostics) {
	b := &budget{elements: elements, whole: maxWhole, text: maxText, work: maxWork}
	v, diags := e.Value(b.with(ctx))
	if diags.HasErrors() {
		return v, diags
	}
	result := budget{whole: maxWhole, text: maxText}
	if result.deep(v); result.spent {
		return cty.DynamicVal, append(diags, tooLarge(e.Range()))
	}
	return v, diags
}

func tooLarge(at hcl.Range) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Subject: &at, Summary: "the expression grows too large",
		Detail: fmt.Sprintf("One evaluation goes through at most %d elements of lists and maps, and makes at most %d of them and %d MiB of text. Loop over less, not inside another loop over as much, or let a step work it out.", maxElements, maxWhole, maxText>>20),
	}
}

func (b *budget) take(elements, whole, text int) {
	b.elements -= elements
	b.whole -= whole
	b.text -= text
	b.spent = b.spent || b.elements < 0 || b.whole < 0 || b.text < 0
}

// shallow charges for the elements of a value, not for what is in them.
func (b *budget) shallow(v cty.Value) {
	v, _ = v.Unmark()
	switch t := v.Type(); {
	case !v.IsKnown() || v.IsNull():
	case t == cty.String:
		b.take(0, 0, len(v.AsString()))
	case t.IsObjectType():
		b.take(len(t.AttributeTypes()), 0, 0)
	case v.CanIterateElements():
		b.take(v.LengthInt(), 0, 0)
	}
}

// deep charges for everything in a value. It stops where the budget is spent.
func (b *budget) deep(v cty.Value) {
	v, _ = v.Unmark()
	b.take(0, 1, 0)
	switch t := v.Type(); {
	case b.spent || !v.IsKnown() || v.IsNull():
	case t == cty.String:
		b.take(0, 0, len(v.AsString()))
	case v.CanIterateElements():
		for it := v.ElementIterator(); !b.spent && it.Next(); {
			_, inner := it.Element()
			b.deep(inner)
		}
	}
}

// charge says what is charged for the value of an expression.
type charge uint8

const (
	itsElements charge = iota
	itsWhole
	itsText
	itsDepth // its elements, and that what is in them is looked at: every function does, if only to see that it may
	anObject // that is written out: it takes far more room than a list
)

// counted is an expression that charges for its value.
type counted struct {
	hclsyntax.Expression
	charge charge
}

// Value implements hclsyntax.Expression. Once the budget is spent nothing is evaluated any more, and nothing said twice.
func (c counted) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	b := budgetOf(ctx)
	if b == nil {
		return c.Expression.Value(ctx)
	}
	if b.spent {
		return cty.DynamicVal, nil
	}
	v, diags := c.Expression.Value(ctx)
	if b.spent {
		return cty.DynamicVal, diags
	}
	switch c.charge {
	case itsElements:
		b.shallow(v)
	case itsWhole:
		b.deep(v)
	case itsDepth:
		b.shallow(v)
		inside := budget{whole: b.work, text: math.MaxInt}
		inside.deep(v)
		b.work, b.spent = inside.whole, b.spent || inside.spent
	case anObject:
		b.take(4, 0, 0)
		for range 4 {
			b.shallow(v)
		}
	case itsText:
		if plain, _ := v.Unmark(); plain.IsKnown() && !plain.IsNull() && plain.Type() == cty.String {
			b.take(1, 0, len(plain.AsString()))
		}
	}
	if b.spent {
		return cty.DynamicVal, append(diags, tooLarge(c.Range()))
	}
	return v, diags
}

// light are the functions that make nothing, or nothing but a list or map of what is there.
var light = map[string]bool{
	"keys": true, "values": true, "lookup": true, "element": true, "contains": true, "slice": true,
	"reverse": true, "merge": true, "concat": true, "zipmap": true, "coalesce": true,
}

// within says where an expression stands.
type within struct {
	loop  bool
	taker *Expr // takes parts of it; nil in loops, and where it depends on values whether an expression counts
}

// limit gives an expression that means the same, and charges for what it goes through and makes.
func limit(e hclsyntax.Expression, w within) hclsyntax.Expression {
	if w.taker != nil {
		if p, ok := w.taker.takes(e); ok {
			return p
		}
	}
	in := func(e hclsyntax.Expression) hclsyntax.Expression { return limit(e, w) }
	loop := w.loop
	switch e := e.(type) {
	case *hclsyntax.ForExpr:
		c := *e
		c.CollExpr, c.ValExpr = counted{in(e.CollExpr), itsElements}, limit(e.ValExpr, within{loop: true})
		if e.KeyExpr != nil {
			c.KeyExpr = counted{limit(e.KeyExpr, within{loop: true}), itsText}
		}
		if e.CondExpr != nil {
			c.CondExpr = limit(e.CondExpr, within{loop: true})
		}
		return &c
	case *hclsyntax.SplatExpr:
		c := *e
		c.Source, c.Each = counted{in(e.Source), itsElements}, limit(e.Each, within{loop: true})
		return &c
	case *hclsyntax.FunctionCallExpr:
		c, how := *e, itsWhole
		switch {
		case e.Name == "length": // which looks at nothing in it
			how = itsText
		case light[e.Name] && loop:
			how = itsDepth
		case light[e.Name]:
			how = itsElements
		}
		c.Args = parts(e.Args, func(a hclsyntax.Expression) hclsyntax.Expression { return counted{in(a), how} })
		return &c
	case *hclsyntax.TemplateExpr:
		if e.IsStringLiteral() {
			return e
		}
		c := *e
		c.Parts = parts(e.Parts, func(p hclsyntax.Expression) hclsyntax.Expression { return counted{in(p), itsText} })
		return &c
	case *hclsyntax.TemplateJoinExpr:
		return &hclsyntax.TemplateJoinExpr{Tuple: counted{in(e.Tuple), itsWhole}}
	case *hclsyntax.TupleConsExpr:
		c := *e
		c.Exprs = parts(e.Exprs, in)
		return counted{&c, itsElements}
	case *hclsyntax.ObjectConsExpr:
		return counted{limitObject(e, in), anObject}
	case *hclsyntax.ConditionalExpr:
		c := *e
		c.Condition, c.TrueResult, c.FalseResult = in(e.Condition), limit(e.TrueResult, within{loop: loop}), limit(e.FalseResult, within{loop: loop})
		if loop { // one of the two may be copied to have the type of the other
			return counted{&c, itsWhole}
		}
		return &c
	}
	return limitRest(e, in)
}

// limitRest is limit for expressions that go through nothing themselves.
func limitRest(e hclsyntax.Expression, in func(hclsyntax.Expression) hclsyntax.Expression) hclsyntax.Expression {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return &hclsyntax.ParenthesesExpr{Expression: in(e.Expression), SrcRange: e.SrcRange}
	case *hclsyntax.TemplateWrapExpr:
		return &hclsyntax.TemplateWrapExpr{Wrapped: in(e.Wrapped), SrcRange: e.SrcRange}
	case *hclsyntax.RelativeTraversalExpr:
		c := *e
		c.Source = in(e.Source)
		return &c
	case *hclsyntax.IndexExpr:
		c := *e
		c.Collection, c.Key = in(e.Collection), in(e.Key)
		return &c
	case *hclsyntax.BinaryOpExpr:
		c := *e
		c.LHS, c.RHS = counted{in(e.LHS), itsElements}, counted{in(e.RHS), itsElements}
		return &c
	case *hclsyntax.UnaryOpExpr:
		c := *e
		c.Val = in(e.Val)
		return &c
	}
	return e
}

func limitObject(e *hclsyntax.ObjectConsExpr, in func(hclsyntax.Expression) hclsyntax.Expression) hclsyntax.Expression {
	c := *e
	c.Items = make([]hclsyntax.ObjectConsItem, len(e.Items))
	for i, item := range e.Items {
		c.Items[i] = hclsyntax.ObjectConsItem{KeyExpr: item.KeyExpr, ValueExpr: in(item.ValueExpr)}
		if k, ok := item.KeyExpr.(*hclsyntax.ObjectConsKeyExpr); ok && hcl.ExprAsKeyword(k.Wrapped) == "" {
			c.Items[i].KeyExpr = &hclsyntax.ObjectConsKeyExpr{Wrapped: in(k.Wrapped), ForceNonLiteral: k.ForceNonLiteral}
		}
	}
	return &c
}

func parts(of []hclsyntax.Expression, f func(hclsyntax.Expression) hclsyntax.Expression) []hclsyntax.Expression {
	out := make([]hclsyntax.Expression, len(of))
	for i, e := range of {
		out[i] = f(e)
	}
	return out
}
