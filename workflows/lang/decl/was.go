package decl

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/workflows/lang/read"
)

// claim says that a step or a workflow had another name before.
type claim struct {
	was, now string
	at       hcl.Range
}

// was reads was = ["old"] of a step or a workflow.
func (d *decoder) was(r *reader, now string) []string {
	e := r.Attr("was")
	if e == nil {
		return nil
	}
	var names []string
	for _, x := range read.List(e) {
		name, ok := ConstantText(d.bag, x)
		switch {
		case !ok:
		case !hclsyntax.ValidIdentifier(name):
			d.bag.Errorf(x.Range(), "Write the name that it had in this pack.", "%q is no name of a step or a workflow", name)
		case slices.Contains(names, name):
			d.bag.Errorf(x.Range(), "Remove one of them.", "%q stands twice", name)
		default:
			names = append(names, name)
			d.claims = append(d.claims, claim{name, now, x.Range()})
		}
	}
	if len(read.List(e)) == 0 {
		d.bag.Errorf(e.Range(), `Write was = ["old"], or leave it out.`, "was names nothing")
	}
	return names
}

// renames checks the former names of all steps and workflows, and notes them.
func (d *decoder) renames() {
	for _, c := range d.claims {
		switch now := d.pack.renamed[c.was]; {
		case d.pack.StepDecls[c.was] != nil || d.pack.WorkflowDecls[c.was] != nil:
			d.bag.Errorf(c.at, "Take it out: a name that is in use is nobody's former name.", "the pack has a step or workflow %q still", c.was)
		case now != "":
			d.bag.Errorf(c.at, "Only one of them can be what it became.", "%q was the name of %q already", c.was, now)
		default:
			d.pack.renamed[c.was] = c.now
		}
	}
}

// Find gives the step or workflow of a name, which may be a former one, and the name that it has now.
func (p *Pack) Find(name string) (Callee, string) {
	if now, ok := p.renamed[name]; ok {
		name = now
	}
	return Callee{Step: p.StepDecls[name], Flow: p.WorkflowDecls[name]}, name
}
