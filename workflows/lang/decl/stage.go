package decl

import (
	"slices"
	"strings"

	"joist/engine/model"
	"joist/engine/value"
)

// inScout are the built-in actions that the discovery image has. The others make files on a node's root, which is not there yet.
var inScout = []string{"facts"}

// stage reads whether a step runs in the discovery image, and checks that it can. What it does is done to the machine, which
// outlasts the node: it has no inverse that could run when it is due, once the machine runs a node image or has left.
func (d *decoder) stage(r *reader, s *Step) {
	e := r.Attr("stage")
	if e == nil {
		return
	}
	word := r.Text("stage")
	switch {
	case word != "scout":
		d.bag.Errorf(e.Range(), "Write stage = \"scout\", for what is done to the machine before it becomes a node, or leave it out.", "no stage is called %q", word)
		return
	case s.Scope != model.Node:
		d.bag.Errorf(e.Range(), "Write scope = \"node\", or leave it out.", "a %s-scope step runs on no machine's discovery image", ScopeName(s.Scope))
		return
	}
	s.Scout = true
	if s.Reboots {
		d.bag.Errorf(r.Attr("reboots").Range(), "Leave one of them out: the machine boots its node image after the step in any case.", "a step in scout cannot reboot its node")
	}
	if b := r.Block("remove"); b != nil {
		d.bag.Errorf(b.DefRange(), "Write irreversible = \"why\" instead: what it did to the machine stays when the node leaves.", "a step in scout cannot have a remove: the machine is not in scout when it would be due")
	}
	if len(s.Artifacts) > 0 {
		d.bag.Errorf(r.Attr("artifacts").Range(), "Put what is small into files, or use what the node image carries.", "a step in scout cannot have artifacts yet")
	}
	for _, f := range slices.Concat(s.Inputs, s.Outputs) {
		if f.Type.Holds(value.Path) {
			d.bag.Errorf(e.Range(), "Pass on what is in the file.", "a step in scout cannot take or yield the path %q: no file outlasts the hand-over", f.Name)
		}
	}
	for _, a := range []*model.Action{&s.Apply, s.Verify} {
		if a != nil && a.Builtin != "" && !slices.Contains(inScout, a.Builtin) {
			d.bag.Errorf(e.Range(), "In scout there is "+strings.Join(inScout, ", ")+"; anything else is a script.", "the built-in action %q needs the node's own root", a.Builtin)
		}
	}
}
