package expr

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"joist/engine/value"
	"joist/workflows/lang/diag"
)

// Flow says what may be inside a value that must not go everywhere.
type Flow uint8

// The kinds of flows.
const (
	Secrets  Flow = 1 << iota // a secret, or something made of one
	HerePath                  // a path on the instance's node
	AwayPath                  // a path on another node
	HostPath                  // a path on the node that executes
)

// Paths are all flows of paths.
const Paths = HerePath | AwayPath | HostPath

// Shape is what is known of a value before anything runs.
type Shape struct {
	Type value.Type
	Path Flow // what a path in it is: HerePath, AwayPath or HostPath; 0 for one that every node has
	Made Flow // flows that its type no longer shows: it was made of them
}

// Flows are all flows that the value may carry.
func (s Shape) Flows() Flow {
	f := s.Made
	if s.Type.Holds(value.Secret) {
		f |= Secrets
	}
	if s.Type.Holds(value.Path) {
		f |= s.Path
	}
	return f
}

// of is a part of s with another type.
func (s Shape) of(t value.Type) Shape { return Shape{t, s.Path, s.Made} }

// Env gives a check what it needs of the surroundings.
type Env struct {
	Bag *diag.Bag
	// Resolve gives the shape of what a traversal begins with and how many names belong to it. It reports what is wrong,
	// and then gives the zero Shape.
	Resolve func(t hcl.Traversal) (Shape, int)
	Secrets bool // a whole secret may stand where any type is wanted
}

type checker struct {
	Env
	names  names[Shape]
	locals []local
	ctx    *hcl.EvalContext
	items  map[*hclsyntax.AnonSymbolExpr]Shape
	own    int // missing attributes reported here rather than by an evaluation
}

type local struct {
	name  string
	shape Shape
}

// Check reports everything that can be wrong with an expression before its values are known, and gives its shape. The
// type wanted may be `any`.
func Check(env Env, e hclsyntax.Expression, want value.Type) Shape {
	c := &checker{Env: env, items: map[*hclsyntax.AnonSymbolExpr]Shape{}}
	for _, t := range hclsyntax.Variables(e) {
		if _, _, ok := c.names.find(t); ok {
			continue
		}
		s, used := env.Resolve(t)
		c.names.add(t, used, s)
	}
	vars, _ := c.names.variables(func(s Shape) (cty.Value, error) { return unknown(s.Type), nil }) // never fails
	c.ctx = &hcl.EvalContext{Variables: vars, Functions: table}
	before := env.Bag.Count()
	s := c.check(e, want)
	if s.Made&Secrets != 0 && env.Bag.Count() == before {
		env.Bag.Errorf(e.Range(), "Pass it on whole: expressions cannot look inside a secret.", "an expression is made of a secret")
	}
	c.evaluate(e)
	if v, diags := c.value(e); !diags.HasErrors() && env.Bag.Count() == before {
		if _, err := want.Check(value.FromCty(v)); err != nil {
			env.Bag.Errorf(e.Range(), "The value must be "+Article(want)+".", "%s", err)
		}
	}
	return s
}

// Article writes a type with its article.
func Article(t value.Type) string {
	text := t.String()
	if strings.ContainsAny(text[:1], "aeiou") || t.Kind == value.FQDN {
		return "an " + text
	}
	return "a " + text
}

func unknown(t value.Type) cty.Value {
	return cty.UnknownVal(t.Cty().WithoutOptionalAttributesDeep())
}

// value evaluates an expression with what is known so far.
func (c *checker) value(e hclsyntax.Expression) (cty.Value, hcl.Diagnostics) {
	return bounded(limit(e, within{}), c.ctx, maxChecked)
}

// evaluate lets HCL look at the expression with typed unknowns: operators, functions, and conditions.
func (c *checker) evaluate(e hclsyntax.Expression) {
	_, diags := c.value(e)
	for _, d := range diags {
		if c.own > 0 && d.Summary == "Unsupported attribute" {
			continue
		}
		if d.Summary == "Call to unknown function" {
			name := ""
			if call, ok := d.Expression.(*hclsyntax.FunctionCallExpr); ok {
				name = call.Name
			}
			c.Bag.Errorf(*d.Subject, diag.Suggest(name, Functions()), "no function is called %q", name)
			continue
		}
		c.Bag.AddHCL(hcl.Diagnostics{d})
	}
}

// check compares an expression with the type wanted, part by part where it is written out.
func (c *checker) check(e hclsyntax.Expression, want value.Type) Shape {
	switch x := unwrap(e).(type) {
	case *hclsyntax.TupleConsExpr:
		if want.Kind == value.List || want.Kind == value.Set {
			var made Flow
			for _, part := range x.Exprs {
				made |= c.check(part, *want.Elem).Flows()
			}
			return Shape{Type: want, Made: made}
		}
	case *hclsyntax.ObjectConsExpr:
		if want.Kind == value.Map || want.Kind == value.Object {
			return c.checkObject(x, want)
		}
	case *hclsyntax.ConditionalExpr:
		cond := c.shape(x.Condition)
		a, b := c.check(x.TrueResult, want), c.check(x.FalseResult, want)
		return Shape{Type: want, Made: cond.Flows() | a.Flows() | b.Flows()}
	case *hclsyntax.ForExpr:
		elem := value.Type{}
		if x.KeyExpr != nil && want.Kind == value.Map || x.KeyExpr == nil && (want.Kind == value.List || want.Kind == value.Set) {
			elem = *want.Elem
		}
		if x.Group && elem.Elem != nil {
			elem = *elem.Elem
		}
		if elem.Kind != value.Any {
			return Shape{Type: want, Made: c.forExpr(x, elem).Made}
		}
	}
	if lit, ok := unwrap(e).(*hclsyntax.LiteralValueExpr); ok && lit.Val.IsNull() {
		return Shape{Type: want}
	}
	s := c.shape(e)
	c.compare(e, s, want)
	return s
}

func (c *checker) compare(e hclsyntax.Expression, s Shape, want value.Type) {
	switch {
	case c.Secrets && s.Type.Kind == value.Secret && want.Kind == value.Any:
	case s.Flows()&Secrets != 0 && want.Kind != value.Secret:
		c.Bag.Errorf(e.Range(), fmt.Sprintf("Declare what takes it as secret(%s), or give it something that is not secret.", plain(s.Type)), "a secret flows into a plain %s", plainly(want))
	case want.Kind == value.Secret && s.Type.Kind != value.Secret && s.Made&Secrets != 0:
		c.Bag.Errorf(e.Range(), "Pass it on whole: expressions cannot look inside a secret.", "an expression is made of a secret")
	case want.Kind == value.Secret && s.Type.Kind != value.Secret && s.Type.Kind != value.Any:
		c.Bag.Errorf(e.Range(), "Only the output or input of a step that is declared secret can stand here; a secret never stands in a file.", "plain text where a secret is wanted")
	default:
		if why, ok := Fits(s.Type, want); !ok {
			c.Bag.Errorf(e.Range(), "The value must be "+Article(want)+".", "%s", why)
		}
	}
}

func plainly(t value.Type) string {
	if t.Kind == value.Any {
		return "value"
	}
	return t.String()
}

func plain(t value.Type) value.Type {
	if t.Kind == value.Secret {
		return *t.Elem
	}
	return value.Type{Kind: value.String}
}

func (c *checker) checkObject(x *hclsyntax.ObjectConsExpr, want value.Type) Shape {
	out, seen := Shape{Type: want}, map[string]bool{}
	for _, item := range x.Items {
		name, fixed := KeyName(item.KeyExpr)
		if !fixed {
			out.Made |= c.check(item.KeyExpr, value.Type{Kind: value.String}).Flows()
		}
		elem := value.Type{}
		switch {
		case want.Kind == value.Map:
			elem = *want.Elem
		case fixed:
			a, ok := want.Attrs[name]
			if !ok {
				c.Bag.Errorf(item.KeyExpr.Range(), diag.Suggest(name, sorted(want.Attrs)), "no attribute is called %q", name)
				continue
			}
			elem = a.Type
		}
		if fixed && seen[name] {
			c.Bag.Errorf(item.KeyExpr.Range(), "Remove one of them.", "%q stands twice", name)
		}
		seen[name] = true
		out.Made |= c.check(item.ValueExpr, elem).Flows()
	}
	for _, name := range sorted(want.Attrs) {
		if !want.Attrs[name].Optional && !seen[name] {
			c.Bag.Errorf(x.SrcRange, "The value must be "+Article(want)+".", "attribute %q is missing", name)
		}
	}
	return out
}

// KeyName gives the key of an object's item if it is written out.
func KeyName(e hclsyntax.Expression) (string, bool) {
	if k, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok {
		if word := hcl.ExprAsKeyword(k); word != "" && !k.ForceNonLiteral {
			return word, true
		}
		e = k.Wrapped
	}
	if t, ok := e.(*hclsyntax.TemplateExpr); ok && t.IsStringLiteral() {
		v, _ := t.Value(nil)
		return v.AsString(), true
	}
	return "", false
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// shape works out what is known of an expression's value.
func (c *checker) shape(e hclsyntax.Expression) Shape {
	switch x := unwrap(e).(type) {
	case *hclsyntax.ScopeTraversalExpr:
		return c.traversal(x.Traversal)
	case *hclsyntax.RelativeTraversalExpr:
		return c.walk(c.shape(x.Source), x.Traversal)
	case *hclsyntax.IndexExpr:
		key := c.shape(x.Key)
		s := elem(c.shape(x.Collection))
		s.Made |= key.Flows()
		return s
	case *hclsyntax.TupleConsExpr:
		return c.tuple(x)
	case *hclsyntax.ObjectConsExpr:
		return c.object(x)
	case *hclsyntax.ForExpr:
		return c.forExpr(x, value.Type{})
	case *hclsyntax.ConditionalExpr:
		cond := c.shape(x.Condition)
		s := either(c.shape(x.TrueResult), c.shape(x.FalseResult))
		s.Made |= cond.Flows()
		return s
	case *hclsyntax.FunctionCallExpr:
		return c.call(x)
	case *hclsyntax.SplatExpr:
		source := c.shape(x.Source)
		item := source
		if source.Type.Kind == value.List || source.Type.Kind == value.Set {
			item = elem(source)
		}
		c.items[x.Item] = item
		s := c.shape(x.Each)
		return s.of(value.Of(value.List, s.Type))
	case *hclsyntax.AnonSymbolExpr:
		return c.items[x]
	case *hclsyntax.TemplateExpr:
		s := Shape{Type: value.Type{Kind: value.String}}
		for _, p := range x.Parts {
			s.Made |= c.shape(p).Flows()
		}
		return s
	case *hclsyntax.TemplateJoinExpr:
		return Shape{Type: value.Type{Kind: value.String}, Made: c.shape(x.Tuple).Flows()}
	case *hclsyntax.BinaryOpExpr:
		return Shape{Type: typeOf(x.Op.Type), Made: c.shape(x.LHS).Flows() | c.shape(x.RHS).Flows()}
	case *hclsyntax.UnaryOpExpr:
		return Shape{Type: typeOf(x.Op.Type), Made: c.shape(x.Val).Flows()}
	case *hclsyntax.LiteralValueExpr:
		return Shape{Type: typeOf(x.Val.Type())}
	}
	return Shape{}
}

func (c *checker) traversal(t hcl.Traversal) Shape {
	for _, l := range slices.Backward(c.locals) {
		if l.name == t.RootName() {
			return c.walk(l.shape, t[1:])
		}
	}
	s, used, ok := c.names.find(t)
	if !ok {
		return Shape{}
	}
	return c.walk(s, t[used:])
}

func (c *checker) walk(s Shape, t hcl.Traversal) Shape {
	for _, step := range t {
		name := ""
		switch step := step.(type) {
		case hcl.TraverseAttr:
			name = step.Name
		case hcl.TraverseIndex:
			if step.Key.Type() == cty.String {
				name = step.Key.AsString()
			}
		}
		attrs := s.Type.Attrs
		if s.Type.Kind == value.Certificate {
			attrs = certificate
		}
		switch s.Type.Kind {
		case value.Object, value.Certificate:
			a, ok := attrs[name]
			if !ok {
				c.own++
				c.Bag.Errorf(step.SourceRange(), diag.Suggest(name, sorted(attrs)), "no attribute is called %q", name)
				return Shape{}
			}
			s = s.of(a.Type)
		case value.Map, value.List:
			s = elem(s)
		case value.Secret:
			c.own++
			c.Bag.Errorf(step.SourceRange(), "Pass it on whole: expressions cannot look inside a secret.", "an expression looks inside a secret")
			return Shape{}
		default:
			s = s.of(value.Type{})
		}
	}
	return s
}

// elem is the shape of an element.
func elem(s Shape) Shape {
	switch s.Type.Kind {
	case value.List, value.Set, value.Map:
		return s.of(*s.Type.Elem)
	case value.Object:
		var out *Shape
		for _, name := range sorted(s.Type.Attrs) {
			a := s.of(s.Type.Attrs[name].Type)
			if out != nil {
				a = either(*out, a)
			}
			out = &a
		}
		if out != nil {
			return *out
		}
	}
	return s.of(value.Type{})
}

// either is the shape of a value that is one of two.
func either(a, b Shape) Shape {
	if a.Type.Equal(b.Type) {
		return Shape{a.Type, a.Path | b.Path, a.Made | b.Made}
	}
	if text(a.Type.Kind) && text(b.Type.Kind) {
		return Shape{value.Type{Kind: value.String}, 0, a.Flows() | b.Flows()}
	}
	return Shape{value.Type{}, 0, a.Flows() | b.Flows()}
}

func (c *checker) tuple(x *hclsyntax.TupleConsExpr) Shape {
	if len(x.Exprs) == 0 {
		return Shape{Type: value.Of(value.List, value.Type{})}
	}
	s := c.shape(x.Exprs[0])
	for _, part := range x.Exprs[1:] {
		s = either(s, c.shape(part))
	}
	return s.of(value.Of(value.List, s.Type))
}

func (c *checker) object(x *hclsyntax.ObjectConsExpr) Shape {
	out, all := Shape{Type: value.Type{Kind: value.Object, Attrs: map[string]value.Attr{}}}, true
	for _, item := range x.Items {
		s := c.shape(item.ValueExpr)
		out.Path, out.Made = out.Path|s.Path, out.Made|s.Made
		name, fixed := KeyName(item.KeyExpr)
		if !fixed {
			s := c.shape(item.KeyExpr)
			out.Made |= s.Flows()
			all = false
		}
		out.Type.Attrs[name] = value.Attr{Type: s.Type}
	}
	if !all {
		made := out.Flows()
		return Shape{Type: value.Of(value.Map, elem(out).Type), Path: out.Path, Made: made &^ Paths}
	}
	return out
}

// forExpr binds the loop's variables and looks at its parts, also where HCL would not yet.
func (c *checker) forExpr(x *hclsyntax.ForExpr, want value.Type) Shape {
	coll := c.shape(x.CollExpr)
	item := elem(coll)
	key := Shape{}
	switch coll.Type.Kind {
	case value.Map, value.Object:
		key.Type.Kind = value.String
	case value.List:
		key.Type.Kind = value.Number
	case value.Set:
		key = item
	}
	outer := c.ctx
	child := outer.NewChild()
	child.Variables = map[string]cty.Value{x.ValVar: unknown(item.Type)}
	if x.KeyVar != "" {
		child.Variables[x.KeyVar] = unknown(key.Type)
		c.locals = append(c.locals, local{x.KeyVar, key})
	}
	c.locals = append(c.locals, local{x.ValVar, item})
	c.ctx = child
	depth := len(c.locals)
	var made Flow
	if x.CondExpr != nil {
		made |= c.shape(x.CondExpr).Flows()
		c.evaluate(x.CondExpr)
	}
	if x.KeyExpr != nil {
		made |= c.check(x.KeyExpr, value.Type{Kind: value.String}).Flows()
		c.evaluate(x.KeyExpr)
	}
	var s Shape
	if want.Kind == value.Any {
		s = c.shape(x.ValExpr)
	} else {
		s = c.check(x.ValExpr, want)
		s = Shape{Type: s.Type, Path: s.Path, Made: s.Flows()}
	}
	c.evaluate(x.ValExpr)
	c.locals = c.locals[:depth-1]
	if x.KeyVar != "" {
		c.locals = c.locals[:depth-2]
	}
	c.ctx = outer
	t := s.Type
	if x.Group {
		t = value.Of(value.List, t)
	}
	if x.KeyExpr != nil {
		t = value.Of(value.Map, t)
	} else {
		t = value.Of(value.List, t)
	}
	s = s.of(t)
	s.Made |= made
	return s
}
