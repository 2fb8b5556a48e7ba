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
	newRoot  = "/newroot"
)

// BuildRoot fetches an image into memory, verifies it, and mounts the new root: the squashfs below, memory above. An
// earlier attempt's leftovers are unmounted first. It returns the folder of the root.
func BuildRoot(ctx context.Context, dir string, image Image, how fetch.Config) (string, error) {
	if err := image.file().Check(); err != nil {
		return "", err
	}
	clearRoot(dir)
	if err := CheckMemory(image.Size, parseMeminfo(readText("/proc/meminfo"), "MemAvailable")); err != nil {
		return "", err
	}
	for _, d := range []string{imageDir, lowerDir, upperDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return "", fmt.Errorf("cannot make the new root: %w", err)
		}
	}
	memory := filepath.Join(dir, imageDir)
	if err := unix.Mount("image", memory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=0700,size=%d", image.Size+(1<<20))); err != nil {
		return "", fmt.Errorf("cannot mount memory for the node image: %w", err)
	}
	path := filepath.Join(memory, "node.squashfs")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o400)
	if err != nil {
		return "", fmt.Errorf("cannot write the node image: %w", err)
	}
	err = fetch.Get(ctx, image.file(), f, how)
	if err := errors.Join(err, f.Close()); err != nil {
		clearRoot(dir)
		return "", err
	}
	// From here on nothing can write to what was verified.
	if err := unix.Mount("", memory, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return "", fmt.Errorf("cannot protect the node image: %w", err)
	}
	if err := mountRoot(dir, path); err != nil {
		clearRoot(dir)
		return "", err
	}
	return newRoot, nil
}

func mountRoot(dir, image string) error {
	lower, upper := filepath.Join(dir, lowerDir), filepath.Join(dir, upperDir)
	if err := loop.Mount(image, lower); err != nil {
		return err
	}
	if err := unix.Mount("root", upper, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("cannot mount memory for the root: %w", err)
	}
	for _, d := range []string{"data", "work"} {
		if err := os.Mkdir(filepath.Join(upper, d), 0o755); err != nil {
			return fmt.Errorf("cannot make the root's writable layer: %w", err)
		}
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return fmt.Errorf("cannot make the new root: %w", err)
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s/data,workdir=%s/work", lower, upper, upper)
	if err := unix.Mount("root", newRoot, "overlay", 0, data); err != nil {
		return fmt.Errorf("cannot mount the root: %w", err)
	}
	return nil
}

// clearRoot unmounts what an earlier attempt left. What is not mounted is no error.
func clearRoot(dir string) {
	for _, path := range []string{newRoot, filepath.Join(dir, upperDir), filepath.Join(dir, lowerDir), filepath.Join(dir, imageDir)} {
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
