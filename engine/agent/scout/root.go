package scout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"joist/engine/agent/fetch"
	"joist/engine/agent/loop"
)

// Folders of the node's root below RunDir: they move with /run, so that a node can look at what it runs.
const (
	imageDir = "image" // tmpfs that holds the squashfs
	lowerDir = "lower" // the squashfs, mounted
	upperDir = "upper" // tmpfs of the writable layer
	toolsDir = "tools" // tmpfs of the writable layer of what scripts have as their root
	newRoot  = "/newroot"

	toolsRoot   = "/tools"
	broughtName = "image.sha256" // which image is mounted
)

// BuildRoot fetches an image into memory, verifies it, and mounts the new root: the squashfs below, memory above. An
// earlier attempt's leftovers are unmounted first, and what BuildTools made; the image is not fetched again if that did. It
// returns the folder of the root.
func BuildRoot(ctx context.Context, dir string, image Image, how fetch.Config) (string, error) {
	unmount(toolsRoot, filepath.Join(dir, toolsDir), newRoot, filepath.Join(dir, upperDir))
	if err := bring(ctx, dir, image, how); err != nil {
		return "", err
	}
	if err := mountRoot(filepath.Join(dir, lowerDir), filepath.Join(dir, upperDir), newRoot); err != nil {
		clearRoot(dir)
		return "", err
	}
	return newRoot, nil
}

// BuildTools makes an image the root of scripts that run in the discovery image, which has no shell: over memory of its own, of
// which nothing reaches the node, with the machine's /dev, /proc, /sys and /run. It returns the folder of that root.
func BuildTools(ctx context.Context, dir string, image Image, how fetch.Config) (string, error) {
	if err := bring(ctx, dir, image, how); err != nil {
		return "", err
	}
	if there, err := loop.Mounted(filepath.Join(toolsRoot, "run")); err != nil || there { // which is mounted last
		return toolsRoot, err
	}
	upper := filepath.Join(dir, toolsDir)
	unmount(toolsRoot, upper)
	if err := os.MkdirAll(upper, 0o700); err != nil {
		return "", fmt.Errorf("cannot make a root for scripts: %w", err)
	}
	if err := mountRoot(filepath.Join(dir, lowerDir), upper, toolsRoot); err != nil {
		return "", err
	}
	for _, path := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(path, filepath.Join(toolsRoot, path), "", unix.MS_BIND, ""); err != nil {
			return "", fmt.Errorf("cannot give scripts the machine's %s: %w", path, err)
		}
	}
	return toolsRoot, nil
}

// bring fetches an image into memory, verifies it and mounts it, unless it is there.
func bring(ctx context.Context, dir string, image Image, how fetch.Config) error {
	if err := image.file().Check(); err != nil {
		return err
	}
	if there, err := loop.Mounted(filepath.Join(dir, lowerDir)); err == nil && there && readText(filepath.Join(dir, broughtName)) == image.SHA256 {
		return nil
	}
	clearRoot(dir)
	if err := fetchImage(ctx, dir, image, how); err != nil {
		clearRoot(dir)
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, broughtName), []byte(image.SHA256), 0o600); err != nil {
		return fmt.Errorf("cannot note which node image is there: %w", err)
	}
	return nil
}

func fetchImage(ctx context.Context, dir string, image Image, how fetch.Config) error {
	if err := CheckMemory(image.Size, parseMeminfo(readText("/proc/meminfo"), "MemAvailable")); err != nil {
		return err
	}
	for _, d := range []string{imageDir, lowerDir, upperDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return fmt.Errorf("cannot make the new root: %w", err)
		}
	}
	memory := filepath.Join(dir, imageDir)
	if err := unix.Mount("image", memory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=0700,size=%d", image.Size+(1<<20))); err != nil {
		return fmt.Errorf("cannot mount memory for the node image: %w", err)
	}
	path := filepath.Join(memory, "node.squashfs")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o400)
	if err != nil {
		return fmt.Errorf("cannot write the node image: %w", err)
	}
	err = fetch.Get(ctx, image.file(), f, how)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// From here on nothing can write to what was verified.
	if err := unix.Mount("", memory, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot protect the node image: %w", err)
	}
	return loop.Mount(path, filepath.Join(dir, lowerDir))
}

// mountRoot mounts a root: what is mounted at lower below, new memory at upper above.
func mountRoot(lower, upper, root string) error {
	if err := unix.Mount("root", upper, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("cannot mount memory for the root: %w", err)
	}
	for _, d := range []string{"data", "work"} {
		if err := os.Mkdir(filepath.Join(upper, d), 0o755); err != nil {
			return fmt.Errorf("cannot make the root's writable layer: %w", err)
		}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("cannot make the new root: %w", err)
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s/data,workdir=%s/work", lower, upper, upper)
	if err := unix.Mount("root", root, "overlay", 0, data); err != nil {
		return fmt.Errorf("cannot mount the root: %w", err)
	}
	return nil
}

// clearRoot unmounts what an earlier attempt left. What is not mounted is no error.
func clearRoot(dir string) {
	_ = os.Remove(filepath.Join(dir, broughtName)) // there may be none
	unmount(toolsRoot, filepath.Join(dir, toolsDir), newRoot, filepath.Join(dir, upperDir), filepath.Join(dir, lowerDir), filepath.Join(dir, imageDir))
}

// unmount unmounts what is mounted at folders, with what is mounted below.
func unmount(paths ...string) {
	for _, path := range paths {
		for unix.Unmount(path, unix.MNT_DETACH) == nil {
		}
	}
}

// leave writes what the node stage needs into dir and, last, the file that tells the supervisor to hand over.
func leave(dir, root string, s *Session, lease *Lease) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot leave the agent to the node: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("cannot leave the agent to the node: %w", err)
	}
	if err := copySelf(filepath.Join(dir, agentName)); err != nil {
		return fmt.Errorf("cannot leave the agent to the node: %w", err)
	}
	if err := s.write(dir); err != nil {
		return fmt.Errorf("cannot leave the session to the node: %w", err)
	}
	if err := lease.write(dir); err != nil {
		return fmt.Errorf("cannot leave the lease to the node: %w", err)
	}
	if err := lease.writeResolver(root); err != nil {
		return err
	}
	if lease.Hostname != "" {
		if err := os.WriteFile(filepath.Join(root, "etc/hostname"), []byte(lease.Hostname+"\n"), 0o644); err != nil {
			return fmt.Errorf("cannot name the node: %w", err)
		}
	}
	// systemd would take the firmware's UUID for a machine id, which two machines may share and a reinstalled one keeps.
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(strings.ReplaceAll(s.Incarnation, "-", "")+"\n"), 0o444); err != nil {
		return fmt.Errorf("cannot name the node: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, handoverName), []byte(root+"\n"), 0o600)
}

// copySelf copies the running program.
func copySelf(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}
