package lang

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/expr"
)

// reboots checks that what reboots its node has something that outlasts that, and that no boot brings about the next one.
func (c *compiler) reboots() {
	for i := range c.model.Tasks {
		t := &c.model.Tasks[i]
		if !t.Step.Reboots {
			continue
		}
		if c.model.Storage == model.InMemory {
			c.bag.Errorf(c.file.at, "Write storage = \"disk\", and order it after what makes the data disk.", "task %q (%s) reboots its node, and nodes whose storage is memory come back with nothing: it would never be done", t.Called, t.Step.Name)
		}
		if c.src.Kept || t.Step.Once {
			continue
		}
		at := c.places[t.Name]
		for _, a := range t.With {
			if via, ok := c.bootIn(a, map[model.Ref]bool{}); ok {
				if via != "" {
					via = " through " + via
				}
				c.link.bags[at.pack.Name].Errorf(at.at, bootAdvice, "task %q (%s) reboots its node, and its input %q is another one after each boot%s: it would reboot for ever", t.Called, t.Step.Name, a.Name, via)
			}
		}
	}
}

const bootAdvice = "Take node.boot out of it; node.incarnation is the same after the reboot. What is to be done at every boot needs no reboots: what lives on a node's root runs again after each of them."

// boots reports a task that reboots its node because of that node's boot.
func (c *flowCheck) boots(t *decl.Task, s *decl.Step, name string, e hclsyntax.Expression) {
	if !s.Reboots || s.Once || c.l.kept {
		return
	}
	for _, v := range e.Variables() {
		if slices.Equal(expr.StepNames(v, 2), []string{"node", model.NodeBoot}) {
			c.bag.Errorf(v.SourceRange(), bootAdvice, "task %q (%s) reboots its node, and its input %q is another one after each boot: it would reboot for ever", t.Name, s.Name, name)
		}
	}
}

// bootIn reports whether an argument changes with each boot of its node: itself, or through values that the engine computes, which
// are computed anew whenever what they are made of changes. Via names the first of those. Seen are the outputs that were looked at.
func (c *compiler) bootIn(a model.Argument, seen map[model.Ref]bool) (via string, found bool) {
	for _, r := range a.Refs {
		switch r.Kind {
		case model.RefNode:
			if r.Attr == model.NodeBoot {
				return "", true
			}
		case model.RefTask, model.RefAll:
			if up := c.model.Task(r.Name); up != nil && !seen[r] && !up.Step.Once {
				seen[r] = true
				if c.yieldsBoot(up, r.Attr, seen) {
					return fmt.Sprintf("%q", up.Called), true
				}
			}
		}
	}
	return "", false
}

// yieldsBoot reports whether an output, or any if it has no name, is computed from an input that changes with each boot.
func (c *compiler) yieldsBoot(t *model.Task, output string, seen map[model.Ref]bool) bool {
	for name, o := range t.Step.Apply.Outputs {
		for _, a := range t.With {
			used := slices.ContainsFunc(o.Refs, func(r model.Ref) bool { return r.Kind == model.RefStep && r.Name == a.Name })
			if !used || output != "" && output != name {
				continue
			}
			if _, found := c.bootIn(a, seen); found {
				return true
			}
		}
	}
	return false
}
