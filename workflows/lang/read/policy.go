package read

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// Policy is a policy with the places of what it refers to.
type Policy struct {
	model.Policy
	Roles, Tasks []Named
}

// Policies reads the policy blocks of a cluster file. What they refer to is not looked for.
func (r *Reader) Policies() []Policy {
	var list []Policy
	seen := map[string]hcl.Range{}
	for _, b := range r.Blocks("policy", 1) {
		in := r.Inner(b)
		in.Expect(Form{Attrs: []string{"doc", "refuse", "roles", "tasks", "beyond", "outside", "zone", "override"}})
		n, ok := in.Word(b)
		if p := in.policy(n); ok && Unique(r.Bag, "policies", seen, n) {
			list = append(list, p)
		}
	}
	return list
}

func (r *Reader) policy(n Named) Policy {
	p := Policy{Policy: model.Policy{
		Name: n.Name, Doc: r.Text("doc"), Override: r.Truth("override"),
		Range: model.Range{File: n.At.Filename, Line: n.At.Start.Line, Col: n.At.Start.Column},
	}}
	if e := r.Need("refuse", `Write refuse = "removal", "replacement" or "wipe".`); e != nil {
		p.Refuse = r.danger(e)
	}
	if e := r.Attr("roles"); e != nil {
		p.Roles = r.References(e, "role")
	}
	if e := r.Attr("tasks"); e != nil {
		p.Tasks = r.tasks(e)
		if p.Refuse == model.Wiping {
			r.Bag.Errorf(e.Range(), "Leave it out, or name roles.", "a wipe is of a whole node, and of no task")
		}
	}
	p.Bounded = r.Attr("beyond") != nil
	p.Beyond = int(r.Whole("beyond", 0, 0))
	if e := r.Attr("outside"); e != nil {
		p.Outside = r.windows(e)
	}
	if e := r.Attr("zone"); e != nil {
		zone, err := model.ParseZone(r.Text("zone"))
		switch {
		case len(p.Outside) == 0 && r.Attr("outside") == nil:
			r.Bag.Errorf(e.Range(), "Leave it out, or give outside as well.", "a zone without times of the week")
		case err != nil:
			r.Bag.Errorf(e.Range(), "A zone with summer time is none of these: its times of the week would move.", "%s", err)
		}
		p.Zone = zone
	}
	for _, o := range p.Roles {
		p.Policy.Roles = append(p.Policy.Roles, o.Name)
	}
	for _, o := range p.Tasks {
		p.Policy.Tasks = append(p.Policy.Tasks, o.Name)
	}
	return p
}

func (r *Reader) danger(e hclsyntax.Expression) model.Danger {
	word := r.wordOf(e)
	switch {
	case word == "" || slices.Contains(model.Dangers(), word):
	default:
		r.Bag.Errorf(e.Range(), diag.Suggest(word, model.Dangers()), "a policy refuses a removal, a replacement, a wipe or a reboot, and knows no %q", word)
	}
	return model.Danger(word)
}

// tasks reads [task.front, task.etcd.member]: a task, or one of a workflow that is called as a task.
func (r *Reader) tasks(e hclsyntax.Expression) []Named {
	var all []Named
	for _, x := range List(e) {
		t, diags := hcl.AbsTraversalForExpr(x)
		path := expr.StepNames(t, len(t))
		if diags.HasErrors() || len(path) != len(t) || len(path) < 2 || path[0] != "task" {
			r.Bag.Errorf(x.Range(), "Write task.NAME, or task.CALL.NAME for one of a workflow that is called.", "expected a task")
			continue
		}
		name := path[1]
		for _, part := range path[2:] {
			name += "." + part
		}
		all = append(all, Named{Name: name, At: x.Range()})
	}
	return all
}

func (r *Reader) windows(e hclsyntax.Expression) []model.Window {
	var all []model.Window
	for _, x := range List(e) {
		v, ok := expr.Constant(r.Bag, x, value.Type{Kind: value.String})
		if !ok {
			continue
		}
		w, err := model.ParseWindow(v.Cty().AsString())
		if err != nil {
			r.Bag.Errorf(x.Range(), `Write "Sat 02:00-06:00", "Mon-Fri 22:00-04:00", "Sat,Sun" or "22:00-04:00".`, "%s", err)
			continue
		}
		all = append(all, w)
	}
	if len(List(e)) == 0 {
		r.Bag.Errorf(e.Range(), `Write outside = ["Sat 02:00-06:00"], or leave it out.`, "outside names no time of the week")
	}
	return all
}
