package history

import (
	"bytes"
	"encoding/gob"
	"fmt"
)

// snapshotVersion is the form of snapshots. Another form is not read: the journal is folded instead.
const snapshotVersion = 2

// form is what a snapshot holds: the state, with columns as lists, because most of their rows may be empty.
type form struct {
	State   State
	Columns map[string]list
}

type list struct {
	Index []int
	Rows  []*Row
}

// Snapshot gives the state as one value, for Restore.
func (s *State) Snapshot() (version int, data []byte, err error) {
	f := form{State: *s, Columns: map[string]list{}}
	f.State.Columns = nil
	for name, c := range s.Columns {
		var l list
		for i, r := range c.Rows {
			if r != nil {
				l.Index, l.Rows = append(l.Index, i), append(l.Rows, r)
			}
		}
		f.Columns[name] = l
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(f); err != nil {
		return 0, nil, fmt.Errorf("cannot encode a snapshot: %w", err)
	}
	return snapshotVersion, b.Bytes(), nil
}

// Restore gives the state that a snapshot holds.
func Restore(version int, data []byte) (*State, error) {
	if version != snapshotVersion {
		return nil, fmt.Errorf("cannot read a snapshot of form %d, this program knows %d", version, snapshotVersion)
	}
	var f form
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&f); err != nil {
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
		if b.Proven == nil {
			b.Proven = map[string]bool{}
		}
	}
	for name, l := range f.Columns {
		c := &Column{}
		for k, i := range l.Index {
			for len(c.Rows) <= i {
				c.Rows = append(c.Rows, nil)
			}
			c.Rows[i] = l.Rows[k]
		}
		s.Columns[name] = c
	}
	for i, n := range s.Nodes {
		s.index[n.Name] = i
	}
	return s, nil
}
