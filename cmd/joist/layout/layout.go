// Package layout lays out text for terminals and for files: colours where there is a terminal, aligned columns, counts.
package layout

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"joist/workflows/lang/diag"
)

// Paint colours text, or leaves it alone.
type Paint bool

// In gives s in a colour of the terminal's palette.
func (p Paint) In(colour, s string) string {
	if !p || s == "" {
		return s
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(colour)).Render(s)
}

// Red is for what is wrong or dangerous.
func (p Paint) Red(s string) string { return p.In("1", s) }

// Green is for what is well.
func (p Paint) Green(s string) string { return p.In("2", s) }

// Yellow is for what wants a look.
func (p Paint) Yellow(s string) string { return p.In("3", s) }

// Faint is for what matters less.
func (p Paint) Faint(s string) string {
	if !p || s == "" {
		return s
	}
	return lipgloss.NewStyle().Faint(true).Render(s)
}

// Bold is for headings.
func (p Paint) Bold(s string) string {
	if !p || s == "" {
		return s
	}
	return lipgloss.NewStyle().Bold(true).Render(s)
}

// Table writes rows with aligned columns, two blanks between them. Cells may be coloured.
func Table(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// Clock gives the local time, with the date unless it is today's.
func Clock(t, now time.Time) string {
	t = t.Local()
	if y, m, d := t.Date(); now.Local().Year() == y && now.Local().Month() == m && now.Local().Day() == d {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// Verdicts is the dangerous first.
var Verdicts = []string{"remove", "replace", "blocked", "set aside", "run", "run if changed", "skipped", "kept", "absent", "unchanged"}

// Counts gives counts by name, in the given order first and then by name: "3 run, 57 unchanged".
func Counts(counts map[string]int, order []string) string {
	names := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(names, func(a, b string) int {
		return rank(order, a) - rank(order, b)
	})
	var parts []string
	for _, name := range names {
		if counts[name] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
		}
	}
	return strings.Join(parts, ", ")
}

func rank(order []string, name string) int {
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	return len(order)
}

// States is what needs a person first.
var States = []string{"failed", "blocked", "set aside", "skipped", "removing", "running", "ready", "waiting", "in place", "absent"}

// Outcome colours the outcome of a pursuit.
func (p Paint) Outcome(s string) string {
	switch s {
	case "converged", "destroyed":
		return p.Green(s)
	case "stopped", "failed":
		return p.Red(s)
	case "cancelled", "superseded":
		return p.Yellow(s)
	}
	return s
}

// Dash stands for nothing.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// FirstLine gives the first line of a text, at most n characters of it.
func FirstLine(s string, n int) string {
	s, _, more := strings.Cut(diag.Visible(s), "\n")
	r := []rune(s)
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	if more {
		return s + " …"
	}
	return s
}

// Mark gives the sign of a verdict, as a plan has it before each line.
func (p Paint) Mark(verdict string) string {
	switch verdict {
	case "remove":
		return p.Red("-")
	case "replace":
		return p.Red("-/+")
	case "blocked":
		return p.Red("!")
	case "run":
		return p.Green("+")
	case "run if changed":
		return p.Yellow("~")
	}
	return " "
}

// Some lists names, at most n of them.
func Some(names []string, n int) string {
	if more := len(names) - n; more > 0 {
		return strings.Join(names[:n], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// Counted says how many of something there are, with the regular plural.
func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
