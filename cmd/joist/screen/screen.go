// Package screen shows what happens to a cluster: not at all, line by line, or as a picture at the foot of a terminal.
package screen

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"joist/cmd/joist/layout"
	"joist/cmd/joist/progress"
	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

// Screen shows progress.
type Screen interface {
	Show(lines []progress.Line)
	Tick(ctx context.Context)
	Pace() time.Duration // between two ticks
	Close()
}

// Terminal is what a screen writes to, and where it looks for what it draws.
type Terminal struct {
	Out     io.Writer
	Ink     layout.Paint
	Size    func() (width, height int, ok bool) // in characters; false for what is no terminal
	Now     func() time.Time
	Cluster func(ctx context.Context, name string) (*v1.ClusterDetail, error)
}

func (t *Terminal) printf(format string, args ...any) { fmt.Fprintf(t.Out, format, args...) }

// Silent shows nothing: programs wait for the result.
func Silent() Screen { return silent{} }

// Plain writes one line for each thing that happens.
func Plain(on Terminal) Screen { return &plain{on} }

// Live redraws a picture of the cluster; what failed scrolls by above it and stays.
func Live(on Terminal, t *progress.Tracker) Screen { return &live{Terminal: on, t: t} }

type silent struct{}

func (silent) Show([]progress.Line) {}
func (silent) Tick(context.Context) {}
func (silent) Pace() time.Duration  { return time.Minute }
func (silent) Close()               {}

type plain struct{ Terminal }

func (p *plain) Show(lines []progress.Line) {
	for _, l := range lines {
		p.printf("%s\n", lineText(p.Ink, l))
	}
}

func (p *plain) Tick(context.Context) {}
func (p *plain) Pace() time.Duration  { return time.Minute }
func (p *plain) Close()               {}

func lineText(ink layout.Paint, l progress.Line) string {
	text := diag.Visible(l.Text)
	switch l.Weight {
	case progress.Bad:
		text = ink.Red(text)
	case progress.Good:
		text = ink.Green(text)
	case progress.Quiet:
		text = ink.Faint(text)
	}
	return ink.Faint(l.At.Local().Format("15:04:05")) + " " + text
}

type live struct {
	Terminal
	t      *progress.Tracker
	drawn  int // lines of the picture on the screen
	detail *v1.ClusterDetail
	asked  time.Time
	stale  bool
	recent []progress.Line
}

func (l *live) Pace() time.Duration { return 250 * time.Millisecond }

// shownRecent is how many of the latest lines stand in the picture.
const shownRecent = 5

func (l *live) Show(lines []progress.Line) {
	l.stale = true
	for _, line := range lines {
		switch line.Weight {
		case progress.Bad, progress.Good:
			l.erase()
			l.printf("%s\n", lineText(l.Ink, line))
		default:
			l.recent = append(l.recent, line)
			l.recent = l.recent[max(0, len(l.recent)-shownRecent):]
		}
	}
}

// tick asks for the cluster's state if something happened, and draws.
func (l *live) Tick(ctx context.Context) {
	now := l.Now()
	if age := now.Sub(l.asked); l.stale && age > 500*time.Millisecond || age > 3*time.Second {
		l.asked, l.stale = now, false
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		if d, err := l.Cluster(ask, l.t.Cluster); err == nil { // while the engine is away the last picture stays
			l.detail = d
		}
		cancel()
	}
	width, height, ok := l.Size()
	if !ok {
		return
	}
	picture := l.picture(now, height)
	l.erase()
	var b strings.Builder
	for _, line := range picture {
		b.WriteString(lipgloss.NewStyle().MaxWidth(width - 1).Render(line))
		b.WriteByte('\n')
	}
	l.printf("%s", b.String())
	l.drawn = len(picture)
}

func (l *live) Close() { l.erase() }

// erase takes the picture away (ECMA-48: CUU, ED).
func (l *live) erase() {
	if l.drawn > 0 {
		l.printf("\x1b[%dA\x1b[J", l.drawn)
	}
	l.drawn = 0
}

func (l *live) picture(now time.Time, height int) []string {
	elapsed := ""
	if !l.t.Start.IsZero() {
		elapsed = progress.Duration(now.Sub(l.t.Start))
	}
	if l.detail == nil {
		return []string{l.Ink.Bold("cluster "+l.t.Cluster) + "  " + elapsed}
	}
	d := l.detail
	lines := []string{fmt.Sprintf("%s  %s  %s  %s", l.Ink.Bold("cluster "+d.Name), l.Ink.Outcome(d.Outcome), elapsed, layout.Counts(d.States, layout.States))}
	lines = append(lines, l.nodes(now, max(3, height-len(lines)-shownRecent-6))...)
	for i, it := range d.Running {
		if it.Node != "" {
			continue
		}
		if i >= 5 {
			break
		}
		lines = append(lines, "  running "+it.Instance)
	}
	if len(d.Running) == 0 && len(d.Waiting) > 0 {
		lines = append(lines, fmt.Sprintf("  %d wait: %s", d.Waiting[0].Count, d.Waiting[0].Says))
	}
	for _, r := range l.recent {
		lines = append(lines, "  "+lineText(l.Ink, r))
	}
	return lines
}

// nodes gives a line for each node, those with something going on first, at most n.
func (l *live) nodes(now time.Time, n int) []string {
	running := map[string][]string{}
	for _, it := range l.detail.Running {
		if it.Node == "" {
			continue
		}
		text := it.Task
		if it.Attempt > 1 {
			text += fmt.Sprintf(" (attempt %d)", it.Attempt)
		}
		if begun, ok := l.t.Begun(it.Instance); ok {
			text += " " + progress.Duration(now.Sub(begun))
		}
		running[it.Node] = append(running[it.Node], text)
	}
	var busy, rest []string
	width := 0
	for i := range l.detail.Members {
		width = max(width, lipgloss.Width(l.detail.Members[i].Name))
	}
	for i := range l.detail.Members {
		m := &l.detail.Members[i]
		total := 0
		for state, count := range m.States {
			if state != "absent" {
				total += count
			}
		}
		name := fmt.Sprintf("%-*s", width, m.Name)
		what := strings.Join(running[m.Name], ", ")
		switch {
		case m.States["failed"] > 0:
			name, what = l.Ink.Red(name), l.Ink.Red(fmt.Sprintf("%d failed", m.States["failed"]))+" "+what
		case m.Leaving:
			name, what = l.Ink.Yellow(name), "leaving "+what
		case !m.Online:
			name, what = l.Ink.Faint(name), layout.Dash(m.Boot)
		case m.States["in place"] == total:
			name = l.Ink.Green(name)
		}
		line := fmt.Sprintf("  %s  %3d/%d in place  %s", name, m.States["in place"], total, what)
		if m.States["failed"] > 0 || len(running[m.Name]) > 0 {
			busy = append(busy, line)
		} else {
			rest = append(rest, line)
		}
	}
	if all := len(busy) + len(rest); all > n {
		lines := append(busy, rest...)[:n]
		return append(lines, fmt.Sprintf("  and %d more nodes", all-n))
	}
	return append(busy, rest...)
}
