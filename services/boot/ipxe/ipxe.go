// Package ipxe renders the scripts that iPXE runs on a machine. It is pure: what comes in decides every byte.
//
// iPXE splits a line at white space, knows no quotes, expands ${…} and takes "||", "&&", ";" and "#" as words of its
// own. So values that iPXE or the kernel would read are checked, never quoted, and text for people is made harmless.
// Every script ends in something: a kernel, the disk, another question, or a reboot. None ends in silence.
package ipxe

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"joist/services/boot/decide"
)

// Names that kernel and initramfs have within iPXE. A UEFI kernel finds its initramfs by this name on its command line.
const (
	kernelName = "vmlinuz"
	initrdName = "scout.cpio"
	// maxLine bounds a command line: the kernel keeps 2,048 bytes on x86 (COMMAND_LINE_SIZE), its ending zero included.
	maxLine  = 2047
	maxText  = 200
	panicked = "panic=60" // leaves people a minute to read the console
)

// Scout is what a machine needs to start scout.
type Scout struct {
	Name    string     // node name for messages on the console; empty for a machine that has none
	MAC     decide.MAC // the card that asked; also tells scout which one to use
	Kernel  string     // URL of the kernel
	Initrd  string     // URL of the scout initramfs
	URLs    []string   // the engine's addresses, https with an IP literal; at least one
	CA      string     // SHA-256 of the root's public key (SubjectPublicKeyInfo), 64 hexadecimal digits
	BootID  string     // 128 bits in 32 hexadecimal digits
	Time    time.Time  // the engine's clock, sent in seconds since 1970
	Console []string   // kernel consoles, the last being /dev/console, such as "ttyS0,115200n8"; default tty0, ttyS0,115200n8
	Extra   []string   // further kernel arguments; they may say otherwise than those here
}

// CommandLine returns the kernel's command line: what scout reads (joist.url, once for each, joist.ca, joist.boot,
// joist.time, joist.mac), BOOTIF as PXELINUX writes it, the consoles, the initramfs' name for a UEFI kernel, and that a kernel which
// panics starts over (kernel.panic in the kernel's sysctl/kernel.rst): it would stand still otherwise, with power on.
func (s Scout) CommandLine() (string, error) {
	if len(s.URLs) == 0 {
		return "", fmt.Errorf("cannot write a command line without an engine's address")
	}
	if b, err := hex.DecodeString(s.CA); err != nil || len(b) != 32 {
		return "", fmt.Errorf("cannot write a command line: joist.ca wants 64 hexadecimal digits, not %q", s.CA)
	}
	if b, err := hex.DecodeString(s.BootID); err != nil || len(b) != 16 {
		return "", fmt.Errorf("cannot write a command line: joist.boot wants 32 hexadecimal digits, not %q", s.BootID)
	}
	if m, err := decide.ParseMAC(string(s.MAC)); err != nil || m != s.MAC {
		return "", fmt.Errorf("cannot write a command line: %q is no canonical MAC address", s.MAC)
	}
	args := []string{"initrd=" + initrdName}
	for _, u := range s.URLs {
		args = append(args, "joist.url="+u)
	}
	args = append(args, "joist.ca="+s.CA, "joist.boot="+s.BootID, fmt.Sprintf("joist.time=%d", s.Time.Unix()),
		"joist.mac="+string(s.MAC))
	if len(s.MAC) == len("52:54:00:00:00:00") { // 01 is Ethernet's hardware type
		args = append(args, "BOOTIF=01-"+s.MAC.Hyphens())
	}
	console := s.Console
	if len(console) == 0 {
		console = []string{"tty0", "ttyS0,115200n8"}
	}
	for _, c := range console {
		args = append(args, "console="+c)
	}
	args = append(args, panicked)
	args = append(args, s.Extra...)
	for _, a := range args {
		if err := checkWord(a); err != nil {
			return "", fmt.Errorf("cannot write a command line: %w", err)
		}
	}
	line := strings.Join(args, " ")
	if len(line) > maxLine {
		return "", fmt.Errorf("cannot write a command line of %d bytes: the kernel reads %d", len(line), maxLine)
	}
	return line, nil
}

// Script returns the script that fetches kernel and initramfs and starts them. Each fetch is tried five times; then the
// machine reboots, since the disk may hold a system that nobody wants to see come up.
func (s Scout) Script() (string, error) {
	line, err := s.CommandLine()
	if err != nil {
		return "", err
	}
	for _, u := range []string{s.Kernel, s.Initrd} {
		if err := checkURL(u); err != nil {
			return "", fmt.Errorf("cannot write a boot script: %w", err)
		}
	}
	return fmt.Sprintf(`#!ipxe
echo joist: starting scout on %[1]s
set tries:int32 0
:try
inc tries
imgfree
echo joist: fetching the kernel, attempt ${tries} of 5
kernel --name %[2]s %[3]s %[4]s || goto failed
echo joist: fetching scout
initrd --name %[5]s %[6]s || goto failed
boot || goto failed
:failed
echo joist: that failed (the line above names the error)
iseq ${tries} 5 && goto giveup ||
echo joist: next attempt in 5 seconds
sleep 5
goto try
:giveup
echo joist: could not fetch scout in 5 attempts: is the engine running, and its HTTP port open?
%[7]s`, s.who(), kernelName, s.Kernel, line, initrdName, s.Initrd, reboot), nil
}

func (s Scout) who() string {
	if s.Name == "" {
		return "a machine without a name (" + string(s.MAC) + ")"
	}
	return Text(s.Name) + " (" + string(s.MAC) + ")"
}

// reboot ends a script that can do nothing more. Should iPXE be built without the command, a failing exit makes the
// firmware go on to its next device; a plain one would count as success and strand UEFI in its boot manager.
const reboot = `echo joist: rebooting in 30 seconds
sleep 30
reboot || exit 1
`

// Disk returns the script that leaves iPXE for the disk. A UEFI machine goes back to its firmware, which knows its boot
// entries; a BIOS starts its first disk, and goes on to the next device if that fails.
func Disk(name string) string {
	return fmt.Sprintf(`#!ipxe
echo joist: %s boots from its disk
iseq ${platform} efi && goto next ||
sanboot --no-describe --drive 0x80 || goto next
:next
echo joist: going on to the next boot device
exit 1
`, Text(name))
}

// Leave returns the script that leaves iPXE at once; the firmware goes on to its next device.
func Leave(reason string) string {
	return "#!ipxe\necho joist: not booted from here: " + Text(reason) + "\nexit 1\n"
}

// Ask is a script that keeps a machine in iPXE and asks again.
type Ask struct {
	Name   string        // the machine, for people
	Reason string        // why it does not go on
	Advice string        // what a person can do; may be empty
	Again  string        // URL of the machine's own script
	Delay  time.Duration // before asking again; whole seconds, at least one
}

// Script returns the script. The next one replaces it, so that asking for days takes no more memory than once.
func (a Ask) Script() (string, error) {
	if err := checkURL(a.Again); err != nil {
		return "", fmt.Errorf("cannot write a waiting script: %w", err)
	}
	seconds := max(1, int(a.Delay/time.Second))
	advice := ""
	if a.Advice != "" {
		advice = "echo joist: " + Text(a.Advice) + "\n"
	}
	return fmt.Sprintf(`#!ipxe
echo joist: %[1]s waits: %[2]s
%[3]ssleep %[4]d
set tries:int32 0
:again
inc tries
chain --replace --autofree %[5]s || goto failed
:failed
echo joist: the engine did not answer, attempt ${tries} of 20
iseq ${tries} 20 && goto giveup ||
sleep 15
goto again
:giveup
%[6]s`, Text(a.Name), Text(a.Reason), advice, seconds, a.Again, reboot), nil
}

// Introduce returns the script for an iPXE that came without saying who it is, as one does that a foreign DHCP server
// sent: it asks once more with its MAC and UUID. url is the script's address without a query.
func Introduce(url string) (string, error) {
	if err := checkURL(url); err != nil {
		return "", fmt.Errorf("cannot write an introducing script: %w", err)
	}
	return "#!ipxe\nchain --replace --autofree " + url + "?mac=${mac:hexhyp}&uuid=${uuid} || exit 1\n", nil
}

// Text makes text harmless in a line that iPXE echoes: printable ASCII, no expansion, no command separator, at most 200
// bytes. An empty text becomes a dash.
func Text(s string) string {
	out := make([]byte, 0, min(len(s), maxText))
	for _, r := range s {
		if len(out) == maxText {
			break
		}
		switch {
		case r == '$' || r == ';' || r == '|' || r == '&' || r == '#' || r == '\\':
			out = append(out, '_')
		case r == '\t' || r == '\n' || r == '\r':
			out = append(out, ' ')
		case r < ' ' || r > '~':
			out = append(out, '?')
		default:
			out = append(out, byte(r))
		}
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	if text == "" || strings.HasPrefix(text, "-") { // a leading hyphen would be read as an option of echo
		text = "_" + text
	}
	return text
}

// checkWord refuses what iPXE or the kernel would not take as one plain word.
func checkWord(w string) error {
	if w == "" {
		return fmt.Errorf("an argument is empty")
	}
	for _, r := range w {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:/=,@+-[]?%~", r)) {
			return fmt.Errorf("argument %q has the character %q, which iPXE or the kernel would misread", w, r)
		}
	}
	return nil
}

// checkURL accepts http URLs that are one plain word but for "&" within a query. iPXE takes "&&" as a separator only
// where it stands alone.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%q is no http address", s)
	}
	return checkWord(strings.ReplaceAll(s, "&", ""))
}
