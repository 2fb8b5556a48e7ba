// Package read takes bodies of HCL apart: every attribute and block that stands there is asked for, or is an error.
package read

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

// Reader takes the attributes and blocks of one body apart. Whatever it is not asked for is an error.
type Reader struct {
	Bag  *diag.Bag
	Body *hclsyntax.Body
	What string    // what the body belongs to, for people: step "seat"
	At   hcl.Range // its header
}

// Form is what a body may hold. Words that are designed and not there yet have a message of their own.
type Form struct {
	Attrs  []string
	Blocks map[string]int // number of labels
	Later  []string
}

// Expect reports whatever stands in the body and is not of the form.
func (r *Reader) Expect(f Form) {
	for _, a := range ordered(r.Body.Attributes) {
		r.expectAttr(f, a)
	}
	for _, b := range r.Body.Blocks {
		labels, known := f.Blocks[b.Type]
		switch {
		case slices.Contains(f.Later, b.Type):
			r.Bag.Errorf(b.TypeRange, "It is designed and not there yet: leave it out for now.", "%q is not yet supported", b.Type)
		case slices.Contains(f.Attrs, b.Type):
			r.Bag.Errorf(b.TypeRange, fmt.Sprintf("Write %s = ….", b.Type), "%q is an attribute, not a block", b.Type)
		case !known:
			r.Bag.Errorf(b.TypeRange, diag.Suggest(b.Type, f.names()), "no block of %s is called %q", r.What, b.Type)
		case labels != len(b.Labels):
			r.Bag.Errorf(b.DefRange(), "Write "+strings.TrimSpace(b.Type+strings.Repeat(` "name"`, labels))+" { … }.", "a %s block has %s, this one has %d", b.Type, plural(labels, "name"), len(b.Labels))
		}
	}
}

func (r *Reader) expectAttr(f Form, a *hclsyntax.Attribute) {
	_, block := f.Blocks[a.Name]
	switch {
	case slices.Contains(f.Attrs, a.Name):
	case slices.Contains(f.Later, a.Name):
		r.Bag.Errorf(a.NameRange, "It is designed and not there yet: leave it out for now.", "%q is not yet supported", a.Name)
	case block:
		r.Bag.Errorf(a.NameRange, fmt.Sprintf("Write %s { … } without an equals sign.", a.Name), "%q is a block, not an attribute", a.Name)
	default:
		r.Bag.Errorf(a.NameRange, diag.Suggest(a.Name, f.names()), "no attribute of %s is called %q", r.What, a.Name)
	}
}

func (f Form) names() []string {
	names := slices.Clone(f.Attrs)
	for b := range f.Blocks {
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

// Blocks gives the blocks of a type that have the right number of labels.
func (r *Reader) Blocks(kind string, labels int) []*hclsyntax.Block {
	var out []*hclsyntax.Block
	for _, b := range r.Body.Blocks {
		if b.Type == kind && len(b.Labels) == labels {
			out = append(out, b)
		}
	}
	return out
}

// Block gives the only block of a type, nil if there is none.
func (r *Reader) Block(kind string) *hclsyntax.Block {
	all := r.Blocks(kind, 0)
	if len(all) == 0 {
		return nil
	}
	for _, b := range all[1:] {
		r.Bag.Errorf(b.TypeRange, "Keep one of them.", "%s has two %s blocks", r.What, kind)
	}
	return all[0]
}

// Inner gives the reader of a block of the body.
func (r *Reader) Inner(b *hclsyntax.Block) *Reader {
	return &Reader{Bag: r.Bag, Body: b.Body, What: describe(b), At: b.DefRange()}
}

func describe(b *hclsyntax.Block) string {
	if len(b.Labels) > 0 {
		return fmt.Sprintf("%s %q", b.Type, b.Labels[0])
	}
	return b.Type
}

// Attr gives an attribute's expression, nil if it does not stand there.
func (r *Reader) Attr(name string) hclsyntax.Expression {
	if a := r.Body.Attributes[name]; a != nil {
		return a.Expr
	}
	return nil
}

// Need is Attr for what must stand there.
func (r *Reader) Need(name, advice string) hclsyntax.Expression {
	e := r.Attr(name)
	if e == nil {
		r.Bag.Errorf(r.At, advice, "%s has no %s", r.What, name)
	}
	return e
}

// Constant gives an attribute that must be known before anything runs; false if it does not stand there or is wrong.
func (r *Reader) Constant(name string, kind value.Kind) (value.Value, bool) {
	e := r.Attr(name)
	if e == nil {
		return value.Value{}, false
	}
	return expr.Constant(r.Bag, e, value.Type{Kind: kind})
}

// Text gives a constant string, empty if it does not stand there.
func (r *Reader) Text(name string) string {
	v, ok := r.Constant(name, value.String)
	if !ok {
		return ""
	}
	return v.Cty().AsString()
}

// Truth gives a constant truth value, false if it does not stand there.
func (r *Reader) Truth(name string) bool {
	v, _ := r.Constant(name, value.Bool)
	return v.True()
}

// Whole gives a whole number of at least least.
func (r *Reader) Whole(name string, least, otherwise int64) int64 {
	v, ok := r.Constant(name, value.Number)
	if !ok {
		return otherwise
	}
	f := v.Cty().AsBigFloat()
	n, accuracy := f.Int64()
	if accuracy != 0 || n < least {
		r.Bag.Errorf(r.Attr(name).Range(), fmt.Sprintf("Write a whole number, at least %d.", least), "%s is not a number of that kind", name)
		return otherwise
	}
	return n
}

// Duration gives a positive duration such as "90s".
func (r *Reader) Duration(name string, otherwise time.Duration) time.Duration {
	v, ok := r.Constant(name, value.String)
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(v.Cty().AsString())
	if err != nil || d <= 0 {
		r.Bag.Errorf(r.Attr(name).Range(), `Write a form such as "90s", "5m" or "1h30m".`, "%q is not a duration", v.Cty().AsString())
		return otherwise
	}
	return d
}

// Count gives a number of nodes, or a percentage such as "10%".
func (r *Reader) Count(name string) model.Count {
	e := r.Attr(name)
	if e == nil {
		return model.Count{}
	}
	return r.countOf(name, e)
}

// Counts gives one count, or a list of them: [1, 5, "20%"].
func (r *Reader) Counts(name string) []model.Count {
	e := r.Attr(name)
	if e == nil {
		return nil
	}
	var counts []model.Count
	for _, x := range List(e) {
		counts = append(counts, r.countOf(name, x))
	}
	if len(counts) == 0 {
		r.Bag.Errorf(e.Range(), `Write one, or a list such as [1, 5, "20%"]: the last holds to the end.`, "%s has no waves", name)
	}
	return counts
}

func (r *Reader) countOf(name string, e hclsyntax.Expression) model.Count {
	v, ok := expr.Constant(r.Bag, e, value.Type{})
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
		r.Bag.Errorf(e.Range(), advice, "%q is not a number of nodes", s)
		return model.Count{}
	}
	r.Bag.Errorf(e.Range(), advice, "%s is not a number of nodes", name)
	return model.Count{}
}

// Named is a name with its place.
type Named struct {
	Name string
	At   hcl.Range
}

// Reference reads ROOT.NAME, such as role.member.
func (r *Reader) Reference(e hclsyntax.Expression, root string) (Named, bool) {
	t, diags := hcl.AbsTraversalForExpr(e)
	if path := expr.StepNames(t, 3); !diags.HasErrors() && len(t) == 2 && len(path) == 2 && path[0] == root {
		return Named{path[1], e.Range()}, true
	}
	r.Bag.Errorf(e.Range(), fmt.Sprintf("Write %s.NAME.", root), "expected a %s", root)
	return Named{}, false
}

// List takes [a, b] apart, or gives a single expression as a list of one.
func List(e hclsyntax.Expression) []hclsyntax.Expression {
	if t, ok := e.(*hclsyntax.TupleConsExpr); ok {
		return t.Exprs
	}
	return []hclsyntax.Expression{e}
}

// Pairs takes { a = x, b = y } apart.
func (r *Reader) Pairs(name string) []Pair {
	e := r.Attr(name)
	if e == nil {
		return nil
	}
	return r.PairsOf(name, e)
}

// PairsOf is Pairs for an expression; name is what people know it by.
func (r *Reader) PairsOf(name string, e hclsyntax.Expression) []Pair {
	o, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		r.Bag.Errorf(e.Range(), fmt.Sprintf("Write %s = { name = … }.", name), "%s is not written out", name)
		return nil
	}
	var out []Pair
	seen := map[string]bool{}
	for _, item := range o.Items {
		key, fixed := expr.KeyName(item.KeyExpr)
		if !fixed {
			r.Bag.Errorf(item.KeyExpr.Range(), "Write a plain name.", "a name in %s must be a word", name)
			continue
		}
		if seen[key] {
			r.Bag.Errorf(item.KeyExpr.Range(), "Remove one of them.", "%q stands twice in %s", key, name)
			continue
		}
		seen[key] = true
		out = append(out, Pair{Named{key, item.KeyExpr.Range()}, item.ValueExpr})
	}
	return out
}

// Pair is a name and what is given for it.
type Pair struct {
	Named
	Value hclsyntax.Expression
}

// Word checks the form of a name that the pack defines.
func (r *Reader) Word(b *hclsyntax.Block) (Named, bool) {
	n := Named{b.Labels[0], b.LabelRanges[0]}
	ok := len(n.Name) <= 63 && n.Name != ""
	for i, c := range n.Name {
		ok = ok && (c >= 'a' && c <= 'z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '-'))
	}
	if !ok {
		r.Bag.Errorf(n.At, "Use lower-case letters, digits, _ and -, beginning with a letter; at most 63.", "%q is not a name", n.Name)
	}
	return n, ok
}

// Unique reports a name that stands twice.
func Unique(bag *diag.Bag, what string, seen map[string]hcl.Range, n Named) bool {
	first, twice := seen[n.Name]
	if twice {
		bag.Errorf(n.At, fmt.Sprintf("The first stands at %s:%d. Rename one of them.", first.Filename, first.Start.Line), "two %s are called %q", what, n.Name)
		return false
	}
	seen[n.Name] = n.At
	return true
}

// AboutNode reports whether an expression is about the node and nothing else, as a failure domain has to be; if not, that is
// said.
func AboutNode(bag *diag.Bag, e hclsyntax.Expression) bool {
	vars := e.Variables()
	for _, v := range vars {
		if v.RootName() != "node" {
			bag.Errorf(v.SourceRange(), "Write node.facts.NAME, for example.", "spread looks at %s: it says which failure domain a node is in, by the node alone", v.RootName())
			return false
		}
	}
	if len(vars) == 0 {
		bag.Errorf(e.Range(), "Write node.facts.NAME, for example.", "spread is the same for every node")
	}
	return len(vars) > 0
}

// Rollout reads the limits of a rollout.
func (r *Reader) Rollout(name string) model.Rollout {
	o := model.Rollout{Name: name, Canaries: int(r.Whole("canaries", 0, 0)), StopAfter: r.Count("stop_after"), Settle: r.Duration("settle", 0)}
	if waves := r.Counts("max_in_flight"); len(waves) > 0 {
		o.Waves, o.MaxInFlight = waves[:len(waves)-1], waves[len(waves)-1]
	}
	if e := r.Attr("founding"); e != nil {
		word := r.Text("founding")
		o.Together = word == "together"
		if !o.Together && word != "" {
			r.Bag.Errorf(e.Range(), `Write founding = "together", or leave it out.`, "no way of founding is called %q", word)
		}
	}
	return o
}

// References reads a list of ROOT.NAME, and leaves out what is none.
func (r *Reader) References(e hclsyntax.Expression, root string) []Named {
	var all []Named
	for _, x := range List(e) {
		if n, ok := r.Reference(x, root); ok {
			all = append(all, n)
		}
	}
	return all
}
