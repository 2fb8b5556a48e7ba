// Package redeploy judges how often a cluster could be built anew: rounds of wiping all its machines and converging, each
// of which has to end with nothing left to do.
package redeploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/cmd/joist/progress"
	v1 "joist/services/api/v1"
)

// Report is what redeploy yields as JSON.
type Report struct {
	Cluster string  `json:"cluster"`
	Times   int     `json:"times"` // rounds asked for
	Good    bool    `json:"good"`  // every round converged, with nothing left to do
	Rounds  []Round `json:"rounds"`
}

// Round is one wipe and what it took to be as before. Times are in seconds since the order to wipe.
type Round struct {
	Round    int            `json:"round"` // from 1
	Outcome  string         `json:"outcome"`
	Detail   string         `json:"detail,omitempty"`
	Seconds  float64        `json:"seconds"`  // until the cluster came to rest
	Done     int            `json:"done"`     // actions that went well
	Failures int            `json:"failures"` // attempts that failed
	Phases   []Phase        `json:"phases"`
	Plan     map[string]int `json:"plan"`    // instances by verdict afterwards
	Changes  bool           `json:"changes"` // whether the plan has anything left to do; it should not
	Failed   []v1.Item      `json:"failed"`
}

// Phase is a part of the way, from the first node's mark to the last one's.
type Phase struct {
	Name  string  `json:"name"`
	Nodes int     `json:"nodes"`
	First float64 `json:"first_seconds"`
	Last  float64 `json:"last_seconds"`
}

// PhasesOf gives the phases that a tracker saw.
func PhasesOf(t *progress.Tracker) []Phase {
	phases := []Phase{}
	for _, ph := range t.Phases() {
		phases = append(phases, Phase{ph.Name, ph.Nodes, ph.First.Seconds(), ph.Last.Seconds()})
	}
	return phases
}

// Run does rounds until there were as many as the report asks for, or one was no success. It is told of each.
func (r *Report) Run(round func(n int) (*Round, error), told func(*Round)) error {
	r.Rounds = []Round{}
	for n := range r.Times {
		one, err := round(n + 1)
		if err != nil {
			return err
		}
		one.Round = n + 1
		r.Rounds, r.Good = append(r.Rounds, *one), one.Outcome == "converged" && !one.Changes
		told(one)
		if !r.Good {
			return nil
		}
	}
	return nil
}

// Complaint says why the last round was no success; nil if it was one.
func (r *Report) Complaint() error {
	if r.Good || len(r.Rounds) == 0 {
		return nil
	}
	last := &r.Rounds[len(r.Rounds)-1]
	if last.Outcome == "converged" {
		return fmt.Errorf("round %d of %d left something to do, although the cluster converged (%s): joist plan --cluster %s says what", last.Round, r.Times, last.plan(), r.Cluster)
	}
	text := ""
	if last.Detail != "" {
		text = " (" + last.Detail + ")"
	}
	if i := slices.IndexFunc(last.Failed, func(it v1.Item) bool { return it.State == "failed" }); i >= 0 {
		reason, _, _ := strings.Cut(last.Failed[i].Error, "\n")
		text += fmt.Sprintf("; %s failed: %.200s", last.Failed[i].Instance, reason)
	}
	return fmt.Errorf("round %d of %d did not converge: cluster %s is %s%s; joist status %[3]s says what is left, joist retry %[3]s tries it again", last.Round, r.Times, r.Cluster, last.Outcome, text)
}

func (r *Round) plan() string {
	var parts []string
	for _, verdict := range slices.Sorted(maps.Keys(r.Plan)) {
		if r.Plan[verdict] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", r.Plan[verdict], verdict))
		}
	}
	return strings.Join(parts, ", ")
}

// Sentence sums a round up.
func (r *Round) Sentence() string {
	left := "the plan is empty"
	if r.Changes {
		left = "the plan is not empty"
	}
	return fmt.Sprintf("round %d %s after %s: %d done, %d failed attempts; %s (%s)", r.Round, r.Outcome, duration(r.Seconds), r.Done, r.Failures, left, r.plan())
}

// Rows is a table of where the time went.
func (r *Round) Rows() [][]string {
	rows := [][]string{{"", "NODES", "FIRST", "LAST", "(after the order to wipe)"}}
	for _, ph := range r.Phases {
		rows = append(rows, []string{"  " + ph.Name, fmt.Sprint(ph.Nodes), duration(ph.First), duration(ph.Last)})
	}
	return rows
}

func duration(seconds float64) string {
	return progress.Duration(time.Duration(seconds * float64(time.Second)))
}
