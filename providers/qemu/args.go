package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"joist/services/power"
)

// Identifiers of devices on QEMU's command line and in its object model.
const (
	nicDevice  = "nic0"
	diskDevice = "disk0"
)

// invocation is everything that decides a machine's command line.
type invocation struct {
	spec    Spec
	machine Machine
	files   files
	boot    power.Device // what the firmware tries first
	accel   Accel
	tap     string
	ovmf    string // path of the UEFI code; for UEFI only
}

// order gives the boot indices of NIC and disk.
func order(first power.Device) (nic, disk int) {
	if first == power.Disk {
		return 2, 1
	}
	return 1, 2
}

// args builds the command line. No secret is in it: anybody on the host may read it.
func (v invocation) args() []string {
	nic, disk := order(v.boot)
	a := []string{
		"-name", "guest=" + v.spec.Name + ",process=joist-vm-" + short(v.spec.Name, 6),
		"-nodefaults", "-no-user-config", "-display", "none",
		// Without graphics SeaBIOS and iPXE speak on the first serial port.
		"-machine", "q35,graphics=off",
		"-cpu", cpuModel,
		"-m", strconv.FormatInt(v.spec.Memory/mib, 10) + "M",
		"-smp", strconv.Itoa(v.spec.CPUs),
		"-uuid", v.machine.UUID,
		// Nothing bootable: SeaBIOS tries again after 5 s instead of stopping for good.
		"-boot", "strict=on,reboot-timeout=5000",
	}
	a = append(a, v.accel.args()...)
	if v.spec.Firmware == UEFI {
		a = append(a,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+comma(v.ovmf),
			"-drive", "if=pflash,unit=1,format=raw,file="+comma(v.files.vars))
	}
	device := fmt.Sprintf("virtio-net-pci,id=%s,netdev=net0,mac=%s,bootindex=%d", nicDevice, v.machine.MAC, nic)
	if v.spec.Firmware == UEFI {
		device += ",romfile=" // the firmware's own driver and PXE, as on most real machines
	}
	a = append(a,
		"-netdev", "tap,id=net0,ifname="+v.tap+",script=no,downscript=no",
		"-device", device)
	if v.spec.Disk > 0 {
		a = append(a,
			// What the machine has written is in our page cache, and outlives its power; to wait for a real disk besides would
			// only guard against the end of this computer, which the machine does not outlive either.
			"-blockdev", "driver=file,node-name=file0,discard=unmap,cache.no-flush=on,filename="+comma(v.files.disk),
			"-blockdev", "driver=raw,node-name=drive0,discard=unmap,cache.no-flush=on,file=file0",
			"-device", fmt.Sprintf("virtio-blk-pci,id=%s,drive=drive0,serial=%s,bootindex=%d", diskDevice, short(v.spec.Name, 20), disk))
	}
	if !v.spec.Bare {
		a = append(a, "-smbios", "type=11,path="+comma(v.files.voucher))
	}
	if !v.spec.Clock.IsZero() {
		a = append(a, "-rtc", "base="+v.spec.Clock.UTC().Format("2006-01-02T15:04:05"))
	}
	return append(a,
		"-chardev", "file,id=console,append=on,path="+comma(v.files.console), "-serial", "chardev:console",
		"-chardev", "file,id=agent,append=on,path="+comma(v.files.agent), "-serial", "chardev:agent",
		"-chardev", "socket,id=qmp,server=on,wait=off,path="+comma(v.files.qmp), "-mon", "chardev=qmp,mode=control",
		// QEMU returns from the start only when the machine runs and its socket listens, and has left our session by then.
		"-pidfile", v.files.pid, "-daemonize")
}

// comma escapes a value of a QEMU option list.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func short(s string, n int) string { return s[:min(n, len(s))] }
