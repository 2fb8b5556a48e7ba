// Package script_test runs the real joist program where it needs no engine and no rights: its help, packs, cluster files
// and formatting. Scripts are in testdata, in the form of testscript.
package script_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// programs is the folder that the program under test is built into.
const programs = "JOIST_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "joist-script-")
	if err == nil {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "joist"), "joist/cmd/joist")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot build joist:", err)
		os.Exit(1)
	}
	os.Setenv(programs, dir)
	code := m.Run()
	_ = os.RemoveAll(dir) // it is in the folder for temporary files
	os.Exit(code)
}

func TestScripts(t *testing.T) {
	dir := os.Getenv(programs)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", dir+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("JOIST_SOCKET", filepath.Join(e.WorkDir, "none"))
			return nil
		},
	})
}

// broken is where the language's author keeps broken sources, each with what is to be said about it.
const broken = "../../workflows/lang/testdata"

// TestBroken gives the program every broken pack and cluster file: it says exactly what the language says, and fails.
func TestBroken(t *testing.T) {
	bin := filepath.Join(os.Getenv(programs), "joist")
	names, err := filepath.Glob(broken + "/broken/*.txtar")
	if err != nil || len(names) < 40 {
		t.Fatalf("only %d broken sources: %v", len(names), err)
	}
	exact := 0
	for _, name := range names {
		if text, err := os.ReadFile(name); err != nil || bytes.Contains(text, []byte("secrets.make")) || strings.HasSuffix(name, "step-call.txtar") {
			continue // made for a catalogue of calls other than the engine's
		}
		exact++
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir, want := t.TempDir(), ""
			cluster := slices.ContainsFunc(a.Files, func(f txtar.File) bool { return f.Name == "cluster.hcl" })
			for _, f := range a.Files {
				switch {
				case f.Name == "want":
					want = string(f.Data)
				case cluster && f.Name != "cluster.hcl": // the cluster's pack p
					write(t, filepath.Join(dir, "p", f.Name), f.Data)
				default:
					write(t, filepath.Join(dir, f.Name), f.Data)
				}
			}
			args := []string{"pack", "check", "."}
			fails := strings.HasPrefix(want, "error: ") || strings.Contains(want, "\nerror: ")
			switch {
			case cluster:
				args = []string{"plan", "cluster.hcl", "--socket", filepath.Join(dir, "none")}
				for _, pack := range []string{"base", "etcd"} {
					if err := os.CopyFS(filepath.Join(dir, pack), os.DirFS(filepath.Join(broken, pack))); err != nil {
						t.Fatal(err)
					}
				}
				want = "joist: " + want
			case fails:
				want += "joist: 1 of 1 packs have errors\n"
			}
			cmd := exec.Command(bin, args...)
			cmd.Dir = dir
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			_ = cmd.Run() // the code is looked at
			if code := cmd.ProcessState.ExitCode(); fails && code != 1 || !fails && code != 0 {
				t.Errorf("exit code %d\n%s", code, out.String())
			}
			if name := filepath.Base(name); name == "pack-missing.txtar" {
				want = "joist: cannot read the pack in .: it has no pack.hcl\n" // the program looks for it first
			}
			if diff := cmp.Diff(want, errs.String()); diff != "" {
				t.Errorf("joist %s: -want +got:\n%s", strings.Join(args, " "), diff)
			}
		})
	}
	if exact < 40 {
		t.Errorf("only %d of the broken sources were tried", exact)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHelp: every command says what it does and gives an example.
func TestHelp(t *testing.T) {
	bin := filepath.Join(os.Getenv(programs), "joist")
	var walk func(path []string)
	count := 0
	walk = func(path []string) {
		count++
		out, err := exec.Command(bin, append(path, "--help")...).CombinedOutput()
		text := string(out)
		if err != nil || !strings.Contains(text, "Usage:\n  joist") {
			t.Errorf("joist %s --help: %v\n%s", strings.Join(path, " "), err, text)
			return
		}
		own := len(path) > 0 && (path[0] == "completion" || path[0] == "help") // cobra's own commands
		if !own && !strings.Contains(text, "Examples:\n  joist") {
			t.Errorf("joist %s --help has no example", strings.Join(path, " "))
		}
		listing := false
		for line := range strings.Lines(text) {
			switch {
			case strings.HasSuffix(strings.TrimSpace(line), ":") && !strings.HasPrefix(line, " "):
				listing = !strings.HasPrefix(line, "Usage") && !strings.HasPrefix(line, "Examples") && !strings.Contains(line, "Flags")
			case listing && strings.HasPrefix(line, "  ") && len(strings.Fields(line)) > 1:
				if sub := strings.Fields(line)[0]; !own && sub != "help" {
					walk(append(path[:len(path):len(path)], sub))
				}
			}
		}
	}
	walk(nil)
	if count < 30 {
		t.Errorf("only %d commands were found", count)
	}
}

// TestCompletion gives each shell that is installed its script to read; bash always is.
func TestCompletion(t *testing.T) {
	bin := filepath.Join(os.Getenv(programs), "joist")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			script, err := exec.Command(bin, "completion", shell).Output()
			if err != nil || len(script) < 1000 {
				t.Fatalf("%v: %d bytes", err, len(script))
			}
			if _, err := exec.LookPath(shell); err != nil && shell != "bash" {
				return // the script is there, and nobody here could read it
			}
			cmd := exec.Command(shell, "-n")
			if shell == "fish" {
				cmd = exec.Command(shell, "--no-execute", "/dev/stdin")
			}
			cmd.Stdin = bytes.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Error(fmt.Errorf("%s cannot read its script: %w\n%s", shell, err, out))
			}
		})
	}
}
