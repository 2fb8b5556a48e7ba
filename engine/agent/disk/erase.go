package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Where a disk is looked at to tell whether it is blank: its first and last MiB, and as many places evenly between.
const (
	edge    = 1 << 20
	samples = 254
	sample  = 64 << 10
)

// span is a part of a disk.
type span struct{ at, size int64 }

// looks are the places of a disk of a size at which it is looked at, in order.
func looks(size int64) []span {
	if size <= 4*edge {
		return []span{{0, size}}
	}
	spans := []span{{0, edge}}
	for i := range int64(samples) {
		at := edge + (size-2*edge)/samples*i
		spans = append(spans, span{at &^ (markSize - 1), min(sample, size-at)})
	}
	return append(spans, span{size - edge, edge})
}

// Content says what a disk holds, for people; empty if it is blank: at every place that is looked at, nothing but zeros,
// or nothing but ones as an erased flash has it.
func Content(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the disk: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return "", fmt.Errorf("cannot read the disk's size: %w", err)
	}
	buf := make([]byte, edge*4)
	for i, s := range looks(size) {
		part := buf[:s.size]
		if _, err := f.ReadAt(part, s.at); err != nil {
			return "", fmt.Errorf("cannot read the disk at byte %d: %w", s.at, err)
		}
		if uniform(part) {
			continue
		}
		if what := describe(part); i == 0 && what != "" {
			return what, nil
		}
		return fmt.Sprintf("data that joist does not know (at byte %d)", s.at), nil
	}
	return "", nil
}

// uniform reports whether there is nothing but zeros, or nothing but ones.
func uniform(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	return (b[0] == 0 || b[0] == 0xff) && bytes.Equal(b[:len(b)-1], b[1:])
}

// describe names what the beginning of a disk shows; empty if it is nothing well-known.
func describe(head []byte) string {
	has := func(at int, magic string) bool {
		return len(head) >= at+len(magic) && string(head[at:at+len(magic)]) == magic
	}
	if label, _, ok := parseExt4(head[:min(len(head), 2048)]); ok {
		if label == "" {
			return "an ext4 file system without a label"
		}
		return fmt.Sprintf("an ext4 file system labelled %q", label)
	}
	switch {
	case has(0, "XFSB"):
		return "an XFS file system"
	case has(0x10040, "_BHRfS_M"):
		return "a btrfs file system"
	case has(0, "LUKS\xba\xbe"):
		return "an encrypted volume (LUKS)"
	case has(4086, "SWAPSPACE2"):
		return "swap space"
	case len(head) >= 4100 && binary.LittleEndian.Uint32(head[4096:]) == 0xa92b4efc:
		return "a member of a software RAID"
	case has(512, "EFI PART"), has(4096, "EFI PART"):
		return "a partition table (GPT)"
	}
	for at := 0; at < 2048; at += 512 {
		if has(at, "LABELONE") {
			return "a physical volume of LVM"
		}
	}
	if has(510, "\x55\xaa") {
		return "a partition table or boot sector"
	}
	return ""
}

// Wiped proves that a disk was erased: what was done, and that it was read back.
type Wiped struct {
	Disk   string `json:"disk"`
	Size   int64  `json:"size"`   // bytes
	How    string `json:"how"`    // "discarded": every block reads as zeros; "overwritten": what makes it a data disk does
	Looked int    `json:"looked"` // places that were read back and found blank
}

// String says for people what was done.
func (w Wiped) String() string {
	return fmt.Sprintf("%s (%s) was %s and read back blank at %d places", w.Disk, bytesText(w.Size), w.How, w.Looked)
}

// Wipe erases every data disk of ours, and nothing else, and proves it. A machine without one has nothing to erase. It
// is safe to repeat: an interrupted wipe leaves a disk that is ours still, and carries no incarnation.
func (p Place) Wipe() ([]Wiped, error) {
	disks, err := p.Look()
	if err != nil {
		return nil, err
	}
	var done []Wiped
	var errs []error
	for _, d := range disks {
		if !d.Ours() {
			continue
		}
		w, err := d.wipe()
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot wipe the data disk %s: %w", d, err))
			continue
		}
		done = append(done, w)
	}
	return done, errors.Join(errs...)
}

func (d Disk) wipe() (Wiped, error) {
	w := Wiped{Disk: d.Name, Size: d.Size}
	f, err := d.open()
	if err != nil {
		return w, err
	}
	defer f.Close()
	if w.How, err = d.erase(f); err != nil {
		return w, err
	}
	// What the kernel remembers proves nothing about the disk.
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return w, fmt.Errorf("cannot drop what the kernel remembers of it: %w", err)
	}
	content, err := Content(d.Path)
	if err == nil && content != "" {
		err = fmt.Errorf("it was erased, and reads back %s", content)
	}
	w.Looked = len(looks(d.Size))
	return w, err
}

// open opens a disk for writing while nothing else uses it: not one that is mounted.
func (d Disk) open() (*os.File, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is in use: it is mounted, or part of something else", d.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open it for writing: %w", err)
	}
	return f, nil
}

// chunk is how much is asked to be discarded at once.
const chunk = 1 << 30

// erase makes a disk of ours blank, its mark last.
func (d Disk) erase(f *os.File) (how string, err error) {
	if err := setMark(f, d.Size, mark{State: Wiping}); err != nil {
		return "", err
	}
	how = "discarded"
	for at := int64(0); at < d.Size; at += chunk {
		// For block devices: blocks are discarded if they then read as zeros, and else nothing happens.
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, min(chunk, d.Size-at))
		if err != nil {
			how = "overwritten"
			break
		}
	}
	if how == "overwritten" {
		_ = unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0) // a courtesy: writing is what counts
		if err := overwrite(f, d.Size); err != nil {
			return "", err
		}
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("cannot make the erasing durable: %w", err)
	}
	return how, nil
}

// overwrite writes zeros wherever a file system of ours could be recognised by, and wherever it is looked at: a disk that
// cannot discard keeps the rest of its content.
func overwrite(f *os.File, size int64) error {
	spans := append(looks(size), span{0, min(16*edge, size)})
	// Backups of ext4's superblock, with the group descriptors behind it: groups 1 and powers of 3, 5 and 7, of 128 MiB.
	groups := []int64{1}
	for _, base := range []int64{3, 5, 7} {
		for g := base; g < size>>27; g *= base {
			groups = append(groups, g)
		}
	}
	for _, g := range groups {
		if at := g << 27; at < size {
			spans = append(spans, span{at, min(edge, size-at)})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(min(1, max(-1, a.at-b.at))) })
	zeros := make([]byte, edge)
	for _, s := range spans {
		for at := s.at; at < s.at+s.size; at += edge {
			if _, err := f.WriteAt(zeros[:min(edge, s.at+s.size-at)], at); err != nil {
				return fmt.Errorf("cannot overwrite it at byte %d: %w", at, err)
			}
		}
	}
	return nil
}

// setMark writes the mark, durably.
func setMark(f *os.File, size int64, m mark) error {
	b, err := m.block()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, markAt(size)); err != nil {
		return fmt.Errorf("cannot mark it: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot mark it: %w", err)
	}
	return nil
}
