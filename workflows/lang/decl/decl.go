// Package decl reads packs: what stands in their files, checked by itself and not yet against other packs. Declarations
// keep expressions as syntax, with their places; package lang checks those against one another and compiles them.
package decl

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
)

// SortedKeys gives the keys of a map in order.
func SortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// What package read takes bodies apart into.
type (
	reader = read.Reader
	form   = read.Form
	named  = read.Named
	pair   = read.Pair
)

// Workflow is a workflow as it stands in a pack.
type Workflow struct {
	Name     string
	Doc      string
	Pack     *Pack
	At       hcl.Range
	Roles    []Role
	Inputs   []Input
	Tasks    []*Task
	Outputs  []Output
	Rollouts []Rollout
	Checks   []Check

	tasks map[string]string // former names of tasks, with those that they have now
	roles map[string]string // likewise of roles
}

// Role is a role of a workflow.
type Role struct {
	model.Role
	At     hcl.Range
	Former []named // names that it had before
}

// Input is an input of a workflow.
type Input struct {
	model.Field
	At   hcl.Range
	Each []named // roles: the nodes that it is given for, one by one; nil for one that is the same for all
}

// Output is an output of a workflow.
type Output struct {
	read.Named
	Each  []named // nil for a single one
	Value hclsyntax.Expression
}

// Task is a task or a slot of a workflow.
type Task struct {
	read.Named
	Target hclsyntax.Expression
	Slot   bool
	Filled *Callee // what stands in the slot in place of target
	Each   []named
	For    hclsyntax.Expression // a map or set with an item for each instance on a node; nil for none
	On     *named
	With   []pair
	Open   bool // with could not be read
	Lost   bool // each could not be read: nothing about its nodes is reported again
	When   hclsyntax.Expression
	After  []After
	Except []named // tasks that it makes way for
	During []named // tasks that it is in place for while they run
	Guards []named // tasks that are so for it, by where they say that
	Roles  []RolePair

	OnDemand bool // it runs when somebody asks for it

	Whole hcl.Range // of the block's header
	Attrs map[string]hcl.Range
	Was   []named // names that it had before
}

// After is one entry of a task's after.
type After struct {
	read.Named
	All   bool
	Share model.Share // with all
}

var shares = map[string]model.Share{"all": model.Every, "most": model.Most, "any": model.Any}

// RolePair says which role of the caller plays a role of a called workflow.
type RolePair struct{ Inner, Outer named }

// Rollout is a rollout block.
type Rollout struct {
	read.Named
	Tasks  []named
	Spread hclsyntax.Expression // nil for none
	Model  model.Rollout
}

// Full gives its name with the pack's.
func (w *Workflow) Full() string { return w.Pack.Name + "." + w.Name }

// Task finds a task by name, nil if there is none.
func (w *Workflow) Task(name string) *Task {
	for _, t := range w.Tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// TaskNames lists the tasks.
func (w *Workflow) TaskNames() []string {
	var out []string
	for _, t := range w.Tasks {
		out = append(out, t.Name)
	}
	return out
}

// Input finds an input by name, nil if there is none.
func (w *Workflow) Input(name string) *Input {
	for i := range w.Inputs {
		if w.Inputs[i].Name == name {
			return &w.Inputs[i]
		}
	}
	return nil
}

// InputNames lists the inputs.
func (w *Workflow) InputNames() []string {
	var out []string
	for _, in := range w.Inputs {
		out = append(out, in.Name)
	}
	return out
}

// RoleNames lists the roles.
func (w *Workflow) RoleNames() []string {
	var out []string
	for _, r := range w.Roles {
		out = append(out, r.Name)
	}
	return out
}

// Callee is what a task calls: one of the two, or neither if that is not known.
type Callee struct {
	Step *Step
	Flow *Workflow
}

// Inputs gives what a step or a workflow takes.
func (to Callee) Inputs() map[string]model.Field {
	fields := map[string]model.Field{}
	if to.Step != nil {
		for _, f := range to.Step.Inputs {
			fields[f.Name] = f
		}
	}
	if to.Flow != nil {
		for _, in := range to.Flow.Inputs {
			fields[in.Name] = in.Field
		}
	}
	return fields
}

// SlotNames lists the slots.
func (w *Workflow) SlotNames() []string {
	var names []string
	for _, t := range w.Tasks {
		if t.Slot {
			names = append(names, t.Name)
		}
	}
	return names
}

// Outer gives the roles of the caller whose nodes an input is given for, one by one.
func (in *Input) Outer(mapped map[string]string) []string {
	var each []string
	if in == nil {
		return nil
	}
	for _, inner := range in.Each {
		if outer, ok := mapped[inner.Name]; ok && !slices.Contains(each, outer) {
			each = append(each, outer)
		}
	}
	return each
}

// Dependency is a task that another one refers to.
type Dependency struct {
	read.Named
	All  bool // to every instance
	Host bool // on the node that executes
}

// References lists what a task's expressions refer to.
func (t *Task) References() []Dependency {
	var out []Dependency
	exprs := []hclsyntax.Expression{t.When}
	for _, p := range t.With {
		exprs = append(exprs, p.Value)
	}
	for _, e := range exprs {
		if e == nil {
			continue
		}
		for _, tr := range hclsyntax.Variables(e) {
			path := expr.StepNames(tr, 2)
			if len(path) == 2 && (path[0] == "task" || path[0] == "all" || path[0] == "host") {
				out = append(out, Dependency{named{Name: path[1], At: tr.SourceRange()}, path[0] == "all", path[0] == "host"})
			}
		}
	}
	return out
}

// Dependencies lists what a task refers to, or is ordered after.
func (t *Task) Dependencies() []Dependency {
	out := t.References()
	for _, a := range t.After {
		out = append(out, Dependency{Named: a.Named, All: a.All && a.Share != model.Any})
	}
	for _, n := range slices.Concat(t.Except, t.Guards) {
		out = append(out, Dependency{Named: n})
	}
	return out
}

// EachNames gives the roles of a list, empty for none.
func EachNames(each []named) []string {
	var out []string
	for _, e := range each {
		out = append(out, e.Name)
	}
	return out
}

// RoleList writes roles as a person refers to them.
func RoleList(names []string) string {
	if len(names) == 0 {
		return "no role"
	}
	return "role." + strings.Join(names, ", role.")
}

// Within reports whether every role of a is one of b.
func Within(a, b []string) bool {
	return !slices.ContainsFunc(a, func(r string) bool { return !slices.Contains(b, r) })
}

// NodeType is the type of `node` and of the elements of `role.R`.
func NodeType() value.Type {
	return value.Type{Kind: value.Object, Attrs: map[string]value.Attr{
		model.NodeName: {Type: value.Type{Kind: value.String}}, model.NodeAddress: {Type: value.Type{Kind: value.Address}},
		model.NodeIncarnation: {Type: value.Type{Kind: value.String}}, model.NodeBoot: {Type: value.Type{Kind: value.String}},
		model.NodeFacts: {Type: value.Type{}}, model.NodeStorage: {Type: value.Type{Kind: value.String}},
	}}
}

// Place gives a place in a pack, for people.
func Place(pack *Pack, at hcl.Range) model.Range {
	return model.Range{File: pack.Prefix() + at.Filename, Line: at.Start.Line, Col: at.Start.Column}
}
