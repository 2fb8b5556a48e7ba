package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// mounts are the kernel's file systems, in the order in which they are mounted and, at hand-over, moved.
var mounts = [...]struct {
	path, kind, data string
	flags            uintptr
}{
	{"/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
	{"/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/run", "tmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
}

func mountAll() error {
	var problems []error
	for _, m := range mounts {
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			problems = append(problems, err)
		}
		if err := unix.Mount(m.kind, m.path, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			problems = append(problems, fmt.Errorf("cannot mount %s: %w", m.path, err))
		}
	}
	return errors.Join(problems...)
}

// switchRoot gives the machine to the init of a new root. It returns only an error: before anything was changed if
// the root is no root, and otherwise from a state in which only a reboot helps, which the caller's 15 minutes bring.
func (s *supervisor) switchRoot(root string) error {
	if !isMount(root) {
		return fmt.Errorf("cannot hand over: %s is not a mounted root", root)
	}
	if _, err := os.Lstat(filepath.Join(root, s.Init)); err != nil {
		return fmt.Errorf("cannot hand over: the new root has no init: %w", err)
	}
	var old unix.Stat_t
	if err := unix.Stat("/", &old); err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	var fsType unix.Statfs_t
	if err := unix.Statfs("/", &fsType); err != nil || (fsType.Type != unix.RAMFS_MAGIC && fsType.Type != unix.TMPFS_MAGIC) {
		return errors.New("cannot hand over: the present root is no initramfs, and would be deleted")
	}
	s.say(fmt.Sprintf("handing over at %.1f s", bootClock().Seconds()))
	_ = unix.Kill(-1, unix.SIGKILL) // nobody left is no error
	time.Sleep(50 * time.Millisecond)
	for _, m := range mounts {
		target := filepath.Join(root, m.path)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("cannot hand over: %w", err)
		}
		if err := unix.Mount(m.path, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("cannot hand over: cannot move %s: %w", m.path, err)
		}
	}
	// The initramfs is memory that nothing else would free.
	removeTree("/", uint64(old.Dev))
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot hand over: cannot move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	err := unix.Exec(s.Init, []string{s.Init}, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"})
	return fmt.Errorf("cannot execute %s in the new root: %w", s.Init, err)
}

// isMount tells whether another file system is mounted at path.
func isMount(path string) bool {
	var here, parent unix.Stat_t
	if unix.Lstat(path, &here) != nil || unix.Lstat(filepath.Dir(path), &parent) != nil {
		return false
	}
	return here.Dev != parent.Dev
}

// removeTree removes what lies on one device below dir, and enters no other.
func removeTree(dir string, device uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || uint64(st.Dev) != device {
			continue
		}
		if e.Type()&fs.ModeDir != 0 {
			removeTree(path, device)
			_ = unix.Rmdir(path) // a mount point stays
			continue
		}
		_ = unix.Unlink(path) // memory not freed is no reason to stop
	}
}
