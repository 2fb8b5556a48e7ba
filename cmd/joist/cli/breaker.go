package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"joist/cmd/joist/layout"
	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

func (a *app) breakerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "breaker", Short: "See the budgets of rollouts, and close breakers that failures opened",
		Example: "  joist breaker list demo\n  joist breaker close members --cluster demo --reason 'switch replaced'",
	}
	list := &cobra.Command{
		Use: "list [CLUSTER]", Short: "Show each rollout: places, what is proven, failures, and whether its breaker is open",
		Example: "  joist breaker list demo", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.pick(cmd.Context(), first(args))
			if err != nil {
				return err
			}
			d, err := a.api.Cluster(cmd.Context(), name)
			if err != nil {
				return err
			}
			if done, err := a.json(d.Rollouts); done {
				return err
			}
			if len(d.Rollouts) == 0 {
				a.printf("the workflow of cluster %s has no rollouts\n", name)
				return nil
			}
			a.writeRollouts(d)
			return nil
		},
	}
	shut := a.action(&cobra.Command{
		Use: "close ROLLOUT", Short: "Let a rollout go on that failures stopped, and try again what failed",
		Example: "  joist breaker close members --cluster demo --reason 'switch replaced'", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRollouts,
	}, func(args []string) (v1.Action, error) {
		return v1.Action{Action: v1.CloseBreaker, Rollout: args[0]}, nil
	}, true)
	a.clusterFlag(shut)
	c.AddCommand(list, shut)
	return c
}

func (a *app) writeRollouts(d *v1.ClusterDetail) {
	ink := a.colour(a.Out)
	rows := [][]string{{"ROLLOUT", "BREAKER", "FAILURES", "PLACES", "TAKEN BY", "PROVEN", "BROKE"}}
	for _, r := range d.Rollouts {
		breaker := ink.Green("closed")
		if r.Stopped {
			breaker = ink.Red("open")
		}
		rows = append(rows, []string{r.Name, breaker, fmt.Sprintf("%d of %d", r.Failures, r.StopAfter), fmt.Sprintf("%d of %d", len(r.Places), r.Limit),
			layout.Dash(layout.Some(r.Places, 6)), fmt.Sprintf("%d of %d nodes", r.Proven, r.Nodes), layout.Dash(r.Broke)})
	}
	layout.Table(a.Out, rows)
}

// writeBlocked says what is at the bottom of everything that is blocked or waits.
func (a *app) writeBlocked(d *v1.ClusterDetail) {
	if len(d.Skipped) > 0 {
		a.printf("\nskipped:\n")
		for i, it := range d.Skipped {
			if i == 10 {
				a.printf("  … and %d more\n", len(d.Skipped)-i)
				break
			}
			a.printf("  %s: %s\n", it.Instance, diag.Visible(it.Because))
		}
	}
	if len(d.Blocked) == 0 {
		return
	}
	a.printf("\n")
	layout.Blocked(a.Out, a.colour(a.Out).Red, d.Blocked)
}

var errNotConfirmed = errors.New("nothing was changed")
