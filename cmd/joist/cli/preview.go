package cli

import (
	"context"
	"fmt"
	"joist/cmd/joist/planview"

	"github.com/spf13/cobra"

	"joist/cmd/joist/override"
	v1 "joist/services/api/v1"
)

// preview is what joist plan was told.
type preview struct {
	all, detailed, destroy bool
	out                    string
	said                   override.Words
}

func (a *app) planCommand() *cobra.Command {
	var o preview
	c := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what would run, and why, without changing anything",
		Long: `plan shows what is not as it should be, the dangerous first, by task and by node, each with its cause, and how long it
took before; what is unchanged is counted. With FILE it plans that cluster file; without, the goal that the cluster pursues
now. A plan changes nothing.

Policies that would refuse it are named; with --override it is the plan as it would be if a person overrode them.

Where there are not the machines that FILE asks for, it says what is missing, and plans with names in their places.

With --out the plan is kept in a file, which joist apply runs exactly or refuses. docs/plan-format.md describes -o json.`,
		Example: "  joist plan demo.hcl\n  joist plan demo.hcl --out demo.plan\n  joist plan --cluster demo --destroy\n  joist plan --cluster demo --detailed-exitcode",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.preview(cmd.Context(), o, args) },
	}
	a.clusterFlag(c)
	c.Flags().BoolVar(&o.all, "all", false, "list every instance, unchanged ones too")
	c.Flags().BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 3 if there is something to do")
	c.Flags().BoolVar(&o.destroy, "destroy", false, "plan the cluster's destruction")
	o.said.Flags(c)
	c.Flags().StringVar(&o.out, "out", "", "keep the plan of FILE in this file, for joist apply")
	return c
}

func (a *app) preview(ctx context.Context, o preview, args []string) error {
	switch {
	case o.out != "" && len(args) == 0:
		return usage("--out keeps the plan of a cluster file: name FILE")
	case o.destroy && len(args) > 0:
		return usage("--destroy plans the destruction of a cluster, not FILE: use --cluster")
	}
	p, source, err := a.plan(ctx, o, args)
	if err != nil {
		return err
	}
	if o.out != "" && len(p.Missing) > 0 {
		return fmt.Errorf("cannot keep this plan, since it cannot be applied: %s", p.Missing[0].Says)
	}
	if o.out != "" {
		if err := planview.Keep(o.out, v1.PlanFile{Format: v1.PlanFileFormat, Plan: *p, Source: *source}); err != nil {
			return err
		}
	}
	if done, err := a.json(p); !done {
		planview.Write(planview.Config{Out: a.Out, Err: a.Err, Ink: a.colour(a.Out), All: o.all}, p)
		if o.out != "" {
			a.printf("kept: joist apply %s runs exactly this, or refuses\n", o.out)
		}
	} else if err != nil {
		return err
	}
	if o.detailed && p.Changes {
		return &ExitError{Code: HasChanges}
	}
	return nil
}

func (a *app) plan(ctx context.Context, o preview, args []string) (*v1.Plan, *v1.Source, error) {
	over, err := o.said.List(usage)
	switch {
	case err != nil:
		return nil, nil, err
	case len(over) > 0 && len(args) == 0 && !o.destroy:
		return nil, nil, usage("what the cluster pursues has its overrides already: name FILE, or --destroy")
	}
	if len(args) == 0 {
		name, err := a.pick(ctx, a.cluster)
		if err != nil {
			return nil, nil, err
		}
		if o.destroy {
			p, err := a.api.PlanDestroy(ctx, name, over...)
			return p, nil, err
		}
		p, err := a.api.Plan(ctx, name)
		return p, nil, err
	}
	s, err := a.source(args[0])
	if err != nil {
		return nil, nil, err
	}
	p, err := a.api.Preview(ctx, v1.Apply{Source: *s, Overrides: over})
	return p, s, err
}

// declaration reads what is to be applied: a cluster file with its packs, or a plan with what it was made from.
func (a *app) declaration(file string) (*v1.Apply, error) {
	p, err := planview.Load(file)
	if err != nil {
		return nil, err
	}
	if p != nil {
		return &v1.Apply{Source: p.Source, Plan: &p.Plan}, nil
	}
	s, err := a.source(file)
	if err != nil {
		return nil, err
	}
	return &v1.Apply{Source: *s}, nil
}
