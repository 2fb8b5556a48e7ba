// Package arch_test checks the shape of the source: who imports whom, where state, time and input-output may live, how
// large things grow, and that shell scripts are sound. Each rule is also run on testdata/planted, a module of
// violations, so that a rule that went blind fails.
package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// module is the path of the module and what every package of ours begins with.
const module = "joist"

// file is one parsed Go file.
type file struct {
	name string // below the tree's root
	test bool
	ast  *ast.File
	// lines counts all lines of the file, blank ones and comments included.
	lines int
}

// pkg is one package with its tests.
type pkg struct {
	path  string // below the module, "engine/plan"
	name  string
	files []file
	// uses resolves identifiers within the package. Imported packages are opaque.
	uses map[*ast.Ident]types.Object
}

// tree is a module's source.
type tree struct {
	root string
	fset *token.FileSet
	pkgs []*pkg
}

// violation is a place where a rule does not hold.
type violation struct {
	rule string
	at   token.Position // with a name below the tree's root
	what string
}

func (v violation) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", v.at.Filename, v.at.Line, v.rule, v.what)
}

func (t *tree) violation(rule string, pos token.Pos, format string, args ...any) violation {
	return violation{rule: rule, at: t.fset.Position(pos), what: fmt.Sprintf(format, args...)}
}

// listed is what `go list -json` says of a package, as far as it is asked.
type listed struct {
	Dir, ImportPath, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

// load reads the module at root. A package's files are those that build on this machine.
func load(root string) (*tree, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,Name,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list the packages of %s: %w: %s", root, err, stderr.String())
	}
	t := &tree{root: root, fset: token.NewFileSet()}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("cannot read go list's answer: %w", err)
		}
		p, err := t.parse(l)
		if err != nil {
			return nil, err
		}
		t.pkgs = append(t.pkgs, p)
	}
	return t, nil
}

func (t *tree) parse(l listed) (*pkg, error) {
	p := &pkg{path: strings.TrimPrefix(l.ImportPath, module+"/"), name: l.Name, uses: map[*ast.Ident]types.Object{}}
	groups := [][]string{l.GoFiles, l.TestGoFiles, l.XTestGoFiles}
	for i, names := range groups {
		for _, name := range names {
			full := filepath.Join(l.Dir, name)
			below, err := filepath.Rel(t.root, full)
			if err != nil {
				return nil, err
			}
			parsed, err := t.parseFile(full, below)
			if err != nil {
				return nil, fmt.Errorf("cannot parse %s: %w", below, err)
			}
			p.files = append(p.files, file{name: below, test: i > 0, ast: parsed, lines: t.fset.File(parsed.Pos()).LineCount()})
		}
	}
	t.resolve(p)
	return p, nil
}

// resolve fills p.uses. Imports stay unresolved, so errors are expected; what the package declares is found all the same.
func (t *tree) resolve(p *pkg) {
	var inner, outer []*ast.File
	for _, f := range p.files {
		if f.test && strings.HasSuffix(f.ast.Name.Name, "_test") {
			outer = append(outer, f.ast)
		} else {
			inner = append(inner, f.ast)
		}
	}
	for _, files := range [][]*ast.File{inner, outer} {
		config := types.Config{Importer: opaque{}, Error: func(error) {}}
		info := types.Info{Uses: p.uses}
		// The error repeats what the Error function was told and dropped.
		_, _ = config.Check(module+"/"+p.path, t.fset, files, &info)
	}
}

// opaque imports every package as an empty one, named as its path suggests.
type opaque struct{}

// version is the last part of the path of a later major version of a module.
var version = regexp.MustCompile(`^v[0-9]+$`)

func (opaque) Import(path string) (*types.Package, error) {
	name := filepath.Base(path)
	if version.MatchString(name) {
		name = filepath.Base(filepath.Dir(path))
	}
	made := types.NewPackage(path, name)
	made.MarkComplete()
	return made, nil
}

// imports calls visit for each import of p with its place; paths of ours come without the module's name.
func (p *pkg) imports(visit func(f file, spec *ast.ImportSpec, path string, ours bool)) {
	for _, f := range p.files {
		for _, spec := range f.ast.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			below, ours := strings.CutPrefix(path, module+"/")
			visit(f, spec, below, ours)
		}
	}
}

// under says whether path is one of the folders or lies below one.
func under(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return path == f || strings.HasPrefix(path, f+"/") })
}

// theTree is the repository's source, parsed once.
var theTree = sync.OnceValues(func() (*tree, error) { return load("../..") })

func repository(t *testing.T) *tree {
	t.Helper()
	tree, err := theTree()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func (t *tree) parseFile(full, below string) (*ast.File, error) {
	src, err := os.ReadFile(full)
	if err != nil {
		return nil, err
	}
	return parser.ParseFile(t.fset, below, src, parser.ParseComments|parser.SkipObjectResolution)
}
