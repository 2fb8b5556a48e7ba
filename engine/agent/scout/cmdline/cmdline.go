// Package cmdline reads what the boot script told a machine on its kernel command line. It is pure.
//
// The words are public: whoever sees the boot network sees them, so none of them authenticates anything.
package cmdline

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// MaxLength is the longest command line accepted, in bytes; the kernel's own limit on x86 is 2048.
const MaxLength = 4096

// maxURLs bounds the engine addresses taken from one command line.
const maxURLs = 16

// Params is what the command line says to the agent. Zero fields were not given.
type Params struct {
	// URLs are the engine's base addresses, in the order to be tried (joist.url, comma-separated or repeated).
	URLs []string
	// Pin is the SHA-256 of the root's public key, as 64 lower-case hexadecimal digits (joist.ca).
	Pin string
	// Boot is the 128-bit id of this boot, as 32 lower-case hexadecimal digits (joist.boot).
	Boot string
	// Time is the engine's clock when the boot script was made (joist.time: seconds since 1970, or RFC 3339).
	Time time.Time
	// MAC is the boot interface: joist.mac, or else BOOTIF as PXE loaders write it.
	MAC net.HardwareAddr
	// Log names a second terminal for the agent's log, such as "ttyS1" (joist.log).
	Log string
}

// Parse reads a kernel command line. All problems are reported together; what could be read is returned with them,
// so that a machine whose command line is half wrong still says so over the network it found. Unknown words belong
// to others, except unknown joist.* words, which are errors.
func Parse(line string) (Params, error) {
	if len(line) > MaxLength {
		return Params{}, fmt.Errorf("kernel command line has %d bytes, more than %d", len(line), MaxLength)
	}
	var p Params
	var bootif net.HardwareAddr
	var problems []error
	for _, word := range split(line) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch {
		case key == "BOOTIF":
			bootif, err = parseBootif(value)
		case strings.HasPrefix(key, "joist."):
			err = p.set(strings.TrimPrefix(key, "joist."), value)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel command line: %s: %w", key, err))
		}
	}
	if p.MAC == nil {
		p.MAC = bootif
	}
	return p, errors.Join(problems...)
}

func (p *Params) set(key, value string) error {
	var err error
	switch key {
	case "url":
		for _, u := range strings.Split(value, ",") {
			if err := checkURL(u); err != nil {
				return err
			}
			if len(p.URLs) == maxURLs {
				return fmt.Errorf("more than %d addresses", maxURLs)
			}
			p.URLs = append(p.URLs, strings.TrimSuffix(u, "/"))
		}
	case "ca":
		p.Pin, err = parseHex(strings.TrimPrefix(value, "sha256:"), 32)
	case "boot":
		p.Boot, err = parseHex(strings.ReplaceAll(value, "-", ""), 16)
	case "time":
		p.Time, err = parseTime(value)
	case "mac":
		p.MAC, err = parseMAC(value)
	case "log":
		if !terminal(value) {
			return fmt.Errorf("%q is not the name of a serial or virtual terminal", value)
		}
		p.Log = value
	default:
		return errors.New("unknown word")
	}
	return err
}

// split cuts the line at white space outside double quotes, as the kernel does, and drops the quotes. Words after
// "--" are init's; they are read as well.
func split(line string) []string {
	var words []string
	var word strings.Builder
	quoted, started := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, started = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n' || r == '\r'):
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("%q is not an http or https address", s)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q must be a plain base address, without user, query or fragment", s)
	}
	return nil
}

func parseHex(s string, bytes int) (string, error) {
	s = strings.ToLower(s)
	if b, err := hex.DecodeString(s); err != nil || len(b) != bytes {
		return "", fmt.Errorf("%q is not %d hexadecimal digits", s, 2*bytes)
	}
	return s, nil
}

func parseTime(s string) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && n < 1<<36 {
		return time.Unix(n, 0).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither seconds since 1970 nor an RFC 3339 time", s)
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("%q is not an Ethernet address", s)
	}
	return mac, nil
}

// parseBootif reads what PXELINUX and iPXE write: the hardware type, then the address, "01-52-54-00-12-34-56".
// Some loaders leave the type out.
func parseBootif(s string) (net.HardwareAddr, error) {
	if strings.Count(s, "-") == 6 || strings.Count(s, ":") == 6 {
		s = s[strings.IndexAny(s, "-:")+1:]
	}
	return parseMAC(s)
}

// terminal accepts ttyS1, ttyAMA0, tty2, hvc0: never a path.
func terminal(s string) bool {
	rest, ok := strings.CutPrefix(s, "tty")
	if !ok {
		rest, ok = strings.CutPrefix(s, "hvc")
	}
	if !ok || rest == "" || len(rest) > 12 {
		return false
	}
	for _, r := range rest {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return true
}
