package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"joist/cmd/joist/layout"
	"time"

	"github.com/spf13/cobra"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var since, after string
	var journals []string
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: the events of the journals",
		Long: `events prints the facts from which everything else is derived, oldest first. With -o json each line is one event; its
"cursor" is what --after takes to go on after it.`,
		Example: "  joist events --cluster demo\n  joist events --follow --since 10m\n  joist events -o json --after cluster/demo:17",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter := client.Filter{Journals: journals, After: after}
			if a.cluster != "" {
				filter.Journals = append(filter.Journals, "cluster/"+a.cluster)
			}
			var from time.Time
			if since != "" {
				var err error
				if from, err = a.sinceTime(since); err != nil {
					return err
				}
			}
			return a.tail(cmd.Context(), filter, from, follow)
		},
	}
	a.clusterFlag(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens, through restarts of the engine")
	c.Flags().StringVar(&since, "since", "", "leave out what is older: a duration such as 10m, or a time such as 2026-11-20T18:00:00Z")
	c.Flags().StringVar(&after, "after", "", "begin after this cursor; now for the end")
	c.Flags().StringSliceVar(&journals, "journal", nil, "journals: site, cluster/NAME, all (default all)")
	return c
}

func (a *app) sinceTime(text string) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return a.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usage("cannot read --since %q: write a duration such as 10m, or a time such as 2026-11-20T18:00:00Z", text)
	}
	return t, nil
}

func (a *app) tail(ctx context.Context, filter client.Filter, from time.Time, follow bool) error {
	enc := json.NewEncoder(a.Out)
	write := func(e v1.Event) error {
		if e.Time.Before(from) {
			return nil
		}
		if a.output == "json" {
			return enc.Encode(e)
		}
		_, err := fmt.Fprintf(a.Out, "%s  %s:%d  %s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Journal, e.Seq, e.Kind, layout.FirstLine(string(e.Data), 240))
		return err
	}
	if follow {
		return a.api.Follow(ctx, client.Following{
			Filter: filter,
			Lost: func(err error) {
				fmt.Fprintf(a.Err, "lost the engine (%v); trying for %s\n", err, client.DefaultPatience)
			},
			Found: func() { fmt.Fprintln(a.Err, "the engine answers again") },
		}, write)
	}
	for {
		page, err := a.api.Page(ctx, filter)
		if err != nil {
			return err
		}
		for _, e := range page.Events {
			if err := write(e); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		filter.After = page.Next
	}
}
