// Package disk is about the data disk of a node: finding it, making it, mounting it, erasing it. Of the disks of a
// machine it writes to those alone that are blank or that joist made.
//
// A data disk is an ext4 file system on a whole disk, labelled Label, whose UUID is the node's incarnation. The last MiB
// of the disk is left out of it and holds a mark that says how far its making or erasing got: a power cut in the middle
// leaves a disk that is still known for ours.
package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Label is the ext4 label of a data disk.
const Label = "joist-data"

// tail is what is left free at the end of a disk for the mark; in bytes, as all sizes here.
const tail = 1 << 20

// smallest is the size below which a disk is not taken for data.
const smallest = 256 << 20

// State says how far a data disk is.
type State string

// The states of a data disk.
const (
	Unmarked State = ""       // there is no mark: not ours, or labelled by somebody else's hand
	Making   State = "making" // the file system is being made: what is there counts for nothing
	Ready    State = "ready"
	Wiping   State = "wiping" // it is being erased
)

// Disk is a block device with what its first and last blocks say.
type Disk struct {
	Name      string // as the kernel calls it
	Path      string
	Size      int64
	ReadOnly  bool
	Removable bool
	Part      bool   // a partition, or put together of other devices: never made a data disk, but taken for one if labelled
	Label     string // of an ext2, 3 or 4 file system on it
	UUID      string // likewise
	State     State
}

// Ours reports whether joist made the disk, or began to.
func (d Disk) Ours() bool { return d.Label == Label || d.State != Unmarked }

// Incarnation gives the incarnation that the disk carries; empty if it carries none, or none any more.
func (d Disk) Incarnation() string {
	if d.Label != Label || d.State == Making || d.State == Wiping {
		return ""
	}
	return d.UUID
}

// String names the disk for people.
func (d Disk) String() string { return fmt.Sprintf("%s (%s)", d.Name, bytesText(d.Size)) }

func bytesText(n int64) string {
	if n >= 1<<30 {
		return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) + " GiB"
	}
	return strconv.FormatInt(n>>20, 10) + " MiB"
}

// Place is where a machine's devices are. The zero Place is this machine's.
type Place struct {
	Sys string // "/sys/class/block" if empty
	Dev string // "/dev" if empty
}

// Look lists the machine's disks and partitions, by name. One that cannot be read is listed with nothing on it: whoever
// wants to write to it finds out.
func (p Place) Look() ([]Disk, error) {
	if p.Sys == "" {
		p.Sys = "/sys/class/block"
	}
	if p.Dev == "" {
		p.Dev = "/dev"
	}
	entries, err := os.ReadDir(p.Sys)
	if err != nil {
		return nil, fmt.Errorf("cannot list the disks: %w", err)
	}
	var disks []Disk
	for _, e := range entries {
		if MaybeDisk(e.Name()) {
			disks = append(disks, p.look(e.Name()))
		}
	}
	slices.SortFunc(disks, func(a, b Disk) int { return strings.Compare(a.Name, b.Name) })
	return disks, nil
}

func (p Place) look(name string) Disk {
	d := Disk{
		Name: name, Path: filepath.Join(p.Dev, name), ReadOnly: attribute(p.Sys, name, "ro") == "1", Removable: attribute(p.Sys, name, "removable") == "1",
		Part: strings.HasPrefix(name, "dm-") || strings.HasPrefix(name, "md"),
	}
	if _, err := os.Stat(filepath.Join(p.Sys, name, "partition")); err == nil {
		d.Part = true
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return d
	}
	defer f.Close()
	if d.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return d
	}
	head := make([]byte, 2048)
	if _, err := f.ReadAt(head, 0); err == nil {
		d.Label, d.UUID, _ = parseExt4(head)
	}
	block := make([]byte, markSize)
	if d.Size >= smallest {
		if _, err := f.ReadAt(block, markAt(d.Size)); err == nil {
			d.State = parseMark(block)
		}
	}
	return d
}

func attribute(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// MaybeDisk leaves out block devices that are no disk: memory, optical and floppy drives.
func MaybeDisk(name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "sr", "fd", "nbd"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

// parseExt4 reads label and UUID from the first 2 KiB of an ext2, 3 or 4 file system (fs/ext4/ext4.h: the superblock
// lies at 1024; magic at 0x38, UUID at 0x68, label at 0x78).
func parseExt4(head []byte) (label, uuid string, ok bool) {
	const base = 1024
	if len(head) < base+0x88 || binary.LittleEndian.Uint16(head[base+0x38:]) != 0xef53 {
		return "", "", false
	}
	name, _, _ := bytes.Cut(head[base+0x78:base+0x88], []byte{0})
	return string(name), FormatUUID(head[base+0x68 : base+0x78]), true
}

// FormatUUID gives 16 bytes in the text form of RFC 9562.
func FormatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// markSize is a block that every disk writes as a whole, or at least finds damaged if it does not.
const markSize = 4096

// markPrefix begins a mark; what follows is JSON and zeros.
const markPrefix = "joist data disk 1\n"

// mark is what the last MiB says.
type mark struct {
	State       State  `json:"state"`
	Incarnation string `json:"incarnation,omitempty"` // for people who look: the file system's UUID is what counts
}

// markAt is where the mark of a disk lies.
func markAt(size int64) int64 { return size/markSize*markSize - tail }

func (m mark) block() ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b := make([]byte, markSize)
	if copy(b, markPrefix+string(data)) == markSize {
		return nil, errors.New("internal error: the mark does not fit")
	}
	return b, nil
}

// parseMark reads the state from a mark's block; Unmarked if it is none. A state that a newer joist invented counts as
// Making: the disk is ours, and nothing on it is to be trusted.
func parseMark(block []byte) State {
	rest, ok := bytes.CutPrefix(block, []byte(markPrefix))
	if !ok {
		return Unmarked
	}
	text, _, _ := bytes.Cut(rest, []byte{0})
	var m mark
	if json.Unmarshal(text, &m) != nil || m.State != Ready && m.State != Wiping {
		return Making
	}
	return m.State
}
