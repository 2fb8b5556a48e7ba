// Package planview shows plans to people.
package planview

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"joist/cmd/joist/layout"
	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

func settled(verdict string) bool {
	return verdict == "unchanged" || verdict == "kept" || verdict == "absent" || verdict == "skipped" || verdict == "set aside"
}

// Config says where a plan is written, and how.
type Config struct {
	Out, Err io.Writer // Err takes warnings
	Ink      layout.Paint
	All      bool // every instance, unchanged ones too
}

func (a Config) printf(format string, args ...any) { fmt.Fprintf(a.Out, format, args...) }

// Write shows a plan to people: the dangerous first, then by task and by node, the unchanged counted.
func Write(a Config, p *v1.Plan) {
	ink := a.Ink
	if p.Warnings != "" {
		fmt.Fprintln(a.Err, ink.Yellow(strings.TrimSpace(p.Warnings)))
	}
	a.writeDanger(p)
	if a.All {
		a.writeInstances(p)
	} else {
		a.writeTasks(p)
	}
	a.writeNodes(p)
	a.writeDrift(p)
	a.writeRefused(p)
	a.writeMissing(p)
	switch {
	case len(p.Items) == 0 && !p.Changes:
		a.printf("cluster %s has no instances\n", p.Cluster)
	case !p.Changes:
		a.printf("%s nothing to do: %s\n", ink.Green("cluster "+p.Cluster+":"), layout.Counts(p.Counts, layout.Verdicts))
	default:
		a.printf("cluster %s: %s%s\n", p.Cluster, layout.Counts(p.Counts, layout.Verdicts), expectation(p))
	}
}

// writeDrift names what was found otherwise than it was left, and waits for a person.
func (a Config) writeDrift(p *v1.Plan) {
	n := 0
	for i := range p.Items {
		it := &p.Items[i]
		if it.Verdict != "kept" || it.Cause == nil || it.Cause.Kind != "drift" {
			continue
		}
		if n++; n <= 20 {
			a.printf("%s %s: %s\n", a.Ink.Red("drifted:"), it.Instance, diag.Visible(it.Because))
		}
	}
	if n > 20 {
		a.printf("… and %d more\n", n-20)
	}
}

// writeRefused says what policies refuse of the plan, where they stand, and what to change.
func (a Config) writeRefused(p *v1.Plan) {
	for i := range p.Refused {
		r := &p.Refused[i]
		if r.Reason != "" {
			a.printf("%s policy %s (%s): %s: %s\n", a.Ink.Yellow("overridden:"), r.Policy, r.At, diag.Visible(r.Says), diag.Visible(r.Reason))
			continue
		}
		a.printf("%s policy %s (%s): %s\n  %s\n", a.Ink.Red("refused:"), r.Policy, r.At, diag.Visible(r.Says), diag.Visible(r.Advice))
	}
}

// writeMissing says which machines there would have to be for the plan to be applied.
func (a Config) writeMissing(p *v1.Plan) {
	for _, m := range p.Missing {
		a.printf("%s %s for role %s: %s\n", a.Ink.Red("missing:"), layout.Counted(len(m.Nodes), "machine"), m.Role, diag.Visible(m.Says))
	}
	if len(p.Missing) > 0 {
		a.printf("  The plan is as it would be with machines of which nothing is known yet; it cannot be applied before they are there: joist node list\n")
	}
}

// expectation says how much will run, and for how long.
func expectation(p *v1.Plan) string {
	var parts []string
	if p.Runs.Most > p.Runs.Least {
		parts = append(parts, fmt.Sprintf("between %d and %d instances will run", p.Runs.Least, p.Runs.Most))
	}
	if p.Seconds > 0 {
		parts = append(parts, "at least "+took(p.Seconds)+", by what it took before")
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + strings.Join(parts, "; ")
}

// took gives seconds as people read them.
func took(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case seconds == 0:
		return ""
	case d < time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// writeDanger names what cannot be taken back: wiped nodes, then removals.
func (a Config) writeDanger(p *v1.Plan) {
	ink := a.Ink
	dangers := map[string][]string{}
	for _, n := range p.Nodes {
		if n.Danger != "" {
			dangers[n.Danger] = append(dangers[n.Danger], "node "+n.Node)
		}
	}
	for i := range p.Items {
		if it := &p.Items[i]; it.Danger != "" {
			name := it.Instance
			if it.Verdict == "replace" {
				name += " (and applied again)"
			}
			dangers[it.Danger] = append(dangers[it.Danger], name)
		}
	}
	for _, danger := range []string{v1.DangerReboot, v1.DangerWipe, v1.DangerRemoval} {
		if names := dangers[danger]; len(names) > 0 {
			a.printf("%s %s\n", ink.Red(danger+":"), layout.Some(names, 12))
		}
	}
	if len(dangers) > 0 {
		a.printf("\n")
	}
}

// writeInstances lists every instance.
func (a Config) writeInstances(p *v1.Plan) {
	ink := a.Ink
	rows := [][]string{{"", "VERDICT", "INSTANCE", "STEP", "EXPECTED", "WHY"}}
	for i := range p.Items {
		it := &p.Items[i]
		rows = append(rows, []string{ink.Mark(it.Verdict), it.Verdict, it.Instance, it.Step, took(it.Expected), reason(it)})
	}
	if len(rows) > 1 {
		layout.Table(a.Out, rows)
		a.printf("\n")
	}
}

// reason says why an instance has its verdict, and what of it is not known yet.
func reason(it *v1.Item) string {
	if it.Error != "" {
		return layout.FirstLine(it.Error, 100)
	}
	why := diag.Visible(it.Because)
	for i, u := range it.Known {
		if i == 2 {
			return why + "; and " + layout.Counted(len(it.Known)-i, "more input")
		}
		if why != "" {
			why += "; "
		}
		why += u.Input + " " + u.Says()
	}
	return why
}

// batch is instances of one task that have the same before them, for the same reason.
type batch struct {
	task, verdict, why string
	items              []*v1.Item
}

// batches collects what is to happen by task, verdict and reason, the dangerous first.
func batches(p *v1.Plan) []*batch {
	var list []*batch
	tasks, at := map[[2]string]int{}, map[[3]string]*batch{}
	for i := range p.Items {
		it := &p.Items[i]
		if settled(it.Verdict) {
			continue
		}
		task, why := [2]string{it.Task, it.Verdict}, reason(it)
		if _, known := tasks[task]; !known {
			tasks[task] = len(tasks)
		}
		key := [3]string{it.Task, it.Verdict, why}
		if at[key] == nil {
			at[key] = &batch{task: it.Task, verdict: it.Verdict, why: why}
			list = append(list, at[key])
		}
		at[key].items = append(at[key].items, it)
	}
	slices.SortStableFunc(list, func(a, b *batch) int {
		return tasks[[2]string{a.task, a.verdict}] - tasks[[2]string{b.task, b.verdict}]
	})
	return list
}

// abreast is how many instances stand in one line, and told how many are named that have the same before them: of a rack every one,
// of a data centre as many as tell which they are. -o json has all.
const (
	abreast = 4
	told    = 100
)

// writeTasks shows what is not unchanged by task: instances by their names, those together that have the same verdict for
// the same reason.
func (a Config) writeTasks(p *v1.Plan) {
	ink := a.Ink
	rows := [][]string{{"", "TASK", "VERDICT", "INSTANCES", "EXPECTED", "WHY"}}
	for _, b := range batches(p) {
		var names []string
		expected := 0.0
		for _, it := range b.items {
			names = append(names, it.Instance)
			expected = max(expected, it.Expected)
		}
		if more := len(names) - told; more > 0 {
			names = append(names[:told], fmt.Sprintf("and %d more", more))
		}
		row := []string{ink.Mark(b.verdict), b.task, b.verdict, "", took(expected), b.why}
		for line := range slices.Chunk(names, abreast) {
			row[3] = strings.Join(line, ", ")
			rows = append(rows, row)
			row = make([]string, len(row))
		}
	}
	if len(rows) > 1 {
		layout.Table(a.Out, rows)
		a.printf("\n")
	}
}

// writeNodes shows what becomes of nodes: those that come or go, and those for which something is to happen.
func (a Config) writeNodes(p *v1.Plan) {
	ink := a.Ink
	counts := map[string]map[string]int{}
	for i := range p.Items {
		it := &p.Items[i]
		if it.Node == "" || settled(it.Verdict) {
			continue
		}
		if counts[it.Node] == nil {
			counts[it.Node] = map[string]int{}
		}
		counts[it.Node][it.Verdict]++
	}
	rows := [][]string{{"NODE", "ROLES", "", "INSTANCES"}}
	quiet := 0
	missing := map[string]bool{}
	for _, m := range p.Missing {
		for _, name := range m.Nodes {
			missing[name] = true
		}
	}
	for _, n := range p.Nodes {
		if n.Change == "stays" && len(counts[n.Node]) == 0 {
			quiet++
			continue
		}
		change := n.Change
		switch {
		case missing[n.Node]:
			change = ink.Red("missing")
		case n.Danger != "":
			change = ink.Red(change + ", " + n.Danger)
		case n.Change == "leaves":
			change = ink.Red(change)
		case n.Change == "joins":
			change = ink.Green(change)
		}
		rows = append(rows, []string{n.Node, layout.Dash(strings.Join(n.Roles, ",")), change, layout.Counts(counts[n.Node], layout.Verdicts)})
	}
	if len(rows) == 1 {
		return
	}
	layout.Table(a.Out, rows)
	if quiet > 0 {
		a.printf("%d more nodes stay as they are\n", quiet)
	}
	a.printf("\n")
}
