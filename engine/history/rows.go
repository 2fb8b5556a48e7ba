package history

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"joist/engine/value"
)

// Almost every row of a cluster at rest is quiet: in place or gone, nothing in flight, nothing failed. Quiet rows of all
// columns are written one after the other in a flat form that is read without reflection; names and step digests stand
// once, in a table. What this form does not know stays with the odd rows, so that a field added to Row is never lost.
//
//	table  = count, { length, bytes }
//	rows   = count, { index, phase, goal, stood, started, ended, ... }
//
// Numbers are varints (encoding/binary); started and ended are differences to the row before.

// errFlat is all that can be said of rows that do not end where they should.
var errFlat = errors.New("its rows are cut short or damaged")

// flatWriter appends rows, and gathers their names.
type flatWriter struct {
	names []string
	known map[string]uint64
	rows  []byte
	last  uint64 // event of the row before
}

func newFlatWriter() *flatWriter { return &flatWriter{known: map[string]uint64{}} }

func (w *flatWriter) uint(n uint64) { w.rows = binary.AppendUvarint(w.rows, n) }

func (w *flatWriter) name(s string) {
	i, ok := w.known[s]
	if !ok {
		i = uint64(len(w.names))
		w.known[s] = i
		w.names = append(w.names, s)
	}
	w.uint(i)
}

func (w *flatWriter) event(seq uint64) {
	w.rows = binary.AppendVarint(w.rows, int64(seq-w.last))
	w.last = seq
}

// time writes nanoseconds since 1970; 0 is the zero time. Where a clock stood is no part of when it was.
func (w *flatWriter) time(t time.Time) {
	if t.IsZero() {
		w.uint(0)
		return
	}
	w.uint(uint64(t.UnixNano()))
}

// data writes the length plus one, so that 0 is nil.
func (w *flatWriter) data(b []byte) {
	if b == nil {
		w.uint(0)
		return
	}
	w.uint(uint64(len(b)) + 1)
	w.rows = append(w.rows, b...)
}

// quiet reports whether the flat form holds all there is to a row.
func quiet(r *Row) bool {
	for _, t := range []time.Time{r.Begun, r.Done, r.Due} {
		if !t.IsZero() && t.UnixNano() <= 0 {
			return false
		}
	}
	rest := *r
	rest.Phase, rest.Goal, rest.Stood, rest.Started, rest.Ended = 0, 0, 0, 0, 0
	rest.Life.Node, rest.Life.Incarnation, rest.Boot = "", "", ""
	rest.Cause.Kind, rest.Cause.Of.Task, rest.Cause.Of.Node, rest.Cause.Input, rest.Cause.Text = "", "", "", "", ""
	rest.Begun, rest.Done, rest.Due = time.Time{}, time.Time{}, time.Time{}
	rest.Step, rest.Ref, rest.Input, rest.Output = value.Digest{}, value.Digest{}, value.Digest{}, value.Digest{}
	rest.Inputs, rest.Outputs = nil, nil
	return r.Goal >= 0 && r.Stood >= 0 && reflect.ValueOf(rest).IsZero()
}

func (w *flatWriter) row(index int, r *Row) {
	w.uint(uint64(index))
	w.uint(uint64(r.Phase))
	w.uint(uint64(r.Goal))
	w.uint(uint64(r.Stood))
	w.event(r.Started)
	w.event(r.Ended)
	w.name(r.Life.Node)
	w.name(r.Life.Incarnation)
	w.name(r.Boot)
	w.name(string(r.Cause.Kind))
	w.name(r.Cause.Of.Task)
	w.name(r.Cause.Of.Node)
	w.name(r.Cause.Input)
	w.name(r.Cause.Text)
	w.time(r.Begun)
	w.time(r.Done)
	w.time(r.Due)
	w.name(string(r.Step[:]))
	w.rows = append(append(append(w.rows, r.Ref[:]...), r.Input[:]...), r.Output[:]...)
	w.data(r.Inputs)
	w.data(r.Outputs)
}

// flatReader reads what flatWriter wrote. Rows share the memory that they were read from.
type flatReader struct {
	rest  []byte
	names []string
	last  uint64
	bad   bool
}

func (r *flatReader) uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *flatReader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// leastRow is how many bytes a row takes at least: its three digests and a byte for each of the rest.
const leastRow = 3*sha256.Size + 20

// count reads how many there are of something of which each takes so many bytes at least.
func (r *flatReader) count(least int) int {
	n := r.uint()
	if n > uint64(len(r.rest)/least) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *flatReader) table() {
	n := r.count(1)
	r.names = make([]string, n)
	for i := range r.names {
		r.names[i] = string(r.bytes(r.uint()))
	}
}

func (r *flatReader) name() string {
	i := r.uint()
	if i >= uint64(len(r.names)) {
		r.bad = true
		return ""
	}
	return r.names[i]
}

func (r *flatReader) event() uint64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	r.last += uint64(n)
	return r.last
}

func (r *flatReader) time() time.Time {
	n := r.uint()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

func (r *flatReader) digest(d *value.Digest) { copy(d[:], r.bytes(uint64(len(d)))) }

func (r *flatReader) data() json.RawMessage {
	n := r.uint()
	if n == 0 {
		return nil
	}
	return r.bytes(n - 1)
}

// row reads into an empty row, and gives its index.
func (r *flatReader) row(into *Row) (index uint64) {
	index = r.uint()
	into.Phase = Phase(r.uint())
	into.Goal, into.Stood = int(r.uint()), int(r.uint())
	into.Started, into.Ended = r.event(), r.event()
	into.Life = Rest{Node: r.name(), Incarnation: r.name()}
	into.Boot = r.name()
	into.Cause.Kind = CauseKind(r.name())
	into.Cause.Of.Task, into.Cause.Of.Node = r.name(), r.name()
	into.Cause.Input, into.Cause.Text = r.name(), r.name()
	into.Begun, into.Done, into.Due = r.time(), r.time(), r.time()
	copy(into.Step[:], r.name())
	r.digest(&into.Ref)
	r.digest(&into.Input)
	r.digest(&into.Output)
	into.Inputs, into.Outputs = r.data(), r.data()
	return index
}
