package bootset

import (
	"slices"
	"strings"

	"joist/engine/agent/scout/kmod"
)

// moduleChoice says which modules scout carries; what they need comes with them.
type moduleChoice struct {
	names   []string // must exist, as a file or built in
	wanted  []string // taken where they exist
	folders []string // every module below these folders of the tree
}

// scoutModules is each profile's choice.
func scoutModules(p Profile) moduleChoice {
	c := moduleChoice{
		names:  []string{"squashfs", "overlay", "loop", "virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "sd_mod", "nvme"},
		wanted: []string{"virtio_mmio", "virtio_rng", "virtio_console", "ext4", "efivarfs", "qemu_fw_cfg", "tpm_tis", "tpm_crb", "crc32c_generic", "crc32c_intel"},
	}
	if p == Metal {
		c.names = append(c.names, "8021q", "bonding", "ahci")
		c.wanted = append(c.wanted, "vmxnet3", "xen_netfront", "xen_blkfront", "sr_mod", "usbhid", "hid_generic", "vfat", "nls_ascii", "nls_cp437")
		c.folders = []string{
			"kernel/drivers/net/ethernet", "kernel/drivers/net/phy", "kernel/drivers/net/mdio", "kernel/drivers/net/bonding", "kernel/drivers/net/hyperv", "kernel/drivers/net/pcs",
			"kernel/drivers/net/usb", "kernel/drivers/ata", "kernel/drivers/scsi", "kernel/drivers/nvme/host", "kernel/drivers/message/fusion", "kernel/drivers/block/mtip32xx",
			"kernel/drivers/mmc", "kernel/drivers/char/tpm", "kernel/drivers/char/ipmi", "kernel/drivers/hv", "kernel/drivers/usb/host", "kernel/drivers/usb/storage",
			"kernel/drivers/md", "kernel/drivers/pci/controller", "kernel/drivers/i2c/busses", "kernel/drivers/net/dsa", "kernel/net/dsa",
		}
	}
	return c
}

// MarshalJSON makes a choice part of a build's inputs.
func (c moduleChoice) MarshalJSON() ([]byte, error) {
	return []byte(`"` + strings.Join(slices.Concat(c.names, []string{";"}, c.wanted, []string{";"}, c.folders), " ") + `"`), nil
}

// files resolves a choice against a kernel's tables: the chosen modules and what they need, sorted.
func (c moduleChoice) files(tree *kmod.Tree) ([]string, error) {
	names := slices.Clone(c.names)
	for _, n := range c.wanted {
		if tree.Has(n) {
			names = append(names, n)
		}
	}
	for _, n := range tree.Names() {
		for _, folder := range c.folders {
			if strings.HasPrefix(tree.File(n), folder+"/") {
				names = append(names, n)
			}
		}
	}
	files, err := tree.Closure(names...)
	slices.Sort(files)
	return files, err
}
