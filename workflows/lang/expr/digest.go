package expr

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"joist/engine/value"
)

// digester writes what an expression means: the same for every spelling of it, with what its names stand for in place of
// the names, and positions in place of the names of loop variables.
type digester struct {
	h      value.Hasher
	names  *names[Source]
	locals []string
}

func (d *digester) tag(s string) { d.h.Text(s) }

func (d *digester) expression(e hclsyntax.Expression) {
	switch e := unwrap(e).(type) {
	case nil:
		d.tag("none")
	case *hclsyntax.LiteralValueExpr:
		d.literal(e.Val)
	case *hclsyntax.ScopeTraversalExpr:
		d.traversal(e.Traversal)
	case *hclsyntax.RelativeTraversalExpr:
		d.tag("get")
		d.expression(e.Source)
		d.steps(e.Traversal)
	case *hclsyntax.FunctionCallExpr:
		d.tag("call")
		d.tag(e.Name)
		d.tag(fmt.Sprint(len(e.Args), e.ExpandFinal))
		for _, a := range e.Args {
			d.expression(a)
		}
	case *hclsyntax.ConditionalExpr:
		d.tag("if")
		d.expression(e.Condition)
		d.expression(e.TrueResult)
		d.expression(e.FalseResult)
	case *hclsyntax.IndexExpr:
		d.tag("index")
		d.expression(e.Collection)
		d.expression(e.Key)
	case *hclsyntax.TupleConsExpr:
		d.tag(fmt.Sprint("tuple", len(e.Exprs)))
		for _, x := range e.Exprs {
			d.expression(x)
		}
	case *hclsyntax.ObjectConsExpr:
		d.object(e)
	case *hclsyntax.ObjectConsKeyExpr:
		if name := hcl.ExprAsKeyword(e); name != "" && !e.ForceNonLiteral {
			d.literal(cty.StringVal(name))
			return
		}
		d.expression(e.Wrapped)
	case *hclsyntax.ForExpr:
		d.forExpr(e)
	case *hclsyntax.SplatExpr:
		d.tag("splat")
		d.expression(e.Source)
		d.expression(e.Each)
	case *hclsyntax.AnonSymbolExpr:
		d.tag("item")
	case *hclsyntax.BinaryOpExpr:
		d.tag(operator(e.Op))
		d.expression(e.LHS)
		d.expression(e.RHS)
	case *hclsyntax.UnaryOpExpr:
		d.tag("unary" + operator(e.Op))
		d.expression(e.Val)
	case *hclsyntax.TemplateExpr:
		d.template(e)
	case *hclsyntax.TemplateJoinExpr:
		d.tag("join")
		d.expression(e.Tuple)
	default:
		d.tag(fmt.Sprintf("%T", e))
	}
}

func (d *digester) literal(v cty.Value) {
	switch {
	case v.IsNull():
		d.tag("null")
	case v.Type() == cty.String:
		d.tag("text")
		d.tag(v.AsString())
	default:
		d.tag("literal")
		d.h.Digest(value.FromCty(v).Digest())
	}
}

func (d *digester) traversal(t hcl.Traversal) {
	root := t.RootName()
	for i := len(d.locals) - 1; i >= 0; i-- {
		if d.locals[i] == root {
			d.tag(fmt.Sprint("local", len(d.locals)-i))
			d.steps(t[1:])
			return
		}
	}
	src, used, ok := d.names.find(t)
	if !ok {
		d.tag("unresolved")
		return
	}
	d.tag("ref")
	src.Digest(d.h)
	d.steps(t[used:])
}

func (d *digester) steps(t hcl.Traversal) {
	d.tag(fmt.Sprint("steps", len(t)))
	for _, s := range t {
		switch s := s.(type) {
		case hcl.TraverseAttr:
			d.tag("text")
			d.tag(s.Name)
		case hcl.TraverseIndex:
			d.literal(s.Key)
		default:
			d.tag("splat")
		}
	}
}

// template joins literal parts that the parser keeps apart: a heredoc yields one for each line.
func (d *digester) template(e *hclsyntax.TemplateExpr) {
	text, open, parts := "", true, 0
	flush := func() {
		if text != "" {
			d.literal(cty.StringVal(text))
			text, parts = "", parts+1
		}
	}
	for _, p := range e.Parts {
		if l, ok := p.(*hclsyntax.LiteralValueExpr); ok && l.Val.Type() == cty.String && !l.Val.IsNull() {
			text += l.Val.AsString()
			continue
		}
		if open {
			d.tag("template")
			open = false
		}
		flush()
		d.expression(p)
		parts++
	}
	if open {
		d.literal(cty.StringVal(text))
		return
	}
	flush()
	d.tag(fmt.Sprint("end", parts))
}

// object writes items in the order of their keys where all keys are written out: order is no part of an object.
func (d *digester) object(e *hclsyntax.ObjectConsExpr) {
	items := make([][2]value.Digest, len(e.Items))
	for i, item := range e.Items {
		for k, x := range [2]hclsyntax.Expression{item.KeyExpr, item.ValueExpr} {
			h := value.NewHasher()
			(&digester{h: h, names: d.names, locals: d.locals}).expression(x)
			items[i][k] = h.Sum()
		}
	}
	slices.SortStableFunc(items, func(a, b [2]value.Digest) int {
		return cmp.Compare(string(a[0][:]), string(b[0][:]))
	})
	d.tag(fmt.Sprint("object", len(items)))
	for _, item := range items {
		d.h.Digest(item[0])
		d.h.Digest(item[1])
	}
}

func (d *digester) forExpr(e *hclsyntax.ForExpr) {
	d.tag(fmt.Sprint("for", e.KeyExpr != nil, e.CondExpr != nil, e.Group))
	d.expression(e.CollExpr)
	inner := &digester{h: d.h, names: d.names, locals: append(slices.Clone(d.locals), e.KeyVar, e.ValVar)}
	if e.KeyExpr != nil {
		inner.expression(e.KeyExpr)
	}
	inner.expression(e.ValExpr)
	if e.CondExpr != nil {
		inner.expression(e.CondExpr)
	}
}

func operator(op *hclsyntax.Operation) string {
	for _, o := range [...]struct {
		op   *hclsyntax.Operation
		name string
	}{
		{hclsyntax.OpLogicalOr, "||"}, {hclsyntax.OpLogicalAnd, "&&"}, {hclsyntax.OpLogicalNot, "!"},
		{hclsyntax.OpEqual, "=="}, {hclsyntax.OpNotEqual, "!="}, {hclsyntax.OpGreaterThan, ">"}, {hclsyntax.OpGreaterThanOrEqual, ">="},
		{hclsyntax.OpLessThan, "<"}, {hclsyntax.OpLessThanOrEqual, "<="}, {hclsyntax.OpAdd, "+"}, {hclsyntax.OpSubtract, "-"},
		{hclsyntax.OpMultiply, "*"}, {hclsyntax.OpDivide, "/"}, {hclsyntax.OpModulo, "%"}, {hclsyntax.OpNegate, "neg"},
	} {
		if o.op == op {
			return o.name
		}
	}
	return "?"
}
