package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"joist/engine/agent/wire"
)

// dispose removes a step's directory or, after a failure, keeps it to be looked at, without inputs and outputs if
// those may hold secrets, and removes the oldest ones kept.
func (s *Sandbox) dispose(dir string, failed, secret bool) error {
	if !failed || s.cfg.KeepFailed < 0 {
		return removeTree(dir)
	}
	if err := detach(dir); err != nil {
		return err
	}
	if secret {
		for _, name := range []string{wire.InputsFile, wire.OutputsFile} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("cannot remove the secrets of a failed step: %w", err)
			}
		}
	}
	name := failedPrefix + time.Now().UTC().Format("20060102T150405.000000000") + strings.TrimPrefix(filepath.Base(dir), runPrefix)
	if err := os.Rename(dir, filepath.Join(s.cfg.Root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot keep the directory of a failed step: %w", err)
	}
	kept, err := filepath.Glob(filepath.Join(s.cfg.Root, failedPrefix+"*"))
	if err != nil {
		return fmt.Errorf("cannot list the directories of failed steps: %w", err)
	}
	slices.Sort(kept)
	for _, old := range kept[:max(0, len(kept)-s.cfg.KeepFailed)] {
		if err := removeTree(old); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a directory and what is in it, but nothing that is mounted there: a step that mounted a disk in
// its directory and failed must not lose the disk's files.
func removeTree(dir string) error {
	if err := detach(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove a step's directory: %w", err)
	}
	return nil
}

// detach unmounts what is mounted under dir, the deepest first.
func detach(dir string) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("cannot see what is mounted in a step's directory: %w", err)
	}
	mounts := mountsUnder(string(raw), dir)
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot unmount %s, which a step left mounted: %w", m, err)
		}
	}
	return nil
}

// mountsUnder lists the mount points at or under dir in the order they were mounted (proc_pid_mountinfo(5)).
func mountsUnder(mountinfo, dir string) []string {
	var found []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	return found
}

// unescape reads the octal escapes that the kernel writes for blanks and backslashes in paths.
func unescape(path string) string {
	var out strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if c, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(path[i])
	}
	return out.String()
}
