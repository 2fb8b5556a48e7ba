package bootset

import (
	"bufio"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
)

//go:embed packages.lock
var defaultLock string

// maxLock bounds a lock file, in bytes.
const maxLock = 1 << 20

// Package is one Debian package in an exact version.
type Package struct {
	Name    string
	Version string
	Arch    string
	SHA256  string // of the .deb file, 64 hexadecimal digits
}

// Lock names every package that goes into boot sets, by group: GroupImage and one kernel group per profile.
type Lock map[string][]Package

// GroupImage is the lock's group of the packages installed in the node image.
const GroupImage = "image"

// kernelGroup is the lock's group of the profile's kernel.
func kernelGroup(p Profile) string { return "kernel-" + string(p) }

// DefaultLock is the lock file checked in beside this package.
func DefaultLock() (Lock, error) { return ParseLock(strings.NewReader(defaultLock)) }

// ParseLock reads lines "GROUP NAME VERSION ARCH SHA256"; '#' starts a comment.
func ParseLock(r io.Reader) (Lock, error) {
	lock := Lock{}
	seen := map[[2]string]int{}
	s := bufio.NewScanner(io.LimitReader(r, maxLock))
	for n := 1; s.Scan(); n++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if len(f) != 5 {
			return nil, fmt.Errorf("package lock line %d: want GROUP NAME VERSION ARCH SHA256, got %d words", n, len(f))
		}
		p := Package{Name: f[1], Version: f[2], Arch: f[3], SHA256: f[4]}
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("package lock line %d: %w", n, err)
		}
		if first := seen[[2]string{f[0], p.Name}]; first != 0 {
			return nil, fmt.Errorf("package lock line %d: %s is in group %s already, on line %d", n, p.Name, f[0], first)
		}
		seen[[2]string{f[0], p.Name}] = n
		lock[f[0]] = append(lock[f[0]], p)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the package lock: %w", err)
	}
	return lock, nil
}

// check keeps words out that apt or a shell would take for something else: options, paths, patterns.
func (p Package) check() error {
	const lower, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	if !of(p.Name, lower+digits+"+-.") || strings.HasPrefix(p.Name, "-") {
		return fmt.Errorf("%q is not a package name", p.Name)
	}
	if !of(p.Version, lower+strings.ToUpper(lower)+digits+"+-.:~") {
		return fmt.Errorf("%q is not a package version", p.Version)
	}
	if !of(p.Arch, lower+digits) {
		return fmt.Errorf("%q is not an architecture", p.Arch)
	}
	if b, err := hex.DecodeString(p.SHA256); err != nil || len(b) != 32 {
		return fmt.Errorf("%q is not a SHA-256 digest", p.SHA256)
	}
	return nil
}

func of(s, set string) bool {
	return s != "" && strings.Trim(s, set) == "" && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(set, r) })
}

// String is the lock as a file: sorted, so that a renewal's difference is the list of what changed.
func (l Lock) String() string {
	var lines []string
	for group, packages := range l {
		for _, p := range packages {
			lines = append(lines, strings.Join([]string{group, p.Name, p.Version, p.Arch, p.SHA256}, " "))
		}
	}
	slices.Sort(lines)
	return "# Exact versions of every Debian package in a boot set. Renewed by: make lock\n" + strings.Join(lines, "\n") + "\n"
}

// file is the package's name in the cache.
func (p Package) file() string {
	return fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.Arch)
}
