package decide

import (
	"fmt"
	"strconv"
	"strings"
)

// architecture returns the loader for the first architecture of the client's list that has one. Otherwise ok is false
// and the string names what the client runs on, empty if it does not say.
//
// 7 is x86-64 UEFI in the registry and 9 is EBC, but firmware in the field sends either for x86-64 (RFC 4578 errata
// 4625), so both mean it. Where option 93 is missing the vendor class usually repeats it.
func architecture(f Firmware) (string, bool) {
	archs := f.Archs
	if len(archs) == 0 {
		if code, ok := vendorArch(f.VendorClass); ok {
			archs = []uint16{code}
		}
	}
	for _, code := range archs {
		switch code {
		case 0:
			return LoaderBIOS, true
		case 7, 9:
			return LoaderUEFI, true
		}
	}
	if len(archs) == 0 {
		return "", false
	}
	return archName(archs[0]), false
}

// vendorArch reads the architecture from a vendor class "PXEClient:Arch:xxxxx:…", five decimal digits (PXE 2.1 § 2.2.1).
func vendorArch(class string) (uint16, bool) {
	_, rest, ok := strings.Cut(class, ":Arch:")
	if !ok || len(rest) < 5 {
		return 0, false
	}
	code, err := strconv.ParseUint(rest[:5], 10, 16)
	return uint16(code), err == nil
}

// archName says what an architecture code stands for, after IANA's "Processor Architecture Types".
func archName(code uint16) string {
	names := map[uint16]string{
		1: "NEC PC-98", 2: "Itanium UEFI", 6: "32-bit x86 UEFI", 0x0a: "32-bit ARM UEFI", 0x0b: "64-bit ARM UEFI",
		0x0e: "POWER OPAL", 0x0f: "32-bit x86 UEFI HTTP", 0x10: "x86-64 UEFI HTTP", 0x12: "32-bit ARM UEFI HTTP",
		0x13: "64-bit ARM UEFI HTTP", 0x1b: "64-bit RISC-V UEFI", 0x1f: "s390",
	}
	if name, ok := names[code]; ok {
		return fmt.Sprintf("%s (architecture %d)", name, code)
	}
	return fmt.Sprintf("architecture %d", code)
}
