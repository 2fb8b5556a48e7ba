package decl

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
	"joist/workflows/lang/read"
)

// architectures are those that the boot sets and builds know, by Go's names.
var architectures = []string{"amd64", "arm64"}

var (
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}$`)
	digestForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// artifact reads an artifact block.
func (d *decoder) artifact(b *hclsyntax.Block, seen map[string]hcl.Range) {
	r := (&reader{Bag: d.bag}).Inner(b)
	r.Expect(form{Attrs: []string{"version", "arch", "kind", "sha256", "size", "licence", "url", "follows", "behind", "steps"}})
	n, ok := r.Word(b)
	if !ok || !read.Unique(d.bag, "artifacts", seen, n) {
		return
	}
	a := model.Artifact{Name: n.Name, Pack: d.pack.Name, Arch: "amd64", Kind: model.File, Size: r.Whole("size", 1, 0)}
	if e := r.Need("version", `Write version = "1.36.3".`); e != nil {
		if a.Version = r.Text("version"); !versionForm.MatchString(a.Version) {
			d.bag.Errorf(e.Range(), "Use letters, digits, and . + ~ _ -; at most 64.", "%q is not an artifact's version", a.Version)
		}
	}
	if e := r.Need("licence", `Write its SPDX expression, such as licence = "Apache-2.0".`); e != nil {
		if a.Licence = r.Text("licence"); a.Licence == "" {
			d.bag.Errorf(e.Range(), `Write its SPDX expression, such as "Apache-2.0".`, "%s does not say its licence", r.What)
		}
	}
	if e := r.Attr("arch"); e != nil {
		if a.Arch = r.Text("arch"); !slices.Contains(architectures, a.Arch) {
			d.bag.Errorf(e.Range(), diag.Suggest(a.Arch, architectures), "no architecture is called %q", a.Arch)
		}
	}
	if e := r.Attr("kind"); e != nil {
		kinds := model.ArtifactKinds()
		if a.Kind = model.ArtifactKind(r.Text("kind")); !slices.Contains(kinds, string(a.Kind)) {
			d.bag.Errorf(e.Range(), diag.Suggest(string(a.Kind), kinds), "no kind of artifact is called %q", a.Kind)
		}
	}
	if e := r.Attr("sha256"); e != nil {
		text := r.Text("sha256")
		if !digestForm.MatchString(text) || a.Digest.UnmarshalText([]byte(text)) != nil {
			d.bag.Errorf(e.Range(), "Write the 64 lower-case hexadecimal digits that sha256sum prints.", "this is not a SHA-256")
		}
	}
	if e := r.Attr("url"); e != nil {
		a.URL = r.Text("url")
		if u, err := url.Parse(a.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			d.bag.Errorf(e.Range(), "Write an address that begins with https://.", "%q is not the address of a file", a.URL)
		}
		if r.Attr("sha256") == nil {
			d.bag.Errorf(e.Range(), "Add the sha256 of what it serves, verified, or leave the url out and let the operator bring the file.", "%s has a url and no sha256", r.What)
		}
	}
	a.Lag = model.Lag{Behind: int(r.Whole("behind", 0, 0)), Steps: int(r.Whole("steps", 1, 0))}
	if e := r.Attr("follows"); e != nil {
		a.Lag.Follows = r.Text("follows")
		d.follows = append(d.follows, read.Named{Name: a.Name, At: e.Range()})
	}
	d.pack.artifacts[n.Name] = a
}

// follow checks the versions of artifacts that follow others.
func (d *decoder) follow() {
	for _, n := range d.follows {
		a := d.pack.artifacts[n.Name]
		leader, ok := d.pack.artifacts[a.Lag.Follows]
		if !ok {
			d.bag.Errorf(n.At, diag.Suggest(a.Lag.Follows, SortedKeys(d.pack.artifacts)), "the pack has no artifact %q", a.Lag.Follows)
		} else if err := a.FollowError(&leader); err != nil {
			d.bag.Errorf(n.At, "Change one of the versions.", "%s", err)
		}
	}
}

// needs reads the artifacts that a step names.
func (d *decoder) needs(r *reader, s *Step) {
	e := r.Attr("artifacts")
	if e == nil {
		return
	}
	seen := map[string]hcl.Range{}
	for _, x := range read.List(e) {
		t, diags := hcl.AbsTraversalForExpr(x)
		path := expr.StepNames(t, 2)
		if diags.HasErrors() || len(t) != 1 || len(path) != 1 {
			d.bag.Errorf(x.Range(), "Write artifacts = [NAME], with artifact \"NAME\" { … } in the same pack.", "expected the name of an artifact")
			continue
		}
		a, ok := d.pack.artifacts[path[0]]
		if !ok {
			d.bag.Errorf(x.Range(), diag.Suggest(path[0], SortedKeys(d.pack.artifacts)), "the pack has no artifact %q", path[0])
			continue
		}
		if read.Unique(d.bag, "artifacts of the step", seen, read.Named{Name: a.Name, At: x.Range()}) {
			s.Artifacts = append(s.Artifacts, a)
		}
	}
	slices.SortFunc(s.Artifacts, func(a, b model.Artifact) int { return strings.Compare(a.Name, b.Name) })
	if s.Apply.Script == nil && (s.Apply.Builtin != "" || s.Apply.Call != "" || s.Pure()) {
		d.bag.Errorf(e.Range(), "Leave them out, or let apply be a script.", "only a script sees artifacts")
	}
}

// ArtifactsDigest adds to a digest of a step what its scripts find.
func ArtifactsDigest(h value.Hasher, list []model.Artifact) {
	if len(list) == 0 {
		return
	}
	h.Text(fmt.Sprintf("artifacts %d", len(list)))
	for _, a := range list {
		h.Text(a.Name)
		h.Text(string(a.Kind))
		h.Digest(a.Digest)
	}
}
