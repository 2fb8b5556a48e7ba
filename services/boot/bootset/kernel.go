package bootset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// kernelTree is an unpacked kernel package with its module tables.
type kernelTree struct {
	folder  string // to be removed after the build
	version string
	image   string // the bzImage
	modules string // lib/modules/VERSION
}

// kernel unpacks the profile's kernel package and lets depmod write its module tables.
func (b *builder) kernel(ctx context.Context) (kernelTree, error) {
	debs, err := b.download(ctx, b.Lock[kernelGroup(b.Profile)])
	if err != nil {
		return kernelTree{}, err
	}
	b.progress("kernel", "unpacking "+filepath.Base(debs[0]))
	folder, err := b.tempDir("kernel")
	if err != nil {
		return kernelTree{}, err
	}
	k := kernelTree{folder: folder}
	for _, deb := range debs {
		if _, err := run(ctx, command{args: []string{"dpkg-deb", "-x", deb, folder}}); err != nil {
			return k, fmt.Errorf("cannot unpack the kernel: %w", err)
		}
	}
	images, err := filepath.Glob(filepath.Join(folder, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return k, fmt.Errorf("the kernel package holds %d kernels instead of one", len(images))
	}
	k.image = images[0]
	if k.version, err = kernelFileVersion(k.image); err != nil {
		return k, err
	}
	k.modules = filepath.Join(folder, "lib/modules", k.version)
	if _, err := run(ctx, command{args: []string{"depmod", "-b", folder, k.version}}); err != nil {
		return k, fmt.Errorf("cannot write the module tables: %w", err)
	}
	return k, os.Chmod(k.image, 0o644)
}

// kernelFileVersion reads the version out of a kernel image.
func kernelFileVersion(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the kernel: %w", err)
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("cannot read the kernel: %w", err)
	}
	return kernelVersion(head[:n])
}

// kernelVersion reads the version string that the x86 boot protocol's header points to (Documentation/arch/x86/boot.rst,
// field kernel_version at 0x20e, relative to 0x200).
func kernelVersion(head []byte) (string, error) {
	const magic, pointer, base, longest = 0x202, 0x20e, 0x200, 128
	if len(head) < pointer+2 || string(head[magic:magic+4]) != "HdrS" {
		return "", errors.New("the kernel is not an x86 bzImage")
	}
	at := base + int(binary.LittleEndian.Uint16(head[pointer:]))
	if at == base || at >= len(head) {
		return "", errors.New("the kernel image does not say its version")
	}
	text := head[at:min(at+longest, len(head))]
	version, _, _ := strings.Cut(string(text), " ")
	if version == "" || strings.ContainsAny(version, "/\x00") || strings.Trim(version, ".") == "" {
		return "", errors.New("the kernel image does not say its version")
	}
	return version, nil
}
