// Package lang is the language: it reads packs and cluster files, checks them completely, and compiles them to the
// model that the engine works from. It is pure: sources come as bytes, and nothing outlives a call.
package lang

import (
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
	"joist/workflows/lang/diag"
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
}

// Selection says which machines play a role: by name, or Count machines that satisfy Predicate. Exactly one of Names and
// Predicate is set. Of one cluster a machine plays several roles only if each lists it by name: whoever claims machines
// never lets a predicate choose one that another role has already.
type Selection struct {
	Names     []string
	Predicate func(name string, facts value.Value) (bool, error) // facts as the machine reported them; an error if it cannot tell
	Count     int
	Text      string      // as it is written, for people
	Range     model.Range // where it stands
}

// PackSource says where a pack comes from.
type PackSource struct {
	Source  string // "builtin", a folder such as "./content/etcd", or "oci://…"
	Version string // constraint such as "~> 0.1"; empty for any
	Range   model.Range
}
