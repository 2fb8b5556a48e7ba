// Package kmod knows the kernel's modules: what depends on what, and which module drives which device. Reading the
// tables that depmod wrote is pure; loading is in load.go.
package kmod

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Tree is the tables of one kernel's modules, as depmod writes them below lib/modules/VERSION.
type Tree struct {
	files   map[string]string   // module name to file below the tree
	deps    map[string][]string // module name to the names it needs, nearest first
	soft    map[string]softdep
	builtin map[string]bool
	aliases []alias
}

type softdep struct{ pre, post []string }

type alias struct {
	literal string // the pattern up to its first wildcard, to discard most patterns cheaply
	pattern string
	module  string
}

// Read reads modules.dep, modules.alias, modules.softdep and modules.builtin from the root of fsys. Only modules.dep
// must exist.
func Read(fsys fs.FS) (*Tree, error) {
	t := &Tree{files: map[string]string{}, deps: map[string][]string{}, soft: map[string]softdep{}, builtin: map[string]bool{}}
	tables := []struct {
		name     string
		optional bool
		line     func(string) error
	}{
		{"modules.dep", false, t.depLine},
		{"modules.softdep", true, t.softdepLine},
		{"modules.builtin", true, t.builtinLine},
		{"modules.alias", true, t.aliasLine},
	}
	for _, table := range tables {
		f, err := fsys.Open(table.name)
		if err != nil {
			if table.optional {
				continue
			}
			return nil, fmt.Errorf("cannot read the module tables: %w", err)
		}
		err = eachLine(f, table.line)
		_ = f.Close() // read only
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", table.name, err)
		}
	}
	return t, nil
}

func eachLine(r io.Reader, line func(string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20) // the dependency line of one module can be long
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if err := line(text); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return s.Err()
}

// depLine reads "kernel/a/b.ko: kernel/c/d.ko kernel/e.ko".
func (t *Tree) depLine(line string) error {
	file, rest, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf("%q has no colon", line)
	}
	if !fs.ValidPath(file) {
		return fmt.Errorf("%q is not a file below the tree", file)
	}
	name := Name(file)
	t.files[name] = file
	for _, dep := range strings.Fields(rest) {
		t.deps[name] = append(t.deps[name], Name(dep))
	}
	return nil
}

// softdepLine reads "softdep NAME pre: A B post: C".
func (t *Tree) softdepLine(line string) error {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "softdep" {
		return fmt.Errorf("%q is not a softdep line", line)
	}
	s := t.soft[Name(words[1])]
	var into *[]string
	for _, w := range words[2:] {
		switch {
		case w == "pre:":
			into = &s.pre
		case w == "post:":
			into = &s.post
		case into != nil:
			*into = append(*into, Name(w))
		}
	}
	t.soft[Name(words[1])] = s
	return nil
}

func (t *Tree) builtinLine(line string) error {
	t.builtin[Name(line)] = true
	return nil
}

// aliasLine reads "alias PATTERN MODULE".
func (t *Tree) aliasLine(line string) error {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != "alias" {
		return fmt.Errorf("%q is not an alias line", line)
	}
	a := alias{pattern: words[1], module: Name(words[2]), literal: words[1]}
	if i := strings.IndexAny(a.pattern, `*?[\`); i >= 0 {
		a.literal = a.pattern[:i]
	}
	t.aliases = append(t.aliases, a)
	return nil
}

// Name is a module's name as the kernel shows it: the file's base name without its suffixes, '-' written as '_'.
func Name(file string) string {
	name := path.Base(file)
	if i := strings.Index(name, ".ko"); i >= 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(name, "-", "_")
}

// Has tells whether the module exists, as a file or built into the kernel.
func (t *Tree) Has(name string) bool {
	name = Name(name)
	return t.files[name] != "" || t.builtin[name]
}

// Names lists every module that is a file, sorted.
func (t *Tree) Names() []string {
	names := make([]string, 0, len(t.files))
	for n := range t.files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// File is the module's file below the tree; empty for one that is built in or unknown.
func (t *Tree) File(name string) string { return t.files[Name(name)] }

// Closure lists the files of the named modules and of everything they need, each once, in an order in which they can
// be loaded. Built-in modules have no file and are left out. An unknown module is an error; an unknown soft
// dependency is not.
func (t *Tree) Closure(names ...string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	var visit func(name string, soft bool) error
	visit = func(name string, soft bool) error {
		if seen[name] || t.builtin[name] {
			return nil
		}
		file := t.files[name]
		if file == "" {
			if soft {
				return nil
			}
			return fmt.Errorf("this kernel has no module %q", name)
		}
		seen[name] = true
		for _, s := range t.soft[name].pre {
			if err := visit(s, true); err != nil {
				return err
			}
		}
		for _, d := range t.deps[name] {
			if err := visit(d, false); err != nil {
				return fmt.Errorf("module %q: %w", name, err)
			}
		}
		files = append(files, file)
		for _, s := range t.soft[name].post {
			if err := visit(s, true); err != nil {
				return err
			}
		}
		return nil
	}
	for _, n := range names {
		if err := visit(Name(n), false); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Match lists the modules whose aliases match a device's modalias, each once, in the tables' order.
func (t *Tree) Match(modalias string) []string {
	var names []string
	for _, a := range t.aliases {
		if strings.HasPrefix(modalias, a.literal) && match(a.pattern, modalias) && !slices.Contains(names, a.module) {
			names = append(names, a.module)
		}
	}
	return names
}

// match is fnmatch(3) without flags, as depmod's patterns mean it: '*' and '?' match '/' too, unlike path.Match.
func match(pattern, s string) bool {
	back, mark := -1, 0 // where to resume after the last '*'
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			back, mark = p, i
			p++
			continue
		}
		if n := one(pattern[p:], s[i]); n > 0 {
			p += n
			i++
			continue
		}
		if back < 0 {
			return false
		}
		mark++
		p, i = back+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches c against the first element of pattern and returns that element's length, or 0.
func one(pattern string, c byte) int {
	if pattern == "" {
		return 0
	}
	switch pattern[0] {
	case '?':
		return 1
	case '\\':
		if len(pattern) > 1 && pattern[1] == c {
			return 2
		}
		return 0
	case '[':
		end := strings.IndexByte(pattern, ']')
		if end < 2 {
			return 0
		}
		set := pattern[1:end]
		negate := set[0] == '!' || set[0] == '^'
		if negate {
			set = set[1:]
		}
		if inSet(set, c) != negate {
			return end + 1
		}
		return 0
	}
	if pattern[0] == c {
		return 1
	}
	return 0
}

func inSet(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return true
			}
			i += 2
			continue
		}
		if set[i] == c {
			return true
		}
	}
	return false
}
