package value

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math/big"

	"github.com/zclconf/go-cty/cty"
)

// Digest is a SHA-256 digest. The zero Digest means "none".
type Digest [sha256.Size]byte

// String gives the digest in hexadecimal, empty for none.
func (d Digest) String() string {
	if d == (Digest{}) {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// Short gives the first twelve hexadecimal digits, for people; empty for none.
func (d Digest) Short() string { return d.String()[:min(12, len(d.String()))] }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	if hex.DecodedLen(len(text)) != len(d) {
		return fmt.Errorf("cannot read a digest of %d characters, expected %d", len(text), 2*len(d))
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("cannot read a digest: %w", err)
	}
	return nil
}

// Sum is the digest of a sequence of parts; ("ab","c") and ("a","bc") differ.
func Sum(parts ...[]byte) Digest {
	h := NewHasher()
	for _, p := range parts {
		h.Bytes(p)
	}
	return h.Sum()
}

// Hasher builds the digest of a sequence of parts without joining them first.
type Hasher struct{ h hash.Hash }

// NewHasher returns an empty Hasher.
func NewHasher() Hasher { return Hasher{sha256.New()} }

// Bytes adds a part.
func (h Hasher) Bytes(p []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(p)))
	h.h.Write(n[:])
	h.h.Write(p)
}

// Text adds a part.
func (h Hasher) Text(s string) { h.Bytes([]byte(s)) }

// Digest adds another digest as a part.
func (h Hasher) Digest(d Digest) { h.Bytes(d[:]) }

// Sum gives the digest of the parts added so far.
func (h Hasher) Sum() (d Digest) {
	h.h.Sum(d[:0])
	return d
}

// Digest gives the digest of a wholly known value: equal exactly for values that Equal finds the same, whatever the order
// in which their attributes were written. It panics on unknown parts, which is an internal error: callers ask Known
// first.
func (v Value) Digest() Digest {
	h := sha256.New()
	c, _ := v.Cty().UnmarkDeep()
	writeValue(h, c)
	var d Digest
	h.Sum(d[:0])
	return d
}

// Containers are told apart as "ordered" and "keyed" only: a list and a tuple, a map and an object of the same content
// are the same JSON, which is all that a step ever sees.
func writeValue(h hash.Hash, c cty.Value) {
	t := c.Type()
	switch {
	case !c.IsKnown():
		panic("internal error: digest of a value that is not known")
	case c.IsNull():
		h.Write([]byte{'0'})
	case t == cty.String:
		writeText(h, 's', c.AsString())
	case t == cty.Number:
		writeText(h, 'n', numberText(c.AsBigFloat()))
	case t == cty.Bool:
		if c.True() {
			h.Write([]byte{'t'})
		} else {
			h.Write([]byte{'f'})
		}
	case t.IsObjectType() || t.IsMapType():
		writeLen(h, '{', c.LengthInt())
		for it := c.ElementIterator(); it.Next(); {
			k, e := it.Element()
			writeText(h, 'k', k.AsString())
			writeValue(h, e)
		}
	default:
		writeLen(h, '[', c.LengthInt())
		for it := c.ElementIterator(); it.Next(); {
			_, e := it.Element()
			writeValue(h, e)
		}
	}
}

// numberText is the shortest text that gives the number back at its own precision: what its JSON says, too. There is
// one zero.
func numberText(f *big.Float) string {
	if f.Sign() == 0 {
		return "0"
	}
	return f.Text('g', -1)
}

func writeText(h hash.Hash, tag byte, s string) {
	writeLen(h, tag, len(s))
	h.Write([]byte(s))
}

func writeLen(h hash.Hash, tag byte, n int) {
	var b [9]byte
	b[0] = tag
	binary.BigEndian.PutUint64(b[1:], uint64(n))
	h.Write(b[:])
}
