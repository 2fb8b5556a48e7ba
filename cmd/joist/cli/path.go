package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"joist/cmd/joist/layout"
	v1 "joist/services/api/v1"
)

// stretch is one instance on the way to the one that came to be in place last.
type stretch struct {
	Instance string    `json:"instance"`
	Begun    time.Time `json:"begun"`
	Waited   float64   `json:"waited_seconds"` // from when the one before it was in place
	Took     float64   `json:"took_seconds"`
	Attempts int       `json:"attempts,omitempty"`       // if there was more than one
	Failed   float64   `json:"failed_seconds,omitempty"` // of Took, until the attempt began that went well
}

func (a *app) pathCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "path [CLUSTER]",
		Short: "Show where the time went: the chain of steps that ended last",
		Long: `path shows the chain of instances that ends with the one that came to be in place last: each with what it waited after the
one before it, and how long it took. Whatever else ran at the same time made no difference.`,
		Example:           "  joist path demo",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := a.cluster
			if len(args) > 0 {
				name = args[0]
			}
			name, err := a.pick(cmd.Context(), name)
			if err != nil {
				return err
			}
			w, err := a.api.Why(cmd.Context(), name, "")
			if err != nil {
				return err
			}
			from, way := stretches(w)
			if done, err := a.json(way); done {
				return err
			}
			if len(way) == 0 {
				a.printf("nothing of cluster %s is in place yet\n", name)
				return nil
			}
			rows := [][]string{{"AT", "WAITED", "TOOK", "STEP", ""}}
			end := time.Time{}
			for _, s := range way {
				rows = append(rows, []string{seconds(s.Begun.Sub(from).Seconds()), seconds(s.Waited), seconds(s.Took), s.Instance, s.failed()})
				end = s.Begun.Add(time.Duration(s.Took * float64(time.Second)))
			}
			layout.Table(a.Out, rows)
			a.printf("%s in all, the first %s until a step could run\n", seconds(end.Sub(from).Seconds()), seconds(way[0].Waited))
			return nil
		},
	}
}

// failed says how much of a stretch went into attempts that failed.
func (s stretch) failed() string {
	if s.Attempts < 2 {
		return ""
	}
	return fmt.Sprintf("(%s until attempt %d)", seconds(s.Failed), s.Attempts)
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }

// stretches turns a chain of causes, latest first, into the way from the fact where it ends, and that fact's time.
func stretches(w *v1.Why) (from time.Time, way []stretch) {
	for _, l := range w.Chain {
		if !l.Done.IsZero() {
			s := stretch{Instance: l.Instance, Begun: l.Begun}
			if l.Attempts > 1 {
				s.Begun, s.Attempts, s.Failed = l.Tried, l.Attempts, l.Begun.Sub(l.Tried).Seconds()
			}
			s.Took = l.Done.Sub(s.Begun).Seconds()
			way = append(way, s)
		}
	}
	slices.Reverse(way)
	if len(way) == 0 {
		return from, nil
	}
	if from = w.Chain[len(w.Chain)-1].At; from.IsZero() || from.After(way[0].Begun) {
		from = way[0].Begun
	}
	before := from
	for i := range way {
		way[i].Waited = way[i].Begun.Sub(before).Seconds()
		before = way[i].Begun.Add(time.Duration(way[i].Took * float64(time.Second)))
	}
	return from, way
}
