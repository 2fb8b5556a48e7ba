package dhcp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Firmware is what a DHCP packet says about the machine that sent it. All of it is chosen by the sender: it tells
// machines apart and picks a loader, and never authenticates. It holds no pointers into the packet.
type Firmware struct {
	MAC         string     // hardware address (chaddr), lower-case hexadecimal with colons; 6 bytes on Ethernet
	UUID        string     // SMBIOS UUID of option 97, as dmidecode and `qemu -uuid` print it; empty if absent or blank
	Arch        []uint16   // option 93: processor architectures in the client's order (RFC 4578 §2.1, IANA registry); nil if absent
	VendorClass string     // option 60, such as "PXEClient:Arch:00007:UNDI:003016" or "HTTPClient:…"
	UserClass   []string   // option 77, whether or not the client formatted it as RFC 3004 wants
	IPXE        bool       // the client is iPXE: user class "iPXE", or its encapsulated options (175) are there
	Requested   netip.Addr // option 50; invalid if absent
	Hostname    string     // option 12; any bytes, at most 255
}

// PXE reports whether the client is a PXE ROM or UEFI PXE (RFC 4578 §2.4); iPXE calls itself one as well.
func (f Firmware) PXE() bool { return strings.HasPrefix(f.VendorClass, "PXEClient") }

// HTTP reports whether the client is UEFI HTTP boot, which wants a URL as its boot file.
func (f Firmware) HTTP() bool { return strings.HasPrefix(f.VendorClass, "HTTPClient") }

// optionIPXE encapsulates iPXE's own options; a client that sends it is iPXE (ipxe.org/howto/dhcpd).
const optionIPXE = dhcpv4.GenericOptionCode(175)

func firmwareOf(p *dhcpv4.DHCPv4) Firmware {
	f := Firmware{
		MAC:         hardwareText(p.ClientHWAddr),
		UUID:        uuidText(p.GetOneOption(dhcpv4.OptionClientMachineIdentifier)),
		Arch:        architectures(p.GetOneOption(dhcpv4.OptionClientSystemArchitectureType)),
		VendorClass: strings.TrimRight(p.ClassIdentifier(), "\x00"),
		UserClass:   p.UserClass(),
		IPXE:        p.Options.Has(optionIPXE),
		Requested:   address(p.RequestedIPAddress()),
		Hostname:    p.HostName(),
	}
	for _, class := range f.UserClass {
		if class == "iPXE" {
			f.IPXE = true
		}
	}
	return f
}

func hardwareText(hw net.HardwareAddr) string { return hw.String() }

// address converts the codec's form; anything that is no IPv4 host address is invalid.
func address(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func architectures(option []byte) []uint16 {
	var list []uint16
	for ; len(option) >= 2; option = option[2:] {
		list = append(list, binary.BigEndian.Uint16(option))
	}
	return list
}

// uuidText reads option 97 (RFC 4578 §2.3): a type byte 0 and the 16 bytes of the SMBIOS UUID, whose first three fields
// are little-endian (SMBIOS 7.2.1; EDK2 and iPXE send them so). All zeros or all ones mean that the board has none.
func uuidText(option []byte) string {
	if len(option) != 17 || option[0] != 0 {
		return ""
	}
	u := option[1:]
	if allEqual(u, 0x00) || allEqual(u, 0xff) {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(u), binary.LittleEndian.Uint16(u[4:]),
		binary.LittleEndian.Uint16(u[6:]), u[8:10], u[10:16])
}

func allEqual(b []byte, want byte) bool {
	for _, x := range b {
		if x != want {
			return false
		}
	}
	return true
}
