// Package expr compiles the language's expressions: what each refers to, a digest of what it means, a shape that is
// checked before anything runs, and evaluation from nothing but the values it refers to.
package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"joist/engine/model"
	"joist/engine/value"
)

// Source is what a name in an expression stands for.
type Source interface {
	// Refs adds what Eval may look up.
	Refs(add func(model.Ref))
	// Digest adds the meaning of the source.
	Digest(h value.Hasher)
	// Personal reports whether the source differs from one instance of a task to another.
	Personal() bool
	// Eval computes the value.
	Eval(s model.Scope) (cty.Value, error)
}

// Resolve says what a traversal such as task.seat.initial begins with: a source, and how many of its names belong to it.
type Resolve func(t hcl.Traversal) (src Source, used int)

// Expr is a compiled expression. It is immutable and implements model.Expr.
type Expr struct {
	syntax   hclsyntax.Expression
	whole    hcl.Range            // of what it was compiled from
	limited  hclsyntax.Expression // the same, charging for what it goes through
	names    names[Source]
	here     names[Source] // those that stand outside of what was taken
	refs     []model.Ref
	own      []model.Ref // those of refs that are not only in parts
	parts    []*Expr     // sub-expressions that mention nothing of the target, and look at many instances
	taken    []*Expr     // of parts, those that stand in this expression, not in what its names stand for
	digest   value.Digest
	personal bool
	direct   hcl.Traversal // what is left of the only traversal after its source; nil unless the whole expression is one
	source   Source
}

// Compile compiles an expression that was checked.
func Compile(syntax hclsyntax.Expression, resolve Resolve) *Expr {
	e := &Expr{syntax: unwrap(syntax), whole: syntax.Range()}
	for _, t := range hclsyntax.Variables(syntax) {
		if _, _, ok := e.names.find(t); ok {
			continue
		}
		src, used := resolve(t)
		e.names.add(t, used, src)
		src.Refs(e.addRef)
		e.personal = e.personal || src.Personal()
	}
	h := value.NewHasher()
	(&digester{h: h, names: &e.names}).expression(e.syntax)
	e.digest = h.Sum()
	e.take()
	if t, ok := e.syntax.(*hclsyntax.ScopeTraversalExpr); ok {
		if src, used, ok := e.names.find(t.Traversal); ok {
			e.source, e.direct = src, t.Traversal[used:]
		}
	}
	return e
}

func (e *Expr) addRef(r model.Ref) {
	if !slices.Contains(e.refs, r) {
		e.refs = append(e.refs, r)
	}
}

func unwrap(e hclsyntax.Expression) hclsyntax.Expression {
	for {
		switch x := e.(type) {
		case *hclsyntax.ParenthesesExpr:
			e = x.Expression
		case *hclsyntax.TemplateWrapExpr:
			e = x.Wrapped
		default:
			return e
		}
	}
}

// Argument gives the expression the form that the engine takes.
func (e *Expr) Argument(name string) model.Argument {
	a := model.Argument{Name: name, Expr: e, Refs: e.refs, Digest: e.digest, Shared: !e.personal}
	for _, part := range e.parts {
		a.Parts, a.Own = append(a.Parts, part), e.own
	}
	return a
}

// Refs implements model.Expr.
func (e *Expr) Refs() []model.Ref { return e.refs }

// Eval implements model.Expr.
func (e *Expr) Eval(s model.Scope) (value.Value, error) {
	v, err := e.eval(s)
	if err != nil {
		return value.Value{}, err
	}
	return value.FromCty(v), nil
}

func (e *Expr) eval(s model.Scope) (cty.Value, error) {
	if e.source != nil {
		v, err := e.source.Eval(s)
		if err != nil {
			return cty.NilVal, err
		}
		if len(e.direct) == 0 {
			return v, nil
		}
		v, diags := e.direct.TraverseRel(v)
		return v, placed(diags)
	}
	ctx := &hcl.EvalContext{Functions: table}
	if len(e.here.entries) > 0 {
		vars, err := e.here.variables(func(src Source) (cty.Value, error) { return src.Eval(s) })
		if err != nil {
			return cty.NilVal, err
		}
		ctx.Variables = vars
	}
	if err := e.evalParts(ctx, s); err != nil {
		return cty.NilVal, err
	}
	v, diags := bounded(e.limited, ctx, maxElements)
	return v, placed(diags)
}

// placed makes an error of what an evaluation says: where, what, and what to do.
func placed(diags hcl.Diagnostics) error {
	if !diags.HasErrors() {
		return nil
	}
	d := diags.Errs()[0]
	var one *hcl.Diagnostic
	if errors.As(d, &one) && one.Subject != nil {
		at := one.Subject
		return fmt.Errorf("%s:%d:%d: %s: %s", at.Filename, at.Start.Line, at.Start.Column, one.Summary, one.Detail)
	}
	return d
}

// names holds what the names at the start of traversals stand for, by one to three of them.
type names[T any] struct {
	entries []entry[T]
}

type entry[T any] struct {
	path []string
	of   T
}

// StepNames gives the first n names of a traversal; fewer if it goes on with something that is no name.
func StepNames(t hcl.Traversal, n int) []string {
	var out []string
	for _, s := range t {
		if len(out) == n {
			break
		}
		switch s := s.(type) {
		case hcl.TraverseRoot:
			out = append(out, s.Name)
		case hcl.TraverseAttr:
			out = append(out, s.Name)
		case hcl.TraverseIndex:
			if s.Key.Type() != cty.String || s.Key.IsNull() || !s.Key.IsKnown() {
				return out
			}
			out = append(out, s.Key.AsString())
		default:
			return out
		}
	}
	return out
}

func (n *names[T]) find(t hcl.Traversal) (of T, used int, ok bool) {
	path := StepNames(t, 3)
	for i := range n.entries {
		e := &n.entries[i]
		if len(e.path) <= len(path) && slices.Equal(e.path, path[:len(e.path)]) {
			return e.of, len(e.path), true
		}
	}
	return of, 0, false
}

// add records what a traversal begins with. Something whole takes the place of its parts.
func (n *names[T]) add(t hcl.Traversal, used int, of T) {
	path := StepNames(t, max(used, 1))
	n.entries = slices.DeleteFunc(n.entries, func(e entry[T]) bool {
		return len(e.path) > len(path) && slices.Equal(e.path[:len(path)], path)
	})
	n.entries = append(n.entries, entry[T]{path, of})
}

// variables nests the values under their names.
func (n *names[T]) variables(eval func(T) (cty.Value, error)) (map[string]cty.Value, error) {
	root := map[string]any{}
	for _, e := range n.entries {
		v, err := eval(e.of)
		if err != nil {
			return nil, err
		}
		at := root
		for _, name := range e.path[:len(e.path)-1] {
			next, ok := at[name].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[name] = next
			}
			at = next
		}
		at[e.path[len(e.path)-1]] = v
	}
	out := make(map[string]cty.Value, len(root))
	for name, v := range root {
		out[name] = nested(v)
	}
	return out, nil
}

func nested(v any) cty.Value {
	m, ok := v.(map[string]any)
	if !ok {
		return v.(cty.Value)
	}
	attrs := make(map[string]cty.Value, len(m))
	for name, inner := range m {
		attrs[name] = nested(inner)
	}
	return cty.ObjectVal(attrs)
}

// Path writes the first names of a traversal as they stand in the source.
func Path(t hcl.Traversal, n int) string { return strings.Join(StepNames(t, n), ".") }
