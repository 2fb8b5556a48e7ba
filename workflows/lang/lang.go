// Package lang is the language: it reads packs and cluster files, checks them completely, and compiles them to the
// model that the engine works from. It is pure: sources come as bytes, and nothing outlives a call.
package lang

import (
	"io/fs"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/archive"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/read"
	"joist/workflows/lang/selection"
)

// Diagnostics are what the language has to say about sources.
type Diagnostics = diag.Diagnostics

// Diagnostic is one of them.
type Diagnostic = diag.Diagnostic

// Pack is a loaded pack: what stands in it is checked by itself, and not yet against other packs. It is immutable.
type Pack = decl.Pack

// Catalogue is what steps can call that is not in a pack.
type Catalogue = decl.Catalogue

// Load reads a pack: pack.hcl and the other *.hcl of its folder, and files/**, by path within the pack. It returns nil
// where errors are so grave that there is no pack; one with other errors can be given to Check for the rest of them, and
// Compile refuses it. What the pack's workflows refer to is the matter of Check.
func Load(files map[string][]byte, catalogue Catalogue) (*Pack, Diagnostics) {
	return decl.Load(files, catalogue)
}

// ReadFS reads the files of a pack's folder that Load takes.
func ReadFS(dir fs.FS) (map[string][]byte, error) { return archive.ReadFS(dir) }

// FromArchive gives the files of an archive back, for Load.
func FromArchive(data []byte) (map[string][]byte, error) { return archive.Files(data) }

// What package read takes bodies apart into.
type (
	reader = read.Reader
	form   = read.Form
	named  = read.Named
	pair   = read.Pair
)

// Source is all that a model is compiled from.
type Source struct {
	Packs   map[string]*decl.Pack // by name: those that the cluster file names, and what they require
	Cluster *ClusterFile

	// Pins are the files that were decided on for artifacts, by their PinName. An artifact without one is left open, as is right
	// where packs are only checked. A checksum that a pack ships takes precedence: a pin that differs from it is not used.
	Pins map[string]model.Pin

	// Names are those by which tasks, roles and rollouts of the cluster stand that were renamed since they were first started.
	Names model.Names

	// Tentative has Compile list what policies name and neither the workflow nor Names has, rather than report it: the cluster may
	// have it still. NamesAfter finds it there, and Compile is asked again.
	Tentative bool

	// Kept says that a cluster has this as a goal already. What a version before this one let pass is no error then: else a newer one
	// could not take the cluster up, and nobody could change or destroy it.
	Kept bool

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
