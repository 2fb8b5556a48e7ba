package lab

import (
	"encoding/json"
	"strings"
	"time"
)

// Member is a node as status shows it.
type Member struct {
	Name, Address, Incarnation, Level string
	Online                            bool
}

// Cluster is what status says of a cluster.
type Cluster struct {
	Outcome string
	Members []Member
	Digests map[string]string
	States  map[string]int
}

// Status asks for a cluster's state.
func (l *Lab) Status(name string) Cluster {
	l.Helper()
	var c Cluster
	l.JSON(&c, "status", name)
	return c
}

// Unchanged wants a plan in which nothing is to be done, and tells how long that took.
func (l *Lab) Unchanged(cluster string) {
	l.Helper()
	begun := time.Now()
	var p struct {
		Changes bool
		Counts  map[string]int
	}
	l.JSON(&p, "plan", "--cluster", cluster)
	took := time.Since(begun)
	l.Logf("plan: %v in %s", p.Counts, took)
	if p.Changes {
		l.Errorf("a plan after converging has changes:\n%s", l.Must("plan", "--cluster", cluster))
	}
	if took > 5*time.Second {
		l.Errorf("the plan took %s", took)
	}
}

// Outcome is what apply, watch and destroy yield.
type Outcome struct {
	Outcome  string
	Detail   string
	Seconds  float64
	Done     int
	Failures int
	Phases   []struct {
		Name  string
		Nodes int
		First float64 `json:"first_seconds"`
		Last  float64 `json:"last_seconds"`
	}
	Failed  []struct{ Instance, State, Error string }
	Outputs map[string]json.RawMessage
}

// Pursue runs apply, watch or destroy and wants an outcome.
func (l *Lab) Pursue(want string, args ...string) Outcome {
	l.Helper()
	begun := time.Now()
	var o Outcome
	l.Decode(&o, Patience, args...)
	l.Logf("joist %s: %s after %.1f s, load %s", strings.Join(args, " "), o.Outcome, time.Since(begun).Seconds(), Load())
	for _, p := range o.Phases {
		l.Logf("  %-24s %d nodes, %.1f to %.1f s", p.Name, p.Nodes, p.First, p.Last)
	}
	if o.Outcome != want {
		l.Fatalf("%s: %s, want %s: %+v", o.Outcome, o.Detail, want, o.Failed)
	}
	return o
}

// Free wants n machines that are off and nobody's, and, if a cluster is named, services without anything of it.
func (l *Lab) Free(cluster string, n int) {
	l.Helper()
	var list []struct{ Name, Cluster, Power string }
	l.JSON(&list, "node", "list")
	free := 0
	for _, m := range list {
		var one struct{ Power string }
		l.JSON(&one, "node", "show", m.Name)
		if m.Cluster == "" && one.Power == "off" {
			free++
		}
	}
	if free != n {
		l.Errorf("%d machines are off and free, want %d: %+v", free, n, list)
	}
	if cluster == "" {
		return
	}
	if d := l.Status(cluster).Digests; len(d) > 0 {
		l.Errorf("services have entries of a cluster that is destroyed: %v", d)
	}
}
