package cli

import (
	"context"
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
			if cmd.Flags().Changed("at") && q.At == 0 {
				return usage("there is no event 0: events are counted from 1")
			}
			r, err := a.replay(cmd.Context(), data, name, q)
			if err != nil {
				return err
			}
			if done, err := a.json(r); err != nil {
				return err
			} else if !done {
				a.author().WriteReplay(r)
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
