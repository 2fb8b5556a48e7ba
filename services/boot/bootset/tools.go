package bootset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// buildTools maps each program a build runs to the Debian package that has it.
var buildTools = []struct{ program, pkg string }{
	{"apt-get", "apt"},
	{"dpkg-deb", "dpkg"},
	{"debootstrap", "debootstrap"},
	{"depmod", "kmod"},
	{"mksquashfs", "squashfs-tools"},
}

// checkTools names the first reason why this machine cannot build.
func checkTools() error {
	var missing []string
	for _, t := range buildTools {
		if _, err := exec.LookPath(t.program); err != nil {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("cannot build a boot set: install the Debian packages %s", strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return errors.New("cannot build a boot set: building a node image needs root")
	}
	return nil
}

// command is one run of a build tool.
type command struct {
	dir     string
	args    []string
	private bool // own mount and pid namespaces: its mounts and children end with it
	epoch   bool // tell it to write the image's time where it would write today's; mksquashfs refuses that beside options
}

// run runs a tool with a clean environment and returns what it wrote to standard output. An error carries the last lines of what
// the tool said. The tool dies with this process, or when ctx ends.
func run(ctx context.Context, c command) ([]byte, error) {
	// A parent-death signal follows the thread that started the child, so this one must live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root",
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "TMPDIR=/tmp",
	}
	if c.epoch {
		cmd.Env = append(cmd.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", imageEpoch))
	}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} { // how this machine reaches its mirror
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.private {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &all
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s was interrupted: %w", c.args[0], context.Cause(ctx))
	}
	if err != nil {
		said := all.Bytes()
		if len(bytes.TrimSpace(said)) == 0 {
			said = stdout.Bytes()
		}
		return nil, &toolError{tool: c.args[0], err: err, said: tail(said, 2000)}
	}
	return stdout.Bytes(), nil
}

// toolError is a failed tool; download looks at what it said.
type toolError struct {
	tool, said string
	err        error
}

func (e *toolError) Error() string { return fmt.Sprintf("%s failed (%v): %s", e.tool, e.err, e.said) }
func (e *toolError) Unwrap() error { return e.err }

// tail keeps the last n bytes, from a line's start.
func tail(b []byte, n int) string {
	b = bytes.TrimSpace(b)
	if len(b) > n {
		b = b[len(b)-n:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(b)
}
