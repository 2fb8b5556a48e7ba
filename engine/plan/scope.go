package plan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"joist/engine/history"
	"joist/engine/model"
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
		v, _ := p.nodeValue(s.node).Attr(r.Attr)
		return v
	case model.RefRole:
		return p.roleValue(r.Name)
	case model.RefAll:
		return p.gatherOf(p.byName[r.Name])
	case model.RefHost:
		if s.host == "" {
			return value.Value{}
		}
		return p.outputOf(p.byName[r.Name], p.state.Index(s.host), r.Attr)
	case model.RefTask:
		return p.outputOf(p.byName[r.Name], s.node, r.Attr)
	}
	return value.Value{}
}

// outputOf gives an output of an instance, null where the instance does not exist, unknown where it has not run.
func (p *Planner) outputOf(c *column, node int, attr string) value.Value {
	if len(c.task.Each) == 0 {
		node = -1
	}
	k, ok := c.place[node]
	if !ok || c.cells[k].view.standing == absent {
		return value.NullOf(value.Type{})
	}
	v := p.outputs(c, k)
	if attr == "" {
		return v
	}
	a, _ := v.Attr(attr)
	return a
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
	row := c.rows.Row(node)
	data := row.Outputs
	if len(data) == 0 {
		data = json.RawMessage("{}")
	}
	v, err := c.out.Parse(data)
	if err != nil { // outputs of an older form of the step: nothing of them is known
		v = value.Unknown(c.out)
	}
	c.values[node] = parsed{cell.view.out, v}
	return v
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

var nodeType = value.Type{Kind: value.Object, Attrs: map[string]value.Attr{
	model.NodeName: {Type: value.Type{Kind: value.String}}, model.NodeAddress: {Type: value.Type{Kind: value.Address}},
	model.NodeIncarnation: {Type: value.Type{Kind: value.String}}, model.NodeBoot: {Type: value.Type{Kind: value.String}},
	model.NodeFacts: {Type: value.Type{}},
}}

// NodeType is the type of `node` and of the elements of `role.R`.
func NodeType() value.Type { return nodeType }

func (p *Planner) nodeValue(i int) value.Value {
	if i < 0 {
		return value.Unknown(nodeType)
	}
	n := p.state.Nodes[i]
	key := model.Ref{Kind: model.RefNode, Name: n.Name}
	if v, ok := p.known[key]; ok {
		return v
	}
	text := func(s string) value.Value {
		if s == "" {
			return value.Unknown(value.Type{Kind: value.String})
		}
		return value.Text(s)
	}
	attrs := map[string]value.Value{
		model.NodeName: text(n.Name), model.NodeAddress: text(n.Address), model.NodeIncarnation: text(""), model.NodeBoot: text(""), model.NodeFacts: {},
	}
	if n.Alive() {
		attrs[model.NodeIncarnation], attrs[model.NodeBoot] = text(n.Incarnation), text(n.Boot)
	}
	var facts value.Value
	if n.Facts != nil && facts.UnmarshalJSON(n.Facts) == nil {
		attrs[model.NodeFacts] = facts
	}
	v := value.Dict(attrs)
	p.known[key] = v
	return v
}

func (p *Planner) roleValue(role string) value.Value {
	key := model.Ref{Kind: model.RefRole, Name: role}
	if v, ok := p.known[key]; ok {
		return v
	}
	m := map[string]value.Value{}
	for _, i := range p.roles[role] {
		m[p.state.Nodes[i].Name] = p.nodeValue(i)
	}
	v := value.Gather(nodeType, m)
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
		p.hashRefs(h, a, node)
	}
	return h.Sum()
}

func (p *Planner) hashRefs(h value.Hasher, a *model.Argument, node int) {
	for _, r := range a.Refs {
		switch r.Kind {
		case model.RefTask:
			up := p.byName[r.Name]
			at := node
			if len(up.task.Each) == 0 {
				at = -1
			}
			if k, ok := up.place[at]; ok {
				h.Digest(up.cells[k].view.out)
			}
		case model.RefAll:
			up := p.byName[r.Name]
			p.refreshGather(up)
			h.Digest(up.gather.digest)
		case model.RefNode:
			n := p.state.Nodes[node]
			switch r.Attr {
			case model.NodeName:
				h.Text(n.Name)
			case model.NodeAddress:
				h.Text(n.Address)
			case model.NodeIncarnation:
				h.Text(n.Incarnation)
			case model.NodeBoot:
				h.Text(n.Boot)
			default:
				h.Bytes(n.Facts)
			}
		case model.RefRole:
			for _, i := range p.roles[r.Name] {
				n := p.state.Nodes[i]
				for _, s := range []string{n.Name, n.Address, n.Incarnation, n.Boot, fmt.Sprint(n.Ended)} {
					h.Text(s)
				}
				h.Bytes(n.Facts)
			}
		case model.RefInput:
			h.Digest(p.model.Inputs[r.Name].Digest())
		}
	}
}

// sharedRef is the reference digest of an argument that is the same for every instance of its task, kept until one of
// the task's instances is decided anew in another state of what it refers to.
func (p *Planner) sharedRef(c *column, i int) value.Digest {
	h := value.NewHasher()
	p.hashRefs(h, &c.task.With[i], -1)
	return h.Sum()
}

type inputs struct {
	known bool
	open  string // an input that is not known
	input value.Digest
}

// inputs evaluates an instance's inputs as far as their digest needs.
func (p *Planner) inputs(c *column, node int) (inputs, error) {
	h := value.NewHasher()
	for i := range c.task.With {
		a := &c.task.With[i]
		h.Text(a.Name)
		if a.UsesHost() {
			h.Digest(a.Digest)
			continue
		}
		v, digest, err := p.argument(c, i, node)
		if err != nil {
			return inputs{}, err
		}
		if !v.Known() {
			return inputs{open: a.Name}, nil
		}
		h.Digest(digest)
	}
	return inputs{known: true, input: h.Sum()}, nil
}

// argument evaluates one input of an instance and checks it against the declared type.
func (p *Planner) argument(c *column, i, node int) (value.Value, value.Digest, error) {
	a := &c.task.With[i]
	if !a.Shared {
		v, err := p.evaluate(c, a, scope{p, node, ""})
		if err != nil || !v.Known() {
			return v, value.Digest{}, err
		}
		return v, v.Digest(), nil
	}
	s := &c.shared[i]
	if ref := p.sharedRef(c, i); !s.fresh || s.ref != ref {
		*s = sharedArgument{ref: ref, fresh: true}
		s.v, s.err = p.evaluate(c, a, scope{p, -1, ""})
		if s.err == nil && s.v.Known() {
			s.digest = s.v.Digest()
		}
	}
	return s.v, s.digest, s.err
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
				return value.Value{}, fmt.Errorf("input %s of task %s: %w", a.Name, c.task.Name, err)
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
	node := -1
	if t.Node != "" {
		node = p.state.Index(t.Node)
	}
	given := make(map[string]value.Value, len(c.task.Step.Inputs))
	for i := range c.task.With {
		a := &c.task.With[i]
		var v value.Value
		var err error
		if a.UsesHost() {
			v, err = p.evaluate(c, a, scope{p, node, host})
		} else {
			v, _, err = p.argument(c, i, node)
		}
		if err != nil {
			return nil, err
		}
		given[a.Name] = v
	}
	return WithDefaults(c.task.Step, given), nil
}

// HostInputs evaluates the inputs that look at the node that executes, for a task as it is or as it was.
func (p *Planner) HostInputs(t *model.Task, host string, into map[string]value.Value) {
	for i := range t.With {
		a := &t.With[i]
		if !a.UsesHost() {
			continue
		}
		if v, err := a.Expr.Eval(scope{p, -1, host}); err == nil {
			into[a.Name] = v
		}
	}
}

// WithDefaults fills in the defaults of inputs that are not given.
func WithDefaults(s *model.Step, given map[string]value.Value) map[string]value.Value {
	for _, f := range s.Inputs {
		if v, ok := given[f.Name]; ok && !(v.Null() && f.Default != nil) {
			continue
		}
		switch {
		case f.Default != nil:
			given[f.Name] = *f.Default
		default:
			given[f.Name] = value.NullOf(f.Type)
		}
	}
	return given
}

// changedInput names an input whose value differs from that of the last start.
func (p *Planner) changedInput(c *column, row *history.Row, node int) string {
	var was map[string]json.RawMessage
	if json.Unmarshal(row.Inputs, &was) != nil {
		return ""
	}
	for i := range c.task.With {
		a := &c.task.With[i]
		if a.UsesHost() {
			continue
		}
		v, _, err := p.argument(c, i, node)
		if err != nil {
			continue
		}
		if data, err := v.MarshalJSON(); err == nil && string(Small(data)) != string(was[a.Name]) {
			return a.Name
		}
	}
	return ""
}

// largest is the size in bytes from which an input is kept in the journal by its digest.
const largest = 1024

// Small gives the form in which an input's JSON is kept in the journal: itself, or its digest if it is large.
func Small(data []byte) json.RawMessage {
	if len(data) < largest {
		return data
	}
	return json.RawMessage(fmt.Sprintf(`{"$large":"%x"}`, sha256.Sum256(data)))
}

// Large reports the digest that stands for a large input, if data is one.
func Large(data []byte) (value.Digest, bool) {
	var ref struct {
		Large *value.Digest `json:"$large"`
	}
	if len(data) > 128 || json.Unmarshal(data, &ref) != nil || ref.Large == nil {
		return value.Digest{}, false
	}
	return *ref.Large, true
}
