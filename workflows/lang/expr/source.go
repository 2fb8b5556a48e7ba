package expr

import (
	"fmt"

	"github.com/zclconf/go-cty/cty"

	"joist/engine/model"
	"joist/engine/value"
)

// Reference is a source that the engine looks up.
type Reference struct {
	model.Ref
	Same bool // of RefTask: the instance on the same node, not the only one
}

// Refs implements Source.
func (r Reference) Refs(add func(model.Ref)) { add(r.Ref) }

// Digest implements Source.
func (r Reference) Digest(h value.Hasher) {
	h.Text(fmt.Sprintf("%d/%s/%s", r.Kind, r.Name, r.Attr))
}

// Personal implements Source.
func (r Reference) Personal() bool {
	return r.Kind == model.RefNode || r.Kind == model.RefHost || r.Kind == model.RefDuring || r.Kind == model.RefTask && r.Same
}

// Eval implements Source.
func (r Reference) Eval(s model.Scope) (cty.Value, error) { return s.Lookup(r.Ref).Cty(), nil }

// Inline is a source that is another expression: an input or an output of a called workflow. Its value has a declared
// type, and a default for null.
type Inline struct {
	*Expr
	Name    string // for people
	Type    value.Type
	Default *value.Value
}

// Refs implements Source.
func (i Inline) Refs(add func(model.Ref)) {
	for _, r := range i.refs {
		add(r)
	}
}

// Digest implements Source.
func (i Inline) Digest(h value.Hasher) {
	h.Text("inline")
	h.Text(i.Type.String())
	h.Digest(i.digest)
	if i.Default != nil {
		h.Digest(i.Default.Digest())
	}
}

// Personal implements Source.
func (i Inline) Personal() bool { return i.personal }

// Eval implements Source.
func (i Inline) Eval(s model.Scope) (cty.Value, error) {
	v, err := i.eval(s)
	if err != nil {
		return cty.NilVal, err
	}
	if i.Default != nil && v.IsKnown() && v.IsNull() {
		return i.Default.Cty(), nil
	}
	checked, err := i.Type.Check(value.FromCty(v))
	if err != nil {
		return cty.NilVal, fmt.Errorf("%s: %w", i.Name, err)
	}
	return checked.Cty(), nil
}

// Fixed is a source whose value is fixed.
type Fixed struct{ value.Value }

// Refs implements Source.
func (Fixed) Refs(func(model.Ref)) {}

// Digest implements Source.
func (c Fixed) Digest(h value.Hasher) {
	h.Text("constant")
	h.Digest(c.Value.Digest())
}

// Personal implements Source.
func (Fixed) Personal() bool { return false }

// Eval implements Source.
func (c Fixed) Eval(model.Scope) (cty.Value, error) { return c.Cty(), nil }

// Group is a source that is an object of others: all outputs of a called workflow.
type Group struct {
	Names   []string // sorted
	Members map[string]Source
}

// Refs implements Source.
func (g Group) Refs(add func(model.Ref)) {
	for _, n := range g.Names {
		g.Members[n].Refs(add)
	}
}

// Digest implements Source.
func (g Group) Digest(h value.Hasher) {
	h.Text(fmt.Sprint("group", g.Names))
	for _, n := range g.Names {
		g.Members[n].Digest(h)
	}
}

// Personal implements Source.
func (g Group) Personal() bool {
	for _, m := range g.Members {
		if m.Personal() {
			return true
		}
	}
	return false
}

// Eval implements Source.
func (g Group) Eval(s model.Scope) (cty.Value, error) {
	attrs := make(map[string]cty.Value, len(g.Names))
	for _, n := range g.Names {
		v, err := g.Members[n].Eval(s)
		if err != nil {
			return cty.NilVal, err
		}
		attrs[n] = v
	}
	return cty.ObjectVal(attrs), nil
}

// Gather is a source that is the map from node name to the outputs that a called workflow has for each node of Roles.
type Gather struct {
	Of    Source
	Roles []string
	Each  func(task string) bool // whether a task has an instance for each node
}

// Refs implements Source.
func (g Gather) Refs(add func(model.Ref)) {
	for _, r := range g.Roles {
		add(model.Ref{Kind: model.RefRole, Name: r})
	}
	g.Of.Refs(func(r model.Ref) {
		switch {
		case r.Kind == model.RefNode:
		case r.Kind == model.RefTask && g.Each(r.Name):
			add(model.Ref{Kind: model.RefAll, Name: r.Name})
		default:
			add(r)
		}
	})
}

// Digest implements Source.
func (g Gather) Digest(h value.Hasher) {
	h.Text(fmt.Sprint("gather", g.Roles))
	g.Of.Digest(h)
}

// Personal implements Source.
func (g Gather) Personal() bool { return false }

// Eval implements Source.
func (g Gather) Eval(s model.Scope) (cty.Value, error) {
	out := map[string]cty.Value{}
	there := &elsewhere{Scope: s, each: g.Each, gathered: map[string]cty.Value{}}
	for _, r := range g.Roles {
		nodes := s.Lookup(model.Ref{Kind: model.RefRole, Name: r}).Cty()
		if !nodes.IsKnown() {
			return cty.DynamicVal, nil
		}
		for it := nodes.ElementIterator(); it.Next(); {
			k, node := it.Element()
			there.name, there.node = k, node
			v, err := g.Of.Eval(there)
			if err != nil {
				return cty.NilVal, err
			}
			out[k.AsString()] = v
		}
	}
	return cty.ObjectVal(out), nil
}

// elsewhere is the scope of another node.
type elsewhere struct {
	model.Scope
	each     func(task string) bool
	name     cty.Value
	node     cty.Value
	gathered map[string]cty.Value
}

// Once implements model.Once: what mentions nothing of the target is the same elsewhere.
func (e *elsewhere) Once(of model.Expr) (value.Value, error) { return onceIn(e.Scope, of) }

// Lookup implements model.Scope.
func (e *elsewhere) Lookup(r model.Ref) value.Value {
	switch {
	case r.Kind == model.RefNode:
		return attr(e.node, r.Attr)
	case r.Kind == model.RefTask && e.each(r.Name):
		all, ok := e.gathered[r.Name]
		if !ok {
			all = e.Scope.Lookup(model.Ref{Kind: model.RefAll, Name: r.Name}).Cty()
			e.gathered[r.Name] = all
		}
		if !all.IsKnown() {
			return value.Value{}
		}
		var outputs cty.Value
		switch {
		case all.Type().IsMapType() && all.HasIndex(e.name).True():
			outputs = all.Index(e.name)
		case all.Type().IsObjectType() && all.Type().HasAttribute(e.name.AsString()):
			outputs = all.GetAttr(e.name.AsString())
		default:
			return value.NullOf(value.Type{})
		}
		if r.Attr == "" {
			return value.FromCty(outputs)
		}
		return attr(outputs, r.Attr)
	}
	return e.Scope.Lookup(r)
}

func attr(v cty.Value, name string) value.Value {
	a, _ := value.FromCty(v).Attr(name)
	return a
}

// OnHost is a source seen from the node that executes: outputs that a called workflow has for each node.
type OnHost struct {
	Source
	Each func(task string) bool
}

// Refs implements Source.
func (o OnHost) Refs(add func(model.Ref)) {
	o.Source.Refs(func(r model.Ref) {
		if r.Kind == model.RefTask && o.Each(r.Name) {
			r.Kind = model.RefHost
		}
		add(r)
	})
}

// Digest implements Source.
func (o OnHost) Digest(h value.Hasher) {
	h.Text("host")
	o.Source.Digest(h)
}

// Personal implements Source.
func (o OnHost) Personal() bool { return true }

// Eval implements Source.
func (o OnHost) Eval(s model.Scope) (cty.Value, error) { return o.Source.Eval(onHost{s, o.Each}) }

type onHost struct {
	model.Scope
	each func(task string) bool
}

// Once implements model.Once.
func (o onHost) Once(of model.Expr) (value.Value, error) { return onceIn(o.Scope, of) }

// Lookup implements model.Scope.
func (o onHost) Lookup(r model.Ref) value.Value {
	if r.Kind == model.RefTask && o.each(r.Name) {
		r.Kind = model.RefHost
	}
	return o.Scope.Lookup(r)
}

// Both is the condition that two others hold: that of a task, and that of the call around it.
type Both struct{ A, B model.Argument }

// Argument gives the condition the form that the engine takes.
func (b Both) Argument() model.Argument {
	h := value.NewHasher()
	h.Text("both")
	h.Digest(b.A.Digest)
	h.Digest(b.B.Digest)
	return model.Argument{Name: b.A.Name, Expr: b, Refs: b.Refs(), Digest: h.Sum(), Shared: b.A.Shared && b.B.Shared}
}

// Refs implements model.Expr.
func (b Both) Refs() []model.Ref {
	refs := append([]model.Ref(nil), b.A.Refs...)
	for _, r := range b.B.Refs {
		known := false
		for _, have := range refs {
			known = known || have == r
		}
		if !known {
			refs = append(refs, r)
		}
	}
	return refs
}

// Eval implements model.Expr.
func (b Both) Eval(s model.Scope) (value.Value, error) {
	x, err := b.A.Expr.Eval(s)
	if err != nil || x.Known() && !x.True() {
		return x, err
	}
	y, err := b.B.Expr.Eval(s)
	if err != nil || y.Known() && !y.True() {
		return y, err
	}
	if !x.Known() {
		return x, nil
	}
	return y, nil
}

// ByNode is a source that turns a group of maps from node name to outputs over: a map from node name to the group of what
// the node has in them.
type ByNode struct{ Group }

// Digest implements Source.
func (b ByNode) Digest(h value.Hasher) {
	h.Text("by node")
	b.Group.Digest(h)
}

// Eval implements Source.
func (b ByNode) Eval(s model.Scope) (cty.Value, error) {
	nodes := map[string]map[string]cty.Value{}
	for _, n := range b.Names {
		v, err := b.Members[n].Eval(s)
		if err != nil {
			return cty.NilVal, err
		}
		if !v.IsKnown() {
			return cty.DynamicVal, nil
		}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			name := k.AsString()
			if nodes[name] == nil {
				nodes[name] = make(map[string]cty.Value, len(b.Names))
			}
			nodes[name][n] = e
		}
	}
	out := make(map[string]cty.Value, len(nodes))
	for name, of := range nodes {
		out[name] = cty.ObjectVal(of)
	}
	return cty.ObjectVal(out), nil
}

// Handed is an input of the top workflow that the cluster file gives node by node: what stands in a map under the node's name.
type Handed struct {
	Reference
	Default *value.Value // for nodes that are not in the map; nil for none
}

// Refs implements Source.
func (n Handed) Refs(add func(model.Ref)) {
	add(n.Ref)
	add(model.Ref{Kind: model.RefNode, Attr: model.NodeName})
}

// Digest implements Source.
func (n Handed) Digest(h value.Hasher) {
	h.Text("handed")
	n.Reference.Digest(h)
	if n.Default != nil {
		h.Digest(n.Default.Digest())
	}
}

// Personal implements Source.
func (Handed) Personal() bool { return true }

// Eval implements Source.
func (n Handed) Eval(s model.Scope) (cty.Value, error) {
	all, name := s.Lookup(n.Ref).Cty(), s.Lookup(model.Ref{Kind: model.RefNode, Attr: model.NodeName})
	if !name.Known() || !all.IsKnown() {
		return cty.DynamicVal, nil
	}
	node := name.Cty().AsString()
	switch t := all.Type(); {
	case t.IsMapType() && all.HasIndex(name.Cty()).True():
		return all.Index(name.Cty()), nil
	case t.IsObjectType() && t.HasAttribute(node):
		return all.GetAttr(node), nil
	}
	if n.Default == nil {
		return cty.NilVal, fmt.Errorf("input %s is not given for node %s: add it to %s in the cluster file's with", n.Name, node, n.Name)
	}
	return n.Default.Cty(), nil
}
