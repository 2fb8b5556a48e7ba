// Package value holds the typed values that flow between steps: their types, the checks at every boundary, their JSON
// form on the wire and in the journal, and their digests. It wraps cty, which no other part of the engine imports.
package value

import (
	"encoding/json"

	"github.com/zclconf/go-cty/cty"
)

// Value is an immutable value, or a value that is not known yet. The zero Value is an unknown of any type.
type Value struct {
	v    cty.Value
	text json.RawMessage // its JSON, if it is kept
}

// FromCty wraps a value of an expression. Only the language uses it.
func FromCty(v cty.Value) Value { return Value{v: v} }

// Encoded gives the same value with its JSON beside it: for one that is handed to many, and may be large. A value that has
// no JSON is given as it is.
func (v Value) Encoded() Value {
	if text, err := v.MarshalJSON(); err == nil {
		v.text = text
	}
	return v
}

// Cty unwraps the value. Only the language uses it.
func (v Value) Cty() cty.Value {
	if v.v == cty.NilVal {
		return cty.DynamicVal
	}
	return v.v
}

// Unknown is a value of type t that is not known yet.
func Unknown(t Type) Value { return Value{v: cty.UnknownVal(t.Cty().WithoutOptionalAttributesDeep())} }

// Text is a string value.
func Text(s string) Value { return Value{v: cty.StringVal(s)} }

// Int is a number value.
func Int(n int64) Value { return Value{v: cty.NumberIntVal(n)} }

// Truth is a boolean value.
func Truth(b bool) Value { return Value{v: cty.BoolVal(b)} }

// Dict is an object value with the given attributes.
func Dict(attrs map[string]Value) Value {
	m := make(map[string]cty.Value, len(attrs))
	for name, a := range attrs {
		m[name] = a.Cty()
	}
	return Value{v: cty.ObjectVal(m)}
}

// Known reports whether nothing in the value is unknown.
func (v Value) Known() bool { return v.text != nil || v.Cty().IsWhollyKnown() }

// Null reports whether the value is known to be null.
func (v Value) Null() bool { return v.Cty().IsKnown() && v.Cty().IsNull() }

// True reports whether the value is the known boolean true.
func (v Value) True() bool {
	c, _ := v.Cty().Unmark()
	return c.IsKnown() && !c.IsNull() && c.Type() == cty.Bool && c.True()
}

// Attr gives an attribute of an object value, and whether there is one. Attributes of an unknown object are unknown.
func (v Value) Attr(name string) (Value, bool) {
	c := v.Cty()
	if !c.IsKnown() {
		return Value{v: cty.DynamicVal}, true
	}
	if c.IsNull() || !c.Type().IsObjectType() || !c.Type().HasAttribute(name) {
		return Value{}, false
	}
	return Value{v: c.GetAttr(name)}, true
}

// Equal reports whether two values are known and have the same content, which is what a step sees of them as JSON: a list
// equals a tuple, and a map an object, of the same elements.
func (v Value) Equal(o Value) bool {
	return v.Known() && o.Known() && v.Digest() == o.Digest()
}

// Gather is the map from node name to a value of type t each: what `all.T` and `role.R` stand for. Types that differ
// from node to node (any) make it an object.
func Gather(t Type, m map[string]Value) Value {
	elems := make(map[string]cty.Value, len(m))
	var first cty.Type
	alike := !t.Holds(Any)
	for name, v := range m {
		elems[name] = v.Cty()
		if first == cty.NilType {
			first = v.Cty().Type()
		}
		alike = alike && first.Equals(v.Cty().Type())
	}
	switch {
	case !alike:
		return Value{v: cty.ObjectVal(elems)}
	case len(elems) == 0:
		return Value{v: cty.MapValEmpty(t.Cty().WithoutOptionalAttributesDeep())}
	}
	return Value{v: cty.MapVal(elems)}
}

// NullOf is the null of type t.
func NullOf(t Type) Value { return Value{v: cty.NullVal(t.Cty().WithoutOptionalAttributesDeep())} }
