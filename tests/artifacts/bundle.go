package artifacts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// squashArgs pack a bundle the same way each time.
func squashArgs() []string {
	return []string{
		"-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", "6", "-b", "256K", "-no-exports", "-no-xattrs",
		"-all-root", "-mkfs-time", fmt.Sprint(epoch().Unix()), "-all-time", fmt.Sprint(epoch().Unix()),
	}
}

// squashVersion is what mksquashfs says of itself: another version may compress otherwise.
func (b *builder) squashVersion(ctx context.Context) (string, error) {
	said, err := exec.CommandContext(ctx, b.Squash, "-version").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // some versions exit 1 after printing theirs
		return "", fmt.Errorf("cannot pack bundles: %w; install the Debian package squashfs-tools", err)
	}
	first, _, _ := bytes.Cut(said, []byte("\n"))
	return string(first), nil
}

// bundles packs programs and images, which lie in temp already.
func (b *builder) bundles(ctx context.Context, in inputs, _, temp string) ([]Artifact, error) {
	if err := os.MkdirAll(filepath.Join(temp, "bundles"), 0o755); err != nil {
		return nil, err
	}
	byName := map[string]program{}
	for _, p := range programs() {
		byName[p.name] = p
	}
	licences, err := b.licences(ctx)
	if err != nil {
		return nil, err
	}
	var made []Artifact
	for _, bundle := range bundles() {
		b.Progress("bundle", bundle.name)
		tree, err := os.MkdirTemp(b.Out, ".new-bundle-")
		if err != nil {
			return nil, fmt.Errorf("cannot lay out a bundle: %w", err)
		}
		defer os.RemoveAll(tree)
		a := Artifact{Name: bundle.name, Kind: Bundle, Version: ownVersion, Arch: b.Arch, File: "bundles/" + bundle.name + ".squashfs",
			Licence: "Apache-2.0", Holds: bundle.holds()}
		if bundle.module != "" {
			a.Version = in.versions[bundle.module]
		}
		for _, name := range bundle.programs {
			p := byName[name]
			if err := link(filepath.Join(temp, p.folder, name), filepath.Join(tree, p.folder, name)); err != nil {
				return nil, fmt.Errorf("cannot lay out bundle %s: %w", bundle.name, err)
			}
			if err := licence(tree, name, licences[p.module]); err != nil {
				return nil, err
			}
		}
		for _, name := range bundle.images {
			file := filepath.Join("images", name+".tar")
			if err := link(filepath.Join(temp, file), filepath.Join(tree, file)); err != nil {
				return nil, fmt.Errorf("cannot lay out bundle %s: %w", bundle.name, err)
			}
			if p, ok := byName[name]; ok {
				if err := licence(tree, name, licences[p.module]); err != nil {
					return nil, err
				}
			}
		}
		if err := b.squash(ctx, tree, filepath.Join(temp, a.File)); err != nil {
			return nil, fmt.Errorf("cannot pack bundle %s: %w", bundle.name, err)
		}
		made = append(made, a)
	}
	return made, nil
}

// squash packs tree into file.
func (b *builder) squash(ctx context.Context, tree, file string) error {
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.Squash, append([]string{tree, file}, squashArgs()...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is ours to pass on
	if said, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		return fmt.Errorf("mksquashfs: %w: %s", err, tail(said, 2000))
	}
	return os.Chmod(file, 0o644)
}

// licences finds the licence file of each component, by module.
func (b *builder) licences(ctx context.Context) (map[string]string, error) {
	args := []string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}
	for _, c := range components() {
		args = append(args, c.module)
	}
	said, err := b.goTool(ctx, filepath.Join(b.Source, "cluster"), args...)
	if err != nil {
		return nil, fmt.Errorf("cannot find the licences: %w", err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(said)) {
		module, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[module] = filepath.Join(dir, "LICENSE")
	}
	return files, nil
}

func licence(tree, name, file string) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot find the licence of %s: %w", name, err)
	}
	to := filepath.Join(tree, "licences", name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, body, 0o644)
}
