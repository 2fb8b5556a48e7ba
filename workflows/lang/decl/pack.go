package decl

import (
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
	"joist/workflows/lang/archive"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/read"
)

// manifest is the file that holds the pack block.
const manifest = "pack.hcl"

// Pack is a loaded pack: what stands in it is checked by itself, and not yet against other packs. It is immutable.
type Pack struct {
	Name     string
	Version  string
	Summary  string
	Requires map[string]string // constraint by pack name
	Trust    string            // level of trust that its secrets need; model.Approved if it says nothing

	// Folder is what diagnostics of Check and Compile put before file names, such as "content/etcd/"; it may be set before
	// they are called. Load makes it the pack's name and a slash.
	Folder string

	Files    map[string][]byte    // by path within the pack
	Broken   bool                 // errors were reported when it was loaded
	At       hcl.Range            // of the pack's name
	Required map[string]hcl.Range // where a requirement stands, by pack name

	StepDecls     map[string]*Step
	WorkflowDecls map[string]*Workflow
	Workflows     []*Workflow // as in the source

	digest    value.Digest
	artifacts map[string]model.Artifact
	renamed   map[string]string // former names of steps and workflows, with those that they have now
}

// Steps lists the pack's steps by name.
func (p *Pack) Steps() map[string]*model.Step {
	out := make(map[string]*model.Step, len(p.StepDecls))
	for name, s := range p.StepDecls {
		out[name] = s.Step
	}
	return out
}

// Digest identifies the pack's content: it is the digest of its archive.
func (p *Pack) Digest() value.Digest { return p.digest }

// Load reads a pack: pack.hcl and the other *.hcl of its folder, and files/**, by path within the pack. It returns nil
// where errors are so grave that there is no pack; one with other errors can be given to Check for the rest of them, and
// Compile refuses it. What the pack's workflows refer to is the matter of Check.
func Load(files map[string][]byte, catalogue Catalogue) (*Pack, diag.Diagnostics) {
	p := &Pack{Files: map[string][]byte{}, StepDecls: map[string]*Step{}, WorkflowDecls: map[string]*Workflow{}, artifacts: map[string]model.Artifact{}, Required: map[string]hcl.Range{}}
	sources, total := map[string][]byte{}, 0
	for _, name := range SortedKeys(files) {
		if !archive.Belongs(name) {
			continue
		}
		p.Files[name] = files[name]
		total += len(files[name])
		if strings.HasSuffix(name, ".hcl") && !strings.HasPrefix(name, "files/") {
			sources[name] = files[name]
		}
	}
	bag := diag.NewBag(sources)
	if len(p.Files) > archive.MaxFiles || total > archive.MaxSize {
		bag.Errorf(hcl.Range{}, "Fetch large files as artifacts instead.", "the pack is too large: at most %d files and %d MiB", archive.MaxFiles, archive.MaxSize>>20)
		return nil, bag.Done("")
	}
	if sources[manifest] == nil {
		bag.Errorf(hcl.Range{}, `Write pack.hcl with pack "name" { version = "0.1.0"  summary = "…" }, in several lines.`, "there is no pack.hcl")
	}
	var bodies []*hclsyntax.Body
	for _, name := range SortedKeys(sources) {
		if body, ok := diag.Parse(bag, name, sources[name]); ok {
			bodies = append(bodies, body)
		}
	}
	if bag.HasErrors() { // what the parser left of a broken file would only cause further errors
		return nil, bag.Done("")
	}
	d := &decoder{bag: bag, pack: p, catalogue: catalogue, files: map[string]bool{}}
	d.pack.digest = value.Sum(p.Archive())
	d.bodies(bodies)
	p.Broken = bag.HasErrors()
	if p.Name == "" {
		return nil, bag.Done("")
	}
	return p, bag.Done("")
}

// Prefix is what diagnostics put before file names.
func (p *Pack) Prefix() string { return p.Folder }

// decoder fills a pack in from its sources.
type decoder struct {
	bag       *diag.Bag
	pack      *Pack
	catalogue Catalogue
	files     map[string]bool // those that an action names
	follows   []read.Named    // artifacts that follow others, and where they say so
	claims    []claim
}

func (d *decoder) bodies(bodies []*hclsyntax.Body) {
	top := form{Blocks: map[string]int{"pack": 1, "artifact": 1, "step": 1, "workflow": 1}}
	var packs, artifacts, steps, workflows []*hclsyntax.Block
	for _, body := range bodies {
		r := &reader{Bag: d.bag, Body: body, What: "a pack"}
		r.Expect(top)
		packs = append(packs, r.Blocks("pack", 1)...)
		artifacts = append(artifacts, r.Blocks("artifact", 1)...)
		steps = append(steps, r.Blocks("step", 1)...)
		workflows = append(workflows, r.Blocks("workflow", 1)...)
	}
	if len(packs) == 0 && !d.bag.HasErrors() {
		d.bag.Errorf(hcl.Range{Filename: manifest, Start: hcl.InitialPos, End: hcl.InitialPos}, `Write pack "name" { version = "0.1.0"  summary = "…" }, in several lines.`, "there is no pack block")
	}
	for i, b := range packs {
		if i > 0 {
			d.bag.Errorf(b.DefRange(), "A folder is one pack: keep one of the blocks.", "a second pack block")
			continue
		}
		d.packBlock(b)
	}
	seen := map[string]hcl.Range{}
	for _, b := range artifacts {
		d.artifact(b, seen)
	}
	d.follow()
	seen = map[string]hcl.Range{}
	for _, b := range steps {
		d.step(b, seen)
	}
	for _, b := range workflows {
		d.workflow(b, seen)
	}
	d.pack.renamed = d.renames("the pack", "step or workflow", d.claims)
}

func (d *decoder) packBlock(b *hclsyntax.Block) {
	r := (&reader{Bag: d.bag}).Inner(b)
	r.Expect(form{Attrs: []string{"version", "summary", "requires", "trust"}})
	n, _ := r.Word(b)
	p := d.pack
	p.Name, p.Folder, p.At, p.Requires, p.Trust = n.Name, n.Name+"/", n.At, map[string]string{}, model.Approved
	if e := r.Need("version", `Write version = "0.1.0".`); e != nil {
		p.Version = r.Text("version")
		if _, err := semver.StrictNewVersion(p.Version); err != nil && p.Version != "" {
			r.Bag.Errorf(e.Range(), `Write a version of three numbers, such as "0.1.0".`, "%q is not a version", p.Version)
		}
	}
	p.Summary = r.Text("summary")
	r.Need("summary", `Write summary = "…": one sentence about what the pack is for.`)
	if e := r.Attr("trust"); e != nil {
		p.Trust = r.Text("trust")
		if !model.Suffices(p.Trust, model.Claimed) {
			r.Bag.Errorf(e.Range(), diag.Suggest(p.Trust, []string{model.Claimed, model.Approved, model.Vouched, model.Attested}), "no level of trust is called %q", p.Trust)
		}
	}
	for _, req := range r.Pairs("requires") {
		v, ok := ConstantText(d.bag, req.Value)
		if !ok {
			continue
		}
		if _, err := semver.NewConstraint(v); err != nil {
			d.bag.Errorf(req.Value.Range(), `Write a constraint such as ">= 0.1.0" or "~> 1.2".`, "%q is not a constraint on versions", v)
		}
		p.Requires[req.Name], p.Required[req.Name] = v, req.At
	}
}

// Archive is the deterministic archive of the pack's files: a tar file of regular files in the order of their names.
func (p *Pack) Archive() []byte { return archive.Pack(p.Files) }

// Catalogue is what steps can call that is not in a pack.
type Catalogue struct {
	Calls    []step.Signature // operations of services: `apply { call = "names.put" }`
	Builtins []step.Signature // actions compiled into the agent: `apply { builtin = "file" }`; Call is the name
}
