// Package verify is the command that has what is in place looked at.
package verify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

// Program is what the command needs of the program it is part of.
type Program struct {
	API     func() *client.Client
	JSON    func(v any) (done bool, err error) // writes v if the output is for programs; of nil it says only whether that is so
	Printf  func(format string, args ...any)
	Drifted func(err error) error // ends the program as one that found drift; nil: all was said
}

// Report is what came of a verification, in the form of -o json.
type Report struct {
	Cluster string         `json:"cluster"`
	Asked   int            `json:"asked"`
	Counts  map[string]int `json:"counts"` // by state: in place, drifted, no answer, left out
	Looks   []v1.Look      `json:"looks"`  // in the order in which they ended
}

// Good reports whether everything that was looked at was found in place, and answered.
func (r *Report) Good() bool { return r.Counts[drifted]+r.Counts[silent] == 0 }

// States of looks, as the engine has them.
const (
	inPlace = "in place"
	drifted = "drifted"
	silent  = "no answer"
	leftOut = "left out"
)

// Command is joist verify.
func Command(p Program) *cobra.Command {
	return &cobra.Command{
		Use:   "verify CLUSTER [ADDRESS…]",
		Short: "Look whether what is in place still is",
		Long: `verify has the verify of instances run now, on their nodes or by services, within the budget for that, and shows what each finds. An address is
task[node], or a task for all its instances; without any, everything that has a verify is looked at. What is found gone twice is
drift: it is in the journal, and is converged by itself or waits for a person, as the cluster file's drift says.

The exit code is 0 if everything was found in place, 3 if something has drifted, and 1 if there was no answer.`,
		Example: "  joist verify demo\n  joist verify demo 'member[n1]' backend\n  joist verify demo -o json",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return p.run(cmd.Context(), args[0], args[1:]) },
	}
}

// pause is how long to wait before asking again how far it is.
const pause = 300 * time.Millisecond

func (p Program) run(ctx context.Context, cluster string, instances []string) error {
	programs, err := p.JSON(nil)
	if err != nil {
		return err
	}
	v, err := p.API().Verify(ctx, cluster, v1.Verify{Instances: instances})
	if err != nil {
		return err
	}
	r := &Report{Cluster: cluster, Asked: v.Asked, Counts: map[string]int{}, Looks: []v1.Look{}}
	for {
		for _, l := range v.Ended {
			r.Looks = append(r.Looks, l)
			r.Counts[l.State]++
			if !programs {
				p.Printf("[%*d/%d] %s\n", len(fmt.Sprint(v.Asked)), len(r.Looks), v.Asked, sentence(l))
			}
		}
		if len(r.Looks) >= v.Asked {
			break
		}
		if len(v.Ended) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
		if v, err = p.API().Verified(ctx, cluster, v.ID, len(r.Looks)); err != nil {
			return err
		}
	}
	return p.end(r, programs)
}

func (p Program) end(r *Report, programs bool) error {
	var complaint error
	switch {
	case programs || r.Good():
	case r.Counts[drifted] > 0:
		complaint = fmt.Errorf("%d of %d instances of cluster %s have drifted; joist status %s says what comes of it", r.Counts[drifted], r.Asked, r.Cluster, r.Cluster)
	default:
		complaint = fmt.Errorf("%d of %d instances of cluster %s gave no answer", r.Counts[silent], r.Asked, r.Cluster)
	}
	if programs {
		if _, err := p.JSON(r); err != nil {
			return err
		}
	} else {
		p.Printf("%d in place, %d drifted, %d without an answer, %d left out\n", r.Counts[inPlace], r.Counts[drifted], r.Counts[silent], r.Counts[leftOut])
	}
	switch {
	case r.Good():
		return nil
	case r.Counts[drifted] > 0:
		return p.Drifted(complaint)
	case complaint == nil:
		complaint = fmt.Errorf("%d instances gave no answer", r.Counts[silent])
	}
	return complaint
}

func sentence(l v1.Look) string {
	text := l.Instance + "  " + l.State
	if l.Observed != "" {
		text += ": " + diag.Visible(l.Observed)
	}
	return text
}

// Sentence says how a cluster's instances are verified by themselves, for people.
func Sentence(d *v1.Drift) string {
	every := "never by itself"
	if d.Every > 0 {
		every = "every " + strings.TrimSuffix(strings.TrimSuffix(time.Duration(d.Every*float64(time.Second)).String(), "0s"), "0m")
	}
	text := fmt.Sprintf("verified %s, since the engine's start: %d in place, %d drifted", every, d.InPlace, d.Found)
	if d.Silent > 0 {
		text += fmt.Sprintf(", %d without an answer", d.Silent)
	}
	if d.Converge == "person" {
		text += "; drift waits for a person"
	}
	return text
}
