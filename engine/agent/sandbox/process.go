package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one run of a script.
type process struct {
	argv  []string
	root  string // what the script has as its root directory; empty for this process's own
	dir   string // as the script sees it
	env   []string
	group *group
	grace time.Duration
	out   *logger
}

// drain is how long the agent goes on reading output after everything it could find was killed.
const drain = 2 * time.Second

// run runs the script to its end, or until ctx ends it; ended tells which. Nothing of it runs any more when run returns.
// The code is -1 if the script did not exit by itself.
func (p process) run(ctx context.Context) (code int, ended bool, err error) {
	cgroup, err := p.group.make()
	if err != nil {
		return -1, false, err
	}
	defer p.group.remove()
	r, w, err := os.Pipe()
	if err != nil {
		return -1, false, fmt.Errorf("cannot make a pipe for the step's output: %w", err)
	}
	defer r.Close()
	cmd := &exec.Cmd{Path: p.argv[0], Args: p.argv, Dir: p.dir, Env: p.env, Stdout: w, Stderr: w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Chroot: p.root}
	if cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cgroup.Fd())
		defer cgroup.Close()
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return -1, false, fmt.Errorf("cannot start the step's script: %w", err)
	}

	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			_, _ = p.out.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		awaitExit(cmd.Process.Pid)
	}()

	select {
	case <-exited:
	case <-ctx.Done():
		ended = true
		p.stop(cmd.Process.Pid, exited)
	}
	// The leader is still a zombie here, so its process group's number cannot belong to anybody else.
	left := p.group.left(cmd.Process.Pid)
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	killErr := p.group.kill()
	<-exited
	waitErr := cmd.Wait()
	_ = r.SetReadDeadline(time.Now().Add(drain))
	<-read
	if left > 0 && !ended {
		p.out.note(fmt.Sprintf("%d processes that the step left running were ended; long-running ones belong to the service manager", left))
	}
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return -1, ended, fmt.Errorf("cannot wait for the step's script: %w", waitErr)
	}
	return cmd.ProcessState.ExitCode(), ended, killErr
}

// stop asks the process group to end and waits for its leader as long as the grace lasts.
func (p process) stop(pid int, exited <-chan struct{}) {
	_ = unix.Kill(-pid, unix.SIGTERM)
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-exited:
	case <-timer.C:
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

// awaitExit waits until the process has ended, without reaping it.
func awaitExit(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// group is everything that one run started, wherever it went.
type group struct {
	mark   string
	parent string // where its cgroup is made; empty for none
	dir    string // its cgroup, once made
}

func (s *Sandbox) group(id string) *group { return &group{mark: s.mark(id), parent: s.cfg.Cgroup} }

const cgroupPrefix = "joist-"

// make makes the cgroup and opens it; nil if there is to be none. Each run has a new one: a process that is started
// in a cgroup that was killed before may be killed at once (seen on Linux 6.18).
func (g *group) make() (*os.File, error) {
	if g.parent == "" {
		return nil, nil
	}
	dir, err := os.MkdirTemp(g.parent, cgroupPrefix+g.mark+"-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a cgroup for the step: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the step's cgroup: %w", err)
	}
	g.dir = dir
	return f, nil
}

// remove removes the cgroup, which a dying process may keep for a moment; what stays, New removes.
func (g *group) remove() {
	for wait := time.Millisecond; g.dir != "" && wait < 100*time.Millisecond; wait *= 2 {
		if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(wait)
	}
}

// Clean ends whatever a run of this request in an earlier process left running.
func (s *Sandbox) Clean(id string) error {
	g := s.group(id)
	if err := g.kill(); err != nil { // by its mark: that process may have had no cgroups
		return err
	}
	if g.parent == "" {
		return nil
	}
	dirs, err := filepath.Glob(filepath.Join(g.parent, cgroupPrefix+g.mark+"-*"))
	if err != nil {
		return fmt.Errorf("cannot find the cgroups of a step: %w", err)
	}
	for _, dir := range dirs {
		g.dir = dir
		if err := g.kill(); err != nil {
			return err
		}
		g.remove()
	}
	return nil
}

// left counts the processes of the run besides its leader.
func (g *group) left(leader int) int {
	n := 0
	for _, pid := range g.pids() {
		if pid != leader {
			n++
		}
	}
	return n
}

// pids lists the run's living processes: those in its cgroup or, without one, those that have its mark in their
// environment.
func (g *group) pids() []int {
	if g.dir != "" {
		raw, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err != nil {
			return nil
		}
		return atois(strings.Fields(string(raw)))
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	var found []int
	for _, pid := range atois(names) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && hasEnv(string(raw), envMark+"="+g.mark) {
			found = append(found, pid)
		}
	}
	return found
}

func hasEnv(environ, entry string) bool {
	for e := range strings.SplitSeq(environ, "\x00") {
		if e == entry {
			return true
		}
	}
	return false
}

func atois(fields []string) []int {
	var out []int
	for _, f := range fields {
		n := 0
		for _, c := range []byte(f) {
			if c < '0' || c > '9' || n > 1<<40 {
				n = -1
				break
			}
			n = n*10 + int(c-'0')
		}
		if n > 0 {
			out = append(out, n)
		}
	}
	return out
}

// kill ends all of it and returns when it is gone. New processes may appear while it looks, hence the rounds.
func (g *group) kill() error {
	deadline := time.Now().Add(10 * time.Second)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		pids := g.pids()
		if len(pids) == 0 {
			return nil
		}
		if g.dir == "" || os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) != nil {
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot end %d processes of the step, such as %d: they do not die", len(pids), pids[0])
		}
		time.Sleep(wait)
	}
}
