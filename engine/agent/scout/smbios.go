package scout

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// SMBIOS is what the firmware says about the machine (DMTF DSP0134).
type SMBIOS struct {
	UUID         string   `json:"uuid,omitempty"` // as the kernel prints it; empty for all zeros or all ones
	Manufacturer string   `json:"manufacturer,omitempty"`
	Product      string   `json:"product,omitempty"`
	Serial       string   `json:"serial,omitempty"`
	OEM          []string `json:"-"` // type 11 strings; one may be a voucher's secret, so they never leave with the facts
}

// ParseSMBIOS reads the structure table (/sys/firmware/dmi/tables/DMI). It takes what it can from a damaged table:
// firmware is what it is.
func ParseSMBIOS(table []byte) SMBIOS {
	var s SMBIOS
	for len(table) >= 4 {
		kind, length := table[0], int(table[1])
		if length < 4 || length > len(table) {
			break
		}
		body := table[:length]
		texts, rest := smbiosStrings(table[length:])
		text := func(offset int) string {
			if offset >= len(body) || body[offset] == 0 || int(body[offset]) > len(texts) {
				return ""
			}
			return strings.TrimSpace(texts[body[offset]-1])
		}
		switch kind {
		case 1: // system information
			s.Manufacturer, s.Product, s.Serial = text(4), text(5), text(7)
			if len(body) >= 24 {
				s.UUID = smbiosUUID(body[8:24])
			}
		case 11: // OEM strings
			s.OEM = append(s.OEM, texts...)
		case 127: // end of table
			return s
		}
		table = rest
	}
	return s
}

// smbiosStrings reads the strings behind a structure: each ends with a NUL, the set with another.
func smbiosStrings(b []byte) (texts []string, rest []byte) {
	if len(b) >= 2 && b[0] == 0 && b[1] == 0 {
		return nil, b[2:]
	}
	for len(b) > 0 && b[0] != 0 {
		end := strings.IndexByte(string(b), 0)
		if end < 0 {
			return texts, nil
		}
		texts = append(texts, string(b[:end]))
		b = b[end+1:]
	}
	if len(b) > 0 {
		b = b[1:]
	}
	return texts, b
}

// smbiosUUID prints the first three fields little-endian, as SMBIOS 2.6 says and the kernel does.
func smbiosUUID(b []byte) string {
	zeros, ones := true, true
	for _, c := range b {
		zeros, ones = zeros && c == 0, ones && c == 0xff
	}
	if zeros || ones {
		return ""
	}
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}
