package lang

import (
	"slices"

	"joist/engine/model"
	"joist/workflows/lang/decl"
)

// onDemand checks a task that runs when somebody asks for it, and all that such a call of a workflow has.
func (c *flowCheck) onDemand(t *decl.Task) {
	if !t.OnDemand {
		return
	}
	at := t.Attrs["on_demand"]
	for _, word := range []string{"during", "except_during"} {
		if other, both := t.Attrs[word]; both {
			c.bag.Errorf(other, "Leave one of them out.", "task %q cannot have both on_demand and %s", t.Name, word)
		}
	}
	if flow := c.targets[t.Name].Flow; flow != nil {
		if inner := c.makesWay(flow, map[*decl.Workflow]bool{}); inner != "" {
			c.bag.Errorf(at, "Leave on_demand out, or except_during there.", "task %q cannot run on demand: task %q of what it calls makes way for others, and would not come back by itself", t.Name, inner)
		}
	}
}

// makesWay names a task of a workflow, or of what it calls, that makes way for others.
func (c *flowCheck) makesWay(w *decl.Workflow, seen map[*decl.Workflow]bool) string {
	if seen[w] {
		return ""
	}
	seen[w] = true
	for _, t := range w.Tasks {
		if len(t.Except) > 0 {
			return t.Name
		}
		if to := c.l.callee(w, t); to.Flow != nil {
			if inner := c.makesWay(to.Flow, seen); inner != "" {
				return t.Name + "." + inner
			}
		}
	}
	return ""
}

// asked gives what people ask for to have a task run: itself, or the outermost call on demand that it is part of. It is empty for
// what runs by itself.
func (f *frame) asked(t *decl.Task) string {
	if f.demand == "" && t.OnDemand {
		return f.prefix + t.Name
	}
	return f.demand
}

// demands refuses what could not be taken back: a remove that needs, where it executes, what is there only when somebody asks.
func (c *compiler) demands() {
	for i := range c.model.Tasks {
		t := &c.model.Tasks[i]
		if t.Step.Remove == nil {
			continue
		}
		for _, a := range t.With {
			at := slices.IndexFunc(a.Refs, func(r model.Ref) bool {
				up := c.model.Task(r.Name)
				return r.Kind == model.RefHost && up != nil && up.Asked != ""
			})
			if at >= 0 {
				c.bag.Errorf(c.places[t.Name].at, "Give the step no remove, and say why with irreversible; or leave on_demand out.",
					"the remove of task %q needs host.%s, which is there only when somebody asks for it", t.CalledNow(), a.Refs[at].Name)
			}
		}
	}
}
