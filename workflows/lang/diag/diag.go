// Package diag holds what the language has to say about source files: diagnostics with a place, the source around it,
// and advice; and the guard that refuses sources which a parser could not survive.
package diag

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// Severity says whether a source can be used all the same.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Diagnostic is one remark about a place in a source file. Lines and columns count from 1, columns in characters; all are
// 0 where a remark has no place.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Summary  string   `json:"message"`          // what is wrong, in one line
	Detail   string   `json:"advice,omitempty"` // what to do about it
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	EndLine  int      `json:"end_line,omitempty"`
	EndCol   int      `json:"end_column,omitempty"`
	Source   string   `json:"source,omitempty"` // the line that the place begins in, without its end
}

// Diagnostics are remarks in the order of their places. The nil slice says that all is well.
type Diagnostics []Diagnostic

// HasErrors reports whether one of them is an error.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == Error })
}

// In gives the diagnostics with a folder, such as "content/etcd/", before the names of their files.
func (ds Diagnostics) In(folder string) Diagnostics {
	out := slices.Clone(ds)
	for i := range out {
		if out[i].File != "" {
			out[i].File = folder + out[i].File
		}
	}
	return out
}

// Errors leaves the warnings out.
func (ds Diagnostics) Errors() Diagnostics {
	return slices.DeleteFunc(slices.Clone(ds), func(d Diagnostic) bool { return d.Severity != Error })
}

// Error implements error: the first error, and how many more there are.
func (ds Diagnostics) Error() string {
	errs := ds.Errors()
	if len(errs) == 0 {
		return "no errors"
	}
	text := errs[0].String()
	if n := len(errs) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// Err gives the diagnostics as an error, nil if none of them is one.
func (ds Diagnostics) Err() error {
	if !ds.HasErrors() {
		return nil
	}
	return ds
}

// String gives a diagnostic in one line: file:line:column: what is wrong: advice.
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", d.File, d.Line, d.Column)
	}
	b.WriteString(d.Summary)
	if d.Detail != "" {
		b.WriteString(": " + d.Detail)
	}
	return b.String()
}

// WriteText writes every diagnostic for people: what is wrong, the place, the source with a mark under it, and advice.
func (ds Diagnostics) WriteText(w io.Writer) error {
	for i, d := range ds {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, d.text()); err != nil {
			return err
		}
	}
	return nil
}

// Text is what WriteText writes.
func (ds Diagnostics) Text() string {
	var b strings.Builder
	_ = ds.WriteText(&b) // a Builder takes everything
	return b.String()
}

// widest is how many characters of a source line are shown.
const widest = 160

// Visible replaces what a terminal would not show but obey: control characters, which move a terminal's cursor or set its
// colours, and those that turn the direction of text. Sources, and what nodes say, may come from anybody. Line ends stay, for advice has several.
func Visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func (d Diagnostic) text() string {
	var b strings.Builder
	d.Summary, d.Detail, d.File, d.Source = Visible(d.Summary), Visible(d.Detail), Visible(d.File), Visible(d.Source)
	fmt.Fprintf(&b, "%s: %s\n", d.Severity, d.Summary)
	if d.File != "" {
		fmt.Fprintf(&b, "  --> %s:%d:%d\n", d.File, d.Line, d.Column)
	}
	if d.Source != "" {
		number := fmt.Sprintf("%4d", d.Line)
		line, col := []rune(d.Source), d.Column
		if len(line) > widest {
			line = append(line[:widest:widest], '…')
		}
		fmt.Fprintf(&b, "%s | %s\n", number, string(line))
		if col >= 1 && col <= len(line)+1 {
			width := 1
			if d.EndLine == d.Line && d.EndCol > col {
				width = min(d.EndCol, len(line)+1) - col
			} else if d.EndLine > d.Line {
				width = len(line) + 1 - col
			}
			fmt.Fprintf(&b, "     | %s%s\n", strings.Repeat(" ", col-1), strings.Repeat("^", max(width, 1)))
		}
	}
	if d.Detail != "" {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(d.Detail, "\n", "\n  "))
	}
	return b.String()
}

// Bag collects diagnostics about a set of files.
type Bag struct {
	files map[string][]byte
	found Diagnostics
}

// NewBag starts a collection about the given files by name, which is what ranges call them.
func NewBag(files map[string][]byte) *Bag { return &Bag{files: files} }

// Errorf adds an error at a place. The advice comes first in the call, for the summary takes arguments.
func (b *Bag) Errorf(at hcl.Range, advice, summary string, args ...any) {
	b.add(Error, at, advice, fmt.Sprintf(summary, args...))
}

// Warnf adds a warning at a place.
func (b *Bag) Warnf(at hcl.Range, advice, summary string, args ...any) {
	b.add(Warning, at, advice, fmt.Sprintf(summary, args...))
}

// AddHCL adds what the parser or an evaluation says.
func (b *Bag) AddHCL(ds hcl.Diagnostics) {
	for _, d := range ds {
		severity, at := Error, hcl.Range{}
		if d.Severity == hcl.DiagWarning {
			severity = Warning
		}
		if d.Subject != nil {
			at = *d.Subject
		}
		b.add(severity, at, d.Detail, lowerFirst(d.Summary))
	}
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}

func (b *Bag) add(severity Severity, at hcl.Range, detail, summary string) {
	d := Diagnostic{Severity: severity, Summary: summary, Detail: detail, File: at.Filename}
	if at.Filename != "" {
		d.Line, d.Column, d.EndLine, d.EndCol = at.Start.Line, at.Start.Column, at.End.Line, at.End.Column
		d.Source = lineOf(b.files[at.Filename], at.Start.Line)
	}
	b.found = append(b.found, d)
}

// lineOf cuts a line out of a source; very long ones are cut short.
func lineOf(src []byte, line int) string {
	for n := 1; len(src) > 0; n++ {
		this, rest, _ := bytes.Cut(src, []byte("\n"))
		if n == line {
			this = bytes.TrimSuffix(this, []byte("\r"))
			if len(this) > 4*widest {
				this = this[:4*widest]
			}
			return strings.ToValidUTF8(string(this), "�")
		}
		src = rest
	}
	return ""
}

// HasErrors reports whether an error was added.
func (b *Bag) HasErrors() bool { return b.found.HasErrors() }

// Count is how many errors were added.
func (b *Bag) Count() int { return len(b.found.Errors()) }

// Done gives what was added, in the order of places, without repetition. File names get the prefix.
func (b *Bag) Done(prefix string) Diagnostics {
	out := slices.Clone(b.found)
	slices.SortStableFunc(out, func(x, y Diagnostic) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
	})
	return slices.Compact(out).In(prefix)
}

// Nearest gives the name among those known that was most probably meant, empty if none is near.
func Nearest(name string, known []string) string {
	best, least := "", max(len(name)/3, 1)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k); d < least && d < len(name) {
			best, least = k, d
		}
	}
	return best
}

// Suggest is advice about a name that is not known: the nearest one, or all of them.
func Suggest(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return fmt.Sprintf("Did you mean %q?", near)
	}
	if len(known) == 0 {
		return "There are none here."
	}
	return "Known here: " + strings.Join(slices.Sorted(slices.Values(known)), ", ") + "."
}

// distance is the Levenshtein distance; long names are never near.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := diagonal
			if a[i-1] != b[j-1] {
				change++
			}
			diagonal = row[j]
			row[j] = min(change, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
