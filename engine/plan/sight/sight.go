// Package sight is what expressions see of nodes, and what of that is in the digests of who looks.
package sight

import (
	"strconv"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

var nodeType = value.Type{Kind: value.Object, Attrs: map[string]value.Attr{
	model.NodeName: {Type: value.Type{Kind: value.String}}, model.NodeAddress: {Type: value.Type{Kind: value.Address}},
	model.NodeIncarnation: {Type: value.Type{Kind: value.String}}, model.NodeBoot: {Type: value.Type{Kind: value.String}},
	model.NodeFacts: {Type: value.Type{}}, model.NodeStorage: {Type: value.Type{Kind: value.String}},
}}

// NodeType is the type of `node` and of the elements of `role.R`.
func NodeType() value.Type { return nodeType }

// Node gives a node as expressions see it, with where the cluster keeps its data. What is not known before it has come up
// is unknown.
func Node(n *history.Node, storage string) value.Value {
	text := func(s string) value.Value {
		if s == "" {
			return value.Unknown(value.Type{Kind: value.String})
		}
		return value.Text(s)
	}
	attrs := map[string]value.Value{
		model.NodeName: text(n.Name), model.NodeAddress: text(n.Address), model.NodeIncarnation: text(""), model.NodeBoot: text(""), model.NodeFacts: {},
		model.NodeStorage: value.Text(storage),
	}
	if n.Alive() {
		attrs[model.NodeIncarnation], attrs[model.NodeBoot] = text(n.Incarnation), text(n.Boot)
	}
	var facts value.Value
	if n.Facts != nil && facts.UnmarshalJSON(n.Facts) == nil {
		attrs[model.NodeFacts] = facts
	}
	return value.Dict(attrs)
}

// Hash adds what a reader of a node sees of it: an attribute, or with none all of them.
func Hash(h value.Hasher, n *history.Node, storage, attr string) {
	whole := attr == ""
	if whole || attr == model.NodeName {
		h.Text(n.Name)
	}
	if whole || attr == model.NodeAddress {
		h.Text(n.Address)
	}
	if whole || attr == model.NodeIncarnation {
		h.Text(n.Incarnation)
	}
	if whole || attr == model.NodeBoot {
		h.Text(n.Boot)
	}
	if whole || attr == model.NodeFacts {
		h.Bytes(n.Facts)
	}
	if whole || attr == model.NodeStorage {
		h.Text(storage)
	}
	h.Text(strconv.FormatBool(n.Alive()))
}
