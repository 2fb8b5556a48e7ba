package clusters

import (
	"context"
	"net/netip"
	"net/url"
	"slices"

	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// foreseen refuses a declaration of which it can be told beforehand that nobody would reach what it is to serve: a service would
// refuse a call, or a URL leads nowhere. What depends on machines is not
// known here, and is left to the steps.
func (c *Compiled) foreseen(ctx context.Context, ask []step.Foresee) error {
	tasks, calls := c.calls()
	for _, foresee := range ask {
		r, err := foresee(ctx, calls)
		if err != nil {
			return err
		}
		if r != nil {
			return c.refuse("", inputOf(tasks[r.Call], r.Input), r.Advice, "%s", r.Why)
		}
	}
	return c.led()
}

// declared is what expressions can see before machines are chosen: the workflow's inputs, or those of a step.
type declared struct {
	kind  model.RefKind
	known map[string]value.Value
}

// Lookup implements model.Scope.
func (d declared) Lookup(r model.Ref) value.Value {
	if r.Kind != d.kind {
		return value.Value{}
	}
	return d.known[r.Name]
}

// given evaluates the inputs of a task, and reports whether all are known: those that depend on machines or on other tasks are
// not. It gives nil if there may be no instance.
func (c *Compiled) given(t *model.Task) (in map[string]value.Value, all bool) {
	scope := declared{model.RefInput, c.Model.Inputs}
	if t.When != nil {
		if v, err := t.When.Expr.Eval(scope); err != nil || !v.Known() || !v.True() {
			return nil, false
		}
	}
	in, all = map[string]value.Value{}, true
	for _, a := range t.With {
		v, err := a.Expr.Eval(scope)
		at := slices.IndexFunc(t.Step.Inputs, func(f model.Field) bool { return f.Name == a.Name })
		if err == nil && at >= 0 && v.Known() {
			v, err = t.Step.Inputs[at].Type.Check(v)
		}
		if err != nil || !v.Known() {
			v, all = value.Value{}, false // what is wrong with it is said where it is evaluated in earnest
		}
		in[a.Name] = v
	}
	return t.Step.Complete(in), all
}

// calls gives the calls of services that are known, each with its task: of tasks that have a single instance.
func (c *Compiled) calls() (tasks []*model.Task, calls []step.Call) {
	for i := range c.Model.Tasks {
		t := &c.Model.Tasks[i]
		if t.Step.Apply.Call == "" || len(t.Each) > 0 {
			continue
		}
		in, all := c.given(t)
		if !all {
			continue
		}
		data, err := value.Dict(in).MarshalJSON()
		if err != nil {
			continue
		}
		tasks = append(tasks, t)
		calls = append(calls, step.Call{Name: t.Step.Apply.Call, Action: step.Apply, Cluster: c.Model.Cluster, Owner: c.Model.Cluster + "/" + t.Name, Inputs: data})
	}
	return tasks, calls
}

// inputOf gives the input of the workflow that a task's input is made of: of several the last, since what is chosen of a name or
// a URL stands at its end.
func inputOf(t *model.Task, name string) (input string) {
	for _, a := range t.With {
		for _, r := range a.Refs {
			if a.Name == name && r.Kind == model.RefInput {
				input = r.Name
			}
		}
	}
	return input
}

// led refuses URLs that are known beforehand, since a task only passes them on, be it for each node, and lead nowhere: to an
// address that is none of a machine, or to one that is known inside of the cluster alone, before there is one.
func (c *Compiled) led() error {
	inner := c.inner()
	for i := range c.Model.Tasks {
		t := &c.Model.Tasks[i]
		in, _ := c.given(t)
		if in == nil {
			continue
		}
		for _, f := range t.Step.Outputs {
			out, ok := t.Step.Apply.Outputs[f.Name]
			if !ok || f.Type.Kind != value.URL {
				continue
			}
			v, err := out.Expr.Eval(declared{model.RefStep, in})
			if err != nil || !v.Known() || v.Null() {
				continue
			}
			link, err := url.Parse(v.Cty().AsString())
			if err != nil {
				continue
			}
			address, err := netip.ParseAddr(link.Hostname())
			if err != nil {
				continue // a name, which may lead anywhere
			}
			if address = address.Unmap(); address.IsUnspecified() || address.IsMulticast() {
				return c.refuse("", "", "Choose the address of a machine or of a balancer.", "%s of task %s is %s, which leads to no machine", f.Name, t.CalledNow(), link)
			}
			for input, p := range inner {
				if p.Contains(address) {
					return c.refuse("", input, "Choose an address that machines reach without the cluster, or another network.",
						"%s of task %s is %s, in the cluster's own network %s (%s): nobody could reach it before there is a cluster", f.Name, t.CalledNow(), link, input, p)
				}
			}
		}
	}
	return nil
}
