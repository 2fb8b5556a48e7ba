package cli

import (
	"context"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

// clusterOf gives the cluster that a machine belongs to; empty if it belongs to none.
func (a *app) clusterOf(ctx context.Context, node string) (string, error) {
	m, err := a.api.Machine(ctx, node)
	if err != nil {
		return "", err
	}
	return m.Cluster, nil
}

func (a *app) nodeAsideCommand() *cobra.Command {
	c := a.action(&cobra.Command{
		Use: "aside NODE", Short: "Pursue the goal without a node",
		Long: `aside sets a node aside: nothing further is applied there, what gathers the outputs of all nodes goes on without those that it
never had, and its place in a rollout is given back. What is in place there stays. It holds until the node is returned, or
leaves. The engine does the same with nodes that fail for good, where their roles say tolerate. Who set it aside, and why, is
in the journal.`,
		Example: "  joist node aside n7 --reason 'mainboard is being replaced'", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMachines,
	}, func(args []string) (v1.Action, error) { return v1.Action{Action: v1.Aside, Node: args[0]}, nil }, false)
	a.clusterFlag(c)
	return c
}

func (a *app) nodeReturnCommand() *cobra.Command {
	c := a.action(&cobra.Command{
		Use: "return NODE", Short: "Pursue the goal with a node again that was set aside, its failures forgotten",
		Example: "  joist node return n7 --reason 'repaired'", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMachines,
	}, func(args []string) (v1.Action, error) { return v1.Action{Action: v1.Return, Node: args[0]}, nil }, false)
	a.clusterFlag(c)
	return c
}

func (a *app) approveCommand() *cobra.Command {
	var digest string
	c := a.action(&cobra.Command{
		Use: "approve INSTANCE", Short: "Give the approval that a step asks for",
		Long: `approve lets what waits for a person's approval go on. What is approved is named by the digest of its inputs, which joist status
shows: with --digest anything else is refused, and what changes afterwards asks anew. Who approved it, and why, is in the
journal. (A machine's key is approved with joist node approve.)`,
		Example: "  joist approve demo/go_ahead --digest 3f9a12c04b7e --reason 'change 4711'", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeInstances,
	}, func(args []string) (v1.Action, error) {
		return v1.Action{Action: v1.Approval, Instance: args[0], Digest: digest}, nil
	}, false)
	c.Flags().StringVar(&digest, "digest", "", "what is approved, as joist status shows it, or the beginning of it")
	a.clusterFlag(c)
	return c
}
