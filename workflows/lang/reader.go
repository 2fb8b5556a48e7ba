package lang

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// reader takes the attributes and blocks of one body apart. Whatever it is not asked for is an error.
type reader struct {
	bag  *diag.Bag
	body *hclsyntax.Body
	what string    // what the body belongs to, for people: step "seat"
	at   hcl.Range // its header
}

// form is what a body may hold. Words that are designed and not there yet have a message of their own.
type form struct {
	attrs  []string
	blocks map[string]int // number of labels
	later  []string
}

func (r *reader) expect(f form) {
	for _, a := range ordered(r.body.Attributes) {
		r.expectAttr(f, a)
	}
	for _, b := range r.body.Blocks {
		labels, known := f.blocks[b.Type]
		switch {
		case slices.Contains(f.later, b.Type):
			r.bag.Errorf(b.TypeRange, "It is designed and not there yet: leave it out for now.", "%q is not yet supported", b.Type)
		case slices.Contains(f.attrs, b.Type):
			r.bag.Errorf(b.TypeRange, fmt.Sprintf("Write %s = ….", b.Type), "%q is an attribute, not a block", b.Type)
		case !known:
			r.bag.Errorf(b.TypeRange, diag.Suggest(b.Type, f.names()), "no block of %s is called %q", r.what, b.Type)
		case labels != len(b.Labels):
			r.bag.Errorf(b.DefRange(), "Write "+strings.TrimSpace(b.Type+strings.Repeat(` "name"`, labels))+" { … }.", "a %s block has %s, this one has %d", b.Type, plural(labels, "name"), len(b.Labels))
		}
	}
}

func (r *reader) expectAttr(f form, a *hclsyntax.Attribute) {
	_, block := f.blocks[a.Name]
	switch {
	case slices.Contains(f.attrs, a.Name):
	case slices.Contains(f.later, a.Name):
		r.bag.Errorf(a.NameRange, "It is designed and not there yet: leave it out for now.", "%q is not yet supported", a.Name)
	case block:
		r.bag.Errorf(a.NameRange, fmt.Sprintf("Write %s { … } without an equals sign.", a.Name), "%q is a block, not an attribute", a.Name)
	default:
		r.bag.Errorf(a.NameRange, diag.Suggest(a.Name, f.names()), "no attribute of %s is called %q", r.what, a.Name)
	}
}

func (f form) names() []string {
	names := slices.Clone(f.attrs)
	for b := range f.blocks {
		names = append(names, b)
	}
	return names
}

func plural(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ordered gives attributes in the order of the source.
func ordered(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	out := make([]*hclsyntax.Attribute, 0, len(attrs))
	for _, a := range attrs {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
	return out
}

// blocks gives the blocks of a type that have the right number of labels.
func (r *reader) blocks(kind string, labels int) []*hclsyntax.Block {
	var out []*hclsyntax.Block
	for _, b := range r.body.Blocks {
		if b.Type == kind && len(b.Labels) == labels {
			out = append(out, b)
		}
	}
	return out
}

// block gives the only block of a type, nil if there is none.
func (r *reader) block(kind string) *hclsyntax.Block {
	all := r.blocks(kind, 0)
	if len(all) == 0 {
		return nil
	}
	for _, b := range all[1:] {
		r.bag.Errorf(b.TypeRange, "Keep one of them.", "%s has two %s blocks", r.what, kind)
	}
	return all[0]
}

func (r *reader) inner(b *hclsyntax.Block) *reader {
	return &reader{bag: r.bag, body: b.Body, what: describe(b), at: b.DefRange()}
}

func describe(b *hclsyntax.Block) string {
	if len(b.Labels) > 0 {
		return fmt.Sprintf("%s %q", b.Type, b.Labels[0])
	}
	return b.Type
}

// attr gives an attribute's expression, nil if it does not stand there.
func (r *reader) attr(name string) hclsyntax.Expression {
	if a := r.body.Attributes[name]; a != nil {
		return a.Expr
	}
	return nil
}

// need is attr for what must stand there.
func (r *reader) need(name, advice string) hclsyntax.Expression {
	e := r.attr(name)
	if e == nil {
		r.bag.Errorf(r.at, advice, "%s has no %s", r.what, name)
	}
	return e
}

func (r *reader) constant(name string, kind value.Kind) (value.Value, bool) {
	e := r.attr(name)
	if e == nil {
		return value.Value{}, false
	}
	return expr.Constant(r.bag, e, value.Type{Kind: kind})
}

func (r *reader) text(name string) string {
	v, ok := r.constant(name, value.String)
	if !ok {
		return ""
	}
	return v.Cty().AsString()
}

func (r *reader) truth(name string) bool {
	v, _ := r.constant(name, value.Bool)
	return v.True()
}

// whole gives a whole number of at least least.
func (r *reader) whole(name string, least, otherwise int64) int64 {
	v, ok := r.constant(name, value.Number)
	if !ok {
		return otherwise
	}
	f := v.Cty().AsBigFloat()
	n, accuracy := f.Int64()
	if accuracy != 0 || n < least {
		r.bag.Errorf(r.attr(name).Range(), fmt.Sprintf("Write a whole number, at least %d.", least), "%s is not a number of that kind", name)
		return otherwise
	}
	return n
}

func (r *reader) duration(name string, otherwise time.Duration) time.Duration {
	v, ok := r.constant(name, value.String)
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(v.Cty().AsString())
	if err != nil || d <= 0 {
		r.bag.Errorf(r.attr(name).Range(), `Write a form such as "90s", "5m" or "1h30m".`, "%q is not a duration", v.Cty().AsString())
		return otherwise
	}
	return d
}

// count gives a number of nodes, or a percentage such as "10%".
func (r *reader) count(name string) model.Count {
	e := r.attr(name)
	if e == nil {
		return model.Count{}
	}
	v, ok := expr.Constant(r.bag, e, value.Type{})
	if !ok {
		return model.Count{}
	}
	advice := `Write a number of nodes, at least 1, or a percentage such as "10%".`
	if text, err := (value.Type{Kind: value.String}).Check(v); err == nil && !text.Null() {
		s := text.Cty().AsString()
		digits, percent := strings.CutSuffix(s, "%")
		n, err := strconv.Atoi(digits)
		if err == nil && n >= 1 && (!percent || n <= 100) {
			return model.Count{N: n, Percent: percent}
		}
		r.bag.Errorf(e.Range(), advice, "%q is not a number of nodes", s)
		return model.Count{}
	}
	r.bag.Errorf(e.Range(), advice, "%s is not a number of nodes", name)
	return model.Count{}
}

// named is a name with its place.
type named struct {
	name string
	at   hcl.Range
}

// reference reads ROOT.NAME, such as role.member.
func (r *reader) reference(e hclsyntax.Expression, root string) (named, bool) {
	t, diags := hcl.AbsTraversalForExpr(e)
	if path := expr.StepNames(t, 3); !diags.HasErrors() && len(t) == 2 && len(path) == 2 && path[0] == root {
		return named{path[1], e.Range()}, true
	}
	r.bag.Errorf(e.Range(), fmt.Sprintf("Write %s.NAME.", root), "expected a %s", root)
	return named{}, false
}

// list takes [a, b] apart, or gives a single expression as a list of one.
func list(e hclsyntax.Expression) []hclsyntax.Expression {
	if t, ok := e.(*hclsyntax.TupleConsExpr); ok {
		return t.Exprs
	}
	return []hclsyntax.Expression{e}
}

// pairs takes { a = x, b = y } apart.
func (r *reader) pairs(name string) []pair {
	e := r.attr(name)
	if e == nil {
		return nil
	}
	return r.pairsOf(name, e)
}

func (r *reader) pairsOf(name string, e hclsyntax.Expression) []pair {
	o, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		r.bag.Errorf(e.Range(), fmt.Sprintf("Write %s = { name = … }.", name), "%s is not written out", name)
		return nil
	}
	var out []pair
	seen := map[string]bool{}
	for _, item := range o.Items {
		key, fixed := expr.KeyName(item.KeyExpr)
		if !fixed {
			r.bag.Errorf(item.KeyExpr.Range(), "Write a plain name.", "a name in %s must be a word", name)
			continue
		}
		if seen[key] {
			r.bag.Errorf(item.KeyExpr.Range(), "Remove one of them.", "%q stands twice in %s", key, name)
			continue
		}
		seen[key] = true
		out = append(out, pair{named{key, item.KeyExpr.Range()}, item.ValueExpr})
	}
	return out
}

// pair is a name and what is given for it.
type pair struct {
	named
	value hclsyntax.Expression
}

// word checks the form of a name that the pack defines.
func (r *reader) word(b *hclsyntax.Block) (named, bool) {
	n := named{b.Labels[0], b.LabelRanges[0]}
	ok := len(n.name) <= 63 && n.name != ""
	for i, c := range n.name {
		ok = ok && (c >= 'a' && c <= 'z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '-'))
	}
	if !ok {
		r.bag.Errorf(n.at, "Use lower-case letters, digits, _ and -, beginning with a letter; at most 63.", "%q is not a name", n.name)
	}
	return n, ok
}

// unique reports a name that stands twice.
func unique(bag *diag.Bag, what string, seen map[string]hcl.Range, n named) bool {
	first, twice := seen[n.name]
	if twice {
		bag.Errorf(n.at, fmt.Sprintf("The first stands at %s:%d. Rename one of them.", first.Filename, first.Start.Line), "two %s are called %q", what, n.name)
		return false
	}
	seen[n.name] = n.at
	return true
}
