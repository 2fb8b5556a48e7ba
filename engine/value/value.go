// Package value holds the typed values that flow between steps: their types, the checks at every boundary, their JSON
// form on the wire and in the journal, and their digests. It wraps cty, which no other part of the engine imports.
package value

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Value is an immutable value, or a value that is not known yet. The zero Value is an unknown of any type.
type Value struct{ v cty.Value }

// FromCty wraps a value of an expression. Only the language uses it.
func FromCty(v cty.Value) Value { return Value{v} }

// Cty unwraps the value. Only the language uses it.
func (v Value) Cty() cty.Value {
	if v.v == cty.NilVal {
		return cty.DynamicVal
	}
	return v.v
}

// Unknown is a value of type t that is not known yet.
func Unknown(t Type) Value { return Value{cty.UnknownVal(t.Cty().WithoutOptionalAttributesDeep())} }

// Text is a string value.
func Text(s string) Value { return Value{cty.StringVal(s)} }

// Int is a number value.
func Int(n int64) Value { return Value{cty.NumberIntVal(n)} }

// Truth is a boolean value.
func Truth(b bool) Value { return Value{cty.BoolVal(b)} }

// Dict is an object value with the given attributes.
func Dict(attrs map[string]Value) Value {
	m := make(map[string]cty.Value, len(attrs))
	for name, a := range attrs {
		m[name] = a.Cty()
	}
	return Value{cty.ObjectVal(m)}
}

// Known reports whether nothing in the value is unknown.
func (v Value) Known() bool { return v.Cty().IsWhollyKnown() }

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
		return Value{cty.DynamicVal}, true
	}
	if c.IsNull() || !c.Type().IsObjectType() || !c.Type().HasAttribute(name) {
		return Value{}, false
	}
	return Value{c.GetAttr(name)}, true
}

// Equal reports whether two values are known and the same.
func (v Value) Equal(o Value) bool {
	return v.Known() && o.Known() && v.Cty().RawEquals(o.Cty())
}

// MarshalJSON gives the value as plain JSON: sets and lists as arrays, maps and objects as objects. It fails on values
// that are not wholly known.
func (v Value) MarshalJSON() ([]byte, error) {
	if !v.Known() {
		return nil, errors.New("cannot encode a value that is not known yet")
	}
	c, _ := v.Cty().UnmarkDeep()
	return ctyjson.Marshal(c, c.Type())
}

// UnmarshalJSON reads plain JSON as the value it most naturally stands for: arrays as tuples and objects as objects. A
// declared type's Parse is stricter.
func (v *Value) UnmarshalJSON(data []byte) error {
	t, err := ctyjson.ImpliedType(data)
	if err != nil {
		return fmt.Errorf("cannot read JSON: %w", err)
	}
	c, err := ctyjson.Unmarshal(data, t)
	if err != nil {
		return fmt.Errorf("cannot read JSON: %w", err)
	}
	v.v = c
	return nil
}

// Parse reads plain JSON as a value of type t and checks it.
func (t Type) Parse(data []byte) (Value, error) {
	if !json.Valid(data) {
		return Value{}, errors.New("cannot read JSON: it is not well formed")
	}
	var v Value
	if err := v.UnmarshalJSON(data); err != nil {
		return Value{}, err
	}
	return t.Check(v)
}

// Gather is the map from node name to a value of type t each: what `all.T` and `role.R` stand for. Types that differ
// from node to node (any) make it an object.
func Gather(t Type, m map[string]Value) Value {
	elems := make(map[string]cty.Value, len(m))
	for name, v := range m {
		elems[name] = v.Cty()
	}
	switch {
	case t.Holds(Any):
		return Value{cty.ObjectVal(elems)}
	case len(elems) == 0:
		return Value{cty.MapValEmpty(t.Cty().WithoutOptionalAttributesDeep())}
	}
	return Value{cty.MapVal(elems)}
}

// NullOf is the null of type t.
func NullOf(t Type) Value { return Value{cty.NullVal(t.Cty().WithoutOptionalAttributesDeep())} }
