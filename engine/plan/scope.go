package plan

import (
	"encoding/json"
	"fmt"
	"strconv"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan/once"
	"joist/engine/plan/sight"
	"joist/engine/value"
)

// scope gives the expressions of one instance what they refer to.
type scope struct {
	p    *Planner
	node int    // of the instance; -1 for a single one
	host string // node that executes; empty unless dispatching
}

// Lookup implements model.Scope.
func (s scope) Lookup(r model.Ref) value.Value {
	p := s.p
	switch r.Kind {
	case model.RefInput:
		return p.model.Inputs[r.Name]
	case model.RefNode:
		v := p.nodeValue(s.node)
		if r.Attr != "" {
			v, _ = v.Attr(r.Attr)
		}
		return v
	case model.RefRole:
		return p.roleValue(r.Name)
	case model.RefAll:
		if c := p.byName[r.Name]; c != nil {
			return p.gatherOf(c)
		}
	case model.RefHost:
		if s.host != "" {
			return p.hostOutput(r.Name, p.state.Index(s.host), r.Attr)
		}
	case model.RefDuring:
		return p.duringOutput(r.Name, s.node, r.Attr)
	case model.RefTask:
		if c := p.byName[r.Name]; c != nil {
			return p.outputOf(c, s.node, r.Attr)
		}
	}
	return value.Value{}
}

// hostOutput gives an output on the node that executes: as it stands there, if a removal needs it.
func (p *Planner) hostOutput(task string, node int, attr string) value.Value {
	if c := p.byName[task]; c != nil {
		if k := c.at(node); k >= 0 && c.cells[k].Settled() {
			return p.outputOf(c, node, attr)
		}
	}
	row := p.state.Columns[task].Row(node)
	if row == nil || !p.stands(task, node) {
		return value.Value{}
	}
	m := p.models(row.Goal)
	if m == nil || m.Task(task) == nil {
		return value.Value{}
	}
	v, err := m.Task(task).Step.OutputType().Parse(row.Outputs)
	if err != nil {
		return value.Value{}
	}
	return attribute(v, attr)
}

func attribute(v value.Value, attr string) value.Value {
	if attr == "" {
		return v
	}
	a, _ := v.Attr(attr)
	return a
}

// outputOf gives an output of an instance, null where the instance does not exist, unknown where it has not run.
func (p *Planner) outputOf(c *column, node int, attr string) value.Value {
	if len(c.task.Each) == 0 {
		node = -1
	}
	k := c.at(node)
	if k < 0 || c.cells[k].view.standing == absent {
		return value.NullOf(value.Type{})
	}
	return attribute(p.outputs(c, k), attr)
}

func (p *Planner) outputs(c *column, k int) value.Value {
	cell := &c.cells[k]
	if cell.view.standing != settled {
		return value.Unknown(c.out)
	}
	node := c.targets[k]
	if have, ok := c.values[node]; ok && have.of == cell.view.out {
		return have.v
	}
	v, err := c.out.Parse(outputsOf(c.row(p, node)))
	if err != nil { // outputs of an older form of the step: nothing of them is known
		v = value.Unknown(c.out)
	}
	c.values[node] = parsed{cell.view.out, v}
	return v
}

func outputsOf(row *history.Row) json.RawMessage {
	if len(row.Outputs) == 0 {
		return json.RawMessage("{}")
	}
	return row.Outputs
}

func (p *Planner) gatherOf(c *column) value.Value {
	p.refreshGather(c)
	if !c.gather.filled {
		m := make(map[string]value.Value, len(c.cells))
		for k := range c.cells {
			if c.cells[k].view.standing != absent {
				m[p.state.Nodes[c.targets[k]].Name] = p.outputs(c, k)
			}
		}
		c.gather.v = value.Gather(c.out, m)
		c.gather.filled = c.gather.v.Known() // asked once: it looks at every element
	}
	return c.gather.v
}

// refreshGather forgets what was gathered if any instance of the task yields something else since.
func (p *Planner) refreshGather(c *column) {
	if c.gather.ready && c.gather.generation == c.agg.generation {
		return
	}
	h := value.NewHasher()
	for k := range c.cells {
		if c.cells[k].view.standing == absent {
			continue
		}
		h.Text(p.state.Nodes[c.targets[k]].Name)
		h.Digest(c.cells[k].view.out)
	}
	c.gather = gathered{generation: c.agg.generation, ready: true, digest: h.Sum()}
}

func (p *Planner) nodeValue(i int) value.Value {
	if i < 0 {
		return value.Unknown(sight.NodeType())
	}
	n := p.state.Nodes[i]
	key := model.Ref{Kind: model.RefNode, Name: n.Name}
	v, ok := p.known[key]
	if !ok {
		v = sight.Node(n, p.model.Storage)
		p.known[key] = v
	}
	return v
}

func (p *Planner) roleValue(role string) value.Value {
	key := model.Ref{Kind: model.RefRole, Name: role}
	if v, ok := p.known[key]; ok {
		return v
	}
	m := map[string]value.Value{}
	for _, i := range p.roleNodes(role) {
		m[p.state.Nodes[i].Name] = p.nodeValue(i)
	}
	v := value.Gather(sight.NodeType(), m)
	p.known[key] = v
	return v
}

// reference is the digest of an instance's inputs as they are referred to: if it is what it was, nothing is evaluated.
func (p *Planner) reference(c *column, node int) value.Digest {
	h := value.NewHasher()
	for i := range c.task.With {
		a := &c.task.With[i]
		h.Digest(a.Digest)
		if a.Shared {
			h.Digest(p.sharedRef(c, i))
			continue
		}
		if len(a.Parts) == 0 {
			p.hashRefs(h, a.Refs, node)
			continue
		}
		p.hashRefs(h, a.Own, node)
		for _, e := range a.Parts {
			_, ref := p.part(e)
			h.Digest(ref)
		}
	}
	return h.Sum()
}

func (p *Planner) hashRefs(h value.Hasher, refs []model.Ref, node int) {
	for _, r := range refs {
		switch r.Kind {
		case model.RefTask:
			up := p.byName[r.Name]
			at := node
			if len(up.task.Each) == 0 {
				at = -1
			}
			var out value.Digest // none where there is no instance
			if k := up.at(at); k >= 0 {
				out = up.cells[k].view.out
			}
			h.Digest(out)
		case model.RefAll:
			up := p.byName[r.Name]
			p.refreshGather(up)
			h.Digest(up.gather.digest)
		case model.RefNode:
			sight.Hash(h, p.state.Nodes[node], p.model.Storage, r.Attr)
		case model.RefRole:
			nodes := p.roleNodes(r.Name)
			h.Text(strconv.Itoa(len(nodes))) // where one role ends, the next may begin
			for _, i := range nodes {
				sight.Hash(h, p.state.Nodes[i], p.model.Storage, "")
			}
		case model.RefInput:
			h.Digest(p.inputDigest(r.Name))
		}
	}
}

func (p *Planner) inputDigest(name string) value.Digest {
	d, ok := p.fixed[name]
	if !ok {
		d = p.model.Inputs[name].Digest()
		p.fixed[name] = d
	}
	return d
}

// sharedRef is the reference digest of an argument that is the same for every instance of its task.
func (p *Planner) sharedRef(c *column, i int) value.Digest {
	return p.refresh(&c.shared[i], c.task.With[i].Refs)
}

// refresh gives the digest of what a kept value refers to.
func (p *Planner) refresh(o *once.Value, refs []model.Ref) value.Digest {
	stamp := uint64(1)
	for _, r := range refs {
		switch r.Kind {
		case model.RefTask, model.RefAll:
			stamp += p.byName[r.Name].agg.generation
		case model.RefRole:
			if r := p.roles[r.Name]; r != nil {
				stamp += r.generation
			}
		}
	}
	return o.Ref(stamp, func() value.Digest {
		h := value.NewHasher()
		p.hashRefs(h, refs, -1)
		return h.Sum()
	})
}

// part is what is kept of a sub-expression, brought up to date.
func (p *Planner) part(e model.Expr) (o *once.Value, ref value.Digest) {
	if o = p.parts[e]; o == nil {
		o = &once.Value{}
		p.parts[e] = o
	}
	return o, p.refresh(o, e.Refs())
}

// Once implements model.Once.
func (s scope) Once(e model.Expr) (value.Value, error) {
	kept, _ := s.p.part(e)
	v, _, err := kept.Get(func() (value.Value, error) { return e.Eval(scope{s.p, -1, ""}) })
	return v, err
}

type inputs struct {
	known bool
	open  string // an input that is not known
	input value.Digest
}

// inputsOf is inputs for a reference digest: where the last decision had the same, it had the same inputs.
func (p *Planner) inputsOf(c *column, node int, ref value.Digest) (inputs, error) {
	if k := c.at(node); k >= 0 && c.cells[k].ref == ref {
		return inputs{known: true, input: c.cells[k].input}, nil
	}
	return p.inputs(c, node)
}

// inputs evaluates an instance's inputs as far as their digest needs.
func (p *Planner) inputs(c *column, node int) (inputs, error) {
	h := value.NewHasher()
	for i := range c.task.With {
		a := &c.task.With[i]
		h.Text(a.Name)
		if a.Outside() {
			h.Digest(a.Digest)
			if !p.hashBeside(h, a, node) {
				return inputs{open: a.Name}, nil
			}
			continue
		}
		_, digest, err := p.argument(c, i, node)
		if err != nil {
			return inputs{}, err
		}
		if digest == (value.Digest{}) {
			return inputs{open: a.Name}, nil
		}
		h.Digest(digest)
	}
	return inputs{known: true, input: h.Sum()}, nil
}

// argument evaluates one input of an instance and checks it against the declared type. Its digest is zero unless it is known.
func (p *Planner) argument(c *column, i, node int) (v value.Value, digest value.Digest, err error) {
	a := &c.task.With[i]
	if a.Shared {
		p.sharedRef(c, i)
		return c.shared[i].Get(func() (value.Value, error) { return p.evaluate(c, a, scope{p, -1, ""}) })
	}
	if v, err = p.evaluate(c, a, scope{p, node, ""}); err == nil && v.Known() {
		digest = v.Digest()
	}
	return v, digest, err
}

// Kept gives the form in which the journal keeps an input of an instance, given its value. The data of a large one comes
// with it when it was not asked for before.
func (p *Planner) Kept(t history.Target, i int, v value.Value) (small json.RawMessage, large []byte, err error) {
	if c := p.byName[t.Task]; c.task.With[i].Shared {
		return c.shared[i].Kept(v)
	}
	return once.Form(v)
}

func (p *Planner) evaluate(c *column, a *model.Argument, s scope) (value.Value, error) {
	v, err := a.Expr.Eval(s)
	if err != nil {
		return value.Value{}, err
	}
	for _, f := range c.task.Step.Inputs {
		if f.Name == a.Name {
			checked, err := f.Type.Check(v)
			if err != nil {
				return value.Value{}, fmt.Errorf("input %s of task %s: %w", a.Name, c.task.CalledNow(), err)
			}
			return checked, nil
		}
	}
	return v, nil
}

// Inputs evaluates everything an instance is started with: all declared inputs, defaults filled in. host names the node
// that executes, for `host.` references.
func (p *Planner) Inputs(t history.Target, host string) (map[string]value.Value, error) {
	c := p.byName[t.Task]
	node := p.nodeOf(t)
	given := make(map[string]value.Value, len(c.task.Step.Inputs))
	for i := range c.task.With {
		a := &c.task.With[i]
		var v value.Value
		var err error
		if a.Outside() {
			v, err = p.evaluate(c, a, scope{p, node, host})
		} else {
			v, _, err = p.argument(c, i, node)
		}
		if err != nil {
			return nil, err
		}
		given[a.Name] = v
	}
	return c.task.Step.Complete(given), nil
}

// HostInputs evaluates the inputs that look at the node that executes, for an instance of a task as it is or as it was, and
// while it is applied those that look at what is in place only during that.
func (p *Planner) HostInputs(t history.Target, task *model.Task, host string, into map[string]value.Value) {
	for i := range task.With {
		a := &task.With[i]
		if !a.Outside() || a.Uses(model.RefDuring) && !applying(p.state.Row(t)) {
			continue
		}
		if v, err := a.Expr.Eval(scope{p, p.nodeOf(t), host}); err == nil && v.Known() {
			into[a.Name] = v
		}
	}
}

// changedInput names an input whose value differs from that of the last start.
func (p *Planner) changedInput(c *column, row *history.Row, node int) string {
	var was map[string]json.RawMessage
	if json.Unmarshal(row.Inputs, &was) != nil {
		return ""
	}
	for i := range c.task.With {
		a := &c.task.With[i]
		if a.Outside() {
			continue
		}
		v, _, err := p.argument(c, i, node)
		if err != nil {
			continue
		}
		data, err := p.smallOf(c, i, v)
		if err == nil && string(data) != string(was[a.Name]) {
			return a.Name
		}
	}
	return ""
}

// smallOf gives the journal's form of an input, for comparison only.
func (p *Planner) smallOf(c *column, i int, v value.Value) (json.RawMessage, error) {
	if c.task.With[i].Shared {
		return c.shared[i].Small(v)
	}
	small, _, err := once.Form(v)
	return small, err
}
