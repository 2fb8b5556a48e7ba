package lang

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"joist/engine/model"
	"joist/workflows/lang/decl"
)

// place is where a task stands.
type place struct {
	pack *decl.Pack
	at   hcl.Range
}

// scouts checks what runs in the discovery image. A machine is kept there until that is in place, so it may wait for nothing
// that needs a node image, and look at nothing that is known only with one.
func (c *compiler) scouts() Diagnostics {
	late := map[string]string{}
	for i := range c.model.Tasks {
		if t := &c.model.Tasks[i]; t.Step.Scout {
			c.scout(t, late)
		}
	}
	var out Diagnostics
	for _, name := range decl.SortedKeys(c.link.bags) {
		out = append(out, c.link.bags[name].Done(c.link.packs[name].Prefix())...)
	}
	return out
}

func (c *compiler) scout(t *model.Task, late map[string]string) {
	at := c.places[t.Name]
	bad := func(advice, summary string) {
		c.link.bags[at.pack.Name].Errorf(at.at, advice, "task %q runs in scout (%s), and %s", t.Called, t.Step.Name, summary)
	}
	for _, e := range t.Edges() {
		if up := c.late(e.Task, late); up != "" {
			through := ""
			if up != c.called(e.Task) {
				through = fmt.Sprintf(" (through %s)", c.called(e.Task))
			}
			bad("A step in scout may wait for other steps in scout, and for single ones that run on no node.", fmt.Sprintf("waits for %q%s, which needs a node image: the machine would stay in scout for ever", up, through))
		}
	}
	args := t.With
	if t.When != nil {
		args = append(slices.Clone(args), *t.When)
	}
	for _, a := range args {
		for _, r := range a.Refs {
			switch {
			case r.Kind == model.RefRole:
				bad("Take what it needs from node, or from an input.", fmt.Sprintf("looks at role.%s: nodes are known once they run a node image", r.Name))
			case r.Kind == model.RefNode && (r.Attr == "" || r.Attr == model.NodeIncarnation || r.Attr == model.NodeBoot):
				bad("Take node.name, node.address, node.facts or node.storage.", fmt.Sprintf("looks at what of its node ends with the incarnation or the boot (%s), while what it does outlasts both", a.Name))
			}
		}
	}
	if len(t.During) > 0 || len(t.Except) > 0 || len(t.Guards) > 0 {
		bad("Leave during and except_during out.", "cannot be in place only while something runs, or but then")
	}
	for _, o := range c.model.Rollouts {
		if slices.Contains(o.Tasks, t.Name) {
			bad("Take it out of the rollout: it runs when its node boots, and who reboots nodes decides how many at a time.", fmt.Sprintf("cannot stand in rollout %q yet", o.Called))
		}
	}
}

func (c *compiler) called(name string) string {
	if t := c.model.Task(name); t != nil {
		return t.Called
	}
	return name
}

// late gives what of a task, or of what it waits for, needs a node image; empty for nothing.
func (c *compiler) late(name string, known map[string]string) string {
	if up, ok := known[name]; ok {
		return up
	}
	known[name] = ""
	t := c.model.Task(name)
	switch {
	case t == nil:
		return ""
	case !t.Step.Scout && (len(t.Each) > 0 || t.On != ""):
		known[name] = t.Called
		return t.Called
	}
	if !t.Step.Scout && looksAtNodes(t) {
		known[name] = t.Called
		return t.Called
	}
	for _, e := range t.Edges() {
		if up := c.late(e.Task, known); up != "" {
			known[name] = up
			break
		}
	}
	return known[name]
}

// looksAtNodes reports whether a single task waits for nodes to come up, because it looks at them.
func looksAtNodes(t *model.Task) bool {
	return slices.ContainsFunc(t.With, func(a model.Argument) bool { return a.Uses(model.RefRole) }) || t.When != nil && t.When.Uses(model.RefRole)
}
