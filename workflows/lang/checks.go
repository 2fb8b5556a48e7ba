package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/expr"
)

// checks checks the conditions themselves.
func (c *flowCheck) checks() {
	for _, k := range c.w.Checks {
		at := site{condition: k.Name, when: true}
		c.check(at, k.That, value.Type{Kind: value.Bool})
		c.check(at, k.Message, value.Type{Kind: value.String})
	}
}

// checks evaluates a workflow's conditions for the cluster, and those of the workflows that it calls.
func (f *frame) checks() {
	for _, k := range f.w.Checks {
		f.judge(k)
	}
}

func (f *frame) judge(k decl.Check) {
	c, that := f.c, f.compile(k.That)
	at, advice := c.concerns(that.Refs()), fmt.Sprintf("It is the check %q of workflow %s.", k.Name, f.w.Full())
	v, err := evaluate(that, value.Type{Kind: value.Bool}, early{c})
	switch {
	case err != nil:
		c.bag.Errorf(at, advice, "%s", err)
		return
	case !v.Known():
		c.bag.Errorf(at, advice, "a check rests on what is known only later: let it look at inputs, and at how many nodes a role has")
		return
	case v.True():
		return
	}
	text := "a condition of the workflow does not hold"
	if m, err := evaluate(f.compile(k.Message), value.Type{Kind: value.String}, early{c}); err == nil && m.Known() && !m.Null() {
		text = strings.TrimSpace(m.Cty().AsString())
	}
	c.bag.Errorf(at, advice, "%s", text)
}

func evaluate(x *expr.Expr, want value.Type, in model.Scope) (value.Value, error) {
	v, err := x.Eval(in)
	if err != nil {
		return v, err
	}
	return want.Check(v)
}

// concerns gives the place in the cluster file that a condition is about: the first input or role in it that stands there.
func (c *compiler) concerns(refs []model.Ref) hcl.Range {
	for _, r := range refs {
		switch r.Kind {
		case model.RefInput:
			for _, p := range c.file.with {
				if p.Name == r.Name {
					return p.At
				}
			}
		case model.RefRole:
			if at, ok := c.file.roles[r.Name]; ok {
				return at
			}
		}
	}
	return c.file.at
}

// early is what is known before machines are chosen: inputs, and how many nodes play each role. Of the nodes nothing is.
type early struct{ c *compiler }

// Lookup implements model.Scope.
func (e early) Lookup(r model.Ref) value.Value {
	switch r.Kind {
	case model.RefInput:
		return e.c.model.Inputs[r.Name]
	case model.RefRole:
		s, nodes := e.c.file.Nodes[r.Name], map[string]value.Value{}
		for _, name := range s.Names {
			nodes[name] = value.Unknown(decl.NodeType())
		}
		for i := range s.Count {
			nodes[fmt.Sprintf("(machine %d)", i+1)] = value.Unknown(decl.NodeType())
		}
		return value.Gather(decl.NodeType(), nodes)
	}
	return value.Value{}
}
