package arch_test

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// pure lists the packages that decide: no input or output, no clock, no chance, no goroutine.
var pure = []string{
	"engine/addr", "engine/value", "engine/graph", "engine/step", "engine/model", "engine/plan", "engine/policy", "engine/run", "engine/replay", "engine/history", "engine/outlook",
	"dhcp-dns/lease", "dhcp-dns/zone", "services/boot/decide",
}

// doers are packages that reach outside the process or draw on chance. Where words are listed, only those are pure.
var doers = map[string][]string{
	"os": nil, "os/exec": nil, "os/signal": nil, "net/http": nil, "syscall": nil, "log": nil, "log/slog": nil, "crypto/rand": nil,
	"io/ioutil": nil, "database/sql": nil, "runtime": nil,
	"net":          {"HardwareAddr", "IP", "IPMask", "IPNet", "ParseCIDR", "ParseIP", "ParseMAC", "CIDRMask", "IPv4"},
	"math/rand":    {"New", "NewSource", "Rand", "Source"},
	"math/rand/v2": {"New", "NewPCG", "NewChaCha8", "PCG", "ChaCha8", "Rand", "Source"},
}

// clock is what package time does beside naming times.
var clock = []string{"Now", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Since", "Until"}

// checkPure is the rule that decisions are functions of their arguments. Tests of pure packages are free.
func checkPure(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		if !under(p.path, pure...) {
			continue
		}
		p.imports(func(f file, spec *ast.ImportSpec, to string, ours bool) {
			words, doer := doers[to]
			if doer = doer || strings.HasPrefix(to, "golang.org/x/sys/") || strings.HasPrefix(to, "github.com/vishvananda/"); doer && words == nil && !f.test && !ours {
				found = append(found, t.violation("pure", spec.Pos(), "%s decides and must not import %s", p.path, to))
			}
			if ours && !f.test && !under(to, pure...) && to != "engine/journal" { // journal: for the form of an entry
				found = append(found, t.violation("pure", spec.Pos(), "%s decides and must not import %s, which does not", p.path, to))
			}
		})
		for _, f := range p.files {
			if f.test {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					found = append(found, t.violation("pure", n.Pos(), "%s decides and must not start goroutines", p.path))
				case *ast.SelectorExpr:
					if from, ok := p.imported(n.X); ok && impure(from, n.Sel.Name) {
						found = append(found, t.violation("pure", n.Pos(), "%s decides and must not use %s.%s", p.path, from, n.Sel.Name))
					}
				}
				return true
			})
		}
	}
	return found
}

func impure(from, word string) bool {
	if from == "time" {
		return slices.Contains(clock, word)
	}
	words, doer := doers[from]
	return doer && words != nil && !slices.Contains(words, word)
}

// imported is the path of the package that an expression names.
func (p *pkg) imported(x ast.Expr) (string, bool) {
	id, ok := x.(*ast.Ident)
	if !ok {
		return "", false
	}
	name, ok := p.uses[id].(*types.PkgName)
	if !ok {
		return "", false
	}
	return name.Imported().Path(), true
}

// checkInit is the rule that importing a package does nothing, and that only main ends the process.
func checkInit(t *tree) []violation {
	var found []violation
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					found = append(found, t.violation("init", fn.Pos(), "registries are values built in the composition root, not by init"))
				}
			}
			if p.name == "main" {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				from, _ := p.imported(sel.X)
				if from == "os" && sel.Sel.Name == "Exit" || from == "log" && strings.HasPrefix(sel.Sel.Name, "Fatal") {
					found = append(found, t.violation("init", sel.Pos(), "only main ends the process"))
				}
				return true
			})
		}
	}
	return found
}

// checkState is the rule that packages hold no mutable variables: none that anything assigns to, writes into or takes the
// address of, and none of a type that exists to be changed.
func checkState(t *tree) []violation {
	vars := map[string]token.Pos{} // "engine/plan.name" of every package variable outside tests
	var found []violation
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				gen, ok := d.(*ast.GenDecl)
				if !ok || gen.Tok != token.VAR {
					continue
				}
				for _, s := range gen.Specs {
					spec := s.(*ast.ValueSpec)
					for _, name := range spec.Names {
						if name.Name != "_" {
							vars[p.path+"."+name.Name] = name.Pos()
						}
					}
					if p.changeable(spec) {
						found = append(found, t.violation("state", spec.Pos(), "a package variable of a type that is made to be changed"))
					}
				}
			}
		}
	}
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			writes(p, f.ast, func(x ast.Expr) {
				if name, ok := p.variable(x); ok {
					if _, ok := vars[name]; ok {
						found = append(found, t.violation("state", x.Pos(), "the package variable %s is changed", name))
					}
				}
			})
		}
	}
	return found
}

// changeable says whether a variable is of a type of sync or sync/atomic, or a channel.
func (p *pkg) changeable(spec *ast.ValueSpec) bool {
	exprs := []ast.Expr{spec.Type}
	for _, v := range spec.Values {
		switch v := v.(type) {
		case *ast.CompositeLit:
			exprs = append(exprs, v.Type)
		case *ast.UnaryExpr:
			if lit, ok := v.X.(*ast.CompositeLit); ok {
				exprs = append(exprs, lit.Type)
			}
		case *ast.CallExpr:
			if fn, ok := v.Fun.(*ast.Ident); ok && (fn.Name == "make" || fn.Name == "new") && len(v.Args) > 0 {
				exprs = append(exprs, v.Args[0])
			}
		}
	}
	return slices.ContainsFunc(exprs, func(x ast.Expr) bool {
		switch x := x.(type) {
		case *ast.ChanType:
			return true
		case *ast.SelectorExpr:
			from, _ := p.imported(x.X)
			return from == "sync" || from == "sync/atomic"
		case *ast.IndexExpr: // atomic.Pointer[T]
			sel, ok := x.X.(*ast.SelectorExpr)
			if !ok {
				return false
			}
			from, _ := p.imported(sel.X)
			return from == "sync/atomic"
		}
		return false
	})
}

// variable names the package variable at the root of x: v, v[i], v.f, *v, pkg.v.
func (p *pkg) variable(x ast.Expr) (string, bool) {
	for {
		switch e := x.(type) {
		case *ast.ParenExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.StarExpr:
			x = e.X
		case *ast.SelectorExpr:
			if from, ok := p.imported(e.X); ok {
				below, ours := strings.CutPrefix(from, module+"/")
				return below + "." + e.Sel.Name, ours
			}
			x = e.X
		case *ast.Ident:
			v, ok := p.uses[e].(*types.Var)
			if !ok || v.Parent() == nil || v.Pkg() == nil || v.Parent() != v.Pkg().Scope() {
				return "", false
			}
			return p.path + "." + v.Name(), true
		default:
			return "", false
		}
	}
}

// writes calls visit for each expression that a file changes or takes the address of.
func writes(p *pkg, f *ast.File, visit func(ast.Expr)) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, x := range n.Lhs {
					visit(x)
				}
			}
		case *ast.IncDecStmt:
			visit(n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				for _, x := range []ast.Expr{n.Key, n.Value} {
					if x != nil {
						visit(x)
					}
				}
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				visit(n.X)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, id.Name) {
				visit(n.Args[0])
			}
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) > 0 {
				if from, _ := p.imported(sel.X); from == "slices" && strings.HasPrefix(sel.Sel.Name, "Sort") && !strings.HasPrefix(sel.Sel.Name, "Sorted") {
					visit(n.Args[0])
				}
			}
		}
		return true
	})
}
