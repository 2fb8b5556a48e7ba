package scout

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DataLabel is the ext4 label of a data disk. Its file system's UUID is the node's incarnation: whoever makes the disk
// runs mkfs.ext4 -L joist-data -U INCARNATION, so that the two come to be in one write.
const DataLabel = "joist-data"

// DrawIncarnation makes a new incarnation: a random UUID.
func DrawIncarnation() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return formatUUID(b[:])
}

func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// parseExt4 reads label and UUID from the first 2 KiB of an ext2, 3 or 4 file system (fs/ext4/ext4.h: the superblock
// lies at 1024; magic at 0x38, UUID at 0x68, label at 0x78).
func parseExt4(head []byte) (label, uuid string, ok bool) {
	const base = 1024
	if len(head) < base+0x88 || binary.LittleEndian.Uint16(head[base+0x38:]) != 0xef53 {
		return "", "", false
	}
	name, _, _ := bytes.Cut(head[base+0x78:base+0x88], []byte{0})
	return string(name), formatUUID(head[base+0x68 : base+0x78]), true
}

// Incarnation returns the incarnation that a data disk carries, or a new one where there is no such disk. Disks that
// carry different ones are an error: neither may be preferred without a person's word.
func Incarnation() (id, device string, err error) {
	return incarnation("/sys/class/block", "/dev")
}

func incarnation(sys, dev string) (id, device string, err error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return "", "", fmt.Errorf("cannot list the disks: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	for _, name := range names {
		if !maybeDisk(name) {
			continue
		}
		label, uuid, ok := readExt4(filepath.Join(dev, name))
		if !ok || label != DataLabel {
			continue
		}
		if id != "" && id != uuid {
			return "", "", fmt.Errorf("the data disks %s and %s carry different incarnations (%s, %s): wipe the one that does not belong here", device, name, id, uuid)
		}
		if id == "" {
			id, device = uuid, name
		}
	}
	if id == "" {
		id = DrawIncarnation()
	}
	return id, device, nil
}

// maybeDisk leaves out block devices that are no disk: memory, optical and floppy drives.
func maybeDisk(name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "sr", "fd", "nbd"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

func readExt4(path string) (label, uuid string, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", false
	}
	defer f.Close()
	head := make([]byte, 2048)
	if _, err := io.ReadFull(f, head); err != nil {
		return "", "", false
	}
	return parseExt4(head)
}
