package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Limits of the JSON that is read as values. What steps yield and machines report comes from outside.
const (
	MaxJSON     = 16 << 20 // bytes
	MaxDepth    = 64       // arrays and objects within one another
	maxDigits   = 2000     // characters of a number; what the greatest and the smallest need when they are written out
	maxExponent = 1000     // decimal, about; a greater one is short to write and fills memory when it is written out
)

// MarshalJSON gives the value as plain JSON: sets and lists as arrays, maps and objects as objects. It fails on values
// that are not wholly known, and on infinite numbers. Whoever asks must not change it: an Encoded value gives it to all.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.text != nil {
		return v.text, nil
	}
	if !v.Known() {
		return nil, errors.New("cannot encode a value that is not known yet")
	}
	c, _ := v.Cty().UnmarkDeep()
	minus := false
	if err := cty.Walk(c, func(_ cty.Path, e cty.Value) (bool, error) {
		minus = minus || minusZero(e)
		return true, checkNumber(e)
	}); err != nil {
		return nil, fmt.Errorf("cannot encode a value: %w", err)
	}
	if minus { // equal values have one text
		c, _ = cty.Transform(c, func(_ cty.Path, e cty.Value) (cty.Value, error) {
			if minusZero(e) {
				return cty.Zero, nil
			}
			return e, nil
		})
	}
	return ctyjson.Marshal(c, c.Type())
}

func minusZero(c cty.Value) bool {
	return c.Type() == cty.Number && !c.IsNull() && c.AsBigFloat().Sign() == 0 && c.AsBigFloat().Signbit()
}

// checkNumber refuses numbers that JSON cannot say, or only in too many digits.
func checkNumber(c cty.Value) error {
	if c.Type() != cty.Number || !c.IsKnown() || c.IsNull() {
		return nil
	}
	f := c.AsBigFloat()
	if f.IsInf() {
		return errors.New("a number is infinite")
	}
	if e := f.MantExp(nil); f.Sign() != 0 && (e > maxExponent*4 || e < -maxExponent*4) { // binary; 10^n has 3.4 n bits
		return fmt.Errorf("a number is outside 1e-%d to 1e%d", maxExponent, maxExponent)
	}
	return nil
}

// UnmarshalJSON reads plain JSON as the value it most naturally stands for: arrays as tuples and objects as objects. A
// declared type's Parse is stricter. The limits above hold.
func (v *Value) UnmarshalJSON(data []byte) error {
	if err := bound(data); err != nil {
		return fmt.Errorf("cannot read JSON: %w", err)
	}
	if c, ok := texts(data); ok {
		v.v = c
		return nil
	}
	c, err := natural(data)
	if err != nil {
		return fmt.Errorf("cannot read JSON: %w", err)
	}
	v.v = c
	return nil
}

func natural(data []byte) (cty.Value, error) {
	t, err := ctyjson.ImpliedType(data)
	if err != nil {
		return cty.NilVal, err
	}
	return ctyjson.Unmarshal(data, t)
}

// texts reads an object that holds nothing but strings, which most steps' outputs are: natural, which reads all else, takes
// ten times as long. A brace or bracket inside a string only means that natural reads it.
func texts(data []byte) (cty.Value, bool) {
	if bytes.IndexByte(data, '[') >= 0 || bytes.Count(data, []byte("{")) != 1 {
		return cty.NilVal, false
	}
	var all map[string]*string
	if json.Unmarshal(data, &all) != nil || len(all) == 0 {
		return cty.NilVal, false
	}
	attrs := make(map[string]cty.Value, len(all))
	for name, s := range all {
		if s == nil || !ascii(name) { // null; a name that may have several forms, which natural refuses
			return cty.NilVal, false
		}
		attrs[name] = cty.StringVal(*s)
	}
	return cty.ObjectVal(attrs), true
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// bound checks that data is one JSON value within the limits, before anything recurses into it. It reads bytes instead of
// tokens, which would be most of what reading a small value allocates.
func bound(data []byte) error {
	if len(data) > MaxJSON {
		return fmt.Errorf("it has more than %d bytes", MaxJSON)
	}
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = endOfString(data, i)
		case '[', '{':
			if depth++; depth > MaxDepth {
				return fmt.Errorf("it is nested deeper than %d levels", MaxDepth)
			}
		case ']', '}':
			depth--
		}
	}
	if !json.Valid(data) {
		return errors.New("it is not well formed")
	}
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			i = endOfString(data, i)
		case c == '-' || '0' <= c && c <= '9': // nothing else begins or goes on like that outside a string
			end := i + 1
			for end < len(data) && strings.IndexByte("+-.eE0123456789", data[end]) >= 0 {
				end++
			}
			if err := boundNumber(string(data[i:end])); err != nil {
				return err
			}
			i = end - 1
		}
	}
	return nil
}

// endOfString gives the place of the quotation mark that ends the string which begins at i, or the last place there is.
func endOfString(data []byte, i int) int {
	for i++; i < len(data) && data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return min(i, len(data)-1)
}

func boundNumber(s string) error {
	if len(s) > maxDigits {
		return fmt.Errorf("a number has more than %d characters", maxDigits)
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(s), "e"); ok {
		if e, err := strconv.Atoi(exponent); err != nil || e > 2*maxExponent || e < -2*maxExponent {
			return fmt.Errorf("a number is outside 1e-%d to 1e%d", maxExponent, maxExponent)
		}
	}
	c, err := cty.ParseNumberVal(s)
	if err != nil {
		return errors.New("it is not well formed")
	}
	return checkNumber(c)
}

// Parse reads plain JSON as a value of type t and checks it.
func (t Type) Parse(data []byte) (Value, error) {
	var v Value
	if err := v.UnmarshalJSON(data); err != nil {
		return Value{}, err
	}
	return t.Check(v)
}
