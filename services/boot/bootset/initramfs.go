package bootset

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"joist/engine/agent/scout/kmod"
)

// initramfs writes scout to a file and returns how many kernel modules it carries. The kernel's version stands first
// in the archive, so that reading it back needs only the beginning.
func (b *builder) initramfs(ctx context.Context, kernel kernelTree, file string) (int, error) {
	staging, err := b.tempDir("scout")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(staging)
	count, err := stageModules(ctx, b.Profile, kernel, staging)
	if err != nil {
		return 0, err
	}
	if err := copyFile(b.Agent, filepath.Join(staging, "joist-agent"), 0o755); err != nil {
		return 0, fmt.Errorf("cannot add the agent: %w", err)
	}
	if err := os.Symlink("joist-agent", filepath.Join(staging, "init")); err != nil {
		return 0, err
	}
	out, err := os.Create(file)
	if err != nil {
		return 0, fmt.Errorf("cannot write the initramfs: %w", err)
	}
	defer out.Close()
	buffered := bufio.NewWriterSize(out, 1<<20)
	// One encoder thread: the result must not depend on the number of processors.
	z, err := zstd.NewWriter(buffered, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return 0, fmt.Errorf("cannot start compression: %w", err)
	}
	if err := b.archive(z, staging, kernel.version); err != nil {
		return 0, fmt.Errorf("cannot write the initramfs: %w", err)
	}
	if err := errors.Join(z.Close(), buffered.Flush(), out.Close()); err != nil {
		return 0, fmt.Errorf("cannot write the initramfs: %w", err)
	}
	return count, nil
}

// stageModules lays out the profile's modules and lets depmod write tables of just these.
func stageModules(ctx context.Context, profile Profile, kernel kernelTree, staging string) (int, error) {
	tree, err := kmod.Read(os.DirFS(kernel.modules))
	if err != nil {
		return 0, err
	}
	files, err := scoutModules(profile).files(tree)
	if err != nil {
		return 0, fmt.Errorf("cannot choose scout's modules: %w", err)
	}
	target := filepath.Join(staging, "lib/modules", kernel.version)
	for _, f := range slices.Concat(files, []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"}) {
		to := filepath.Join(target, f)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return 0, err
		}
		if err := linkOrCopy(filepath.Join(kernel.modules, f), to); err != nil {
			return 0, err
		}
	}
	if _, err := run(ctx, command{args: []string{"depmod", "-b", staging, kernel.version}}); err != nil {
		return 0, fmt.Errorf("cannot write scout's module tables: %w", err)
	}
	// Scout reads the text tables; depmod's indexed ones are for kmod.
	indexed, err := filepath.Glob(filepath.Join(target, "modules.*.bin"))
	if err != nil {
		return 0, err
	}
	for _, f := range append(indexed, filepath.Join(target, "modules.builtin.modinfo"), filepath.Join(target, "modules.symbols"), filepath.Join(target, "modules.order")) {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
	return len(files), nil
}

// archive writes the initramfs: the modules' folder, the few nodes the kernel needs before it mounts anything, the
// staged tree, the firmware.
func (b *builder) archive(w io.Writer, staging, version string) error {
	cpio := &newcWriter{w: w}
	first := []entry{
		{name: "lib", mode: modeDir | 0o755}, {name: "lib/modules", mode: modeDir | 0o755}, {name: "lib/modules/" + version, mode: modeDir | 0o755},
		{name: "dev", mode: modeDir | 0o755}, {name: "dev/console", mode: modeChar | 0o600, major: 5, minor: 1}, {name: "dev/null", mode: modeChar | 0o666, major: 1, minor: 3},
		{name: "proc", mode: modeDir | 0o555}, {name: "sys", mode: modeDir | 0o555}, {name: "run", mode: modeDir | 0o755}, {name: "tmp", mode: modeDir | 0o1777},
		{name: "etc", mode: modeDir | 0o755}, {name: "newroot", mode: modeDir | 0o755},
	}
	written := map[string]bool{}
	for _, e := range first {
		if err := cpio.add(e, nil); err != nil {
			return err
		}
		written[e.name] = true
	}
	if err := addTree(cpio, staging, "", written); err != nil {
		return err
	}
	if b.Firmware != "" {
		if err := addTree(cpio, b.Firmware, "lib/firmware", written); err != nil {
			return fmt.Errorf("firmware: %w", err)
		}
	}
	return cpio.close()
}

// addTree adds a folder's content below a prefix, in the order of names. Modes are made uniform: what may be executed
// stays so.
func addTree(cpio *newcWriter, root, prefix string, written map[string]bool) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name := path.Join(prefix, filepath.ToSlash(rel))
		if name == "." || written[name] {
			return nil
		}
		written[name] = true
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return cpio.add(entry{name: name, mode: modeDir | 0o755}, nil)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return cpio.add(entry{name: name, mode: modeLink | 0o777, size: int64(len(target))}, strings.NewReader(target))
		case d.Type().IsRegular():
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			mode := uint32(0o644) | uint32(info.Mode().Perm()&0o100)/0o100*0o111
			return cpio.add(entry{name: name, mode: modeFile | mode, size: info.Size()}, f)
		}
		return fmt.Errorf("%s is neither a file, a folder nor a link", name)
	})
}

// initrdKernel reads out of an initramfs for which kernel its modules are.
func initrdKernel(r io.Reader) (string, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return "", fmt.Errorf("cannot read the initramfs: %w", err)
	}
	defer z.Close()
	version := ""
	err = scanNewc(z, func(e entry, _ io.Reader) error {
		rest, ok := strings.CutPrefix(e.name, "lib/modules/")
		if !ok || strings.Contains(rest, "/") {
			return nil
		}
		version = rest
		return errStop
	})
	if err != nil {
		return "", fmt.Errorf("cannot read the initramfs: %w", err)
	}
	if version == "" {
		return "", errors.New("the initramfs holds no kernel modules")
	}
	return version, nil
}
