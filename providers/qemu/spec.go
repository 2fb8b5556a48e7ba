package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"time"
)

// Firmware is what a machine starts with.
type Firmware string

// The two firmwares.
const (
	BIOS Firmware = "bios" // SeaBIOS, network boot by the iPXE in the NIC's option ROM
	UEFI Firmware = "uefi" // OVMF (x86-64, no Secure Boot), network boot by the firmware itself
)

// Spec is what a machine is made of. A changed Spec takes effect at the machine's next power-on.
type Spec struct {
	Name     string    `json:"name"`               // a DNS label, lower case
	Memory   int64     `json:"memory,omitempty"`   // bytes, whole MiB; 2 GiB if zero
	CPUs     int       `json:"cpus,omitempty"`     // 2 if zero
	Firmware Firmware  `json:"firmware,omitempty"` // BIOS if empty
	Disk     int64     `json:"disk,omitempty"`     // bytes of a blank, sparse data disk, whole MiB; zero for a machine without one
	Bare     bool      `json:"bare,omitempty"`     // no voucher secret: such a machine stays "claimed"
	Clock    time.Time `json:"clock,omitzero"`     // what its clock shows at power-on (a wrong one, for tests); the host's time if zero
}

const mib = 1 << 20

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (s Spec) withDefaults() (Spec, error) {
	if !nameForm.MatchString(s.Name) {
		return s, fmt.Errorf("machine name %q is not a DNS label in lower case", s.Name)
	}
	if s.Memory == 0 {
		s.Memory = 2048 * mib
	}
	if s.CPUs == 0 {
		s.CPUs = 2
	}
	if s.Firmware == "" {
		s.Firmware = BIOS
	}
	switch {
	case s.Memory < 128*mib || s.Memory%mib != 0:
		return s, fmt.Errorf("machine %s: memory of %d bytes is not a whole number of MiB from 128 MiB up", s.Name, s.Memory)
	case s.CPUs < 1 || s.CPUs > 64:
		return s, fmt.Errorf("machine %s: %d CPUs are not between 1 and 64", s.Name, s.CPUs)
	case s.Firmware != BIOS && s.Firmware != UEFI:
		return s, fmt.Errorf("machine %s: firmware %q is neither %q nor %q", s.Name, s.Firmware, BIOS, UEFI)
	case s.Disk < 0 || s.Disk%mib != 0:
		return s, fmt.Errorf("machine %s: a disk of %d bytes is not a whole number of MiB", s.Name, s.Disk)
	}
	return s, nil
}

// Machine is a machine of the inventory, with what is known of it before it was ever powered on.
type Machine struct {
	Name  string `json:"name"`
	MAC   string `json:"mac"`  // of its boot NIC, lower case, colons
	UUID  string `json:"uuid"` // SMBIOS type 1, RFC 9562 text form
	Facts Facts  `json:"facts"`
}

// Facts are the declared facts of a machine.
type Facts struct {
	Memory   int64    `json:"memory"` // bytes
	CPUs     int      `json:"cpus"`
	Firmware Firmware `json:"firmware"`
	Disks    []Disk   `json:"disks"` // never nil
	NICs     []NIC    `json:"nics"`
}

// Disk is a local disk.
type Disk struct {
	Name string `json:"name"` // as Linux names it
	Size int64  `json:"size"` // bytes
}

// NIC is a network interface.
type NIC struct {
	MAC string `json:"mac"`
}

// machineOf derives the inventory entry; where is the provider's data folder.
func machineOf(where string, s Spec) Machine {
	mac := macOf(where, s.Name).String()
	f := Facts{Memory: s.Memory, CPUs: s.CPUs, Firmware: s.Firmware, Disks: []Disk{}, NICs: []NIC{{MAC: mac}}}
	if s.Disk > 0 {
		f.Disks = append(f.Disks, Disk{Name: "vda", Size: s.Disk})
	}
	return Machine{Name: s.Name, MAC: mac, UUID: uuidOf(where, s.Name), Facts: f}
}

// digest names a machine of a data folder; kind keeps what is derived from it apart.
func digest(kind, where, name string) []byte {
	h := sha256.Sum256([]byte("joist " + kind + "\x00" + where + "\x00" + name))
	return h[:]
}

// macOf derives a locally administered unicast address (IEEE 802: bit 1 of the first octet set, bit 0 clear).
func macOf(where, name string) net.HardwareAddr {
	d := digest("mac", where, name)
	return net.HardwareAddr{d[0]&^0x03 | 0x02, d[1], d[2], d[3], d[4], d[5]}
}

// uuidOf derives a UUID of version 8 (RFC 9562 § 5.8: custom).
func uuidOf(where, name string) string {
	d := digest("uuid", where, name)
	d[6] = d[6]&0x0f | 0x80
	d[8] = d[8]&0x3f | 0x80
	h := hex.EncodeToString(d[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// tapOf derives the name of the machine's port on the bridge; an interface name has at most 15 bytes.
func tapOf(where, name string) string {
	return "vm-" + hex.EncodeToString(digest("tap", where, name)[:6])
}
