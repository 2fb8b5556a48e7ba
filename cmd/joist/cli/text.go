package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"joist/services/boot/phase"
	"joist/workflows/lang/diag"
)

// paint colours text, or leaves it alone.
type paint bool

func (p paint) in(colour, s string) string {
	if !p || s == "" {
		return s
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(colour)).Render(s)
}

func (p paint) red(s string) string    { return p.in("1", s) }
func (p paint) green(s string) string  { return p.in("2", s) }
func (p paint) yellow(s string) string { return p.in("3", s) }
func (p paint) faint(s string) string {
	if !p || s == "" {
		return s
	}
	return lipgloss.NewStyle().Faint(true).Render(s)
}

func (p paint) bold(s string) string {
	if !p || s == "" {
		return s
	}
	return lipgloss.NewStyle().Bold(true).Render(s)
}

// colour says whether an output takes colours: a terminal does, unless NO_COLOR is set or it is a dumb one.
func (a *app) colour(w io.Writer) paint {
	_, _, ok := terminal(w)
	return paint(ok && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb")
}

// table writes rows with aligned columns, two blanks between them. Cells may be coloured.
func table(w io.Writer, rows [][]string) {
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

// when gives a time as people want it: how long ago, and the clock's time.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	now := a.Now()
	if t.After(now) {
		return "in " + strings.TrimSuffix(phase.Ago(t.Sub(now)), " ago") + " (" + clock(t, now) + ")"
	}
	return phase.Ago(now.Sub(t)) + " (" + clock(t, now) + ")"
}

// clock gives the local time, with the date unless it is today's.
func clock(t, now time.Time) string {
	t = t.Local()
	if y, m, d := t.Date(); now.Local().Year() == y && now.Local().Month() == m && now.Local().Day() == d {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// verdictOrder is the dangerous first.
var verdictOrder = []string{"remove", "replace", "blocked", "run", "run if changed", "kept", "absent", "unchanged"}

// countsText gives counts by name, in the given order first and then by name: "3 run, 57 unchanged".
func countsText(counts map[string]int, order []string) string {
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

// stateOrder is what needs a person first.
var stateOrder = []string{"failed", "blocked", "removing", "running", "ready", "waiting", "in place", "absent"}

func (p paint) outcome(s string) string {
	switch s {
	case "converged", "destroyed":
		return p.green(s)
	case "stopped", "failed":
		return p.red(s)
	case "cancelled", "superseded":
		return p.yellow(s)
	}
	return s
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// firstLine gives the first line of a text, at most n characters of it.
func firstLine(s string, n int) string {
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
