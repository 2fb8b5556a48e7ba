// Package forget has joist forget: the end of what is left of destroyed clusters.
package forget

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"joist/cmd/joist/layout"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// Program is what the command needs of the program that it is part of; all of it is required.
type Program struct {
	API    func() *client.Client
	JSON   func(v any) (done bool, err error) // writes v if the output is for programs
	Printf func(format string, args ...any)
	Usage  func(format string, args ...any) error // an error about the command line
}

// Forgotten is what the command yields as JSON.
type Forgotten struct {
	Forgotten []string `json:"forgotten"`
}

// Command is joist forget.
func Command(p Program) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "forget CLUSTER...",
		Short: "Drop the journals of clusters that are destroyed",
		Long: `forget drops the journal of a cluster that is destroyed, and with it everything that joist status, events, why and replay say of it.
A cluster that lives, or is being destroyed, is refused. That it was forgotten, by whom, and how long its journal was, stands in the
site's journal. To keep a journal, write it to a file first: joist events --cluster CLUSTER -o json.`,
		Example: "  joist forget ci-17\n  joist forget --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return p.Usage("--all is for every cluster that is destroyed: name none")
			case !all && len(args) == 0:
				return p.Usage("name the clusters to forget, or all that are destroyed with --all")
			}
			return p.forget(cmd.Context(), args, all)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every cluster that is destroyed")
	return c
}

func (p Program) forget(ctx context.Context, names []string, all bool) error {
	if all {
		list, err := p.API().Clusters(ctx)
		if err != nil {
			return err
		}
		_, gone := Part(list)
		for _, c := range gone {
			names = append(names, c.Name)
		}
	}
	done := Forgotten{Forgotten: []string{}}
	var failed error
	for _, name := range names {
		if _, failed = p.API().Act(ctx, name, v1.Action{Action: v1.Forget}); failed != nil {
			break
		}
		done.Forgotten = append(done.Forgotten, name)
	}
	programs, err := p.JSON(done)
	switch {
	case failed != nil:
		return failed
	case programs || err != nil:
		return err
	case len(names) == 0:
		p.Printf("there is no cluster that is destroyed\n")
		return nil
	}
	p.Printf("forgotten: %s\n", layout.Some(done.Forgotten, 20))
	return nil
}

// Part tells the clusters that live from those that are destroyed.
func Part(list []v1.Cluster) (living, gone []v1.Cluster) {
	living = []v1.Cluster{}
	for _, c := range list {
		if c.Outcome == "destroyed" {
			gone = append(gone, c)
		} else {
			living = append(living, c)
		}
	}
	return living, gone
}

// Hidden says how many destroyed clusters a list leaves out; empty for none.
func Hidden(gone []v1.Cluster) string {
	if len(gone) == 0 {
		return ""
	}
	return fmt.Sprintf("%s destroyed: joist status --all shows them, joist forget drops them", layout.Counted(len(gone), "cluster"))
}
