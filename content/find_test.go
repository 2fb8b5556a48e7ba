package content_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"joist/content"
)

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	if got := content.Shipped(); !slices.Contains(got, "base") || !slices.Contains(got, "etcd") {
		t.Errorf("shipped %v", got)
	}
	for _, name := range content.Shipped() {
		if files, err := content.Find(name, content.Builtin, ""); err != nil || len(files["pack.hcl"]) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	root := write(t, t.TempDir(), map[string]string{"p/pack.hcl": "x", "p/files/a.sh": "y", "p/.git/config": "z", "p/.hidden": "z", "q/other.hcl": ""})
	for _, source := range []string{"p", "./p", filepath.Join(root, "p")} {
		files, err := content.Find("p", source, root)
		if err != nil || len(files) != 2 || string(files["files/a.sh"]) != "y" {
			t.Errorf("%s: %v, %v", source, files, err)
		}
	}
	for source, want := range map[string]string{
		"q":                 "cannot read the pack in " + root + "/q: it has no pack.hcl",
		"oci://example/p":   `cannot fetch pack "p" from oci://example/p: not yet; name a folder, or "builtin"`,
		content.Builtin:     `no pack "p" ships with joist; those that do: `,
		"../../nowhere/p/p": "it has no pack.hcl",
	} {
		if _, err := content.Find("p", source, root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\n\twant %s", source, err, want)
		}
	}
	for _, name := range []string{"../base", "/base", ".", "", "base/files"} {
		if _, err := content.Find(name, content.Builtin, ""); err == nil {
			t.Errorf("a pack %q ships", name)
		}
	}
}

func TestFolderLimits(t *testing.T) {
	link := write(t, t.TempDir(), map[string]string{"pack.hcl": ""})
	if err := os.Symlink("/etc/passwd", filepath.Join(link, "passwd")); err != nil {
		t.Fatal(err)
	}
	large := write(t, t.TempDir(), map[string]string{"pack.hcl": "", "big": strings.Repeat("x", 4<<20+1)})
	many := map[string]string{"pack.hcl": ""}
	for i := range 2000 {
		many[fmt.Sprint("f", i)] = ""
	}
	for folder, want := range map[string]string{
		link: "passwd: a pack has plain files and folders only, no links or devices", large: "big: a pack has at most 2000 files of at most 4 MiB",
		write(t, t.TempDir(), many): "a pack has at most 2000 files of at most 4 MiB",
	} {
		if _, err := content.Folder(folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\n\twant %s", err, want)
		}
	}
}
