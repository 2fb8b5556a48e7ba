// Package holder finds out who holds a port of this machine, for the sentence a person reads when a server cannot start.
package holder

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Of names the processes that hold a port so that addr cannot be bound, such as "dnsmasq (pid 812)", several joined by
// commas. Network is "udp" or "tcp". It returns "" where /proc does not tell: processes of other users and of other
// namespaces are visible to root only, or not at all.
func Of(network string, addr netip.AddrPort) string {
	return find("/proc", network, addr)
}

// Reason is the part of a sentence that follows "is in use:": who holds the port, or how to find out where /proc does not tell.
func Reason(network string, addr netip.AddrPort) string {
	if who := Of(network, addr); who != "" {
		return "it is held by " + who
	}
	return fmt.Sprintf("another process holds it; `ss -lnp 'sport = :%d'` as root names it", addr.Port())
}

func find(proc, network string, addr netip.AddrPort) string {
	inodes := map[string]bool{}
	for _, table := range []string{network, network + "6"} {
		for _, inode := range sockets(filepath.Join(proc, "self/net", table), network, addr) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, err := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	if err != nil {
		return ""
	}
	var holders []string
	seen := map[string]bool{}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue // gone, or not ours to read
		}
		dir := filepath.Dir(filepath.Dir(link))
		if seen[dir] {
			continue
		}
		seen[dir] = true
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		holders = append(holders, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir)))
	}
	return strings.Join(holders, ", ")
}

// sockets lists the inodes of the sockets in a table of /proc/net that conflict with addr: same port, and the same address
// or either of the two unspecified. For TCP, listening ones only.
func sockets(table, network string, addr netip.AddrPort) []string {
	const (
		local, state, inode = 1, 3, 9 // columns
		listening           = "0A"
	)
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close() // read only
	var out []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) <= inode || network == "tcp" && fields[state] != listening {
			continue
		}
		held, ok := parse(fields[local])
		if !ok || held.Port() != addr.Port() {
			continue
		}
		if held.Addr() == addr.Addr().Unmap() || held.Addr().IsUnspecified() || addr.Addr().IsUnspecified() {
			out = append(out, fields[inode])
		}
	}
	return out
}

// parse reads an address as /proc/net writes it on a little-endian machine: hexadecimal words of 32 bits in the machine's
// order, a colon, and the port.
func parse(text string) (netip.AddrPort, bool) {
	words, portText, ok := strings.Cut(text, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(words)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), true
}
