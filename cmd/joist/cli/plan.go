package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"joist/cmd/joist/again"
	"joist/cmd/joist/layout"
	"joist/engine/addr"
	"joist/services/api/client"
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
			if w.Notice != "" {
				fmt.Fprintln(a.Err, w.Notice)
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
			layout.Table(a.Out, rows)
			return nil
		},
	}
	a.clusterFlag(c)
	return c
}

// instance reads cluster/task[node], or task[node] of the cluster that is meant.
func (a *app) instance(ctx context.Context, text string) (cluster, instance string, err error) {
	cluster, instance, ok := strings.Cut(text, "/")
	path := text
	if ok {
		path = instance
	}
	if _, _, good := addr.ParsePath(path); !good || ok && !v1.IsName(cluster) {
		return "", "", usage("%w", &client.NameError{What: "instance", Name: text})
	}
	if ok {
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
	rows := [][]string{{"instance", cluster + "/" + i.Instance}, {"step", layout.Dash(i.Step)}, {"state", i.State}, {"verdict", i.Verdict}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	add("because", diag.Visible(i.Because))
	if i.Asked != "" {
		add("on demand", "joist force "+cluster+"/"+i.Asked)
	}
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
	layout.Table(a.Out, rows)
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
		if word.Reason = reason; word.Action == v1.Skip && strings.TrimSpace(reason) == "" {
			return usage("say why with --reason: what is skipped is not done")
		}
		if word.Action == v1.Approval && strings.TrimSpace(reason) == "" {
			return usage("say why with --reason: the journal keeps who approved what, and why")
		}
		if word.Action == v1.Aside && strings.TrimSpace(reason) == "" {
			return usage("say why with --reason: what is to be done on a node that is set aside is not done")
		}
		name := a.cluster
		if word.Action == v1.Force || word.Action == v1.Skip || word.Action == v1.Approval {
			name, word.Instance, err = a.instance(ctx, word.Instance)
		} else if name == "" && word.Node != "" {
			name, err = a.clusterOf(ctx, word.Node)
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
			a.printf("cluster %s: %s\n", name, said(word))
			return nil
		}
		return a.follow(ctx, look, pursuit{cluster: name, seq: done.Seq, roles: done.Roles, site: mark})
	}
	return c
}

// said tells what a person's word does.
func said(word v1.Action) string {
	switch word.Action {
	case v1.Cancel:
		return "cancelled: nothing further starts until the next apply or retry"
	case v1.Approval:
		return word.Instance + " is approved"
	case v1.Skip:
		return word.Instance + " is skipped"
	case v1.Force:
		return word.Instance + " runs again"
	case v1.Aside:
		return "node " + word.Node + " is set aside"
	case v1.Return:
		return "node " + word.Node + " is returned"
	}
	return word.Action + " is accepted"
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
	wait := false
	c := a.action(&cobra.Command{
		Use: "force INSTANCE", Short: "Make an instance run again, whatever its memo says",
		Long: `force has an instance run again, whatever its memo says. What a workflow has to be run on demand runs when it is forced, at any time
and only then: the name of its task, or of the workflow that the task calls, stands for all its instances. With --wait it returns once
they have run, with exit code 1 if one fails.`,
		Example: "  joist force 'demo/member[n1]' --reason 'edited by hand'\n  joist force demo/smoke --wait", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeInstances,
	}, func(args []string) (v1.Action, error) { return v1.Action{Action: v1.Force, Instance: args[0]}, nil }, false)
	a.clusterFlag(c)
	c.Flags().BoolVar(&wait, "wait", false, "return once it has run")
	accept := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !wait {
			return accept(cmd, args)
		}
		reason, err := cmd.Flags().GetString("reason")
		if err != nil {
			return err
		}
		return a.runAgain(cmd.Context(), args[0], reason)
	}
	return c
}

// runAgain forces what a name stands for, and shows how it went.
func (a *app) runAgain(ctx context.Context, name, reason string) error {
	cluster, instance, err := a.instance(ctx, name)
	if err != nil {
		return err
	}
	list := []v1.Instance{}
	err = again.Run(ctx, a.api, cluster, v1.Action{Action: v1.Force, Instance: instance, Reason: reason}, func(i *v1.Instance) {
		if list = append(list, *i); a.output != "json" {
			a.printf("cluster %s: %s is done after %.1f s\n", cluster, i.Item.Instance, i.Seconds)
		}
	})
	var failed *again.FailedError
	if errors.As(err, &failed) {
		if list = append(list, *failed.Instance); a.output != "json" {
			for _, line := range failed.Instance.Log {
				a.printf("  %s\n", diag.Visible(line))
			}
		}
		err = fmt.Errorf("%w; joist why '%s/%s' says more", err, cluster, failed.Instance.Item.Instance)
	}
	if ctx.Err() != nil {
		return &ExitError{Interrupted, fmt.Errorf("interrupted: what was asked for is done all the same; joist watch %s follows", cluster)}
	}
	if err == nil || failed != nil {
		if _, wrong := a.json(list); wrong != nil {
			return wrong
		}
	}
	return err
}

func (a *app) skipCommand() *cobra.Command {
	c := a.action(&cobra.Command{
		Use: "skip INSTANCE", Short: "Pursue the goal without an instance that cannot come to be in place",
		Long: `skip leaves an instance out: what is ordered after it goes on, what reads its outputs stays blocked, and in all.TASK it is
not there. It holds until packs, inputs or cluster file change, or the instance is forced. A removal that failed for good is
taken for done. Who skipped it, and why, is in the journal.`,
		Example: "  joist skip 'demo/label[n7]' --reason 'disk is being replaced'", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeInstances,
	}, func(args []string) (v1.Action, error) { return v1.Action{Action: v1.Skip, Instance: args[0]}, nil }, false)
	a.clusterFlag(c)
	return c
}
