package clusters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/value"
)

// refuse makes an error about a role or an input of the cluster file.
func (c *Compiled) refuse(role, input, advice, format string, args ...any) error {
	summary := fmt.Sprintf(format, args...)
	if c.Refuse == nil {
		return errors.New(summary + ": " + advice)
	}
	return c.Refuse(role, input, advice, summary)
}

// about gives an error about a role its place in the cluster file.
func (c *Compiled) about(role string, err error) error {
	if c.Refuse == nil {
		return err
	}
	return c.Refuse(role, "", "", err.Error())
}

// refuse checks what can be told of a declaration before machines are chosen, and not from the declaration alone: whether its
// networks leave those of the machines alone, whether what it serves could be reached, and whether the cluster can go to its versions from those it has. A nil
// loop is of a cluster that has no journal yet.
func (c *Clusters) refuse(ctx context.Context, loop *drive.Cluster, compiled *Compiled) error {
	if err := compiled.apart(c.cfg.Networks); err != nil {
		return err
	}
	if err := compiled.foreseen(ctx, c.cfg.Foresee); err != nil {
		return err
	}
	if loop == nil {
		return nil
	}
	var used map[string]map[string]string
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) { used = inUse(s, p) }); err != nil {
		return err
	}
	return compiled.reachable(used)
}

// apart refuses networks inside of the cluster that overlap with one that its machines are on, or that none of them could
// speak to: the endpoint lies on the machines' network, and whoever sends to it from inside the cluster would not get there.
func (c *Compiled) apart(networks []netip.Prefix) error {
	inner := c.inner()
	for _, input := range slices.Sorted(maps.Keys(inner)) {
		p, same := inner[input], len(networks) == 0
		for _, n := range networks {
			if p.Overlaps(n) {
				return c.refuse("", input, fmt.Sprintf("Choose one that has no address of %s.", n),
					"%s (%s) overlaps with %s, the network of the machines and of the cluster's endpoint: neither could be reached from inside the cluster", input, p, n)
			}
			same = same || p.Addr().Is4() == n.Addr().Is4()
		}
		if !same {
			return c.refuse("", input, fmt.Sprintf("Choose one of the same family as %s.", networks[0]),
				"%s (%s) is of another address family than %s, the network of the machines and of the cluster's endpoint: it could not be reached from inside the cluster", input, p, networks[0])
		}
	}
	return nil
}

// setsAside is how the names of calls begin which set something aside that is known inside of the cluster alone.
const setsAside = "reserve."

// inner gives the networks which the cluster sets aside for itself, each by the input of the workflow that it is, or by the task that
// has it from elsewhere: from the default of a workflow that this one calls, say.
func (c *Compiled) inner() map[string]netip.Prefix {
	found := map[string]netip.Prefix{}
	note := func(name string, v value.Value) {
		var text string
		if data, err := v.MarshalJSON(); err != nil || json.Unmarshal(data, &text) != nil {
			return
		}
		if p, err := netip.ParsePrefix(text); err == nil {
			found[name] = p.Masked()
		}
	}
	for i := range c.Model.Tasks {
		t := &c.Model.Tasks[i]
		if !strings.HasPrefix(t.Step.Apply.Call, setsAside) {
			continue
		}
		for _, a := range t.With {
			for _, r := range a.Refs {
				if r.Kind == model.RefInput {
					note(r.Name, c.Model.Inputs[r.Name])
				}
			}
			if inputOf(t, a.Name) != "" || a.Expr == nil {
				continue
			}
			if v, err := a.Expr.Eval(declared{model.RefInput, c.Model.Inputs}); err == nil && v.Known() {
				note(a.Name+" of task "+t.CalledNow(), v)
			}
		}
	}
	return found
}

// inUse gives the versions of artifacts that something of the cluster was started with and may still use: for each artifact,
// an instance by version.
func inUse(s *history.State, p *plan.Planner) map[string]map[string]string {
	used := map[string]map[string]string{}
	for task, column := range s.Columns {
		for at, row := range column.Rows {
			if row == nil || row.Phase == history.Absent {
				continue
			}
			m := p.ModelOf(row.Goal)
			if m == nil {
				continue
			}
			t := m.Task(task)
			if t == nil {
				continue
			}
			target := history.Target{Task: task}
			if at > 0 {
				target.Node = s.Nodes[at-1].Name
			}
			for i := range t.Step.Artifacts {
				a := &t.Step.Artifacts[i]
				if used[a.PinName()] == nil {
					used[a.PinName()] = map[string]string{}
				}
				if known := used[a.PinName()][a.Version]; known == "" || target.String() < known {
					used[a.PinName()][a.Version] = target.String()
				}
			}
		}
	}
	return used
}

// reachable refuses versions that the cluster cannot go to from those in use: too far at once, back, or with others
// that could not work with those beside them meanwhile.
func (c *Compiled) reachable(used map[string]map[string]string) error {
	artifacts := map[string]*model.Artifact{}
	for i := range c.Model.Artifacts {
		artifacts[c.Model.Artifacts[i].PinName()] = &c.Model.Artifacts[i]
	}
	for _, name := range slices.Sorted(maps.Keys(artifacts)) {
		a := artifacts[name]
		for _, version := range slices.Sorted(maps.Keys(used[name])) {
			if err := a.StepError(version); err != nil {
				return c.refuse("", "", fmt.Sprintf("Go up through the versions of pack %s in between, one by one, each until the cluster has converged.", a.Pack),
					"%s; %s uses %s", err, used[name][version], version)
			}
			leader := artifacts[a.Pack+"."+a.Lag.Follows]
			if leader == nil {
				continue
			}
			was := *a
			was.Version = version
			if err := was.FollowError(leader); err != nil && version != a.Version {
				return c.refuse("", "", fmt.Sprintf("Go up through the versions of pack %s in between, one by one, each until the cluster has converged.", a.Pack),
					"%s; %s uses it until its turn has come", err, used[name][version])
			}
		}
	}
	return nil
}

// roomy refuses a machine of which it is known that it has less memory than the roles it plays need together. What is known is what
// the machine says, or its provider before it ever ran: that is what its firmware has, of which its kernel keeps a part.
func (c *Compiled) roomy(roles map[string][]string, machines []Candidate) error {
	for _, m := range machines {
		var needs int64
		var plays []string
		for _, role := range c.Model.Roles {
			if _, ok := slices.BinarySearch(roles[role.Name], m.Name); ok {
				needs += role.Memory
				plays = append(plays, role.Name)
			}
		}
		if has, known := memoryOf(m.Facts); known && has < needs {
			return c.refuse(plays[len(plays)-1], "", "Give it more memory, or choose another machine.",
				"machine %s has %s of memory, and needs %s as %s", m.Name, gib(has), gib(needs), strings.Join(plays, " and "))
		}
	}
	return nil
}

// Cramped tells if a machine turns out to have too little memory for its roles in a cluster: it may have been chosen before it said
// what it has. Nil if it has enough, or nobody knows.
func (c *Clusters) Cramped(ctx context.Context, cluster, machine string) error {
	seen, ok := c.cfg.Site.Seen(machine)
	loop, err := c.Get(cluster)
	if err != nil || !ok {
		return nil // nothing is known
	}
	var cramped error
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		if g := s.Goal(); g != nil && !g.Destroy && p != nil && p.Model() != nil {
			cramped = (&Compiled{Model: p.Model()}).roomy(g.Roles, []Candidate{{Name: machine, Facts: seen.Facts}})
		}
	}); err != nil {
		return nil // the loop has ended, and says why itself
	}
	return cramped
}

// memoryOf reads a machine's memory in bytes from its facts, which it reports when it enrols.
func memoryOf(facts json.RawMessage) (bytes int64, known bool) {
	var f struct {
		Memory *float64 `json:"memory"`
	}
	if json.Unmarshal(facts, &f) != nil || f.Memory == nil {
		return 0, false
	}
	return int64(*f.Memory), true
}

func gib(bytes int64) string { return fmt.Sprintf("%.2f GiB", float64(bytes)/(1<<30)) }
