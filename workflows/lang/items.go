package lang

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"joist/engine/addr"
	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// A task with `for` is compiled to one task of the model for each item: items are known then, as inputs are, and the
// engine plans, runs and removes an item's instances like those of any task. Only references to the whole of them are
// another thing than references to a task.

// mostItems bounds the tasks that one task is compiled to, and longestKey what they are called.
const (
	mostItems  = 1000
	longestKey = 100
)

// item is one of a task's items. Of nil, for a task that has none, only the name is asked.
type item struct {
	key   string
	value value.Value
}

func (i *item) name(task string) string {
	if i == nil {
		return task
	}
	return addr.WithItem(task, i.key)
}

func (i *item) attr(name string) value.Value {
	if name == "key" {
		return value.Text(i.key)
	}
	return i.value
}

// items checks what a task has its items from.
func (c *flowCheck) items(t *decl.Task) {
	if t.For == nil {
		return
	}
	s := c.check(site{task: t, items: true}, t.For, value.Type{})
	if _, ok := itemType(s.Type); !ok {
		c.bag.Errorf(t.For.Range(), "Write a map, an object, or a set of texts such as toset([\"a\", \"b\"]).", "task %q cannot have an instance for each item of %s", t.Name, expr.Article(s.Type))
	}
	c.shapes[t.Name] = s
}

// itemType is the type of item.value: for a set that of the element, which is the key too.
func itemType(t value.Type) (value.Type, bool) {
	switch t.Kind {
	case value.Any:
		return value.Type{}, true
	case value.Map:
		return *t.Elem, true
	case value.Set:
		return *t.Elem, t.Elem.Kind != value.Object && t.Elem.Kind != value.List && t.Elem.Kind != value.Map && t.Elem.Kind != value.Set
	case value.Object:
		var one *value.Type
		for _, name := range decl.SortedKeys(t.Attrs) {
			a := t.Attrs[name].Type
			if one != nil && !one.Equal(a) {
				return value.Type{}, true
			}
			one = &a
		}
		if one == nil {
			return value.Type{}, true
		}
		return *one, true
	}
	return value.Type{}, false
}

// resolveItem gives the shape of item.key and item.value.
func (c *flowCheck) resolveItem(at site, path []string, fail func(string, string, ...any) (expr.Shape, int)) (expr.Shape, int) {
	switch {
	case at.task == nil || at.task.For == nil:
		return fail("Write for = EXPR, a map or a set, to have one instance for each item.", "%s has no item", at.who())
	case path[1] == "key":
		return expr.Shape{Type: value.Type{Kind: value.String}}, 2
	case path[1] != "value":
		return fail(diag.Suggest(path[1], []string{"key", "value"}), "an item has no attribute %q", path[1])
	}
	of := c.shapes[at.task.Name]
	t, _ := itemType(of.Type)
	return expr.Shape{Type: t, Path: of.Path, Made: of.Made}, 2
}

// resolveItems gives the shape of task.T for a task with items: a map from item to outputs.
func (c *flowCheck) resolveItems(at site, t hcl.Traversal, path []string, outputs map[string]result) (expr.Shape, int) {
	if !c.meetsAll(at, t, path[1], outputs) || len(outputs) == 0 && !c.meets(at, t.SourceRange(), path[1], decl.EachNames(c.w.Task(path[1]).Each)) {
		return expr.Shape{}, 2
	}
	s := whole(outputs, path[0])
	s.Type = value.Of(value.Map, s.Type)
	return s, 2
}

// each compiles a task, once for each of its items if it has some.
func (f *frame) each(t *decl.Task, s *decl.Step) {
	if t.For == nil {
		f.task(t, s)
		return
	}
	f.items[t.Name] = []string{}
	x := f.compile(t.For)
	of, err := x.Eval(early{f.c})
	at := f.c.concerns(x.Refs())
	where := decl.Place(f.w.Pack, t.For.Range())
	advice := fmt.Sprintf("It is the for of task %q at %s:%d.", t.Name, where.File, where.Line)
	switch {
	case err != nil:
		f.c.bag.Errorf(at, advice, "%s", err)
		return
	case !of.Known():
		f.c.bag.Errorf(at, advice, "which items there are rests on what is known only later: let it look at inputs that the cluster file gives")
		return
	}
	list, why := itemsOf(of)
	if why != "" {
		f.c.bag.Errorf(at, advice, "%s", why)
		return
	}
	for i := range list {
		f.items[t.Name] = append(f.items[t.Name], list[i].key)
		f.item = &list[i]
		f.task(t, s)
	}
	f.item = nil
}

// itemsOf gives the items of a value, by key, or says why it has none.
func itemsOf(v value.Value) ([]item, string) {
	inside := v.Cty()
	t := inside.Type()
	switch {
	case v.Null():
		return nil, "the items are null; an empty map has none"
	case !t.IsMapType() && !t.IsObjectType() && !t.IsSetType():
		return nil, "the items are no map and no set: write toset([…]) for a list of texts"
	}
	var out []item
	for it := inside.ElementIterator(); it.Next(); {
		k, e := it.Element()
		key, err := value.Type{Kind: value.String}.Check(value.FromCty(k))
		if err != nil || key.Null() || !addr.Named(key.Cty().AsString()) || len(key.Cty().AsString()) > longestKey {
			return nil, fmt.Sprintf("%s cannot be the key of an item: it stands in addresses, so use at most %d characters without spaces and / [ ] # \"", text(key, err), longestKey)
		}
		out = append(out, item{key.Cty().AsString(), value.FromCty(e)})
		if len(out) > mostItems {
			return nil, fmt.Sprintf("there are more than %d items", mostItems)
		}
	}
	return out, ""
}

func text(v value.Value, err error) string {
	if err != nil {
		return "such a value"
	}
	return fmt.Sprintf("%.120q", v.Cty().AsString())
}

// named gives the tasks of the model that a task is compiled to.
func (f *frame) named(task string) []string {
	keys, some := f.items[task]
	if !some {
		return []string{f.stands(f.prefix + task)}
	}
	var names []string
	for _, key := range keys {
		names = append(names, f.stands(addr.WithItem(f.prefix+task, key)))
	}
	return names
}

// gathered is what a reference to a task with items stands for: a map from item to outputs, and for all.T one of these
// for each node.
func (f *frame) gathered(kind model.RefKind, task string, keys []string) expr.Source {
	group := expr.Group{Names: keys, Members: map[string]expr.Source{}}
	for i, name := range f.named(task) {
		group.Members[keys[i]] = expr.Reference{Ref: model.Ref{Kind: kind, Name: name}, Same: f.c.each[name]}
	}
	if kind == model.RefAll {
		return expr.ByNode{Group: group}
	}
	return group
}
