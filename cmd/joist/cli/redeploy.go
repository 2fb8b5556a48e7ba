package cli

import (
	"context"
	"joist/cmd/joist/layout"

	"github.com/spf13/cobra"

	"joist/cmd/joist/ci"
	"joist/cmd/joist/progress"
	"joist/cmd/joist/redeploy"
	"joist/cmd/joist/verify"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
	"joist/workflows/format"
)

// ciCommand is joist ci.
func (a *app) ciCommand() *cobra.Command {
	return ci.Command(group, ci.Program{
		Program: a.wiping(), Source: a.adapted, Now: a.Now, Exit: func(code int, err error) error { return &ExitError{code, err} },
	})
}

// adapted reads a cluster file that is given another name and other inputs, and its packs.
func (a *app) adapted(file string, as format.Cluster) (*v1.Source, error) {
	if a.Local.Adapted == nil {
		return nil, missing("change cluster files")
	}
	return a.Local.Adapted(file, as)
}

// verifying is this program as the command that verifies sees it.
func (a *app) verifying() verify.Program {
	w := a.wiping()
	return verify.Program{API: w.API, JSON: w.JSON, Printf: w.Printf, Drifted: func(err error) error { return &ExitError{HasChanges, err} }}
}

// wiping is this program as the commands that wipe see it.
func (a *app) wiping() redeploy.Program {
	return redeploy.Program{
		API: func() *client.Client { return a.api }, Printf: a.printf, Table: func(rows [][]string) { layout.Table(a.Out, rows) }, Sure: a.sure, Usage: usage,
		JSON: func(v any) (bool, error) {
			if v == nil {
				return a.output == "json", nil
			}
			return a.json(v)
		},
		Failed: func(err error) error { return &ExitError{Stopped, err} },
		Follow: func(ctx context.Context, w redeploy.Following) (*progress.Tracker, error) {
			return a.track(ctx, view{plain: w.Plain}, pursuit{cluster: w.Cluster, seq: w.Goal.Seq, roles: w.Goal.Roles, site: w.Site, past: w.After + 1}, w.After)
		},
	}
}
