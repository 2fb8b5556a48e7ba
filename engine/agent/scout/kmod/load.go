package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Loader loads modules of the running kernel from a tree on disk. It is not safe for concurrent use.
type Loader struct {
	tree *Tree
	root string
	done map[string]bool // files loaded, or refused for good
	seen map[string]bool // modaliases already served
}

// NewLoader reads the tables below /lib/modules/VERSION of the running kernel.
func NewLoader() (*Loader, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("cannot read the kernel's version: %w", err)
	}
	root := filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
	tree, err := Read(os.DirFS(root))
	if err != nil {
		return nil, err
	}
	return &Loader{tree: tree, root: root, done: map[string]bool{}, seen: map[string]bool{}}, nil
}

// Load loads a module and everything it needs. A module that is loaded or built in already is no error; neither is a
// driver that finds no device (ENODEV).
func (l *Loader) Load(name string) error {
	files, err := l.tree.Closure(name)
	if err != nil {
		return err
	}
	for _, file := range files {
		if l.done[file] {
			continue
		}
		l.done[file] = true
		if err := insert(filepath.Join(l.root, file)); err != nil {
			return fmt.Errorf("cannot load module %s: %w", file, err)
		}
	}
	return nil
}

func insert(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Coldplug loads a driver for each device that has none yet, until no new device appears: a bus driver uncovers
// further devices. It goes on after a module that does not load, and returns all such errors together; a module is
// tried once. Devices that matched before are not looked at again, so it is cheap to call while waiting for hardware.
func (l *Loader) Coldplug() error {
	var problems []error
	for range 8 { // deeper than any chain of buses
		fresh := 0
		for _, modalias := range modaliases("/sys/bus") {
			if l.seen[modalias] {
				continue
			}
			l.seen[modalias] = true
			fresh++
			for _, name := range l.tree.Match(modalias) {
				if err := l.Load(name); err != nil {
					problems = append(problems, err)
				}
			}
		}
		if fresh == 0 {
			break
		}
	}
	return errors.Join(problems...)
}

// modaliases reads what every device on every bus says it is. Devices may vanish meanwhile; what cannot be read is
// passed over.
func modaliases(buses string) []string {
	paths, err := filepath.Glob(filepath.Join(buses, "*/devices/*/modalias"))
	if err != nil {
		return nil // the pattern is well-formed
	}
	var all []string
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil {
			if s := strings.TrimSpace(string(b)); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}
