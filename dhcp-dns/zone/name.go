package zone

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of a domain name (RFC 1035 § 2.3.4). maxName is that of the written form without its final dot: 255 octets on
// the wire are 253 characters and dots.
const (
	maxLabel = 63
	maxName  = 253
)

// ParseName returns the canonical form of a host's or a zone's name: lower case, without the final dot. It accepts what
// RFC 1123 § 2.1 accepts as host names: letters, digits and hyphens in labels of 1 to 63 characters that neither begin
// nor end with a hyphen, at most 253 in all, and a last label that is no number (so that no name can be taken for an
// IPv4 address). Its errors say what is wrong and where.
func ParseName(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if name == "" {
		return "", fmt.Errorf("name %q is empty", text)
	}
	if len(name) > maxName {
		return "", fmt.Errorf("name %.40q… has %d characters; at most %d are allowed (RFC 1035)", text, len(name), maxName)
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("name %q: %w", text, err)
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("name %q ends in the number %q and could be taken for an address (RFC 1123)", text, last)
	}
	return name, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return fmt.Errorf("there is an empty label (two dots in a row, or one at the start)")
	case len(label) > maxLabel:
		return fmt.Errorf("label %.20q… has %d characters; at most %d are allowed (RFC 1035)", label, len(label), maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q begins or ends with a hyphen", label)
	}
	for _, c := range label {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return fmt.Errorf("label %q contains %q; host names have letters, digits and hyphens only (RFC 1123)", label, c)
		}
	}
	return nil
}

// Parent returns the name without its first label, and "" for a name of one label. It honours escaped dots (RFC 1035
// § 5.1), as names that come from the wire may have them.
func Parent(name string) string {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '.':
			return name[i+1:]
		}
	}
	return ""
}

// Within reports whether a canonical name is the zone's apex or lies below it.
func Within(name, apex string) bool {
	return name == apex || strings.HasSuffix(name, "."+apex)
}

// Overlap reports whether two canonical zones cannot be served as two: they are equal, or one lies inside the other.
func Overlap(a, b string) bool { return Within(a, b) || Within(b, a) }

// fold is the canonical form of a name from the wire: lower case (RFC 4343), without the final dot. It does not check it
// and, for a name that has this form already, does not allocate.
func fold(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

const hexDigits = "0123456789abcdef"

// ReverseName is the name under in-addr.arpa or ip6.arpa that holds an address's PTR records (RFC 1035 § 3.5, RFC 3596
// § 2.5), in canonical form. An IPv4 address mapped into IPv6 counts as IPv4.
func ReverseName(addr netip.Addr) string {
	addr = addr.Unmap()
	return reverse(addr, addr.BitLen())
}

// reverse names the first bits of an address; bits is a multiple of 8 for IPv4, of 4 for IPv6.
func reverse(addr netip.Addr, bits int) string {
	var b strings.Builder
	if addr.Is4() {
		raw := addr.As4()
		for i := bits/8 - 1; i >= 0; i-- {
			b.WriteString(strconv.Itoa(int(raw[i])))
			b.WriteByte('.')
		}
		b.WriteString("in-addr.arpa")
		return b.String()
	}
	raw := addr.As16()
	for i := bits/4 - 1; i >= 0; i-- {
		nibble := raw[i/2] >> 4
		if i%2 == 1 {
			nibble = raw[i/2] & 0xf
		}
		b.WriteByte(hexDigits[nibble])
		b.WriteByte('.')
	}
	b.WriteString("ip6.arpa")
	return b.String()
}
