// Package loop mounts squashfs files through loop devices.
package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mount mounts a squashfs file, read-only, through a loop device that goes when it is unmounted.
func Mount(image, target string) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot mount %s: %w", image, err)
	}
	defer control.Close()
	file, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("cannot mount %s: %w", image, err)
	}
	defer file.Close()
	for range 8 { // another process may take the device that was free
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("cannot find a free loop device: %w", err)
		}
		path := fmt.Sprintf("/dev/loop%d", number)
		device, err := os.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			return fmt.Errorf("cannot open a loop device: %w", err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if errors.Is(err, unix.EBUSY) {
			_ = device.Close()
			continue
		}
		if err == nil {
			err = unix.Mount(path, target, "squashfs", unix.MS_RDONLY|unix.MS_NODEV, "")
		}
		_ = device.Close() // the mount keeps the device
		if err != nil {
			return fmt.Errorf("cannot mount %s: %w", image, err)
		}
		return nil
	}
	return errors.New("cannot find a free loop device")
}

// Unmount unmounts what Mount mounted. What runs from it keeps it: the error is then EBUSY.
func Unmount(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", target, err)
	}
	return nil
}

// Mounted reports whether anything is mounted at a folder.
func Mounted(target string) (bool, error) {
	var here, above unix.Stat_t
	err := unix.Lstat(target, &here)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err == nil {
		err = unix.Lstat(filepath.Dir(target), &above)
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", target, err)
	}
	return here.Dev != above.Dev, nil
}
