package bootset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// linkOrCopy makes to a second name of from, or a copy where they lie on different file systems.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return nil
	}
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("cannot link %s: %w", filepath.Base(from), err)
	}
	return copyFile(from, to, 0o644)
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return fmt.Errorf("cannot copy %s: %w", filepath.Base(from), err)
	}
	return out.Close()
}

// linkTree makes a copy of a tree whose files are further names of the same files.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return os.Link(path, target) // symbolic links too: link(2) does not follow them
		}
		if err := os.Mkdir(target, 0o700); err != nil && (rel != "." || !errors.Is(err, fs.ErrExist)) {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		if err := os.Chown(target, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
		return syscall.Chmod(target, owner.Mode&0o7777)
	})
}

// treeDigest hashes names, modes and contents of a folder's files; an empty name is an empty tree.
func treeDigest(root string) (string, error) {
	if root == "" {
		return digestOf("tree"), nil
	}
	values := []any{"tree"}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		sum := ""
		switch {
		case d.Type().IsRegular():
			sum, err = fileDigest(path)
		case d.Type()&fs.ModeSymlink != 0:
			sum, err = os.Readlink(path)
		default:
			err = fmt.Errorf("%s is neither a file nor a link", rel)
		}
		values = append(values, rel, d.Type(), sum)
		return err
	})
	if err != nil {
		return "", err
	}
	return digestOf(values...), nil
}
