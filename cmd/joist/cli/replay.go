package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

func (a *app) replayCommand() *cobra.Command {
	var data string
	var q v1.ReplayQuery
	c := &cobra.Command{
		Use:   "replay [RUN]",
		Short: "Decide again what was decided, and compare with the journal",
		Long: `replay runs the engine's core again over a journal: what people, nodes and services told it is told once more, and each
decision is compared with the one in the journal. Packs come from the archive, as the goals named them. RUN is a cluster,
for all its runs, or CLUSTER:EVENT for the run that the goal in that event began. With --at it shows the cluster as it was
after an event. With --data it reads a data folder, without an engine and without writing to it.

It exits with 1 if a decision differs: another version of joist may decide otherwise, the same version never does.`,
		Example: "  joist replay demo\n  joist replay demo:17\n  joist replay demo --at 120\n  joist replay demo --data /var/lib/joist -o json",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				var run string
				name, run, _ = strings.Cut(args[0], ":")
				if n, err := strconv.ParseUint(run, 10, 63); err == nil && n > 0 {
					q.Run = n
				} else if run != "" || strings.HasSuffix(args[0], ":") {
					return usage("cannot read %q: a run is CLUSTER:EVENT, such as demo:17; joist replay CLUSTER lists them", args[0])
				}
			}
			r, err := a.replay(cmd.Context(), data, name, q)
			if err != nil {
				return err
			}
			if done, err := a.json(r); err != nil {
				return err
			} else if !done {
				a.writeReplay(r)
			}
			if r.Diverged > 0 {
				return &ExitError{Code: Failed}
			}
			return nil
		},
	}
	c.Flags().Uint64Var(&q.At, "at", 0, "show the cluster as it was after this event, and compare up to it")
	c.Flags().StringVar(&data, "data", "", "read this data folder instead of asking an engine")
	must(c.MarkFlagDirname("data"))
	return c
}

func (a *app) replay(ctx context.Context, data, name string, q v1.ReplayQuery) (*v1.Replay, error) {
	if data != "" {
		if a.Local.Replay == nil {
			return nil, missing("replay a data folder")
		}
		return a.Local.Replay(ctx, data, name, q)
	}
	name, err := a.pick(ctx, name)
	if err != nil {
		return nil, err
	}
	return a.api.Replay(ctx, name, q)
}

func (a *app) writeReplay(r *v1.Replay) {
	ink := a.colour(a.Out)
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
	table(a.Out, rows)
	a.printf("\n")
	for _, d := range r.Divergences {
		a.printf("%s\n  expected %s\n  got      %s\n", ink.red(fmt.Sprintf("event %d of %s diverges", d.Seq, d.Time.Local().Format("15:04:05.000"))), decisionText(d.Expected), decisionText(d.Got))
	}
	switch {
	case r.Diverged == 0:
		a.printf("%s all %d decisions in %d events are the same", ink.green("cluster "+r.Cluster+":"), r.Decisions, r.Events)
		if r.Restarts > 0 {
			a.printf("; the engine took the journal up %d times", r.Restarts)
		}
		a.printf("\n")
	default:
		a.printf("%s decisions that differ: %d; that are the same: %d; that could not be compared: %d\n", ink.red("cluster "+r.Cluster+":"), r.Diverged, r.Decisions, r.Skipped)
	}
}

func decisionText(d *v1.Decision) string {
	if d == nil {
		return "nothing"
	}
	return d.Kind + " " + string(d.Data)
}

// writeMoment shows a cluster as it was.
func (a *app) writeMoment(m *v1.Moment) {
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
	table(a.Out, rows)
	a.printf("\n")
	rows = [][]string{{"INSTANCE", "VERDICT", "STATE", "WHY"}}
	for _, it := range m.Items {
		why := it.Because
		if it.Error != "" {
			why = firstLine(it.Error, 100)
		} else if it.Waits != "" {
			why = it.Waits
		}
		rows = append(rows, []string{it.Instance, it.Verdict, it.State, why})
	}
	table(a.Out, rows)
}
