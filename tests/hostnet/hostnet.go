// Package hostnet compares a host's network before, during and after a test.
package hostnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Net is a network namespace's state as lines under headings.
type Net map[string][]string

// Look reads the network of the calling process: links, addresses, routes, rules, nftables and the net.* settings
// present, counters and lifetimes left out. It needs iproute2 and nftables.
func Look(t testing.TB) Net {
	t.Helper()
	s := Net{}
	for _, args := range [][]string{
		{"ip", "-o", "link"},
		{"ip", "-o", "address"},
		{"ip", "-4", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"},
		{"ip", "-4", "rule"},
		{"ip", "-6", "rule"},
		{"nft", "list", "ruleset"},
	} {
		s[strings.Join(args, " ")] = lines(volatile.ReplaceAllString(run(t, args...), ""))
	}
	for name, value := range sysctls(t) {
		s["sysctl "+name] = []string{value}
	}
	return s
}

// volatile is what changes by itself: lifetimes and counters.
var volatile = regexp.MustCompile(`(valid_lft|preferred_lft|expires|packets|bytes) \w+`)

// sysctls reads net.*, without those that count.
func sysctls(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_count") || strings.HasSuffix(path, "stable_secret") {
			return nil //nolint:nilerr // an interface of another program may go while we look
		}
		if raw, err := os.ReadFile(path); err == nil { // some are for writing only
			all[strings.TrimPrefix(path, "/proc/sys/")] = string(raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d sysctls are found", len(all))
	}
	return all
}

// Changed tells how a later look differs from this one, empty for not at all. Settings that did not exist before are left out: a module that was loaded for the first
// time brings its own.
func (n Net) Changed(after Net) string {
	var diff []string
	for name, old := range n {
		if now, ok := after[name]; !ok {
			diff = append(diff, fmt.Sprintf("%s is gone", name))
		} else if !slices.Equal(old, now) {
			diff = append(diff, fmt.Sprintf("%s:\nwas %s\nis  %s", name, strings.Join(old, "\n    "), strings.Join(now, "\n    ")))
		}
	}
	slices.Sort(diff)
	return strings.Join(diff, "\n")
}

func lines(s string) []string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(l)
	return l
}

func run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		var exit *exec.ExitError
		said := ""
		if errors.As(err, &exit) {
			said = string(exit.Stderr)
		}
		t.Fatalf("%q: %v %s", argv, err, said)
	}
	return string(out)
}
