package history

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"maps"
	"slices"
)

// snapshotVersion is the form of snapshots. Another form is not read: the journal is folded instead.
const snapshotVersion = 5

// form is what a snapshot begins with: the state but for its quiet rows, which follow (rows.go).
type form struct {
	State State
	Odd   map[string]list
}

type list struct {
	Index []int
	Rows  []*Row
}

// Snapshot gives the state as one value, for Restore: the length of the gob of a form, that gob, the names of the quiet rows,
// and for each column that has some its name and rows.
func (s *State) Snapshot() (version int, data []byte, err error) {
	f := form{State: *s, Odd: map[string]list{}}
	f.State.Columns = nil
	w := newFlatWriter()
	w.uint(uint64(len(s.Columns)))
	for _, name := range slices.Sorted(maps.Keys(s.Columns)) {
		var still []int
		var l list
		for i, r := range s.Columns[name].Rows {
			switch {
			case r == nil:
			case quiet(r):
				still = append(still, i)
			default:
				l.Index, l.Rows = append(l.Index, i), append(l.Rows, r)
			}
		}
		if len(l.Rows) > 0 {
			f.Odd[name] = l
		}
		w.name(name)
		w.uint(uint64(len(still)))
		for _, i := range still {
			w.row(i, s.Columns[name].Rows[i])
		}
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(f); err != nil {
		return 0, nil, fmt.Errorf("cannot encode a snapshot: %w", err)
	}
	data = binary.AppendUvarint(make([]byte, 0, b.Len()+len(w.rows)+64*len(w.names)), uint64(b.Len()))
	data = append(data, b.Bytes()...)
	data = binary.AppendUvarint(data, uint64(len(w.names)))
	for _, name := range w.names {
		data = append(binary.AppendUvarint(data, uint64(len(name))), name...)
	}
	return snapshotVersion, append(data, w.rows...), nil
}

// Restore gives the state that a snapshot holds; it keeps data.
func Restore(version int, data []byte) (*State, error) {
	if version != snapshotVersion {
		return nil, fmt.Errorf("cannot read a snapshot of form %d, this program knows %d", version, snapshotVersion)
	}
	r := &flatReader{rest: data}
	head := r.bytes(r.uint())
	var f form
	if err := gob.NewDecoder(bytes.NewReader(head)).Decode(&f); err != nil {
		return nil, fmt.Errorf("cannot read a snapshot: %w", err)
	}
	s, empty := &f.State, New()
	s.Columns, s.index = empty.Columns, empty.index
	if s.Budgets == nil {
		s.Budgets = empty.Budgets
	}
	for _, b := range s.Budgets {
		if b.Places == nil {
			b.Places = map[string]bool{}
		}
		if b.Settling == nil {
			b.Settling = map[string]Watch{}
		}
		if b.Proven == nil {
			b.Proven = map[string]bool{}
		}
	}
	for i, n := range s.Nodes {
		s.index[n.Name] = i
	}
	r.table()
	for range r.count(2) {
		name := r.name()
		rows := make([]Row, r.count(leastRow)) // one piece of memory: they come and go together
		c := &Column{Rows: make([]*Row, 0, len(rows))}
		for k := range rows {
			if !c.put(r.row(&rows[k]), &rows[k], len(s.Nodes)) || r.bad {
				return nil, fmt.Errorf("cannot read a snapshot: %w", errFlat)
			}
		}
		s.Columns[name] = c
	}
	for name, l := range f.Odd {
		c := s.Columns[name]
		for k, i := range l.Index {
			if c == nil || k >= len(l.Rows) || i < 0 || !c.put(uint64(i), l.Rows[k], len(s.Nodes)) {
				return nil, fmt.Errorf("cannot read a snapshot: %w", errFlat)
			}
		}
	}
	if r.bad || len(r.rest) > 0 {
		return nil, fmt.Errorf("cannot read a snapshot: %w", errFlat)
	}
	return s, nil
}

// put sets a row of a column of as many nodes.
func (c *Column) put(index uint64, r *Row, nodes int) bool {
	if index > uint64(nodes) {
		return false
	}
	for uint64(len(c.Rows)) <= index {
		c.Rows = append(c.Rows, nil)
	}
	c.Rows[index] = r
	return true
}
