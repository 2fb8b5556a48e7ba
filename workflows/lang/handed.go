package lang

import (
	"fmt"
	"slices"
	"strings"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// inputs evaluates what the cluster file gives the workflow.
func (c *compiler) inputs(w *decl.Workflow) {
	c.model.Inputs, c.nodewise = map[string]value.Value{}, map[string]bool{}
	given := map[string]bool{}
	for _, p := range c.file.with {
		in := w.Input(p.Name)
		if in == nil {
			c.bag.Errorf(p.At, diag.Suggest(p.Name, w.InputNames()), "workflow %s has no input %q", w.Full(), p.Name)
			continue
		}
		given[p.Name] = true
		if len(in.Each) > 0 {
			c.handed(p, in)
		} else if v, ok := expr.Constant(c.bag, p.Value, in.Type); ok {
			c.model.Inputs[p.Name] = v
		}
	}
	for _, in := range w.Inputs {
		switch {
		case given[in.Name]:
		case in.Default != nil:
			c.model.Inputs[in.Name] = *in.Default
		case in.Optional:
			c.model.Inputs[in.Name] = value.NullOf(in.Type)
		case len(in.Each) > 0:
			c.bag.Errorf(c.file.at, fmt.Sprintf("Add %s = { NODE = VALUE } to with, for each node: it is %s.", in.Name, expr.Article(in.Type)), "the cluster does not give workflow %s its input %q", w.Full(), in.Name)
		default:
			c.bag.Errorf(c.file.at, fmt.Sprintf("Add %s to with: it is %s.", in.Name, expr.Article(in.Type)), "the cluster does not give workflow %s its input %q", w.Full(), in.Name)
		}
	}
}

// handed takes what the cluster file gives for an input that is given node by node: a map from node name to value.
func (c *compiler) handed(p pair, in *decl.Input) {
	want := value.Type{Kind: value.Map, Elem: &in.Type}
	if in.Type.Kind == value.Secret { // which says so
		want = in.Type
	}
	if v, ok := expr.Constant(c.bag, p.Value, want); ok {
		c.model.Inputs[in.Name] = v
		c.nodewise[in.Name] = true
	}
}

// inputOf is what an input of the top workflow stands for.
func (c *compiler) inputOf(in *decl.Input) expr.Source {
	ref := expr.Reference{Ref: model.Ref{Kind: model.RefInput, Name: in.Name}}
	if !c.nodewise[in.Name] {
		return ref
	}
	lacking := in.Default
	if lacking == nil && in.Optional {
		null := value.NullOf(in.Type)
		lacking = &null
	}
	return expr.Handed{Reference: ref, Default: lacking}
}

// everybody checks that inputs which are given node by node are given for the nodes that there are, as far as the cluster file
// names them.
func (c *compiler) everybody(w *decl.Workflow) {
	for _, p := range c.file.with {
		in := w.Input(p.Name)
		if in == nil || !c.nodewise[in.Name] {
			continue
		}
		var names []string
		named := true
		for role, s := range c.file.Nodes {
			if slices.Contains(decl.EachNames(in.Each), w.RoleOf(role)) {
				names, named = append(names, s.Names...), named && s.Predicate == nil
			}
		}
		if !named {
			continue
		}
		slices.Sort(names)
		names = slices.Compact(names)
		given := c.model.Inputs[in.Name].Cty().AsValueMap()
		for _, name := range decl.SortedKeys(given) {
			if !slices.Contains(names, name) {
				c.bag.Errorf(p.At, fmt.Sprintf("The nodes of %s are %s. Correct the name, or remove it.", decl.RoleList(decl.EachNames(in.Each)), strings.Join(names, ", ")), "input %q is given for %q, which is no node of the workflow's", in.Name, name)
			}
		}
		var lacking []string
		for _, name := range names {
			if _, ok := given[name]; !ok {
				lacking = append(lacking, name)
			}
		}
		if len(lacking) > 0 && in.Default == nil && !in.Optional {
			c.bag.Errorf(p.At, "Add it for each: NODE = VALUE.", "input %q is not given for %s", in.Name, strings.Join(lacking, ", "))
		}
	}
}
