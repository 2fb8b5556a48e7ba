package figure

import (
	"errors"
	"fmt"
	"time"
)

// Event is what the figures need of an event of a cluster's journal.
type Event struct {
	Kind    string // as joist events has it: goal, started, succeeded, failed, rested, …
	Time    time.Time
	Task    string
	Node    string
	Action  string // of started, succeeded and failed; empty is apply
	Outcome string // of rested
}

// Stretch is one instance on the critical path, as `joist path -o json` has it, in seconds.
type Stretch struct {
	Instance string    `json:"instance"`
	Begun    time.Time `json:"begun"`
	Waited   float64   `json:"waited_seconds"` // from when the one before it was in place; of the first, from the fact that began it
	Took     float64   `json:"took_seconds"`
	Failed   float64   `json:"failed_seconds"` // of Took, until the attempt began that went well
}

// Bringup is what is known of a cluster that came up from machines that were off.
type Bringup struct {
	Events []Event // of the cluster's journal, in order
	Path   []Stretch
	// Ready is the task whose success on a node means that the node is ready, such as kube.member; Nodes are the nodes that
	// must be.
	Ready string
	Nodes []string
	// Served is how many bytes the engine sent over HTTP, by machine.
	Served map[string]uint64
}

// Figures of a bring-up. Times are in seconds, from when the goal was set, which is when machines are powered on.
type Figures struct {
	Ready     float64 // until the last node was ready
	Converged float64 // until the cluster rested
	Boot      float64 // of the critical path: until its first step began
	Overhead  float64 // after that: in which no step of the critical path was running
	Failed    float64 // spent on the critical path on attempts that failed, back-off included
	Bytes     float64 // that the engine served, over all machines
	Steps     int     // on the critical path
}

// Compute computes the figures of the journal's first goal, up to when it first came to rest. A cluster that did not converge,
// or a node that was never ready, is an error.
func (b Bringup) Compute() (Figures, error) {
	var f Figures
	var begun time.Time
	ready := map[string]time.Time{}
	rested := false
	for _, e := range b.Events {
		switch {
		case e.Kind == "goal" && begun.IsZero():
			begun = e.Time
		case begun.IsZero() || rested:
		case e.Kind == "succeeded" && e.Task == b.Ready && (e.Action == "" || e.Action == "apply"):
			ready[e.Node] = e.Time // the last time counts: what was lost on the way had to be made again
		case e.Kind == "rested" && e.Outcome != "converged":
			return f, fmt.Errorf("the cluster did not converge: it %s", e.Outcome)
		case e.Kind == "rested":
			rested, f.Converged = true, e.Time.Sub(begun).Seconds()
		}
	}
	switch {
	case begun.IsZero():
		return f, errors.New("the journal has no goal")
	case !rested:
		return f, errors.New("the cluster has not come to rest")
	case len(b.Path) == 0:
		return f, errors.New("there is no critical path")
	}
	for _, name := range b.Nodes {
		at, ok := ready[name]
		if !ok {
			return f, fmt.Errorf("%s[%s] did not succeed before the cluster came to rest", b.Ready, name)
		}
		f.Ready = max(f.Ready, at.Sub(begun).Seconds())
	}
	f.Boot, f.Steps = b.Path[0].Begun.Sub(begun).Seconds(), len(b.Path)
	for i, s := range b.Path {
		if i > 0 {
			f.Overhead += max(s.Waited, 0)
		}
		f.Failed += s.Failed
	}
	for _, n := range b.Served {
		f.Bytes += float64(n)
	}
	return f, nil
}

// Lines names the figures of a cluster with so many control-plane members.
func (f Figures) Lines(control int) []Line {
	var list []Line
	for _, l := range []Line{
		{Name: "bringup_power_on_to_ready", Value: f.Ready, Unit: "s"},
		{Name: "bringup_power_on_to_converged", Value: f.Converged, Unit: "s"},
		{Name: "bringup_until_first_step", Value: f.Boot, Unit: "s"},
		{Name: "bringup_engine_overhead", Value: f.Overhead, Unit: "s"},
		{Name: "bringup_failed_attempts", Value: f.Failed, Unit: "s"},
		{Name: "bringup_served", Value: f.Bytes / (1 << 20), Unit: "MiB"},
		{Name: "bringup_critical_path", Value: float64(f.Steps), Unit: "steps"},
	} {
		l.Name += fmt.Sprintf("_control_%d", control)
		l.Value = Round(l.Value)
		list = append(list, l)
	}
	return list
}
