package expr

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"joist/engine/model"
	"joist/engine/value"
)

// part is a sub-expression that is evaluated once for all instances of a task, and stands among the variables by a name that
// no source has.
type part struct {
	hclsyntax.Expression
	name string
}

// Value implements hclsyntax.Expression.
func (p part) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[p.name]; ok {
			return v, nil
		}
	}
	at := p.Range()
	return cty.DynamicVal, hcl.Diagnostics{{Severity: hcl.DiagError, Subject: &at, Summary: "internal error", Detail: "A part of an expression was not evaluated."}}
}

func partName(i int) string { return fmt.Sprintf("\x00part%d", i) }

// take takes the parts out of an expression that differs from one instance to another: a gather over n nodes that n nodes read
// in an expression with their own name stays linear.
func (e *Expr) take() {
	if !e.personal {
		e.limited, e.here, e.own = limit(e.syntax, within{}), e.names, e.refs
		return
	}
	e.limited = limit(e.syntax, within{taker: e})
	own := &Expr{}
	for _, t := range hclsyntax.Variables(e.syntax) {
		if e.inPart(t.SourceRange()) {
			continue
		}
		src, used, ok := e.names.find(t)
		if _, _, known := e.here.find(t); known || !ok {
			continue
		}
		e.here.add(t, used, src)
		if in, ok := src.(Inline); ok {
			e.parts = append(e.parts, in.parts...)
			for _, r := range in.own {
				own.addRef(r)
			}
			continue
		}
		src.Refs(own.addRef)
	}
	e.parts, e.own = append(e.parts, e.taken...), own.refs
}

// takes makes a part of a sub-expression, if it is one. It is not asked about what stands in loops, or may not be evaluated.
func (e *Expr) takes(sub hclsyntax.Expression) (hclsyntax.Expression, bool) {
	many := false
	for _, t := range hclsyntax.Variables(sub) {
		src, _, ok := e.names.find(t)
		if !ok || src.Personal() {
			return nil, false
		}
		src.Refs(func(r model.Ref) { many = many || r.Kind == model.RefAll || r.Kind == model.RefRole })
	}
	if !many {
		return nil, false
	}
	taken := Compile(sub, func(t hcl.Traversal) (Source, int) {
		src, used, _ := e.names.find(t)
		return src, used
	})
	e.taken = append(e.taken, taken)
	return part{sub, partName(len(e.taken) - 1)}, true
}

func (e *Expr) inPart(at hcl.Range) bool {
	for _, taken := range e.taken {
		in := taken.whole
		if in.Filename == at.Filename && in.Start.Byte <= at.Start.Byte && at.End.Byte <= in.End.Byte {
			return true
		}
	}
	return false
}

// evalParts puts the values of what was taken among the variables.
func (e *Expr) evalParts(ctx *hcl.EvalContext, s model.Scope) error {
	for i, taken := range e.taken {
		v, err := onceIn(s, taken)
		if err != nil {
			return err
		}
		if ctx.Variables == nil {
			ctx.Variables = map[string]cty.Value{}
		}
		ctx.Variables[partName(i)] = v.Cty()
	}
	return nil
}

// onceIn evaluates what is the same for each instance, once if the scope keeps it.
func onceIn(s model.Scope, e model.Expr) (value.Value, error) {
	if o, ok := s.(model.Once); ok {
		return o.Once(e)
	}
	return e.Eval(s)
}
