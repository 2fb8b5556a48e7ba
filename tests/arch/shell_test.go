package arch_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shebang is the first line of a shell script.
var shebang = regexp.MustCompile(`^#!\s*(/usr)?/bin/(env )?(ba|da)?sh\b`)

// walk calls visit for every file below root that belongs to the source, by its path below root.
func walk(t *testing.T, root string, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		switch name {
		case ".git", "bin", "build", "data", "tests/arch/testdata":
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil // a work tree's .git is a file
		}
		if d.Type().IsRegular() {
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scripts lists the shell scripts below root: by their name's end, or by their first line where the name has none.
func scripts(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	walk(t, root, func(name string) {
		full := filepath.Join(root, name)
		switch filepath.Ext(name) {
		case ".sh":
			names = append(names, full)
		case "":
			src, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			if first, _, _ := bytes.Cut(src, []byte("\n")); shebang.Match(first) {
				names = append(names, full)
			}
		}
	})
	return names
}

func shellcheck(t *testing.T, names []string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Fatalf("this test needs shellcheck (Debian: shellcheck): %v", err)
	}
	out, err := exec.Command("shellcheck", append([]string{"--format=gcc", "--"}, names...)...).CombinedOutput()
	return string(out), err
}

// Every script of the packs and of the repository passes shellcheck.
func TestScripts(t *testing.T) {
	names := scripts(t, "../..")
	packs := 0
	for _, n := range names {
		if strings.Contains(n, "/content/") {
			packs++
		}
	}
	if packs == 0 {
		t.Fatalf("no script of a pack is among %q", names)
	}
	if out, err := shellcheck(t, names); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The check finds scripts with and without an ending, and sees what is wrong in them.
func TestScriptsSeeWhatIsPlanted(t *testing.T) {
	names := scripts(t, "testdata/scripts")
	if len(names) != 2 {
		t.Fatalf("found %q", names)
	}
	for _, n := range names {
		if out, err := shellcheck(t, []string{n}); err == nil || !strings.Contains(out, "[SC2086]") {
			t.Errorf("%s passes: %v\n%s", n, err, out)
		}
	}
}
