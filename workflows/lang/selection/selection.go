// Package selection reads which machines of the site a role of a cluster is to get.
package selection

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// Selection says which machines play a role: by name, or Count machines that satisfy Predicate. Exactly one of Names and
// Predicate is set. Of one cluster a machine plays several roles only if each lists it by name: whoever claims machines
// never lets a predicate choose one that another role has already.
type Selection struct {
	Names     []string
	Predicate func(name string, facts value.Value) (bool, error) // facts as the machine reported them; an error if it cannot tell
	Count     int
	Text      string      // as it is written, for people
	Range     model.Range // where it stands
}

// Read reads ["a", "b"] or select(EXPR, COUNT).
func Read(bag *diag.Bag, src []byte, e hclsyntax.Expression) Selection {
	at := e.Range()
	s := Selection{Text: string(at.SliceBytes(src)), Range: model.Range{File: at.Filename, Line: at.Start.Line, Col: at.Start.Column}}
	advice := `Write ["machine", …], or select(facts.memory >= gib(2), 3).`
	if t, ok := e.(*hclsyntax.TupleConsExpr); ok {
		s.Names = []string{}
		for _, x := range t.Exprs {
			v, ok := expr.Constant(bag, x, value.Type{Kind: value.String})
			name := ""
			if ok {
				name = v.Cty().AsString()
			}
			switch {
			case !ok:
			case name == "":
				bag.Errorf(x.Range(), "Write the machine's name.", "a machine without a name")
			case slices.Contains(s.Names, name):
				bag.Errorf(x.Range(), "Remove one of them.", "machine %q stands twice in one role", name)
			default:
				s.Names = append(s.Names, name)
			}
		}
		return s
	}
	call, ok := e.(*hclsyntax.FunctionCallExpr)
	if !ok || call.Name != "select" {
		bag.Errorf(at, advice, "expected the machines of a role")
		return s
	}
	if len(call.Args) != 2 {
		bag.Errorf(at, "Write select(CONDITION, COUNT): a condition on facts, and how many machines.", "select takes two arguments")
		return s
	}
	if v, ok := expr.Constant(bag, call.Args[1], value.Type{Kind: value.Number}); ok {
		n, accuracy := v.Cty().AsBigFloat().Int64()
		if accuracy != 0 || n < 1 || n > 1_000_000 {
			bag.Errorf(call.Args[1].Range(), "Write a whole number, at least 1.", "this is not a number of machines")
		}
		s.Count = int(n)
	}
	s.Predicate = predicate(bag, call.Args[0])
	return s
}

// facts gives the two words of a select condition their values.
type facts struct{ name, facts value.Value }

// Lookup implements model.Scope.
func (f facts) Lookup(r model.Ref) value.Value {
	if r.Attr == "name" {
		return f.name
	}
	return f.facts
}

func predicate(bag *diag.Bag, e hclsyntax.Expression) func(string, value.Value) (bool, error) {
	good := true
	expr.Check(expr.Env{Bag: bag, Resolve: func(t hcl.Traversal) (expr.Shape, int) {
		switch root := t.RootName(); root {
		case "facts":
			return expr.Shape{}, 1
		case "name":
			return expr.Shape{Type: value.Type{Kind: value.String}}, 1
		default:
			good = false
			bag.Errorf(t.SourceRange(), diag.Suggest(root, []string{"facts", "name"}), "a condition on machines knows no %q", root)
			return expr.Shape{}, 1
		}
	}}, e, value.Type{Kind: value.Bool})
	if !good {
		return nil
	}
	x := expr.Compile(e, func(t hcl.Traversal) (expr.Source, int) {
		return expr.Reference{Ref: model.Ref{Kind: model.RefNode, Attr: t.RootName()}}, 1
	})
	return func(name string, of value.Value) (bool, error) {
		v, err := x.Eval(facts{value.Text(name), of})
		if err != nil {
			return false, fmt.Errorf("cannot decide whether to select %s: %w", name, err)
		}
		v, err = value.Type{Kind: value.Bool}.Check(v)
		if err != nil || !v.Known() || v.Null() {
			return false, errors.Join(fmt.Errorf("cannot decide whether to select %s: the condition is neither true nor false", name), err)
		}
		return v.True(), nil
	}
}
