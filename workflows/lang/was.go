package lang

import (
	"joist/engine/model"
	"joist/workflows/lang/decl"
)

// CompileAfter is Compile for a cluster that has something of other models, the newest first: what was renamed since goes on
// standing by the name under which it was started.
func CompileAfter(src Source, before []*model.Model) (*model.Model, Diagnostics) {
	src.Tentative = true
	m, ds := Compile(src)
	if m == nil {
		return nil, ds
	}
	src.Tentative = false
	if src.Names = model.NamesAfter(m, before); !src.Names.Empty() || len(m.Unmet) > 0 {
		unmet := len(m.Unmet) > 0
		said := ds
		if m, ds = Compile(src); !unmet || m != nil {
			ds = said // what there is to say was said
		}
	}
	return m, ds
}

// stands gives the name that a task of the model stands by, given what it is called.
func (f *frame) stands(called string) string { return f.c.src.Names.Task(called) }

// was lists what a task of the model was called before: by its own former names, and by those of the calls around it.
func (f *frame) was(t *decl.Task) []string {
	names := f.formerly(t, "")
	for i, name := range names {
		names[i] = f.item.name(name)
	}
	return names
}

// formerly lists the names that a task had before, each with what follows it.
func (f *frame) formerly(t *decl.Task, then string) []string {
	var names []string
	for i, prefix := range append([]string{f.prefix}, f.former...) {
		if i > 0 {
			names = append(names, prefix+t.Name+then)
		}
		for _, was := range t.Was {
			names = append(names, prefix+was.Name+then)
		}
	}
	return names
}
