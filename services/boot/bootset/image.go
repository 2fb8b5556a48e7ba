package bootset

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// squashArgs pack an image the same way each time.
var squashArgs = []string{
	"-reproducible", "-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", "6", "-b", "256K", "-no-exports",
	"-mkfs-time", fmt.Sprint(imageEpoch), "-all-time", fmt.Sprint(imageEpoch),
}

// image returns the node image for a kernel, building it if it is not cached.
func (b *builder) image(ctx context.Context, in inputs, kernel kernelTree) (string, error) {
	cached := filepath.Join(b.Cache, "image-"+in.image[:16]+".squashfs")
	if label, err := readLabel(cached); err == nil && label.Kernel == kernel.version {
		return cached, nil
	}
	base, err := b.root(ctx, in)
	if err != nil {
		return "", err
	}
	temp, err := b.tempDir("image")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	root, file := filepath.Join(temp, "root"), filepath.Join(temp, imageName)
	if err := linkTree(base, root); err != nil {
		return "", fmt.Errorf("cannot lay out the node image: %w", err)
	}
	modules := filepath.Join(root, "usr/lib/modules")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		return "", err
	}
	if err := linkTree(kernel.modules, filepath.Join(modules, kernel.version)); err != nil {
		return "", fmt.Errorf("cannot add the kernel's modules: %w", err)
	}
	b.progress("image", "packing")
	args := append([]string{"mksquashfs", root, file}, squashArgs...)
	if _, err := run(ctx, command{args: args}); err != nil {
		return "", fmt.Errorf("cannot pack the node image: %w", err)
	}
	if err := addLabel(file, label{Kernel: kernel.version, Inputs: in.image}); err != nil {
		return "", fmt.Errorf("cannot label the node image: %w", err)
	}
	if err := os.Rename(file, cached); err != nil {
		return "", fmt.Errorf("cannot keep the node image: %w", err)
	}
	return cached, nil
}

// label says for which kernel an image is. It is the last block of the file, behind the end that the squashfs header
// states, where the kernel's driver does not look; so an image says what it holds without being mounted.
type label struct {
	Kernel string `json:"kernel"`
	Inputs string `json:"inputs"`
}

const (
	labelSize  = 4096
	labelMagic = "joist node image 1\n"
)

func addLabel(path string, l label) error {
	body, err := json.Marshal(l)
	if err != nil {
		return err
	}
	block := make([]byte, labelSize)
	if copy(block[copy(block, labelMagic):], body) != len(body) {
		return errors.New("label too long")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(block); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func readLabel(path string) (label, error) {
	f, err := os.Open(path)
	if err != nil {
		return label{}, fmt.Errorf("cannot read the node image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return label{}, fmt.Errorf("cannot read the node image: %w", err)
	}
	return parseLabel(f, info.Size())
}

// parseLabel checks the squashfs header (magic "hsqs"; bytes used at offset 40) and reads the label behind it.
func parseLabel(r io.ReaderAt, size int64) (label, error) {
	head := make([]byte, 96)
	if size < labelSize+int64(len(head)) {
		return label{}, errors.New("the node image is cut short")
	}
	if _, err := r.ReadAt(head, 0); err != nil {
		return label{}, fmt.Errorf("cannot read the node image: %w", err)
	}
	if string(head[:4]) != "hsqs" {
		return label{}, errors.New("the node image is not a squashfs")
	}
	if used := binary.LittleEndian.Uint64(head[40:]); used > uint64(size-labelSize) {
		return label{}, errors.New("the node image is cut short")
	}
	block := make([]byte, labelSize)
	if _, err := r.ReadAt(block, size-labelSize); err != nil {
		return label{}, fmt.Errorf("cannot read the node image: %w", err)
	}
	body, ok := bytes.CutPrefix(bytes.TrimRight(block, "\x00"), []byte(labelMagic))
	if !ok {
		return label{}, errors.New("the node image does not say for which kernel it is")
	}
	var l label
	if err := json.Unmarshal(body, &l); err != nil || l.Kernel == "" {
		return label{}, errors.New("the node image's label is damaged")
	}
	return l, nil
}
