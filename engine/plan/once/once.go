// Package once keeps what is the same for every instance of a task: an argument that mentions nothing of its target, or a part
// of one that does. It is worked out and looked through once for each change, however many instances read it: a gather over n
// nodes that n nodes read stays linear.
package once

import (
	"encoding/json"

	"joist/engine/history"
	"joist/engine/value"
)

// Value is a kept value. The zero Value has yet to be worked out.
type Value struct {
	stamp uint64       // what Ref was last worked out for
	ref   value.Digest // of what it refers to
	of    value.Digest // the ref that what follows was worked out for
	fresh bool         // what follows was worked out

	v      value.Value
	digest value.Digest
	err    error
	small  json.RawMessage // the journal's form; nil until it was asked for
	stored bool            // its data were given to the journal
}

// Ref gives the digest of what the value refers to. stamp grows from 1 when anything of that may have changed; only then it is
// worked out anew.
func (o *Value) Ref(stamp uint64, hash func() value.Digest) value.Digest {
	if o.stamp != stamp {
		o.stamp, o.ref = stamp, hash()
	}
	return o.ref
}

// Get gives the value for what Ref gave last. Its digest is zero unless it is known.
func (o *Value) Get(eval func() (value.Value, error)) (v value.Value, digest value.Digest, err error) {
	if !o.fresh || o.of != o.ref {
		*o = Value{stamp: o.stamp, ref: o.ref, of: o.ref, fresh: true}
		o.v, o.err = eval()
		if o.err == nil && o.v.Known() {
			o.v, o.digest = o.v.Encoded(), o.v.Digest()
		}
	}
	return o.v, o.digest, o.err
}

// Kept gives the form in which the journal keeps the value that Get gave. The data of a large one come with it the first time.
func (o *Value) Kept(v value.Value) (small json.RawMessage, large []byte, err error) {
	if o.stored {
		return o.small, nil, nil
	}
	small, large, err = Form(v)
	o.small, o.stored = small, err == nil
	return small, large, err
}

// Small gives that form for comparison, and stores nothing.
func (o *Value) Small(v value.Value) (json.RawMessage, error) {
	var err error
	if o.small == nil {
		o.small, _, err = Form(v)
	}
	return o.small, err
}

// Form gives the form in which the journal keeps a value, and the data of a large one.
func Form(v value.Value) (small json.RawMessage, large []byte, err error) {
	data, err := v.MarshalJSON()
	if err != nil {
		return nil, nil, err
	}
	if small = history.Small(data); len(small) != len(data) {
		large = data
	}
	return small, large, nil
}
