package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Completion asks the engine, briefly: without one there is nothing to complete.
const completionTime = 2 * time.Second

func (a *app) asking(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	a.connect()
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return context.WithTimeout(ctx, completionTime)
}

// completing gives a command the completion of its arguments.
func completing(c *cobra.Command, with cobra.CompletionFunc) *cobra.Command {
	c.ValidArgsFunction = with
	return c
}

func (a *app) completeClusters(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := a.asking(cmd)
	defer cancel()
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.clusterNames(ctx), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeClusterFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := a.asking(cmd)
	defer cancel()
	return a.clusterNames(ctx), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) clusterNames(ctx context.Context) []string {
	var names []string
	if list, err := a.api.Clusters(ctx); err == nil { // without an engine there is nothing to complete
		for _, c := range list {
			names = append(names, c.Name+"\t"+c.Outcome)
		}
	}
	return names
}

func (a *app) completeMachines(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := a.asking(cmd)
	defer cancel()
	var names []string
	if len(args) == 0 {
		list, err := a.api.Machines(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, m := range list {
			names = append(names, m.Name+"\t"+m.Boot)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeInstances(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := a.asking(cmd)
	defer cancel()
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	clusters := []string{a.cluster}
	prefix := ""
	if cluster, _, ok := strings.Cut(toComplete, "/"); ok {
		clusters, prefix = []string{cluster}, cluster+"/"
	} else if a.cluster == "" {
		list, err := a.api.Clusters(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if len(list) != 1 {
			var names []string
			for _, c := range list {
				names = append(names, c.Name+"/")
			}
			return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		clusters = []string{list[0].Name}
	}
	var names []string
	if p, err := a.api.Plan(ctx, clusters[0]); err == nil { // without an engine there is nothing to complete
		for _, it := range p.Items {
			names = append(names, prefix+it.Instance+"\t"+it.State)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeVerified completes a cluster, then its instances.
func (a *app) completeVerified(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeClusters(cmd, args, toComplete)
	}
	ctx, cancel := a.asking(cmd)
	defer cancel()
	var names []string
	if p, err := a.api.Plan(ctx, args[0]); err == nil { // without an engine there is nothing to complete
		for _, it := range p.Items {
			names = append(names, it.Instance+"\t"+it.State)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeRollouts completes the rollouts of the cluster that is meant.
func (a *app) completeRollouts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := a.asking(cmd)
	defer cancel()
	var names []string
	if name, err := a.pick(ctx, a.cluster); err == nil && len(args) == 0 { // without an engine there is nothing to complete
		if d, err := a.api.Cluster(ctx, name); err == nil {
			for _, r := range d.Rollouts {
				names = append(names, r.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
