package scout

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"joist/engine/agent/disk"
)

// Facts is what a machine is. Sizes are in bytes.
type Facts struct {
	CPU             CPU      `json:"cpu"`
	Memory          int64    `json:"memory"` // what the kernel can use
	Disks           []Disk   `json:"disks"`
	NICs            []NIC    `json:"nics"`
	Firmware        string   `json:"firmware"` // "bios" or "uefi"
	TPM             string   `json:"tpm"`      // "", "1.2" or "2.0"
	SMBIOS          SMBIOS   `json:"smbios"`
	Kernel          string   `json:"kernel"`
	MissingFirmware []string `json:"missing_firmware,omitempty"` // files that drivers asked for in vain
}

// CPU describes the processors.
type CPU struct {
	Model   string `json:"model"`
	Arch    string `json:"arch"`
	Threads int    `json:"threads"`
}

// Disk is a disk that could hold data.
type Disk struct {
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	Model       string `json:"model,omitempty"`
	Serial      string `json:"serial,omitempty"`
	Rotational  bool   `json:"rotational"`
	ReadOnly    bool   `json:"read_only"`
	Label       string `json:"label,omitempty"`       // of an ext4 file system on the whole disk
	Incarnation string `json:"incarnation,omitempty"` // that it carries, as a node's data disk
}

// NIC is a physical network interface.
type NIC struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	Driver  string `json:"driver,omitempty"`
	Carrier bool   `json:"carrier"`
	Speed   int    `json:"speed,omitempty"` // Mbit/s; 0 where unknown
	Boot    bool   `json:"boot"`            // the interface the machine booted from
}

// GatherFacts reads the machine's description from /proc and /sys. What cannot be read is left empty: half a
// description is better than none. boot is the boot interface's name.
func GatherFacts(boot string) Facts {
	f := Facts{
		CPU:    parseCPU(readText("/proc/cpuinfo")),
		Memory: parseMeminfo(readText("/proc/meminfo"), "MemTotal"),
		Disks:  gatherDisks("/sys/block"),
		NICs:   gatherNICs("/sys/class/net", boot),
		SMBIOS: ParseSMBIOS([]byte(readText("/sys/firmware/dmi/tables/DMI"))),
		Kernel: strings.TrimSpace(readText("/proc/sys/kernel/osrelease")),
	}
	f.CPU.Arch = strings.TrimSpace(readText("/proc/sys/kernel/arch"))
	if f.CPU.Arch == "" {
		f.CPU.Arch = "x86_64" // kernels before 6.1 have no such file, and scout is built for this one
	}
	f.Firmware = "bios"
	if _, err := os.Stat("/sys/firmware/efi"); err == nil {
		f.Firmware = "uefi"
	}
	if _, err := os.Stat("/sys/class/tpm/tpm0"); err == nil {
		f.TPM = "1.2"
		if strings.TrimSpace(readText("/sys/class/tpm/tpm0/tpm_version_major")) == "2" {
			f.TPM = "2.0"
		}
	}
	f.MissingFirmware = parseMissingFirmware(kernelLog())
	return f
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// attribute reads a one-line file of sysfs.
func attribute(elem ...string) string { return strings.TrimSpace(readText(filepath.Join(elem...))) }

func parseCPU(text string) CPU {
	var c CPU
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			c.Threads++
		case "model name":
			c.Model = strings.TrimSpace(value)
		}
	}
	return c
}

// parseMeminfo returns one line of /proc/meminfo in bytes, or 0.
func parseMeminfo(text, key string) int64 {
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		if name != key {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil || n < 0 || n > 1<<50 {
			return 0
		}
		return n << 10
	}
	return 0
}

func gatherDisks(sys string) []Disk {
	disks := []Disk{}
	known, err := disk.Place{Sys: sys}.Look()
	if err != nil {
		known = nil // half a description is better than none
	}
	for _, name := range names(sys) {
		sectors, err := strconv.ParseInt(attribute(sys, name, "size"), 10, 64)
		if !disk.MaybeDisk(name) || strings.HasPrefix(name, "dm-") || err != nil || sectors == 0 {
			continue
		}
		serial := attribute(sys, name, "serial") // virtio
		if serial == "" {
			serial = attribute(sys, name, "device/serial")
		}
		d := Disk{
			Name: name, Size: sectors * 512, // the kernel's unit, whatever the disk's is
			Model: attribute(sys, name, "device/model"), Serial: serial,
			Rotational: attribute(sys, name, "queue/rotational") == "1", ReadOnly: attribute(sys, name, "ro") == "1",
		}
		if i := slices.IndexFunc(known, func(k disk.Disk) bool { return k.Name == name }); i >= 0 {
			d.Label, d.Incarnation = known[i].Label, known[i].Incarnation()
		}
		disks = append(disks, d)
	}
	return disks
}

func gatherNICs(sys, boot string) []NIC {
	nics := []NIC{}
	for _, name := range names(sys) {
		if _, err := os.Stat(filepath.Join(sys, name, "device")); err != nil {
			continue // no hardware behind it
		}
		speed, err := strconv.Atoi(attribute(sys, name, "speed"))
		if err != nil || speed < 0 {
			speed = 0
		}
		driver, _ := os.Readlink(filepath.Join(sys, name, "device/driver"))
		n := NIC{Name: name, MAC: attribute(sys, name, "address"), Carrier: attribute(sys, name, "carrier") == "1", Speed: speed, Boot: name == boot}
		if driver != "" {
			n.Driver = filepath.Base(driver)
		}
		nics = append(nics, n)
	}
	return nics
}

func names(folder string) []string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type()&fs.ModeDir != 0 || e.Type()&fs.ModeSymlink != 0 {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}

// missingFirmware matches both of the kernel's sentences about a firmware file it did not find.
var missingFirmware = regexp.MustCompile(`(?:Direct firmware load for (\S+) failed with error -2|firmware: failed to load (\S+) \(-2\))`)

// parseMissingFirmware lists the firmware files that drivers asked for in vain, each once.
func parseMissingFirmware(log []byte) []string {
	var files []string
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		m := missingFirmware.FindSubmatch(lines.Bytes())
		if m == nil {
			continue
		}
		name := string(m[1]) + string(m[2])
		// The regulatory database is looked for by every kernel with wireless support.
		if !strings.HasPrefix(name, "regulatory.db") && !slices.Contains(files, name) {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files
}

// kernelLog reads what the kernel has logged so far (syslog(2), action 3).
func kernelLog() []byte {
	buf := make([]byte, 1<<20)
	n, err := syscall.Klogctl(3, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}
