// Package portuse names the process that holds a port, so that "address already in use" can say by whom.
package portuse

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Process is a running program.
type Process struct {
	PID  int
	Name string // as in /proc/PID/comm
}

// Explain turns the error of a failed listen into one sentence that names the port and, if it can be found, the
// process that holds it. Network is "udp" or "tcp". Other errors than "in use" and "not permitted" are only wrapped.
func Explain(err error, network string, port int) error {
	what := fmt.Sprintf("%s port %d", strings.ToUpper(network), port)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		if p, ok := Holder(network, port); ok {
			return fmt.Errorf("cannot listen on %s: %s (pid %d) holds it; stop that program, or bind it to other interfaces: %w", what, p.Name, p.PID, err)
		}
		return fmt.Errorf("cannot listen on %s: another program holds it (see `ss -lnp`, as root): %w", what, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot listen on %s: run as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW: %w", what, err)
	}
	return fmt.Errorf("cannot listen on %s: %w", what, err)
}

// Holder finds a process that has a socket on the port in this network namespace. Without root, other users'
// processes stay unknown.
func Holder(network string, port int) (Process, bool) {
	inodes := map[string]bool{}
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open("/proc/self/net/" + table)
		if err != nil {
			continue
		}
		for inode := range sockets(bufio.NewScanner(f), network, port) {
			inodes["socket:["+inode+"]"] = true
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return Process{}, false
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed, the only error Glob has
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it ended in between
		}
		return Process{PID: pid, Name: strings.TrimSpace(string(name))}, true
	}
	return Process{}, false
}

// sockets reads a table in the format of /proc/net/udp and yields the inodes of sockets bound to the port (proc(5)):
// the second column is ADDRESS:PORT in hexadecimal, the fourth the state, the tenth the inode.
func sockets(lines *bufio.Scanner, network string, port int) map[string]bool {
	const tcpListen = "0A"
	found := map[string]bool{}
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || network == "tcp" && fields[3] != tcpListen {
			continue
		}
		_, hex, ok := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(n) == port && fields[9] != "0" {
			found[fields[9]] = true
		}
	}
	return found
}
