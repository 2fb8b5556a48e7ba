package sandbox

import (
	"os"
	"path/filepath"
	"strings"
)

// FindCgroup finds the cgroup v2 directory of this process, if steps can be given cgroups below it: it must be
// writable and the kernel know cgroup.kill (5.14). Otherwise it returns "". Under systemd the agent's unit says
// Delegate=yes.
func FindCgroup() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	dir := cgroupDir(string(mounts), string(own))
	if dir == "" {
		return ""
	}
	probe, err := os.MkdirTemp(dir, "joist-probe-")
	if err != nil {
		return ""
	}
	defer func() { _ = os.Remove(probe) }() // RemoveAll fails on a cgroup's files
	if _, err := os.Stat(filepath.Join(probe, "cgroup.kill")); err != nil {
		return ""
	}
	return dir
}

// cgroupDir joins where cgroup v2 is mounted (proc_pid_mountinfo(5)) with the process's place in it ("0::/path",
// cgroups(7)).
func cgroupDir(mountinfo, own string) string {
	place, found := "", false
	for line := range strings.Lines(own) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			place, found = p, true
		}
	}
	if !found || strings.HasPrefix(place, "/..") {
		return ""
	}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if kind, _, _ := strings.Cut(after, " "); !ok || kind != "cgroup2" || len(fields) < 5 {
			continue
		}
		if root := unescape(fields[3]); root != "/" {
			var below bool
			if place, below = strings.CutPrefix(place, root); !below {
				return ""
			}
		}
		return filepath.Join(unescape(fields[4]), place)
	}
	return ""
}
