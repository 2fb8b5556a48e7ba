package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
)

// Root is where a node's data disk is mounted. What is asked for at /var/lib/etcd lies in var/lib/etcd below it.
const Root = "/var/lib/joist/data"

// Config says whose data it is and where. Zero fields have the defaults named.
type Config struct {
	Incarnation string // of the node; required for a disk
	Place       Place
	Root        string // Root
}

// Data keeps a node's data places. Make one for a process: its actions exclude each other.
type Data struct {
	cfg Config
	mu  sync.Mutex
}

// New prepares the data places of a node. It changes nothing.
func New(cfg Config) *Data {
	if cfg.Root == "" {
		cfg.Root = Root
	}
	return &Data{cfg: cfg}
}

// Wanted is the input of the built-in action data_disk.
type Wanted struct {
	Mount   string `json:"mount"`   // absolute path
	Storage string `json:"storage"` // "disk" or "memory"
	Size    string `json:"size"`    // limit of a place in memory, as mount's size= takes it
	Overlay bool   `json:"overlay"` // whether an overlay's upper directory shall work there
}

var sizeForm = regexp.MustCompile(`^[1-9][0-9]*[kmg%]?$`)

func (w Wanted) check() error {
	switch {
	case !filepath.IsAbs(w.Mount) || w.Mount != filepath.Clean(w.Mount) || w.Mount == "/":
		return fmt.Errorf("cannot mount data at %q: want an absolute, clean path", w.Mount)
	case w.Storage != "disk" && w.Storage != "memory":
		return fmt.Errorf("cannot keep data in %q: want disk or memory", w.Storage)
	case w.Storage == "memory" && !sizeForm.MatchString(w.Size):
		return fmt.Errorf("cannot read the size %q: want a number with k, m, g or %%", w.Size)
	}
	return nil
}

// Builtin is the built-in action data_disk.
//
//	inputs {mount, storage, size, overlay}, see Wanted
//
// apply finds or makes the data disk and mounts it, and a folder of it at mount; in memory, a tmpfs of limited size. What
// is mounted there already is left as it is. verify looks whether it is there and can be written to; remove unmounts it and removes the
// folder with its content.
func (d *Data) Builtin(ctx context.Context, call sandbox.BuiltinCall) (json.RawMessage, error) {
	var w Wanted
	if err := json.Unmarshal(call.Inputs, &w); err != nil {
		return nil, fmt.Errorf("cannot read the inputs: %w", err)
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch call.Action {
	case wire.Apply:
		return nil, d.apply(ctx, w)
	case wire.Verify:
		return nil, d.verify(w)
	case wire.Remove:
		return nil, d.remove(w)
	}
	return nil, fmt.Errorf("internal error: unknown action %q", call.Action)
}

func (d *Data) apply(ctx context.Context, w Wanted) error {
	if err := os.MkdirAll(w.Mount, 0o755); err != nil {
		return fmt.Errorf("cannot make the mount point: %w", err)
	}
	at, err := mounted(w.Mount)
	if err != nil {
		return err
	}
	if w.Storage == "memory" {
		return d.applyMemory(w, at)
	}
	root, err := mounted(d.cfg.Root)
	if err != nil {
		return err
	}
	if at != nil {
		return isOurs(w, *at, root)
	}
	if root == nil {
		if err := d.mountDisk(ctx); err != nil {
			return err
		}
	}
	folder := filepath.Join(d.cfg.Root, w.Mount)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("cannot make a folder on the data disk: %w", err)
	}
	if err := unix.Mount(folder, w.Mount, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %s at %s: %w", folder, w.Mount, err)
	}
	return nil
}

func (d *Data) applyMemory(w Wanted, at *mount) error {
	disks, err := d.cfg.Place.Look()
	if err != nil {
		return err
	}
	if err := InMemory(disks, d.cfg.Incarnation); err != nil {
		return err
	}
	if at != nil {
		return isMemory(w, *at)
	}
	if err := unix.Mount("joist-data", w.Mount, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755,size="+w.Size); err != nil {
		return fmt.Errorf("cannot mount a tmpfs of %s at %s: %w", w.Size, w.Mount, err)
	}
	return nil
}

func isMemory(w Wanted, at mount) error {
	if at.fs != "tmpfs" {
		return fmt.Errorf("a file system of type %s is mounted at %s, no tmpfs: data does not move between disk and memory; rebuild the node with joist redeploy or joist node wipe", at.fs, w.Mount)
	}
	return nil
}

// isOurs reports what is wrong with what is mounted at a place that shall be on the data disk, whose own mount is root;
// nil if nothing is.
func isOurs(w Wanted, at mount, root *mount) error {
	if root == nil || at.device != root.device || at.root != w.Mount {
		return fmt.Errorf("something else than the data disk (%s, device %s) is mounted at %s: data does not move between disk and memory; rebuild the node with joist redeploy or joist node wipe", at.fs, at.device, w.Mount)
	}
	return nil
}

// mountDisk mounts the data disk below the root.
func (d *Data) mountDisk(ctx context.Context) error {
	c, err := d.choose()
	if err != nil {
		return err
	}
	if c.Make {
		if err := c.make(ctx, d.cfg.Incarnation, c.Erase); err != nil {
			return fmt.Errorf("cannot make the data disk %s: %w", c.Disk, err)
		}
	}
	if err := check(ctx, c.Path); err != nil {
		return fmt.Errorf("cannot use the data disk %s: %w", c.Disk, err)
	}
	if err := os.MkdirAll(d.cfg.Root, 0o700); err != nil {
		return fmt.Errorf("cannot make the mount point of the data disk: %w", err)
	}
	if err := unix.Mount(c.Path, d.cfg.Root, "ext4", unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return fmt.Errorf("cannot mount the data disk %s: %w", c.Disk, err)
	}
	// Its folders are mounted elsewhere, and what is mounted in them is not to appear here as well.
	if err := unix.Mount("", d.cfg.Root, "", unix.MS_PRIVATE, ""); err != nil {
		return errors.Join(fmt.Errorf("cannot keep the mounts of the data disk %s apart: %w", c.Disk, err), unix.Unmount(d.cfg.Root, 0))
	}
	return nil
}

// choose looks at the disks, and into those that may be blank.
func (d *Data) choose() (Choice, error) {
	if d.cfg.Incarnation == "" {
		return Choice{}, errors.New("internal error: data on a disk needs the node's incarnation")
	}
	disks, err := d.cfg.Place.Look()
	if err != nil {
		return Choice{}, err
	}
	seen := make([]Seen, len(disks))
	for i, disk := range disks {
		seen[i] = Seen{Disk: disk}
		if refusal(seen[i]) == "" && !disk.Ours() {
			if seen[i].Content, err = Content(disk.Path); err != nil {
				seen[i].Content = "something that cannot be read: " + err.Error()
			}
		}
	}
	return Choose(seen, d.cfg.Incarnation)
}

// make puts the file system on a disk that is blank, or ours and unfinished.
func (d Disk) make(ctx context.Context, incarnation string, erase bool) error {
	f, err := d.open()
	if err != nil {
		return err
	}
	defer f.Close()
	if erase {
		if _, err := d.erase(f); err != nil {
			return err
		}
	}
	if err := setMark(f, d.Size, mark{Making, incarnation}); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // mkfs wants it for itself
		return err
	}
	if err := run(ctx, 0, "mkfs.ext4", "-q", "-F", "-L", Label, "-U", incarnation, "-m", "1", d.Path, strconv.FormatInt(markAt(d.Size)>>10, 10)+"k"); err != nil {
		return err
	}
	if f, err = d.open(); err != nil {
		return err
	}
	defer f.Close()
	return setMark(f, d.Size, mark{Ready, incarnation})
}

// check replays and repairs what a power cut left. Status 1 of e2fsck: errors were corrected.
func check(ctx context.Context, path string) error { return run(ctx, 1, "e2fsck", "-p", path) }

// run runs a program whose exit status may be at most the given one.
func run(ctx context.Context, most int, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 && exit.ExitCode() <= most {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %.500s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (d *Data) verify(w Wanted) error {
	at, err := mounted(w.Mount)
	if err != nil {
		return err
	}
	if at == nil {
		return fmt.Errorf("nothing is mounted at %s", w.Mount)
	}
	if w.Storage == "memory" {
		err = isMemory(w, *at)
	} else {
		var root *mount
		if root, err = mounted(d.cfg.Root); err == nil {
			err = isOurs(w, *at, root)
		}
	}
	if err != nil {
		return err
	}
	if at.readOnly {
		return fmt.Errorf("what is mounted at %s is read-only: the disk has errors, which the kernel's log names", w.Mount)
	}
	if w.Overlay {
		return Overlay(w.Mount)
	}
	return nil
}

// remove takes the place away with its content. The disk stays mounted while other places are on it.
func (d *Data) remove(w Wanted) error {
	at, err := mounted(w.Mount)
	if err != nil {
		return err
	}
	if at != nil {
		if err := unix.Unmount(w.Mount, 0); err != nil {
			return fmt.Errorf("cannot unmount %s: %w; something still uses it", w.Mount, err)
		}
	}
	root, err := mounted(d.cfg.Root)
	if err != nil || root == nil || w.Storage == "memory" {
		return err
	}
	folder := filepath.Join(d.cfg.Root, w.Mount)
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("cannot remove what was kept at %s: %w", w.Mount, err)
	}
	for up := filepath.Dir(folder); up != d.cfg.Root; up = filepath.Dir(up) {
		if os.Remove(up) != nil {
			break // it has other places in it
		}
	}
	return nil
}

// Overlay checks that a file system can hold an overlay's upper directory: an overlay is mounted in it, and a file of its
// lower directory is removed through it. An overlay on an overlay fails here and nowhere earlier.
func Overlay(place string) (err error) {
	dir, err := os.MkdirTemp(place, ".joist-overlay-")
	if err != nil {
		return fmt.Errorf("cannot try an overlay at %s: %w", place, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(in(name), 0o755); err != nil {
			return fmt.Errorf("cannot try an overlay at %s: %w", place, err)
		}
	}
	if err := os.WriteFile(in("lower/file"), []byte("x"), 0o644); err != nil {
		return fmt.Errorf("cannot try an overlay at %s: %w", place, err)
	}
	if err := unix.Mount("overlay", in("merged"), "overlay", 0, "lowerdir="+in("lower")+",upperdir="+in("upper")+",workdir="+in("work")); err != nil {
		return fmt.Errorf("the file system at %s cannot hold an overlay, which containers need: %w", place, err)
	}
	defer func() { err = errors.Join(unix.Unmount(in("merged"), 0), err) }()
	if err := os.Remove(in("merged/file")); err != nil {
		return fmt.Errorf("an overlay at %s cannot remove a file of its lower directory, which containers need: %w", place, err)
	}
	if _, err := os.Stat(in("merged/file")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("an overlay at %s still shows a file that was removed through it", place)
	}
	return nil
}

// mount is a line of mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	device   string // MAJOR:MINOR
	root     string // path within its file system
	at       string
	fs       string
	readOnly bool // the mount or its file system
}

// mounted gives what is mounted at a path, the uppermost; nil for nothing.
func mounted(path string) (*mount, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read what is mounted: %w", err)
	}
	var found *mount
	for line := range strings.Lines(string(raw)) {
		if m, ok := parseMount(line); ok && m.at == path {
			found = &m
		}
	}
	return found, nil
}

var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	fields, types := strings.Fields(left), strings.Fields(right)
	if !ok || len(fields) < 6 || len(types) < 3 {
		return mount{}, false
	}
	ro := func(options string) bool { return options == "ro" || strings.HasPrefix(options, "ro,") }
	return mount{
		device: fields[2], root: escapes.Replace(fields[3]), at: escapes.Replace(fields[4]), fs: types[0],
		readOnly: ro(fields[5]) || ro(types[2]),
	}, true
}
