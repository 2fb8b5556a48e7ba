package packtest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/simulate"
)

// file is one file of tests.
type file struct {
	name  string
	src   []byte
	bag   *diag.Bag
	packs map[string]*lang.Pack
	own   string // name of the pack under test
	fakes map[string]*fake
	tests []*scenario
	tapes map[string][]byte // what else lies beside the tests
	calm  *simulate.Answers
}

// fake answers for a step.
type fake struct {
	step    *model.Step
	at      hcl.Range
	outputs *expr.Expr // nil for values of the declared types
	where   hcl.Range
	fails   int // attempts of each instance that fail before one goes well
	error   string
}

// scenario is one test: stages, one after the other, of one cluster.
type scenario struct {
	title  string
	at     hcl.Range
	seed   uint64
	facts  []byte
	faults simulate.Faults
	odds   simulate.Chances
	stages []*stage
}

// stage is a goal, what befalls the machines then, and what is expected.
type stage struct {
	title   string
	at      hcl.Range
	cluster *lang.ClusterFile // nil to destroy
	shift   int               // how many lines further down it has its attributes
	fakes   map[string]*fake
	asked   []named            // what a person asks for, by its name
	mishaps map[string][]named // crash, kill, partition: machines
	expect  map[string]expectation
}

type named struct {
	name string
	at   hcl.Range
}

// expectation is what stands behind one word, such as runs.
type expectation struct {
	at    hcl.Range
	names []named // of a list
	pairs []pair  // of an object
	text  string  // of a word
}

type pair struct {
	named
	value value.Value
	where hcl.Range
}

// The words of tests and their changes that are no cluster's.
var (
	lists   = []string{"runs", "removes", "discharges", "order"}
	objects = []string{"plan", "outputs", "given", "fails"}
	mishaps = []string{"crash", "kill", "partition"}
)

// parse reads a file of tests. The bag has what is wrong.
func (f *file) parse(catalogue lang.Catalogue) {
	body, ok := diag.Parse(f.bag, f.name, f.src)
	if !ok {
		return
	}
	if f.local(body, catalogue); f.bag.HasErrors() {
		return
	}
	var recorded hclsyntax.Expression
	for _, a := range ordered(body.Attributes) {
		if a.Name != "recorded" {
			f.bag.Errorf(a.NameRange, "Write fake, test, workflow and step blocks, and recorded = \"FILE\".", "no attribute of a file of tests is called %q", a.Name)
			continue
		}
		recorded = a.Expr
	}
	if f.calm = f.answers(recorded); f.calm == nil {
		return
	}
	for _, b := range body.Blocks {
		switch b.Type {
		case "fake":
			f.addFake(b, f.fakes)
		case "test", "workflow", "step":
		default:
			f.bag.Errorf(b.TypeRange, diag.Suggest(b.Type, []string{"fake", "test", "workflow", "step"}), "no block of a file of tests is called %q", b.Type)
		}
	}
	seen := map[string]hcl.Range{}
	for _, b := range body.Blocks {
		if b.Type != "test" {
			continue
		}
		if len(b.Labels) != 1 {
			f.bag.Errorf(b.DefRange(), `Write test "what it shows" { … }.`, "a test has one name, this one has %d", len(b.Labels))
			continue
		}
		if first, twice := seen[b.Labels[0]]; twice {
			f.bag.Errorf(b.LabelRanges[0], fmt.Sprintf("The first stands in line %d. Rename one of them.", first.Start.Line), "two tests are called %q", b.Labels[0])
			continue
		}
		seen[b.Labels[0]] = b.LabelRanges[0]
		f.scenario(b)
	}
}

// answers reads what the file names as recorded.
func (f *file) answers(e hclsyntax.Expression) *simulate.Answers {
	a, err := simulate.NewAnswers(nil)
	if e != nil {
		text, ok := f.word(e)
		if !ok {
			return nil
		}
		data, there := f.tapes[path.Join(path.Dir(f.name), text)]
		if !there {
			f.bag.Errorf(e.Range(), "Name a file beside this one, such as recorded = \"demo.jsonl\", made by joist events -o json.", "there is no file %q", text)
			return nil
		}
		recorded, wrong := simulate.ReadRecorded(data)
		if err = wrong; err == nil {
			a, err = simulate.NewAnswers(recorded)
		}
	}
	if err != nil {
		at := hcl.Range{Filename: f.name, Start: hcl.InitialPos, End: hcl.InitialPos}
		if e != nil {
			at = e.Range()
		}
		f.bag.Errorf(at, "", "%s", err)
		return nil
	}
	return a
}

// local makes a pack of the file's own steps and workflows, called "test", so that a pack of steps alone can be tried.
func (f *file) local(body *hclsyntax.Body, catalogue lang.Catalogue) {
	own := make([]byte, len(f.src)) // the places of what stays are the same
	for i, c := range f.src {
		if own[i] = ' '; c == '\n' {
			own[i] = c
		}
	}
	some := false
	for _, b := range body.Blocks {
		if b.Type == "workflow" || b.Type == "step" {
			some = true
			copy(own[b.TypeRange.Start.Byte:b.CloseBraceRange.End.Byte], f.src[b.TypeRange.Start.Byte:b.CloseBraceRange.End.Byte])
		}
	}
	if !some {
		return
	}
	var requires []string
	for _, name := range slices.Sorted(maps.Keys(f.packs)) {
		requires = append(requires, fmt.Sprintf("%q = \">= 0.0.0\"", name))
	}
	manifest := fmt.Sprintf("pack \"test\" {\n  version  = \"0.0.0\"\n  summary  = \"Made by a file of tests.\"\n  requires = { %s }\n}\n", strings.Join(requires, ", "))
	name := path.Base(f.name)
	pack, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(manifest), name: own}, catalogue)
	if pack != nil {
		pack.Folder = path.Dir(f.name) + "/"
		f.packs = maps.Clone(f.packs)
		f.packs["test"] = pack
		ds = append(ds.In(path.Dir(f.name)+"/"), lang.Check(f.packs)...)
	}
	for _, d := range ds {
		f.add(d)
	}
}

// step finds a step by the name that a fake gives: of the pack under test, or pack.step.
func (f *file) step(name string) *model.Step {
	pack, short, qualified := strings.Cut(name, ".")
	if !qualified {
		pack, short = f.own, name
		if t := f.packs["test"]; t != nil && t.Steps()[short] != nil {
			pack = "test"
		}
	}
	if p := f.packs[pack]; p != nil {
		return p.Steps()[short]
	}
	return nil
}

func (f *file) stepNames() []string {
	var names []string
	for pack, p := range f.packs {
		for name := range p.Steps() {
			if pack != f.own {
				name = pack + "." + name
			}
			names = append(names, name)
		}
	}
	return names
}

func (f *file) addFake(b *hclsyntax.Block, to map[string]*fake) {
	if len(b.Labels) != 1 {
		f.bag.Errorf(b.DefRange(), `Write fake "STEP" { … }.`, "a fake has one name, the step's")
		return
	}
	k := &fake{step: f.step(b.Labels[0]), at: b.LabelRanges[0], error: "the fake fails"}
	if k.step == nil {
		f.bag.Errorf(k.at, diag.Suggest(b.Labels[0], f.stepNames()), "there is no step %q", b.Labels[0])
		return
	}
	for _, inner := range b.Body.Blocks {
		f.bag.Errorf(inner.TypeRange, "Write outputs = { … }, fails = 2 or error = \"…\".", "a fake has no blocks")
	}
	for _, a := range ordered(b.Body.Attributes) {
		switch a.Name {
		case "outputs":
			k.outputs, k.where = f.expression(k.step, a.Expr), a.Expr.Range()
		case "fails":
			if v, ok := expr.Constant(f.bag, a.Expr, value.Type{Kind: value.Number}); ok {
				n, _ := v.Cty().AsBigFloat().Int64()
				k.fails = int(n)
			}
		case "error":
			k.error, _ = f.word(a.Expr)
		default:
			f.bag.Errorf(a.NameRange, diag.Suggest(a.Name, []string{"outputs", "fails", "error"}), "no attribute of a fake is called %q", a.Name)
		}
	}
	to[k.step.Name] = k
}

// expression checks and compiles what a fake yields: it may refer to the step's inputs, to node.name and to attempt.
func (f *file) expression(s *model.Step, e hclsyntax.Expression) *expr.Expr {
	before := f.bag.Count()
	inputs := map[string]value.Type{}
	for _, in := range s.Inputs {
		inputs[in.Name] = in.Type
	}
	want := s.OutputType()
	for name, a := range want.Attrs { // what it leaves out is made
		want.Attrs[name] = value.Attr{Type: a.Type.Clear(), Optional: true}
	}
	if o, ok := e.(*hclsyntax.ObjectConsExpr); ok {
		for _, item := range o.Items {
			if key, fixed := expr.KeyName(item.KeyExpr); fixed {
				if _, known := want.Attrs[key]; !known {
					f.bag.Errorf(item.KeyExpr.Range(), diag.Suggest(key, slices.Collect(maps.Keys(want.Attrs))), "step %s has no output %q", s.Name, key)
				}
			}
		}
	}
	if f.bag.Count() > before {
		return nil
	}
	expr.Check(expr.Env{Bag: f.bag, Resolve: func(t hcl.Traversal) (expr.Shape, int) {
		names := expr.StepNames(t, 2)
		switch {
		case names[0] == "input" && len(names) == 2:
			if typ, ok := inputs[names[1]]; ok {
				return expr.Shape{Type: typ.Clear()}, 2
			}
			f.bag.Errorf(t.SourceRange(), diag.Suggest(names[1], slices.Collect(maps.Keys(inputs))), "step %s has no input %q", s.Name, names[1])
			return expr.Shape{}, 2
		case names[0] == "node" && len(names) == 2 && names[1] == "name":
			return expr.Shape{Type: value.Type{Kind: value.String}}, 2
		case names[0] == "attempt":
			return expr.Shape{Type: value.Type{Kind: value.Number}}, 1
		}
		f.bag.Errorf(t.SourceRange(), "Write input.NAME, node.name or attempt.", "a fake cannot refer to this")
		return expr.Shape{}, len(names)
	}}, e, want)
	if f.bag.Count() > before {
		return nil
	}
	return expr.Compile(e, func(t hcl.Traversal) (expr.Source, int) {
		names := expr.StepNames(t, 2)
		switch names[0] {
		case "input":
			return expr.Reference{Ref: model.Ref{Kind: model.RefStep, Name: names[1]}}, 2
		case "node":
			return expr.Reference{Ref: model.Ref{Kind: model.RefNode, Attr: model.NodeName}}, 2
		}
		return expr.Reference{Ref: model.Ref{Kind: model.RefInput, Name: "attempt"}}, 1
	})
}

// scope gives a fake's expression its values.
type scope struct {
	ask simulate.Ask
}

// Lookup implements model.Scope.
func (s scope) Lookup(r model.Ref) value.Value {
	switch r.Kind {
	case model.RefNode:
		return value.Text(s.ask.Node)
	case model.RefInput:
		return value.Int(int64(s.ask.Attempt))
	}
	return s.ask.Inputs[r.Name]
}

func (f *file) word(e hclsyntax.Expression) (string, bool) {
	v, ok := expr.Constant(f.bag, e, value.Type{Kind: value.String})
	if !ok {
		return "", false
	}
	return v.Cty().AsString(), true
}

// ordered gives attributes in the order of the source.
func ordered(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(attrs), func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
}
