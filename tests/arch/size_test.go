package arch_test

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// The budgets: of one function in lines, of an interface in methods, of a function in parameters (the context
// included), of a package in lines without its tests.
const (
	maxFunction   = 120
	maxMethods    = 5
	maxParameters = 5
	maxPackage    = 3000
)

// Over the whole tree: the size below which 95 of 100 functions and files stay, in lines, and how many of 100 exported
// names are documented.
const (
	p95Function   = 50
	p95File       = 500
	minDocumented = 95
)

// todo finds the notes that promise later work.
var todo = regexp.MustCompile(`^(//|/\*)\s*(TODO|FIXME|XXX)\b`)

// reasoned is a note that says more than that it is one.
var reasoned = regexp.MustCompile(`\bTODO(\([^)]+\))?: \S+ \S+ \S+`)

// checkSizes is the rule that things stay small, and that a TODO says what and why. Functions and parameters of tests count
// too; packages count without tests.
func checkSizes(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		lines := 0
		for _, f := range p.files {
			if !f.test {
				lines += f.lines
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if size := t.linesOf(n); size > maxFunction {
						found = append(found, t.violation("sizes", n.Pos(), "%s has %d lines; %d is the budget", n.Name.Name, size, maxFunction))
					}
					if count := n.Type.Params.NumFields(); count > maxParameters {
						found = append(found, t.violation("sizes", n.Pos(), "%s has %d parameters; %d is the budget", n.Name.Name, count, maxParameters))
					}
				case *ast.InterfaceType:
					if count := methods(n); count > maxMethods {
						found = append(found, t.violation("sizes", n.Pos(), "an interface of %d methods; %d is the budget", count, maxMethods))
					}
				}
				return true
			})
			for _, group := range f.ast.Comments {
				for _, c := range group.List {
					if todo.MatchString(c.Text) && !reasoned.MatchString(c.Text) {
						found = append(found, t.violation("sizes", c.Pos(), "a TODO says what and why: TODO: …"))
					}
				}
			}
		}
		if lines > maxPackage {
			found = append(found, t.violation("sizes", p.files[0].ast.Package, "package %s has %d lines; %d is the budget", p.path, lines, maxPackage))
		}
	}
	return found
}

func (t *tree) linesOf(n ast.Node) int {
	return t.fset.Position(n.End()).Line - t.fset.Position(n.Pos()).Line + 1
}

// methods counts what an interface asks for; an embedded interface counts as one.
func methods(n *ast.InterfaceType) int {
	count := 0
	for _, f := range n.Methods.List {
		count += max(1, len(f.Names))
	}
	return count
}

// exported is one exported name and whether it is documented.
type exported struct {
	pos        token.Pos
	name       string
	documented bool
}

// names lists the exported names of all packages but main and tests: declarations, and methods of exported types. A
// comment on a group documents its members, and so does one at the end of the line.
func (t *tree) names() []exported {
	var names []exported
	for _, p := range t.pkgs {
		if p.name == "main" || under(p.path, "tests") {
			continue
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Name.IsExported() && exportedReceiver(d) {
						names = append(names, exported{d.Pos(), p.path + "." + d.Name.Name, d.Doc != nil})
					}
				case *ast.GenDecl:
					for _, s := range d.Specs {
						names = append(names, declared(p, d, s)...)
					}
				}
			}
		}
	}
	return names
}

func declared(p *pkg, d *ast.GenDecl, s ast.Spec) []exported {
	var names []exported
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() {
			names = append(names, exported{s.Pos(), p.path + "." + s.Name.Name, d.Doc != nil || s.Doc != nil || s.Comment != nil})
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() {
				names = append(names, exported{name.Pos(), p.path + "." + name.Name, d.Doc != nil || s.Doc != nil || s.Comment != nil})
			}
		}
	}
	return names
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	x := d.Recv.List[0].Type
	for {
		switch e := x.(type) {
		case *ast.StarExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.IndexListExpr:
			x = e.X
		case *ast.Ident:
			return e.IsExported()
		default:
			return true
		}
	}
}

// checkDocs is the rule that exported names and packages are documented. It reports all that are not once they are too many,
// and a package without a comment always.
func checkDocs(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		commented := slices.ContainsFunc(p.files, func(f file) bool { return f.ast.Doc != nil })
		if len(p.files) > 0 && !commented && !under(p.path, "tests") {
			found = append(found, t.violation("docs", p.files[0].ast.Package, "package %s has no comment", p.path))
		}
	}
	names := t.names()
	var bare []exported
	for _, n := range names {
		if !n.documented {
			bare = append(bare, n)
		}
	}
	if len(bare)*100 > len(names)*(100-minDocumented) {
		for _, n := range bare {
			found = append(found, t.violation("docs", n.pos, "%s is not documented", n.name))
		}
	}
	return found
}

// spread is the tree as a whole: sizes in lines, ascending, and the share of tests.
type spread struct {
	functions, files []int
	lines, tests     int
}

func (t *tree) spread() spread {
	var s spread
	for _, p := range t.pkgs {
		for _, f := range p.files {
			s.files = append(s.files, f.lines)
			s.lines += f.lines
			if f.test || under(p.path, "tests") || strings.HasSuffix(p.name, "test") {
				s.tests += f.lines
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					s.functions = append(s.functions, t.linesOf(fn))
				}
			}
		}
	}
	slices.Sort(s.functions)
	slices.Sort(s.files)
	return s
}

// p95 is the value that 95 of 100 do not exceed, and 0 of none.
func p95(ascending []int) int {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[(len(ascending)*95-1)/100]
}
