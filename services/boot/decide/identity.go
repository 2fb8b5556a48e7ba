package decide

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// MAC is a hardware address in canonical form: lower-case octets joined by colons, 6 of them (Ethernet), 8 or 20
// (InfiniBand). It names a machine to the inventory; it is public and proves nothing.
type MAC string

// ParseMAC reads a hardware address written with colons, hyphens, dots or no separator at all, in either case, and
// returns its canonical form. An address of another length, all zeros, or with the group bit set is an error: no
// network card boots from it.
func ParseMAC(s string) (MAC, error) {
	if len(s) > 3*20 {
		return "", fmt.Errorf("cannot read MAC address: %d characters are too many", len(s))
	}
	raw, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))
	if err != nil {
		return "", fmt.Errorf("cannot read MAC address %q: want hexadecimal octets such as 52:54:00:12:34:56", s)
	}
	switch len(raw) {
	case 6, 8, 20:
	default:
		return "", fmt.Errorf("cannot read MAC address %q: want 6, 8 or 20 octets, not %d", s, len(raw))
	}
	if len(raw) == 6 && raw[0]&1 != 0 {
		return "", fmt.Errorf("cannot read MAC address %q: this is a group address", s)
	}
	zero := true
	parts := make([]string, len(raw))
	for i, b := range raw {
		zero = zero && b == 0
		parts[i] = fmt.Sprintf("%02x", b)
	}
	if zero {
		return "", fmt.Errorf("cannot read MAC address %q: it is all zeros", s)
	}
	return MAC(strings.Join(parts, ":")), nil
}

// Hyphens returns the address with its octets joined by hyphens, as BOOTIF wants them.
func (m MAC) Hyphens() string { return strings.ReplaceAll(string(m), ":", "-") }

// UUID is an SMBIOS system UUID in canonical form (lower case, 8-4-4-4-12), or empty where the firmware named none.
// Like the MAC it is public and proves nothing.
type UUID string

// ParseUUID reads a UUID with or without hyphens. The values that firmware without a UUID reports, all zeros and all
// ones, become the empty UUID, and so does the empty string: two machines must not look alike because neither has one.
func ParseUUID(s string) (UUID, error) {
	if s == "" {
		return "", nil
	}
	if len(s) > 36 {
		return "", fmt.Errorf("cannot read UUID: %d characters are too many", len(s))
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != 16 {
		return "", fmt.Errorf("cannot read UUID %q: want 32 hexadecimal digits such as 12345678-9abc-def0-1234-56789abcdef0", s)
	}
	same := true
	for _, b := range raw {
		same = same && b == raw[0]
	}
	if same && (raw[0] == 0x00 || raw[0] == 0xff) {
		return "", nil
	}
	h := hex.EncodeToString(raw)
	return UUID(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]), nil
}
