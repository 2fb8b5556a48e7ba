// Package lang is the language: it reads packs and cluster files, checks them completely, and compiles them to the
// model that the engine works from. It is pure: sources come as bytes, and nothing outlives a call.
package lang

import (
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/selection"
)

// Diagnostics are what the language has to say about sources.
type Diagnostics = diag.Diagnostics

// Diagnostic is one of them.
type Diagnostic = diag.Diagnostic

// Catalogue is what steps can call that is not in a pack.
type Catalogue struct {
	Calls    []step.Signature // operations of services: `apply { call = "names.put" }`
	Builtins []step.Signature // actions compiled into the agent: `apply { builtin = "file" }`; Call is the name
}

// Source is all that a model is compiled from.
type Source struct {
	Packs   map[string]*Pack // by name: those that the cluster file names, and what they require
	Cluster *ClusterFile

	// Pins are the files that were decided on for artifacts, by their PinName. An artifact without one is left open, as is right
	// where packs are only checked. A checksum that a pack ships takes precedence: a pin that differs from it is not used.
	Pins map[string]model.Pin

	Frozen value.Digest // of the frozen set that packs and pins come from; zero for none
}

// Selection says which machines play a role.
type Selection = selection.Selection

// PackSource says where a pack comes from.
type PackSource struct {
	Source  string // "builtin", a folder such as "./content/etcd", or "oci://…"
	Version string // constraint such as "~> 0.1"; empty for any
	Range   model.Range
}
