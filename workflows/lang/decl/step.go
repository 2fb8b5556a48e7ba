package decl

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
)

// Step is a step as it stands in a pack.
type Step struct {
	*model.Step
	Pack   *Pack
	At     hcl.Range
	Broken bool                 // something about it was reported
	Fields map[string]hcl.Range // inputs
	Mute   hcl.Range            // an approval that asks nothing: true, a number, or an empty text. None if it asks something
	used   map[string]bool      // inputs that a pure body mentions
	shapes map[string]expr.Shape
}

var scopes = map[string]model.StepScope{"node": model.Node, "service": model.Service, "cluster": model.Cluster}

// ScopeName gives the word for a scope.
func ScopeName(s model.StepScope) string {
	for name, scope := range scopes {
		if scope == s {
			return name
		}
	}
	return ""
}

func (d *decoder) step(b *hclsyntax.Block, seen map[string]hcl.Range) {
	before := d.bag.Count()
	r := (&reader{Bag: d.bag}).Inner(b)
	r.Expect(form{
		Attrs:  []string{"scope", "doc", "once", "irreversible", "artifacts", "was", "reboots", "stage"},
		Blocks: map[string]int{"input": 1, "output": 1, "apply": 0, "verify": 0, "remove": 0},
	})
	n, ok := r.Word(b)
	if !ok || !read.Unique(d.bag, "steps or workflows", seen, n) {
		return
	}
	s := &Step{Pack: d.pack, Step: &model.Step{Name: d.pack.Name + "." + n.Name, Archive: d.pack.digest}, At: n.At, Fields: map[string]hcl.Range{}, used: map[string]bool{}}
	d.pack.StepDecls[n.Name] = s
	s.Doc, s.Once, s.Irreversible = r.Text("doc"), r.Truth("once"), r.Text("irreversible")
	former := d.was(r)
	d.claims = append(d.claims, claim{n.Name, former})
	for _, was := range former {
		s.Was = append(s.Was, d.pack.Name+"."+was.Name)
	}
	scoped := false
	if e := r.Need("scope", `Write scope = "node", "service" or "cluster": where it executes.`); e != nil {
		word := r.Text("scope")
		s.Scope, scoped = scopes[word]
		if !scoped {
			d.bag.Errorf(e.Range(), diag.Suggest(word, SortedKeys(scopes)), "no scope is called %q", word)
		}
	}
	d.fields(r, s)
	if scoped {
		d.actions(r, s)
	}
	d.needs(r, s)
	d.reboots(r, s)
	if scoped {
		d.stage(r, s)
	}
	if s.Broken = d.bag.Count() > before; !s.Broken {
		s.Digest = DigestOf(s.Step)
	}
}

// reboots reads whether a step reboots its node.
func (d *decoder) reboots(r *reader, s *Step) {
	e := r.Attr("reboots")
	if e == nil {
		return
	}
	s.Reboots = r.Truth("reboots")
	if s.Reboots && s.Scope != model.Node {
		d.bag.Errorf(e.Range(), "Write scope = \"node\", or leave it out.", "a %s-scope step has no node to reboot", ScopeName(s.Scope))
	}
}

func (d *decoder) fields(r *reader, s *Step) {
	seen := map[string]hcl.Range{}
	for _, b := range r.Blocks("input", 1) {
		if f, at, ok := d.input(r.Inner(b), b); ok && read.Unique(d.bag, "inputs", seen, named{Name: f.Name, At: at}) {
			s.Inputs = append(s.Inputs, f)
			s.Fields[f.Name] = at
			if f.Type.Holds(value.Path) && s.Scope == model.Service {
				d.bag.Errorf(at, "A path is a file on a node. Give the service the content, or make the step node-scope.", "a service takes the path %q", f.Name)
			}
		}
	}
	seen = map[string]hcl.Range{}
	for _, b := range r.Blocks("output", 1) {
		inner := r.Inner(b)
		inner.Expect(form{Attrs: []string{"type", "doc"}})
		n, ok := inner.Word(b)
		t, typed := readType(inner)
		if !ok || !typed || !read.Unique(d.bag, "outputs", seen, n) {
			continue
		}
		s.Outputs = append(s.Outputs, model.Field{Name: n.Name, Type: t, Doc: inner.Text("doc")})
		if t.Holds(value.Path) && s.Scope != model.Node {
			d.bag.Errorf(n.At, "Only a node-scope step knows a node's files: make the step node-scope.", "a %s-scope step yields the path %q", ScopeName(s.Scope), n.Name)
		}
	}
}

func readType(r *reader) (value.Type, bool) {
	e := r.Need("type", "Write type = string, for example.")
	if e == nil {
		return value.Type{}, false
	}
	return expr.ParseType(r.Bag, e)
}

// input reads an input of a step or a workflow, which may have more attributes.
func (d *decoder) input(r *reader, b *hclsyntax.Block, more ...string) (model.Field, hcl.Range, bool) {
	r.Expect(form{Attrs: append([]string{"type", "default", "optional", "doc"}, more...)})
	n, ok := r.Word(b)
	f := model.Field{Name: n.Name, Optional: r.Truth("optional"), Doc: r.Text("doc")}
	t, typed := readType(r)
	f.Type = t
	if e := r.Attr("default"); e != nil && typed {
		if f.Optional {
			d.bag.Errorf(e.Range(), "Keep one of them: an optional input that is left out is null, one with a default is that.", "%s is optional and has a default", r.What)
		}
		if v, ok := expr.Constant(d.bag, e, t); ok {
			f.Default = &v
		}
	}
	return f, n.At, ok
}

// actions reads apply, verify and remove, and checks that they suit the step's scope.
func (d *decoder) actions(r *reader, s *Step) {
	apply := r.Block("apply")
	if apply == nil {
		d.bag.Errorf(r.At, "Write apply { … }: what the step does.", "%s has no apply", r.What)
		return
	}
	d.action(r.Inner(apply), s, &s.Apply, 5*time.Minute)
	if b := r.Block("verify"); b != nil {
		s.Verify = &model.Action{}
		d.action(r.Inner(b), s, s.Verify, 30*time.Second)
	}
	if b := r.Block("remove"); b != nil {
		s.Remove = &model.Action{}
		d.action(r.Inner(b), s, s.Remove, 5*time.Minute)
	}
	pure := s.Pure()
	if pure {
		for _, kind := range []string{"verify", "remove"} {
			if b := r.Block(kind); b != nil {
				d.bag.Errorf(b.DefRange(), "Leave it out: a value has no effect.", "%s only computes and has a %s", r.What, kind)
			}
		}
	}
	irreversible := r.Attr("irreversible")
	switch {
	case irreversible != nil && s.Remove != nil:
		d.bag.Errorf(irreversible.Range(), "Keep one of them.", "%s is irreversible and has a remove", r.What)
	case irreversible != nil && pure:
		d.bag.Errorf(irreversible.Range(), "Leave it out: a value has no effect.", "%s only computes and is called irreversible", r.What)
	case irreversible != nil && s.Irreversible == "":
		d.bag.Errorf(irreversible.Range(), `Write irreversible = "why".`, "%s does not say why it is irreversible", r.What)
	case irreversible == nil && s.Remove == nil && s.Scope != model.Service && !pure:
		d.bag.Errorf(r.At, `Write remove { … }, the inverse of apply, or irreversible = "why".`, "%s has an effect and no remove", r.What)
	}
	if pure && s.Apply.Approve == nil { // whatever is given to an approval is approved
		for _, f := range s.Inputs {
			if !s.used[f.Name] {
				d.bag.Warnf(s.Fields[f.Name], "Use it or remove it.", "input %q is not used", f.Name)
			}
		}
	}
}

// allowed says which kinds of actions suit a scope.
var allowed = map[model.StepScope]map[string][]string{
	model.Node:    {"apply": {"script", "builtin"}, "verify": {"script", "builtin"}, "remove": {"script", "builtin"}},
	model.Service: {"apply": {"call"}, "verify": {"call"}, "remove": {"call"}},
	model.Cluster: {"apply": {"script", "outputs", "when", "approve"}, "verify": {"script"}, "remove": {"script"}},
}

func (d *decoder) action(r *reader, s *Step, a *model.Action, timeout time.Duration) {
	kinds := []string{"script", "builtin", "call", "outputs", "when", "approve"}
	r.Expect(form{Attrs: append([]string{"files", "timeout", "attempts", "backoff", "valid"}, kinds...)})
	a.Timeout, a.Backoff = r.Duration("timeout", timeout), r.Duration("backoff", 5*time.Second)
	a.Attempts = int(r.Whole("attempts", 1, 1))
	suits := allowed[s.Scope][r.What]
	how := "Write " + alternatives(suits) + " = …."
	given := slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return r.Attr(k) == nil })
	switch {
	case len(given) == 0:
		d.bag.Errorf(r.At, how, "%s says nothing to do", r.What)
		return
	case len(given) > 1:
		d.bag.Errorf(r.Attr(given[1]).Range(), "Keep one of them.", "%s has both %s and %s", r.What, given[0], given[1])
		return
	case !slices.Contains(suits, given[0]):
		d.bag.Errorf(r.Attr(given[0]).Range(), how, "%s of a %s-scope step cannot be %s", r.What, ScopeName(s.Scope), given[0])
		return
	}
	if e := r.Attr("files"); e != nil && given[0] != "script" {
		d.bag.Errorf(e.Range(), "Leave it out.", "only a script has further files")
	}
	if e := r.Attr("valid"); e != nil && given[0] != "approve" {
		d.bag.Errorf(e.Range(), "Leave it out.", "only an approval is valid for a time")
	}
	switch given[0] {
	case "approve":
		arg := d.body(s, r.Attr("approve"), "approve", value.Type{Kind: value.String})
		a.Approve, a.Valid = &arg, r.Duration("valid", 0)
		if asksNothing(r.Attr("approve")) {
			s.Mute = r.Attr("approve").Range()
		}
		if len(s.Outputs) > 0 {
			d.bag.Errorf(r.Attr("approve").Range(), "Remove the outputs.", "an approval has no outputs")
		}
		if s.Once {
			d.bag.Errorf(r.Attr("approve").Range(), "Remove once: an approval holds for what was approved.", "an approval would hold whatever changes")
		}
	case "script":
		a.Script = d.script(r)
	case "builtin":
		a.Builtin = r.Text("builtin")
		d.signature(r, s, given[0], a.Builtin, d.catalogue.Builtins)
	case "call":
		a.Call = r.Text("call")
		d.signature(r, s, given[0], a.Call, d.catalogue.Calls)
	case "outputs":
		d.outputs(r, s, a)
	case "when":
		arg := d.body(s, r.Attr("when"), "when", value.Type{Kind: value.Bool})
		a.When = &arg
		if len(s.Outputs) > 0 {
			d.bag.Errorf(r.Attr("when").Range(), "Remove the outputs, or write outputs = { … } instead.", "a gate has no outputs")
		}
	}
}

// asksNothing reports whether an expression is no question to anybody, although it can be made a text.
func asksNothing(e hclsyntax.Expression) bool {
	if t, ok := e.(*hclsyntax.TemplateExpr); ok {
		if !t.IsStringLiteral() {
			return len(t.Parts) == 0
		}
		v, _ := t.Value(nil) // a text alone cannot fail
		return strings.TrimSpace(v.AsString()) == ""
	}
	_, literal := e.(*hclsyntax.LiteralValueExpr)
	return literal
}

func alternatives(words []string) string {
	text := ""
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			text += " or "
		case i > 0:
			text += ", "
		}
		text += w
	}
	return text
}

func (d *decoder) script(r *reader) *model.Script {
	s := &model.Script{Name: r.Text("script")}
	body, ok := d.file(r.Attr("script"), s.Name)
	if !ok {
		return s
	}
	s.Body = body
	if !bytes.HasPrefix(body, []byte("#!/")) {
		d.bag.Errorf(r.Attr("script").Range(), "Begin it with a line such as #!/bin/sh.", "the script %s does not say what runs it", s.Name)
	}
	e := r.Attr("files")
	if e == nil {
		return s
	}
	s.Files = map[string][]byte{}
	for _, x := range read.List(e) {
		name, ok := ConstantText(d.bag, x)
		if !ok {
			continue
		}
		body, ok := d.file(x, name)
		base := path.Base(name)
		if _, twice := s.Files[base]; twice || base == path.Base(s.Name) {
			d.bag.Errorf(x.Range(), "They lie side by side while the script runs: rename one of them.", "two files of the script are called %q", base)
		}
		if ok {
			s.Files[base] = body
		}
	}
	return s
}

// file gives a file of the pack that an action names.
func (d *decoder) file(e hclsyntax.Expression, name string) ([]byte, bool) {
	if name == "" {
		return nil, false
	}
	body, ok := d.pack.Files[name]
	if !ok {
		var known []string
		for f := range d.pack.Files {
			if len(f) > 6 && f[:6] == "files/" {
				known = append(known, f)
			}
		}
		d.bag.Errorf(e.Range(), diag.Suggest(name, known), "the pack has no file %q", name)
	}
	return body, ok
}

// ConstantText evaluates an expression that is a text and refers to nothing.
func ConstantText(bag *diag.Bag, e hclsyntax.Expression) (string, bool) {
	v, ok := expr.Constant(bag, e, value.Type{Kind: value.String})
	if !ok {
		return "", false
	}
	return v.Cty().AsString(), true
}

// outputs reads the expressions of a pure step.
func (d *decoder) outputs(r *reader, s *Step, a *model.Action) {
	a.Outputs = map[string]model.Argument{}
	s.shapes = map[string]expr.Shape{}
	declared := map[string]value.Type{}
	for _, f := range s.Outputs {
		declared[f.Name] = f.Type
	}
	for _, p := range r.Pairs("outputs") {
		t, ok := declared[p.Name]
		if !ok {
			d.bag.Errorf(p.At, diag.Suggest(p.Name, SortedKeys(declared))+" Outputs are declared as output \"name\" { type = … }.", "no output is called %q", p.Name)
			continue
		}
		a.Outputs[p.Name] = d.body(s, p.Value, p.Name, t)
	}
	for _, f := range s.Outputs {
		if _, ok := a.Outputs[f.Name]; !ok {
			d.bag.Errorf(r.Attr("outputs").Range(), "Add it.", "output %q gets no value", f.Name)
		}
	}
}

// body compiles an expression inside a step: it sees the step's inputs and nothing else.
func (d *decoder) body(s *Step, e hclsyntax.Expression, name string, want value.Type) model.Argument {
	fields := map[string]model.Field{}
	for _, f := range s.Inputs {
		fields[f.Name] = f
	}
	good := true
	env := expr.Env{Bag: d.bag, Resolve: func(t hcl.Traversal) (expr.Shape, int) {
		path := expr.StepNames(t, 2)
		if len(path) < 2 || path[0] != "input" {
			good = false
			d.bag.Errorf(t.SourceRange(), "Write input.NAME, and let the task that calls the step pass the value in.", "a step's body sees its inputs and nothing else")
			return expr.Shape{}, len(path)
		}
		f, ok := fields[path[1]]
		if !ok {
			good = false
			d.bag.Errorf(t.SourceRange(), diag.Suggest(path[1], SortedKeys(fields)), "no input is called %q", path[1])
		}
		s.used[path[1]] = true
		return expr.Shape{Type: f.Type, Path: expr.HerePath}, 2
	}}
	expr.Check(env, e, want)
	if !good {
		return model.Argument{Name: name}
	}
	return expr.Compile(e, func(t hcl.Traversal) (expr.Source, int) {
		return expr.Reference{Ref: model.Ref{Kind: model.RefStep, Name: expr.StepNames(t, 2)[1]}}, 2
	}).Argument(name)
}

// signature checks a call against what offers it.
func (d *decoder) signature(r *reader, s *Step, kind, name string, offered []step.Signature) {
	if name == "" {
		return
	}
	at := r.Attr(kind).Range()
	var known []string
	for _, sig := range offered {
		if sig.Call == name {
			d.matches(at, s, sig)
			return
		}
		known = append(known, sig.Call)
	}
	what := map[string]string{"call": "service call", "builtin": "builtin action"}[kind]
	d.bag.Errorf(at, diag.Suggest(name, known), "no %s is called %q", what, name)
}

func (d *decoder) matches(at hcl.Range, s *Step, sig step.Signature) {
	declared := map[string]bool{}
	for _, f := range s.Inputs {
		declared[f.Name] = true
		text, ok := sig.Inputs[f.Name]
		if !ok {
			d.bag.Errorf(s.Fields[f.Name], diag.Suggest(f.Name, SortedKeys(sig.Inputs)), "%s takes no input %q", sig.Call, f.Name)
			continue
		}
		want, err := expr.TypeOf(text)
		if err != nil {
			d.bag.Errorf(s.Fields[f.Name], "This is an error in joist itself.", "%s: %s", sig.Call, err)
			continue
		}
		if why, ok := expr.Fits(f.Type, want); !ok {
			d.bag.Errorf(s.Fields[f.Name], fmt.Sprintf("Declare it as %s.", want), "%s takes another input %q: %s", sig.Call, f.Name, why)
		}
		if f.Optional && !slices.Contains(sig.Optional, f.Name) {
			d.bag.Errorf(s.Fields[f.Name], "Make it required, or give it a default.", "%s needs the input %q, which is optional here", sig.Call, f.Name)
		}
	}
	for _, name := range SortedKeys(sig.Inputs) {
		if !declared[name] && !slices.Contains(sig.Optional, name) {
			d.bag.Errorf(at, fmt.Sprintf("Declare input %q { type = %s }.", name, sig.Inputs[name]), "%s needs the input %q", sig.Call, name)
		}
	}
	for _, f := range s.Outputs {
		text, ok := sig.Outputs[f.Name]
		if !ok {
			d.bag.Errorf(at, diag.Suggest(f.Name, SortedKeys(sig.Outputs)), "%s yields no output %q", sig.Call, f.Name)
			continue
		}
		if have, err := expr.TypeOf(text); err == nil {
			if why, ok := expr.Fits(have, f.Type); !ok {
				d.bag.Errorf(at, fmt.Sprintf("Declare it as %s.", have), "%s yields another output %q: %s", sig.Call, f.Name, why)
			}
		}
	}
}

// DigestOf is the step digest: what apply can see, and nothing else.
func DigestOf(s *model.Step) value.Digest {
	h := value.NewHasher()
	h.Text("step/1/" + ScopeName(s.Scope))
	for _, fields := range [][]model.Field{s.Inputs, s.Outputs} {
		sorted := slices.SortedFunc(slices.Values(fields), func(a, b model.Field) int { return strings.Compare(a.Name, b.Name) })
		h.Text(fmt.Sprint(len(sorted)))
		for _, f := range sorted {
			h.Text(f.Name)
			h.Text(f.Type.String())
		}
	}
	a := &s.Apply
	switch {
	case a.Script != nil:
		h.Text("script")
		h.Bytes(a.Script.Body)
		for _, name := range slices.Sorted(maps.Keys(a.Script.Files)) {
			h.Text(name)
			h.Bytes(a.Script.Files[name])
		}
	case a.Outputs != nil:
		h.Text("outputs")
		for _, name := range slices.Sorted(maps.Keys(a.Outputs)) {
			h.Text(name)
			h.Digest(a.Outputs[name].Digest)
		}
	case a.Approve != nil:
		h.Text("approve")
		h.Digest(a.Approve.Digest)
	case a.When != nil:
		h.Text("when")
		h.Digest(a.When.Digest)
	default:
		h.Text("builtin " + a.Builtin)
		h.Text("call " + a.Call)
	}
	if s.Scout {
		h.Text("stage scout")
	}
	ArtifactsDigest(h, s.Artifacts)
	return h.Sum()
}
