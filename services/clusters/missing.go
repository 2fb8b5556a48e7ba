package clusters

import (
	"fmt"
	"slices"

	"joist/engine/model"
)

// Missing is what a plan finds no machines for. In the plan, names stand for them: those that the cluster file gives, or
// missing-1 and the like, which are nobody's.
type Missing struct {
	Role  string
	Nodes []string // that stand for them
	Err   error    // why there are none, as whoever applies it is told
}

// lack collects what is missing; the nil one is of somebody who needs them all.
type lack struct {
	missing []Missing
	drawn   int
}

// note takes down what is missing of a role, and gives the error back where nothing may be.
func (l *lack) note(role *model.Role, lost []string, err error) error {
	if l == nil {
		return err
	}
	l.missing = append(l.missing, Missing{Role: role.CalledNow(), Nodes: lost, Err: err})
	return nil
}

// stand gives names for machines that there are none of.
func (l *lack) stand(n int, machines []Candidate) []string {
	var names []string
	for l != nil && len(names) < n {
		l.drawn++
		name := fmt.Sprintf("missing-%d", l.drawn)
		if !slices.ContainsFunc(machines, func(m Candidate) bool { return m.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// lacks gives the error of a plan that there are not the machines for; nil for none.
func (p *Plan) lacks() error {
	if len(p.Missing) == 0 {
		return nil
	}
	return p.Missing[0].Err
}

// isMissing reports whether a name stands for a machine that there is none of.
func isMissing(missing []Missing, name string) bool {
	return slices.ContainsFunc(missing, func(m Missing) bool { return slices.Contains(m.Nodes, name) })
}
