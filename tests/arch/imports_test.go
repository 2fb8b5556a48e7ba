package arch_test

import (
	"go/ast"
	"strings"
)

// tiers orders the top-level folders: a package imports what stands in a lower tier, and its own folder.
var tiers = map[string]int{
	"tests": 4,
	"cmd":   3, "services": 2, "providers": 2, "content": 2, "workflows": 2,
	"engine": 1, "pki": 1, "dhcp-dns": 1,
}

// within lists what may be imported inside a tier, from folder to folder, beyond a package's own unit.
var within = []struct{ from, to, why string }{
	{"content", "workflows", "packs are read by the language"},
	{"providers", "services/power", "machines implement Power"},
	{"services/boot", "services/power", "the boot service orders machines to boot"},
	{"engine/agent", "pki/enrol", "both sides of an enrolment share its messages; the package needs the standard library only"},
}

// unit is the part of a path inside which packages may import each other: the folder itself in the lower tier, where
// folders are few and closely knit, and the single service or provider above it.
func unit(p string) string {
	parts := strings.SplitN(p, "/", 3)
	switch parts[0] {
	case "services", "providers", "cmd":
		if len(parts) > 1 {
			return parts[0] + "/" + parts[1]
		}
	}
	return parts[0]
}

func mayImport(from, to string, test bool) (bool, string) {
	if to == "tests" || strings.HasPrefix(to, "tests/") {
		return under(from, "tests"), "nothing imports tests"
	}
	if under(to, "cmd/system") {
		return under(from, "tests", "cmd/joist", "cmd/system"), "only cmd/joist and tests import the composition root"
	}
	low, high := tierOf(to), tierOf(from)
	switch {
	case low == 0 || high == 0:
		return false, "the top-level folders are fixed"
	case low < high, unit(from) == unit(to):
		return true, ""
	case low > high:
		return false, "lower tiers do not know of higher ones"
	}
	for _, w := range within {
		if under(from, w.from) && under(to, w.to) {
			return true, ""
		}
	}
	// A conformance suite is tried on a simulated implementation, which imports the contract: only a test may close that circle.
	if test && under(from, "services/power") && under(to, "providers/sim") {
		return true, ""
	}
	return false, "they are in one tier"
}

func tierOf(p string) int {
	top, _, _ := strings.Cut(p, "/")
	return tiers[top]
}

// checkTiers is the rule of who may import whom.
func checkTiers(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		if tierOf(p.path) == 0 && len(p.files) > 0 {
			found = append(found, t.violation("tiers", p.files[0].ast.Package, "the top-level folders are fixed; %s is none of them", p.path))
			continue
		}
		p.imports(func(f file, spec *ast.ImportSpec, to string, ours bool) {
			if !ours {
				return
			}
			if ok, why := mayImport(p.path, to, f.test); !ok {
				found = append(found, t.violation("tiers", spec.Pos(), "%s must not import %s: %s", p.path, to, why))
			}
		})
	}
	return found
}

// homes lists libraries that only some folders know.
var homes = []struct {
	library string
	folders []string
}{
	{"github.com/zclconf/go-cty", []string{"engine/value", "workflows/lang"}},
	{"github.com/hashicorp/hcl", []string{"workflows", "content"}},
	{"github.com/cloudflare/cfssl", []string{"pki"}},
	{"gorm.io", []string{"engine/journal/sqlstore", "services/addresses"}},
	{"github.com/glebarez", []string{"engine/journal/sqlstore", "services/addresses"}},
	{"modernc.org", nil}, // a second registration of its driver would panic
	{"github.com/spf13/cobra", []string{"cmd/joist"}},
	{"charm.land", []string{"cmd/joist"}},
}

// checkHomes is the rule of which libraries stay behind which package.
func checkHomes(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		p.imports(func(f file, spec *ast.ImportSpec, to string, ours bool) {
			if ours || (f.test && under(p.path, "tests")) {
				return
			}
			for _, h := range homes {
				if (to == h.library || strings.HasPrefix(to, h.library+"/")) && !under(p.path, h.folders...) {
					found = append(found, t.violation("homes", spec.Pos(), "%s is at home in %q only", h.library, h.folders))
				}
			}
			if to == "github.com/miekg/dns" && (spec.Name == nil || spec.Name.Name != "mdns") {
				found = append(found, t.violation("homes", spec.Pos(), "github.com/miekg/dns is imported as mdns, for we have a dns of our own"))
			}
		})
	}
	return found
}

// checkNames is the rule that a package is called for what it holds.
func checkNames(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		for _, part := range strings.Split(p.path, "/") {
			switch strings.TrimSuffix(part, "s") {
			case "util", "utility", "utilitie", "helper", "common", "misc":
				found = append(found, t.violation("names", p.files[0].ast.Package, "no package is called %s", part))
			}
		}
	}
	return found
}
