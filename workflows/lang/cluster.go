package lang

import (
	"slices"

	"github.com/Masterminds/semver/v3"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/workflows/lang/decl"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
	"joist/workflows/lang/selection"
)

// ClusterFile is an operator's declaration of a cluster, checked as far as that goes without its packs.
type ClusterFile struct {
	Name      string
	Workflow  string // "pack.workflow"
	Packs     map[string]PackSource
	Nodes     map[string]Selection // by role
	Slots     map[string]string    // "pack.name" of what fills a slot, by the slot's path
	Storage   string               // "disk" or "memory"; memory if it says nothing
	Frozen    string               // name of the frozen set that it is pinned to; empty for none
	TrustBoot bool                 // boots that the engine ordered keep a machine's approval
	Drift     model.Drift          // how often what is in place is verified, and what comes of it
	Policies  []read.Policy        // what they refer to is looked for when it is compiled

	file   string
	src    []byte
	at     hcl.Range
	flow   hcl.Range
	reboot hcl.Range // if it trusts the boot network
	with   []pair
	roles  map[string]hcl.Range
	packs  map[string]hcl.Range
	fills  map[string]*fill // by path
}

// Lacking says at the place where the file names a pack why it cannot be had. It is nil for a pack that the file does not name.
func (c *ClusterFile) Lacking(pack string, why error) Diagnostics {
	at, named := c.packs[pack]
	if !named {
		return nil
	}
	bag := diag.NewBag(map[string][]byte{c.file: c.src})
	bag.Errorf(at, "Correct what the cluster file says of this pack, or what is there.", "%s", why)
	return bag.Done("")
}

// LoadCluster reads a cluster file; name is what diagnostics call it. It returns nil if there are errors.
func LoadCluster(name string, src []byte) (*ClusterFile, Diagnostics) {
	bag := diag.NewBag(map[string][]byte{name: src})
	body, ok := diag.Parse(bag, name, src)
	if !ok {
		return nil, bag.Done("")
	}
	r := &reader{Bag: bag, Body: body, What: "a cluster file"}
	r.Expect(form{Blocks: map[string]int{"cluster": 1}})
	blocks := r.Blocks("cluster", 1)
	if len(blocks) == 0 && !bag.HasErrors() {
		bag.Errorf(hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, `Write cluster "name" { workflow = pack.NAME … }, in several lines.`, "there is no cluster block")
	}
	c := &ClusterFile{file: name, src: src}
	for i, b := range blocks {
		if i > 0 {
			bag.Errorf(b.DefRange(), "Write a file for each cluster.", "a second cluster block")
			continue
		}
		c.decode(r.Inner(b), b)
	}
	if bag.HasErrors() {
		return nil, bag.Done("")
	}
	return c, bag.Done("")
}

func (c *ClusterFile) decode(r *reader, b *hclsyntax.Block) {
	r.Expect(form{Attrs: []string{"workflow", "packs", "nodes", "with", "storage", "slots", "frozen", "drift", "reboot"}, Blocks: map[string]int{"policy": 1}})
	n, _ := r.Word(b)
	c.Name, c.at = n.Name, n.At
	c.Packs, c.Nodes = map[string]PackSource{}, map[string]Selection{}
	c.roles, c.packs = map[string]hcl.Range{}, map[string]hcl.Range{}
	if e := r.Need("workflow", "Write workflow = pack.NAME."); e != nil {
		c.flow = e.Range()
		t, diags := hcl.AbsTraversalForExpr(e)
		path := expr.StepNames(t, 2)
		if diags.HasErrors() || len(t) != 2 || len(path) != 2 {
			r.Bag.Errorf(e.Range(), "Write workflow = pack.NAME.", "expected the name of a workflow")
		} else {
			c.Workflow = path[0] + "." + path[1]
		}
	}
	r.Need("packs", `Write packs = { NAME = { source = "builtin" } }.`)
	for _, p := range r.Pairs("packs") {
		c.pack(r, p)
	}
	r.Need("nodes", `Write nodes = { ROLE = ["machine"] }, or select(facts.memory >= gib(2), 3).`)
	for _, p := range r.Pairs("nodes") {
		c.Nodes[p.Name], c.roles[p.Name] = selection.Read(r.Bag, c.src, p.Value), p.At
	}
	c.with = r.Pairs("with")
	c.Slots, c.fills = map[string]string{}, map[string]*fill{}
	c.slots(r)
	if e := r.Attr("frozen"); e != nil {
		if c.Frozen = r.Text("frozen"); c.Frozen == "" {
			r.Bag.Errorf(e.Range(), `Write frozen = "name", as joist mirror freeze was given it.`, "the frozen set has no name")
		}
	}
	c.Drift = r.Drift()
	c.Policies = r.Policies()
	c.Storage = "memory"
	if e := r.Attr("storage"); e != nil {
		c.Storage = r.Text("storage")
		if known := []string{"memory", "disk"}; !slices.Contains(known, c.Storage) && c.Storage != "" {
			r.Bag.Errorf(e.Range(), diag.Suggest(c.Storage, known), "no storage is called %q", c.Storage)
		}
	}
	if e := r.Attr("reboot"); e != nil {
		switch word := r.Text("reboot"); word {
		case "trust-boot-network":
			c.TrustBoot = true
			c.reboot = e.Range()
		default:
			r.Bag.Errorf(e.Range(), "Write reboot = \"trust-boot-network\", or leave it out: a machine without disk, TPM or voucher is approved anew after each boot then.", "no way to reboot is called %q", word)
		}
	}
}

func (c *ClusterFile) pack(r *reader, p pair) {
	src := PackSource{Range: model.Range{File: p.At.Filename, Line: p.At.Start.Line, Col: p.At.Start.Column}}
	o, ok := p.Value.(*hclsyntax.ObjectConsExpr)
	if !ok {
		r.Bag.Errorf(p.Value.Range(), `Write { source = "builtin" }, with version = "~> 0.1" if you want to bound it.`, "where the pack %q comes from is not written out", p.Name)
		return
	}
	known := []string{"source", "version"}
	for _, item := range o.Items {
		key, _ := expr.KeyName(item.KeyExpr)
		if !slices.Contains(known, key) {
			r.Bag.Errorf(item.KeyExpr.Range(), diag.Suggest(key, known), "no attribute of a pack is called %q", key)
			continue
		}
		text, ok := decl.ConstantText(r.Bag, item.ValueExpr)
		switch {
		case !ok:
		case key == "source":
			src.Source = text
		default:
			src.Version = text
			if _, err := semver.NewConstraint(text); err != nil {
				r.Bag.Errorf(item.ValueExpr.Range(), `Write a constraint such as ">= 0.1.0" or "~> 1.2".`, "%q is not a constraint on versions", text)
			}
		}
	}
	if src.Source == "" {
		r.Bag.Errorf(o.SrcRange, `Add source = "builtin", or a folder such as "./content/etcd".`, "the pack %q has no source", p.Name)
	}
	c.Packs[p.Name], c.packs[p.Name] = src, p.At
}

// Refuse is an error about a role or an input of the cluster, at its place in the file; of neither, about the cluster.
func (c *ClusterFile) Refuse(role, input, advice, summary string) error {
	at := c.at
	if r, ok := c.roles[role]; ok {
		at = r
	}
	for _, p := range c.with {
		if p.Name == input {
			at = p.At
		}
	}
	bag := diag.NewBag(map[string][]byte{c.file: c.src})
	bag.Errorf(at, advice, "%s", summary)
	return bag.Done("").Err()
}
