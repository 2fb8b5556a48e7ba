package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// place is a path of ours in prose: in back quotes, below a top-level folder, without a pattern in it.
var place = regexp.MustCompile("`((?:cmd|content|dhcp-dns|engine|pki|providers|services|tests|workflows)(?:/[A-Za-z0-9_.-]+)*)/?`")

// link is a link to a file of ours.
var link = regexp.MustCompile(`\]\(([^):#]+)\)`)

// target is a command of the Makefile in prose.
var target = regexp.MustCompile("`make ([a-z-]+)`")

// stale lists what a text names that does not exist.
func stale(root, text string, makefile string) []string {
	var missing []string
	for _, re := range []*regexp.Regexp{place, link} {
		for _, m := range re.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				missing = append(missing, m[1])
			}
		}
	}
	for _, m := range target.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(makefile, "\n"+m[1]+":") {
			missing = append(missing, "make "+m[1])
		}
	}
	return missing
}

// Folders, files and commands that the documents name exist.
func TestProse(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	walk(t, "../..", func(name string) {
		if filepath.Ext(name) != ".md" {
			return
		}
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range stale(filepath.Join("../..", filepath.Dir(name)), string(text), string(makefile)) {
			if _, err := os.Stat(filepath.Join("../..", m)); err != nil { // a path from the top is as good as one from the document
				t.Errorf("%s names %s, which does not exist", name, m)
			}
		}
	})
	planted := "see `engine/plan`, `engine/gone` and [there](gone.md), then `make test` and `make gone`"
	if got := strings.Join(stale("../..", planted, string(makefile)), ", "); got != "engine/gone, gone.md, make gone" {
		t.Errorf("of what is planted, this is seen: %s", got)
	}
}
