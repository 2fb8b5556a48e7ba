// Package holder finds out which program holds a port, for the one sentence that a person reads when a server cannot
// start because another one runs.
package holder

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Find names the program that holds a port of network "udp" or "tcp" in this network namespace, such as
// "dnsmasq (pid 4711)". It returns the empty string where that cannot be told: the socket belongs to another user, or
// is gone by now. Only listening TCP sockets count.
func Find(network string, port uint16) string {
	for _, file := range []string{"/proc/self/net/" + network, "/proc/self/net/" + network + "6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		inodes := parse(f, network, port)
		f.Close()
		for _, inode := range inodes {
			if name := process(inode); name != "" {
				return name
			}
		}
	}
	return ""
}

// InUse is the sentence for a port that another program holds.
func InUse(network string, addr netip.AddrPort) string {
	by := Find(network, addr.Port())
	if by == "" {
		by = "another program"
	}
	return fmt.Sprintf("%s port %d is taken by %s; stop it, or choose another address", strings.ToUpper(network), addr.Port(), by)
}

// parse reads a table of sockets as proc(5) describes /proc/net/tcp and returns the inodes of those bound to the port.
func parse(r io.Reader, network string, port uint16) []string {
	const listening = "0A"
	var inodes []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || (network == "tcp" && f[3] != listening) {
			continue
		}
		_, p, ok := strings.Cut(f[1], ":")
		b, err := hex.DecodeString(p)
		if !ok || err != nil || len(b) != 2 || uint16(b[0])<<8|uint16(b[1]) != port {
			continue
		}
		inodes = append(inodes, f[9])
	}
	return inodes
}

// process names the process with an open socket of this inode.
func process(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the only error is a malformed pattern
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		if pid == strconv.Itoa(os.Getpid()) {
			return "this program itself"
		}
		return strings.TrimSpace(string(comm)) + " (pid " + pid + ")"
	}
	return ""
}
