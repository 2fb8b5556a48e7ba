package expr

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"joist/engine/value"
	"joist/workflows/lang/diag"
)

var constructors = map[string]value.Kind{"list": value.List, "set": value.Set, "map": value.Map, "secret": value.Secret}

// ParseType reads a type as packs write it. It reports false, with a diagnostic, if there is none.
func ParseType(bag *diag.Bag, e hcl.Expression) (value.Type, bool) {
	known := append(value.Names(), "list(…)", "map(…)", "object({…})", "secret(…)", "set(…)")
	if word := hcl.ExprAsKeyword(e); word != "" {
		if t, ok := value.Named(word); ok {
			return t, true
		}
		advice := diag.Suggest(word, known)
		if _, ok := constructors[word]; ok {
			advice = fmt.Sprintf("Say of what: %s(string), for example.", word)
		} else if word == "object" {
			advice = "Say with which attributes: object({ name = string }), for example."
		}
		bag.Errorf(e.Range(), advice, "no type is called %q", word)
		return value.Type{}, false
	}
	call, diags := hcl.ExprCall(e)
	if diags.HasErrors() {
		bag.Errorf(e.Range(), "Types are written as string, list(address) or object({ name = string }); known words are "+diagList(value.Names())+".", "this is no type")
		return value.Type{}, false
	}
	if len(call.Arguments) != 1 {
		bag.Errorf(e.Range(), "Give it one argument, in parentheses.", "%s takes one argument", call.Name)
		return value.Type{}, false
	}
	arg := call.Arguments[0]
	if kind, ok := constructors[call.Name]; ok {
		elem, ok := ParseType(bag, arg)
		if ok && elem.Holds(value.Secret) {
			bag.Errorf(arg.Range(), "A secret is a whole input or output: declare one for each.", "a secret inside %s", call.Name)
			return value.Type{}, false
		}
		return value.Of(kind, elem), ok
	}
	switch call.Name {
	case "object":
		return objectType(bag, arg)
	case "optional":
		bag.Errorf(e.Range(), "For an input, write optional = true beside its type.", "optional(…) stands only inside object({…})")
	default:
		bag.Errorf(call.NameRange, diag.Suggest(call.Name, []string{"list", "set", "map", "object", "secret"}), "no type is called %q", call.Name)
	}
	return value.Type{}, false
}

func diagList(names []string) string {
	text := ""
	for i, n := range names {
		if i > 0 {
			text += ", "
		}
		text += n
	}
	return text
}

func objectType(bag *diag.Bag, arg hcl.Expression) (value.Type, bool) {
	pairs, diags := hcl.ExprMap(arg)
	if diags.HasErrors() {
		bag.Errorf(arg.Range(), "Write object({ name = string }), for example.", "an object's attributes are missing")
		return value.Type{}, false
	}
	t, good := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{}}, true
	for _, pair := range pairs {
		name := hcl.ExprAsKeyword(pair.Key)
		if name == "" {
			bag.Errorf(pair.Key.Range(), "Write a plain word.", "an attribute's name must be a word")
			good = false
			continue
		}
		if _, twice := t.Attrs[name]; twice {
			bag.Errorf(pair.Key.Range(), "Remove one of them.", "attribute %q stands twice", name)
			good = false
		}
		inner, optional := pair.Value, false
		if call, diags := hcl.ExprCall(pair.Value); !diags.HasErrors() && call.Name == "optional" && len(call.Arguments) == 1 {
			inner, optional = call.Arguments[0], true
		}
		of, ok := ParseType(bag, inner)
		if ok && of.Holds(value.Secret) {
			bag.Errorf(inner.Range(), "A secret is a whole input or output: declare one for each.", "a secret inside an object")
			ok = false
		}
		good = good && ok
		t.Attrs[name] = value.Attr{Type: of, Optional: optional}
	}
	return t, good
}

// TypeOf reads a type from text, such as that of a service's signature.
func TypeOf(text string) (value.Type, error) {
	bag := diag.NewBag(nil)
	e, diags := hclsyntax.ParseExpression([]byte(text), "type", hcl.InitialPos)
	if diags.HasErrors() {
		return value.Type{}, fmt.Errorf("cannot read the type %q: %w", text, diags)
	}
	t, ok := ParseType(bag, e)
	if !ok {
		return t, fmt.Errorf("cannot read the type %q: %w", text, bag.Done(""))
	}
	return t, nil
}

// typeOf gives the declared type nearest to that of a value in an expression.
func typeOf(t cty.Type) value.Type {
	switch {
	case t == cty.String:
		return value.Type{Kind: value.String}
	case t == cty.Number:
		return value.Type{Kind: value.Number}
	case t == cty.Bool:
		return value.Type{Kind: value.Bool}
	case t.IsListType():
		return value.Of(value.List, typeOf(t.ElementType()))
	case t.IsSetType():
		return value.Of(value.Set, typeOf(t.ElementType()))
	case t.IsMapType():
		return value.Of(value.Map, typeOf(t.ElementType()))
	case t.IsObjectType():
		o := value.Type{Kind: value.Object, Attrs: map[string]value.Attr{}}
		for name, a := range t.AttributeTypes() {
			o.Attrs[name] = value.Attr{Type: typeOf(a)}
		}
		return o
	}
	return value.Type{}
}

// Fits reports whether values of one type can stand where another is wanted, as far as the types tell; why says what is
// in the way. Text fits a domain type: its form is checked once the value is known. One domain type never fits another.
func Fits(have, want value.Type) (why string, ok bool) {
	mismatch := fmt.Sprintf("%s cannot stand where %s is wanted", have, want)
	switch {
	case have.Kind == value.Any || want.Kind == value.Any || have.Kind == want.Kind && have.Elem == nil && have.Attrs == nil:
		return "", true
	case have.Kind == value.Secret && want.Kind == value.Secret:
		return Fits(*have.Elem, *want.Elem)
	case have.Kind == value.Secret || want.Kind == value.Secret:
		return mismatch, false
	}
	switch want.Kind {
	case value.List, value.Set:
		if have.Kind == value.List || have.Kind == value.Set {
			return Fits(*have.Elem, *want.Elem)
		}
	case value.Map:
		if have.Kind == value.Map {
			return Fits(*have.Elem, *want.Elem)
		}
		for name, a := range have.Attrs {
			if why, ok := Fits(a.Type, *want.Elem); !ok {
				return fmt.Sprintf("%s: %s", name, why), false
			}
		}
		if have.Kind == value.Object {
			return "", true
		}
	case value.Object, value.Certificate:
		return fitsObject(have, want)
	case value.String:
		if have.Kind == value.Number || have.Kind == value.Bool || text(have.Kind) {
			return "", true
		}
	case value.Number, value.Bool:
	default:
		if have.Kind == value.String {
			return "", true
		}
	}
	return mismatch, false
}

func text(k value.Kind) bool { return k >= value.Address && k <= value.Path || k == value.String }

var certificate = map[string]value.Attr{
	"leaf": {Type: value.Type{Kind: value.String}}, "chain": {Type: value.Type{Kind: value.String}}, "root": {Type: value.Type{Kind: value.String}},
}

func fitsObject(have, want value.Type) (string, bool) {
	if have.Kind == value.Certificate {
		have = value.Type{Kind: value.Object, Attrs: certificate}
	}
	if want.Kind == value.Certificate {
		want = value.Type{Kind: value.Object, Attrs: certificate}
	}
	if have.Kind == value.Map {
		for name, a := range want.Attrs {
			if why, ok := Fits(*have.Elem, a.Type); !ok {
				return fmt.Sprintf("%s: %s", name, why), false
			}
		}
		return "", true
	}
	if have.Kind != value.Object {
		return fmt.Sprintf("%s cannot stand where %s is wanted", have, want), false
	}
	for _, name := range sorted(want.Attrs) {
		a, ok := have.Attrs[name]
		if !ok {
			if !want.Attrs[name].Optional {
				return fmt.Sprintf("attribute %q is missing", name), false
			}
			continue
		}
		if why, ok := Fits(a.Type, want.Attrs[name].Type); !ok {
			return fmt.Sprintf("%s: %s", name, why), false
		}
	}
	return "", true
}
