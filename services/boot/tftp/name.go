package tftp

import (
	"path"
	"strings"
)

// CleanName returns the plain file name that a firmware's request means, or false for what names no file of ours. Firmware
// writes leading slashes, backslashes, and bytes of padding after the name (0xff, or blanks where the DHCP option was
// not terminated). The result is only ever looked up in a list, so nothing here opens a path.
func CleanName(raw string) (string, bool) {
	const longest = 128
	if len(raw) > longest {
		return "", false
	}
	for raw != "" && strings.IndexByte("\x00\xff \r\n", raw[len(raw)-1]) >= 0 {
		raw = raw[:len(raw)-1]
	}
	name := strings.ReplaceAll(raw, `\`, "/")
	for _, b := range []byte(name) {
		if b <= ' ' || b > '~' {
			return "", false
		}
	}
	if strings.Contains("/"+name+"/", "/../") {
		return "", false
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	return name, name != ""
}
