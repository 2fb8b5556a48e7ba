package bootset

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The newc format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: a header of 13 fields of
// eight hexadecimal digits after the magic, the name with its NUL, the body; name and body padded to four bytes.
const (
	newcMagic   = "070701"
	newcHeader  = 6 + 13*8
	newcTrailer = "TRAILER!!!"
	newcMaxName = 4096

	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

// entry is one member of an archive. All are owned by root and carry no time, so that equal trees give equal archives.
type entry struct {
	name         string // relative, with slashes
	mode         uint32 // type and permission bits
	size         int64
	major, minor uint32 // for devices
}

// newcWriter writes an archive.
type newcWriter struct {
	w   io.Writer
	ino uint32
	off int64
}

// add writes one member; body must yield exactly e.size bytes and may be nil for none.
func (n *newcWriter) add(e entry, body io.Reader) error {
	if e.size < 0 || e.size > 0xffffffff {
		return fmt.Errorf("cannot archive %s: %d bytes do not fit the newc format", e.name, e.size)
	}
	n.ino++
	links := 1
	if e.mode&modeDir == modeDir && e.mode&0o170000 == modeDir {
		links = 2
	}
	head := fmt.Sprintf(newcMagic+"%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		n.ino, e.mode, 0, 0, links, 0, e.size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	if err := n.write(strings.NewReader(head), int64(len(head))); err != nil {
		return err
	}
	if err := n.pad(); err != nil {
		return err
	}
	if e.size > 0 {
		if err := n.write(body, e.size); err != nil {
			return fmt.Errorf("cannot archive %s: %w", e.name, err)
		}
	}
	return n.pad()
}

// close ends the archive.
func (n *newcWriter) close() error {
	n.ino = ^uint32(0) // the trailer has inode 0
	return n.add(entry{name: newcTrailer}, nil)
}

func (n *newcWriter) write(r io.Reader, size int64) error {
	written, err := io.Copy(n.w, io.LimitReader(r, size))
	n.off += written
	if err == nil && written != size {
		err = fmt.Errorf("%d bytes instead of %d", written, size)
	}
	return err
}

func (n *newcWriter) pad() error {
	if rest := n.off % 4; rest != 0 {
		zeros := strings.NewReader("\x00\x00\x00"[:4-rest])
		return n.write(zeros, 4-rest)
	}
	return nil
}

// errStop ends a scan early without an error.
var errStop = errors.New("stop")

// scanNewc calls visit for each member, with its body. It stops at the trailer, or when visit returns errStop.
func scanNewc(r io.Reader, visit func(e entry, body io.Reader) error) error {
	var off int64
	for {
		e, err := readHeader(r, &off)
		if err != nil {
			return err
		}
		if e.name == newcTrailer {
			return nil
		}
		body := &io.LimitedReader{R: r, N: e.size}
		if err := visit(e, body); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
		padded := (4 - (off+e.size)%4) % 4
		if _, err := io.CopyN(io.Discard, r, body.N+padded); err != nil {
			return fmt.Errorf("cpio archive ends within %s: %w", e.name, err)
		}
		off += e.size + padded
	}
}

func readHeader(r io.Reader, off *int64) (entry, error) {
	head := make([]byte, newcHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return entry{}, fmt.Errorf("cpio archive ends without a trailer: %w", err)
	}
	if string(head[:6]) != newcMagic {
		return entry{}, errors.New("not a newc cpio archive")
	}
	var f [13]uint32
	for i := range f {
		v, err := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			return entry{}, fmt.Errorf("cpio header: %w", err)
		}
		f[i] = uint32(v)
	}
	size := int64(f[11])
	if size < 1 || size > newcMaxName {
		return entry{}, fmt.Errorf("cpio header: a name of %d bytes", size)
	}
	size += (4 - (newcHeader+size)%4) % 4
	name := make([]byte, size)
	if _, err := io.ReadFull(r, name); err != nil {
		return entry{}, fmt.Errorf("cpio archive ends within a name: %w", err)
	}
	*off += newcHeader + size
	return entry{name: string(name[:f[11]-1]), mode: f[1], size: int64(f[6]), major: f[9], minor: f[10]}, nil
}
