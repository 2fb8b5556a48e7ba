package v1

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Cursor is a place in the streams of several journals: the sequence of the last event seen, by journal. Its text is
// "journal:seq", several of them sorted and separated by commas, such as "cluster/demo:17,site:40". The empty cursor is the beginning.
type Cursor map[string]uint64

// Bounds of a cursor's text.
const (
	MaxCursor  = 256 << 10 // bytes
	MaxJournal = 128       // bytes of a journal's name
)

// ParseCursor reads a cursor. It refuses a journal named twice and a name that no journal has.
func ParseCursor(text string) (Cursor, error) {
	c := Cursor{}
	if text == "" {
		return c, nil
	}
	if len(text) > MaxCursor {
		return nil, fmt.Errorf("cannot read a cursor of %d bytes: %d is the most", len(text), MaxCursor)
	}
	for part := range strings.SplitSeq(text, ",") {
		name, number, ok := strings.Cut(part, ":")
		if !ok || !ValidJournal(name) {
			return nil, fmt.Errorf("cannot read %.80q as a place in a journal: want journal:sequence, such as cluster/demo:17", part)
		}
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil || number[0] == '+' {
			return nil, fmt.Errorf("cannot read %.80q as a place in a journal: %.40q is no sequence", part, number)
		}
		if _, twice := c[name]; twice {
			return nil, fmt.Errorf("cannot read the cursor: journal %s stands there twice", name)
		}
		c[name] = seq
	}
	return c, nil
}

// String gives the form that ParseCursor reads.
func (c Cursor) String() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(c)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
		b.WriteByte(':')
		b.WriteString(strconv.FormatUint(c[name], 10))
	}
	return b.String()
}

// ValidJournal reports whether a text can be a journal's name: "site", or "cluster/" and a cluster's name.
func ValidJournal(name string) bool {
	cluster, ok := strings.CutPrefix(name, "cluster/")
	if !ok {
		return name == "site"
	}
	if cluster == "" || len(name) > MaxJournal {
		return false
	}
	for _, r := range cluster {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
