package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

// source reads a cluster file and the packs that it names as folders.
func (a *app) source(file string) (*v1.Source, error) {
	if a.Local.Source != nil {
		return a.Local.Source(file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the cluster file: %w", err)
	}
	return &v1.Source{FileName: filepath.Base(file), File: data}, nil
}

func (a *app) clusterFlag(c *cobra.Command) {
	c.Flags().StringVarP(&a.cluster, "cluster", "c", "", "the cluster (default: the only one)")
	must(c.RegisterFlagCompletionFunc("cluster", a.completeClusterFlag))
}

func (a *app) planCommand() *cobra.Command {
	var all, detailed bool
	c := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what would run, and why, without changing anything",
		Long: `plan shows every instance that is not as it should be, the dangerous first, each with its cause; what is unchanged is
counted. With FILE it plans that cluster file; without, the goal that the cluster pursues now.`,
		Example: "  joist plan demo.hcl\n  joist plan --cluster demo --detailed-exitcode",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.plan(cmd.Context(), args)
			if err != nil {
				return err
			}
			if done, err := a.json(p); !done {
				a.writePlan(p, all)
			} else if err != nil {
				return err
			}
			if detailed && p.Changes {
				return &ExitError{Code: HasChanges}
			}
			return nil
		},
	}
	a.clusterFlag(c)
	c.Flags().BoolVar(&all, "all", false, "list unchanged instances too")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 3 if there is something to do")
	return c
}

func (a *app) plan(ctx context.Context, args []string) (*v1.Plan, error) {
	if len(args) == 0 {
		name, err := a.pick(ctx, a.cluster)
		if err != nil {
			return nil, err
		}
		return a.api.Plan(ctx, name)
	}
	s, err := a.source(args[0])
	if err != nil {
		return nil, err
	}
	return a.api.Preview(ctx, *s)
}

// marks of verdicts.
func mark(verdict string) string {
	switch verdict {
	case "remove":
		return "-"
	case "replace":
		return "-/+"
	case "blocked":
		return "!"
	case "run":
		return "+"
	case "run if changed":
		return "~"
	}
	return " "
}

func (a *app) writePlan(p *v1.Plan, all bool) {
	ink := a.colour(a.Out)
	if p.Warnings != "" {
		fmt.Fprintln(a.Err, ink.yellow(strings.TrimSpace(p.Warnings)))
	}
	rows := [][]string{}
	for i := range p.Items {
		it := &p.Items[i]
		settled := it.Verdict == "unchanged" || it.Verdict == "kept" || it.Verdict == "absent"
		if settled && !all {
			continue
		}
		m := mark(it.Verdict)
		switch it.Verdict {
		case "remove", "replace", "blocked":
			m = ink.red(m)
		case "run":
			m = ink.green(m)
		case "run if changed":
			m = ink.yellow(m)
		}
		why := diag.Visible(it.Because)
		if it.Error != "" {
			why = firstLine(it.Error, 100)
		}
		rows = append(rows, []string{m, it.Verdict, it.Instance, it.Step, why})
	}
	if len(rows) > 0 {
		table(a.Out, append([][]string{{"", "VERDICT", "INSTANCE", "STEP", "WHY"}}, rows...))
		a.printf("\n")
	}
	switch {
	case len(p.Items) == 0:
		a.printf("cluster %s has no instances\n", p.Cluster)
	case !p.Changes:
		a.printf("%s nothing to do: %s\n", ink.green("cluster "+p.Cluster+":"), countsText(p.Counts, verdictOrder))
	default:
		a.printf("cluster %s: %s\n", p.Cluster, countsText(p.Counts, verdictOrder))
	}
}

func (a *app) whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why INSTANCE",
		Short: "Explain an instance, cause by cause, down to a fact",
		Long: `why prints what is decided about an instance now, why it last ran, and what brought that about: link by link, down to a
fact that nobody decided, such as a goal that a person set or a node that came up.

INSTANCE is cluster/task[node], or task[node] together with --cluster. Quote it: shells take brackets for patterns.`,
		Example:           "  joist why 'demo/member[n1]'\n  joist why --cluster demo front",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeInstances,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, instance, err := a.instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			w, err := a.api.Why(cmd.Context(), cluster, instance)
			if err != nil {
				return err
			}
			if done, err := a.json(w); done {
				return err
			}
			rows := [][]string{}
			for _, l := range w.Chain {
				event, at := "", ""
				if l.Seq > 0 {
					event = fmt.Sprintf("event %d", l.Seq)
				}
				if !l.At.IsZero() {
					at = a.when(l.At)
				}
				text := diag.Visible(l.Says)
				if l.Instance != "" {
					text = l.Instance + " " + text
				}
				rows = append(rows, []string{text, event, at})
			}
			for i := range rows {
				if i > 0 {
					rows[i][0] = strings.Repeat("  ", min(i-1, 20)) + "└ " + rows[i][0]
				}
			}
			table(a.Out, rows)
			return nil
		},
	}
	a.clusterFlag(c)
	return c
}

// instance reads cluster/task[node], or task[node] of the cluster that is meant.
func (a *app) instance(ctx context.Context, text string) (cluster, instance string, err error) {
	if cluster, instance, ok := strings.Cut(text, "/"); ok {
		if a.cluster != "" && a.cluster != cluster {
			return "", "", usage("the instance is of cluster %s, and --cluster says %s", cluster, a.cluster)
		}
		return cluster, instance, nil
	}
	cluster, err = a.pick(ctx, a.cluster)
	return cluster, text, err
}

func (a *app) showCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "show INSTANCE",
		Short:             "Show one instance: state, attempts, outputs, the log of its last attempt",
		Example:           "  joist show 'demo/member[n1]'",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeInstances,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, instance, err := a.instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			i, err := a.api.Instance(cmd.Context(), cluster, instance)
			if err != nil {
				return err
			}
			if done, err := a.json(i); done {
				return err
			}
			a.writeInstance(cluster, i)
			return nil
		},
	}
	a.clusterFlag(c)
	return c
}

func (a *app) writeInstance(cluster string, i *v1.Instance) {
	rows := [][]string{{"instance", cluster + "/" + i.Instance}, {"step", dash(i.Step)}, {"state", i.State}, {"verdict", i.Verdict}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	add("because", diag.Visible(i.Because))
	add("waits", i.Waits)
	if i.Attempt > 0 {
		add("attempt", fmt.Sprint(i.Attempt))
	}
	add("executes on", i.Agent)
	if i.Started > 0 {
		add("started", fmt.Sprintf("%s, event %d", a.when(i.Begun), i.Started))
	}
	if !i.Done.IsZero() {
		add("done", a.when(i.Done))
	}
	if !i.Due.IsZero() {
		add("expires", a.when(i.Due))
	}
	add("incarnation", i.Incarnation)
	add("inputs", i.InputDigest)
	table(a.Out, rows)
	if i.Error != "" {
		a.printf("\nerror:\n  %s\n", strings.ReplaceAll(diag.Visible(i.Error), "\n", "\n  "))
	}
	if len(i.Outputs) > 0 {
		a.printf("\noutputs:\n  %s\n", indented(i.Outputs, "  "))
	}
	if len(i.Log) > 0 {
		a.printf("\nlog of the last attempt:\n")
		for _, l := range i.Log {
			a.printf("  | %s\n", diag.Visible(l))
		}
	}
}

func (a *app) outputsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "outputs [CLUSTER]", Short: "Show what the cluster's workflow yields",
		Example: "  joist outputs demo\n  joist outputs demo -o json", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.pick(cmd.Context(), first(args))
			if err != nil {
				return err
			}
			out, err := a.api.Outputs(cmd.Context(), name)
			if err != nil {
				return err
			}
			if done, err := a.json(out.Values); done {
				return err
			}
			if len(out.Values) == 0 {
				a.printf("the workflow of cluster %s yields nothing\n", name)
			}
			a.writeOutputs(out)
			return nil
		},
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// action makes a command that passes a person's word about a cluster on.
func (a *app) action(c *cobra.Command, act func(args []string) (v1.Action, error), follow bool) *cobra.Command {
	var reason string
	var look view
	c.Flags().StringVar(&reason, "reason", "", "why, for the journal")
	if follow {
		look.flags(c)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		word, err := act(args)
		if err != nil {
			return err
		}
		word.Reason = reason
		name := a.cluster
		if word.Instance != "" {
			name, word.Instance, err = a.instance(ctx, word.Instance)
		} else if name == "" && word.Rollout == "" {
			name = first(args)
		}
		if err == nil {
			name, err = a.pick(ctx, name)
		}
		if err != nil {
			return err
		}
		mark, err := a.siteMark(ctx)
		if err != nil {
			return err
		}
		done, err := a.api.Act(ctx, name, word)
		if err != nil {
			return err
		}
		if !follow || look.noWait {
			if done, err := a.json(done); done {
				return err
			}
			a.printf("cluster %s: %s\n", name, word.Action)
			return nil
		}
		return a.follow(ctx, look, pursuit{cluster: name, seq: done.Seq, roles: done.Roles, site: mark})
	}
	return c
}

func (a *app) retryCommand() *cobra.Command {
	return a.action(&cobra.Command{
		Use: "retry [CLUSTER]", Short: "Try again what failed: the same goal, its failures forgotten",
		Example: "  joist retry demo", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
	}, func([]string) (v1.Action, error) { return v1.Action{Action: v1.Retry}, nil }, true)
}

func (a *app) cancelCommand() *cobra.Command {
	return a.action(&cobra.Command{
		Use: "cancel [CLUSTER]", Short: "Start nothing further until the next apply or retry",
		Example: "  joist cancel demo --reason 'wrong rack'", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
	}, func([]string) (v1.Action, error) { return v1.Action{Action: v1.Cancel}, nil }, false)
}

func (a *app) forceCommand() *cobra.Command {
	c := a.action(&cobra.Command{
		Use: "force INSTANCE", Short: "Make an instance run again, whatever its memo says",
		Example: "  joist force 'demo/member[n1]' --reason 'edited by hand'", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeInstances,
	}, func(args []string) (v1.Action, error) { return v1.Action{Action: v1.Force, Instance: args[0]}, nil }, false)
	a.clusterFlag(c)
	return c
}

func (a *app) closeBreakerCommand() *cobra.Command {
	c := a.action(&cobra.Command{
		Use: "close-breaker ROLLOUT", Short: "Let a rollout go on that stopped after failures",
		Example: "  joist close-breaker members --cluster demo --reason 'switch replaced'", Args: cobra.ExactArgs(1),
	}, func(args []string) (v1.Action, error) {
		return v1.Action{Action: v1.CloseBreaker, Rollout: args[0]}, nil
	}, true)
	a.clusterFlag(c)
	return c
}

var errNotConfirmed = errors.New("nothing was changed")
