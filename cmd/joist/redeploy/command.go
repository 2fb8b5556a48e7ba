package redeploy

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"joist/cmd/joist/layout"
	"joist/cmd/joist/override"
	"joist/cmd/joist/progress"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// Program is what the commands need of the program they are part of.
type Program struct {
	API    func() *client.Client
	JSON   func(v any) (done bool, err error) // writes v if the output is for programs
	Printf func(format string, args ...any)
	Table  func(rows [][]string)
	// Sure wants a name typed before something that cannot be taken back.
	Sure func(warning, what, name string) error
	// Follow shows what happens to a cluster after an event of its journal, until it comes to rest.
	Follow func(ctx context.Context, what Following) (*progress.Tracker, error)
	Usage  func(format string, args ...any) error // an error about the command line
	Failed func(err error) error                  // ends the program as one whose cluster did not converge; nil: all was said
}

// Following is what is to be followed.
type Following struct {
	Cluster string
	Goal    v1.Goal
	After   uint64 // event of the cluster's journal
	Site    string // cursor of the site's journal
	Plain   bool
}

// Command is joist redeploy.
func Command(p Program) *cobra.Command {
	var o order
	yes, times := false, 1
	c := &cobra.Command{
		Use:   "redeploy CLUSTER",
		Short: "Wipe every machine of a cluster, disks included, and build it anew",
		Long: `redeploy proves that a cluster can be built: it wipes all its machines at once, their data disks included, lets the engine build
it from nothing, and wants the plan empty afterwards; as often as --times says. Names, addresses and authorities stay. It stops
at the first round that does not converge. What was stored on the machines is lost.

Policies that refuse the wipe hold it; with --override they do not, until the cluster has converged again.`,
		Example: "  joist redeploy demo --times 2 --yes\n  joist redeploy demo --yes --override wipe-hours --reason 'the rack goes back today'\n  joist redeploy demo --yes -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if times < 1 {
				return p.Usage("--times is %d: write a number from 1 up", times)
			}
			ctx := cmd.Context()
			var err error
			if o.overrides, err = o.said.List(p.Usage); err != nil {
				return err
			}
			d, err := p.API().Cluster(ctx, args[0])
			if err != nil {
				return err
			}
			if d.Outcome != "converged" {
				return fmt.Errorf("cluster %s is %s: redeploy starts from one that has converged; joist status %s says what is left", d.Name, d.Outcome, d.Name)
			}
			if len(d.Members) == 0 {
				return fmt.Errorf("cluster %s has no machines: there is nothing to wipe; joist force CLUSTER/TASK runs a single task again", d.Name)
			}
			if !yes {
				if err := p.Sure(fmt.Sprintf("This wipes the %s of cluster %s, %s.", layout.Counted(len(d.Members), "machine"), d.Name, layout.Counted(times, "time")), "cluster", d.Name); err != nil {
					return err
				}
			}
			return p.redeploy(ctx, o, &Report{Cluster: d.Name, Times: times})
		},
	}
	c.Flags().BoolVar(&o.plain, "plain", false, "one line for each thing that happens, also on a terminal")
	c.Flags().IntVar(&times, "times", times, "how often")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	o.said.Flags(c)
	return c
}

// order is how a cluster is wiped and built anew.
type order struct {
	plain     bool
	said      override.Words
	overrides []v1.Override
}

func (p Program) redeploy(ctx context.Context, o order, r *Report) error {
	programs, err := p.JSON(nil)
	if err != nil {
		return err
	}
	say := p.Printf
	if programs {
		say = func(string, ...any) {}
	}
	err = r.Run(func(n int) (*Round, error) {
		say("round %d of %d\n", n, r.Times)
		return p.round(ctx, o, r.Cluster)
	}, func(one *Round) {
		say("%s\n", one.Sentence())
		if !programs {
			p.Table(one.Rows())
		}
	})
	if err != nil {
		return err
	}
	if programs {
		if _, err := p.JSON(r); err != nil || r.Good {
			return err
		}
		return p.Failed(nil)
	}
	if complaint := r.Complaint(); complaint != nil {
		return p.Failed(complaint)
	}
	return nil
}

// round wipes the machines once and follows the cluster until it comes to rest.
func (p Program) round(ctx context.Context, o order, cluster string) (*Round, error) {
	api := p.API()
	site, err := api.Page(ctx, client.Filter{Journals: []string{"site"}, After: "now", Limit: 1})
	if err != nil {
		return nil, err
	}
	before, err := api.Cluster(ctx, cluster)
	if err != nil {
		return nil, err
	}
	if _, err := api.Act(ctx, cluster, v1.Action{Action: v1.WipeAll, Overrides: o.overrides}); err != nil {
		return nil, err
	}
	ordered, err := api.Find(ctx, "cluster/"+cluster, before.Events, "wipe.ordered")
	if err != nil {
		return nil, err
	}
	t, err := p.Follow(ctx, Following{Cluster: cluster, Goal: before.Goal, After: ordered - 1, Site: site.Next, Plain: o.plain})
	if err != nil {
		return nil, err
	}
	r := &Round{Outcome: t.Outcome, Detail: t.Detail, Seconds: t.End.Sub(t.Start).Seconds(), Done: t.Done, Failures: t.Failures, Phases: PhasesOf(t), Failed: []v1.Item{}}
	if after, err := api.Cluster(ctx, cluster); err == nil { // what failed decorates the answer
		r.Failed = after.Failed
	}
	plan, err := api.Plan(ctx, cluster)
	if err != nil {
		return nil, err
	}
	r.Plan, r.Changes = plan.Counts, plan.Changes
	return r, nil
}

// WipeCommand is joist node wipe.
func WipeCommand(p Program) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "wipe MACHINE", Short: "Erase the data disks of a machine that no cluster has",
		Long: `wipe boots a machine once more, erases every disk on it that carries our label or mark, and no other, reads that back, and
switches the machine off. What was on the disks is lost. Machines that a cluster gives back are wiped by themselves; this is for
disks that come from elsewhere.`,
		Example: "  joist node wipe n1 --yes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := p.API().Machine(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !yes {
				if err := p.Sure(fmt.Sprintf("This erases the data disks of machine %s.", m.Name), "machine", m.Name); err != nil {
					return err
				}
			}
			done, err := p.API().Wipe(cmd.Context(), m.Name)
			if err != nil {
				return err
			}
			if done, err := p.JSON(done); done {
				return err
			}
			p.Printf("machine %s is wiped: %s\n", done.Machine, done.Proof)
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
