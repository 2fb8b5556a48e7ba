package value

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// Handle stands for a secret wherever the engine keeps, compares or shows values: it names the sealed secret, and is a
// keyed digest of it, so that equal secrets of one cluster have equal handles and nobody without the key can tell from
// a handle what a secret is. The zero Handle stands for none.
type Handle struct{ digest Digest }

const handlePrefix = "secret:"

// HandleOf makes the handle with a keyed digest.
func HandleOf(keyed Digest) Handle { return Handle{keyed} }

// Digest gives the keyed digest.
func (h Handle) Digest() Digest { return h.digest }

// String gives the handle as values hold it: "secret:" and 64 hexadecimal digits.
func (h Handle) String() string { return handlePrefix + hex.EncodeToString(h.digest[:]) }

// ParseHandle reads a handle as String gives it.
func ParseHandle(s string) (Handle, bool) {
	text, ok := strings.CutPrefix(s, handlePrefix)
	if !ok || len(text) != 2*len(Digest{}) || text != strings.ToLower(text) {
		return Handle{}, false
	}
	var h Handle
	if err := h.digest.UnmarshalText([]byte(text)); err != nil || h.digest == (Digest{}) {
		return Handle{}, false
	}
	return h, true
}

// Clear gives the type of a value of t with its secrets in clear: secret(T) becomes T.
func (t Type) Clear() Type {
	if t.Kind == Secret {
		return t.Elem.Clear()
	}
	c := t
	if t.Elem != nil {
		elem := t.Elem.Clear()
		c.Elem = &elem
	}
	if t.Attrs != nil {
		c.Attrs = make(map[string]Attr, len(t.Attrs))
		for name, a := range t.Attrs {
			c.Attrs[name] = Attr{a.Type.Clear(), a.Optional}
		}
	}
	return c
}

// Seal reads the JSON of a value of t.Clear() and gives the value of type t in which each secret is the handle that seal
// gives for its JSON. No error shows anything of what was read.
func (t Type) Seal(data []byte, seal func(plain []byte) (Handle, error)) (Value, error) {
	clear, err := t.Clear().Parse(data)
	if err != nil {
		return Value{}, fmt.Errorf("it is not a value of type %s", t) // the details would quote the secret
	}
	sealed, err := t.swap(clear.Cty(), func(_ Type, c cty.Value) (cty.Value, error) {
		plain, err := (Value{v: c}).MarshalJSON()
		if err != nil {
			return c, errors.New("a secret cannot be encoded")
		}
		h, err := seal(plain)
		return cty.StringVal(h.String()), err
	})
	if err != nil {
		return Value{}, err
	}
	return t.Check(Value{v: sealed})
}

// Open gives the JSON of a value of type t with its secrets in clear, as open gives them. No error shows anything of a
// secret.
func (t Type) Open(v Value, open func(Handle) ([]byte, error)) (json.RawMessage, error) {
	if !v.Known() {
		return nil, errors.New("cannot encode a value that is not known yet")
	}
	if !t.Holds(Secret) {
		return v.MarshalJSON()
	}
	sealed, _ := v.Cty().UnmarkDeep()
	clear, err := t.swap(sealed, func(elem Type, c cty.Value) (cty.Value, error) {
		if c.Type() != cty.String {
			return c, errors.New("a secret is not given as a handle")
		}
		h, ok := ParseHandle(c.AsString())
		if !ok {
			return c, errors.New("a secret is not given as a handle")
		}
		plain, err := open(h)
		if err != nil {
			return c, err
		}
		v, err := elem.Clear().Parse(plain)
		if err != nil {
			return c, fmt.Errorf("a secret is not a value of type %s", elem)
		}
		return v.Cty(), nil
	})
	if err != nil {
		return nil, err
	}
	return (Value{v: clear}).MarshalJSON()
}

// swap gives the value with each secret in it replaced. Containers that hold secrets become tuples and objects on the
// way, whose JSON is the same.
func (t Type) swap(c cty.Value, f func(elem Type, c cty.Value) (cty.Value, error)) (cty.Value, error) {
	if c.IsNull() || !t.Holds(Secret) {
		return c, nil
	}
	switch t.Kind {
	case Secret:
		return f(*t.Elem, c)
	case List, Set:
		if !c.CanIterateElements() {
			return c, fmt.Errorf("it is not a value of type %s", t)
		}
		var elems []cty.Value
		for it := c.ElementIterator(); it.Next(); {
			_, e := it.Element()
			e, err := t.Elem.swap(e, f)
			if err != nil {
				return c, err
			}
			elems = append(elems, e)
		}
		return cty.TupleVal(elems), nil
	}
	if !c.CanIterateElements() || !c.Type().IsObjectType() && !c.Type().IsMapType() {
		return c, fmt.Errorf("it is not a value of type %s", t)
	}
	attrs := map[string]cty.Value{}
	for it := c.ElementIterator(); it.Next(); {
		k, e := it.Element()
		of := t.Elem
		if t.Kind == Object {
			a := t.Attrs[k.AsString()].Type
			of = &a
		}
		e, err := of.swap(e, f)
		if err != nil {
			return c, err
		}
		attrs[k.AsString()] = e
	}
	return cty.ObjectVal(attrs), nil
}
