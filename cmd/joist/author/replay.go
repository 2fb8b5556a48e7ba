package author

import (
	"fmt"
	"strconv"
	"strings"

	v1 "joist/services/api/v1"
)

// WriteReplay writes what came of a replay for people.
func (a *Tools) WriteReplay(r *v1.Replay) {
	if r.At != nil {
		a.writeMoment(r.At)
		a.printf("\n")
	}
	rows := [][]string{{"RUN", "BEGAN", "BY", "EVENTS", "DECISIONS", "DIVERGED", "OUTCOME"}}
	for _, run := range r.Runs {
		outcome := run.Outcome
		if outcome == "" {
			outcome = "superseded or under way"
		}
		rows = append(rows, []string{
			fmt.Sprintf("%s:%d", r.Cluster, run.Goal.Seq), run.Goal.At.Local().Format("2006-01-02 15:04:05"), run.Goal.By,
			fmt.Sprintf("%d–%d", run.Goal.Seq, run.Last), strconv.Itoa(run.Decisions), strconv.Itoa(run.Diverged), outcome,
		})
	}
	a.Table(a.Out, rows)
	a.printf("\n")
	for _, d := range r.Divergences {
		a.printf("%s\n  expected %s\n  got      %s\n", a.Red(fmt.Sprintf("event %d of %s diverges", d.Seq, d.Time.Local().Format("15:04:05.000"))), decisionText(d.Expected), decisionText(d.Got))
	}
	if r.Older > 0 {
		a.printf("older journal: %d times verifies at the end of a watch were asked for, which engines kept in no event then\n", r.Older)
	}
	switch {
	case r.Diverged == 0:
		a.printf("%s all %d decisions in %d events are the same", a.Green("cluster "+r.Cluster+":"), r.Decisions, r.Events)
		if r.Restarts > 0 {
			a.printf("; the engine took the journal up %d times", r.Restarts)
		}
		a.printf("\n")
	default:
		a.printf("%s decisions that differ: %d; that are the same: %d; that could not be compared: %d\n", a.Red("cluster "+r.Cluster+":"), r.Diverged, r.Decisions, r.Skipped)
	}
}

func decisionText(d *v1.Decision) string {
	if d == nil {
		return "nothing"
	}
	return d.Kind + " " + string(d.Data)
}

// writeMoment shows a cluster as it was.
func (a *Tools) writeMoment(m *v1.Moment) {
	a.printf("cluster %s after event %d, %s: %s", m.Name, m.Event.Seq, m.Event.Time.Local().Format("2006-01-02 15:04:05.000"), m.Outcome)
	if m.Detail != "" {
		a.printf(" (%s)", m.Detail)
	}
	a.printf("\ngoal of event %d by %s: %s\n\n", m.Goal.Seq, m.Goal.By, m.Workflow)
	rows := [][]string{{"NODE", "ROLES", "", "INCARNATION", "TRUST"}}
	for _, n := range m.Members {
		online := "offline"
		if n.Online {
			online = "online"
		}
		rows = append(rows, []string{n.Name, strings.Join(n.Roles, ","), online, n.Incarnation, n.Level})
	}
	a.Table(a.Out, rows)
	a.printf("\n")
	rows = [][]string{{"INSTANCE", "VERDICT", "STATE", "WHY"}}
	for _, it := range m.Items {
		why := it.Because
		if it.Error != "" {
			why = strings.SplitN(it.Error, "\n", 2)[0]
		} else if it.Waits != "" {
			why = it.Waits
		}
		rows = append(rows, []string{it.Instance, it.Verdict, it.State, why})
	}
	a.Table(a.Out, rows)
}
