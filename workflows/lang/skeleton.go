package lang

import "joist/engine/model"

// Pack is a loaded pack.
type Pack struct {
	Name     string
	Version  string
	Summary  string
	Requires map[string]string // constraint by pack name
	Trust    string            // level of trust that its secrets need

	files map[string][]byte
}

// ClusterFile is a checked cluster file.
type ClusterFile struct {
	Name     string
	Workflow string // "pack.workflow"
	Packs    map[string]PackSource
	Nodes    map[string]Selection // by role
	Storage  string               // "disk" or "memory"
}

// Load reads a pack: pack.hcl and the other *.hcl of its folder, and files/**, by path within the pack.
func Load(files map[string][]byte, catalogue Catalogue) (*Pack, Diagnostics) { return nil, nil }

// LoadCluster reads a cluster file; name is what diagnostics call it.
func LoadCluster(name string, src []byte) (*ClusterFile, Diagnostics) { return nil, nil }

// Check checks packs against one another: every reference, every type across an edge, cycles, and the flow of paths and secrets.
func Check(packs map[string]*Pack) Diagnostics { return nil }

// Compile makes the model of a cluster. Its digest covers packs, cluster file and inputs.
func Compile(src Source) (*model.Model, Diagnostics) { return nil, nil }

// Archive is the deterministic archive of the pack's files.
func (p *Pack) Archive() []byte { return nil }

// FromArchive gives the files of an archive back, for Load.
func FromArchive(data []byte) (map[string][]byte, error) { return nil, nil }
