// Package supervisor is scout's PID 1: it mounts, loads drivers, runs the agent as its child, reaps, restarts, says on
// every console what is wrong, and hands over to the node image. It never exits: the kernel would panic.
//
// It reaps with wait4(-1), which would steal the exits os/exec waits for; so the agent is a child, and this package
// starts processes by syscall.ForkExec only.
package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"joist/engine/agent/scout/kmod"
)

// Config says what to run. The zero value supervises scout.
type Config struct {
	// Agent is the child's program and arguments; /joist-agent scout where empty.
	Agent []string
	// Handover is the file in which the agent, before it exits with status 0, leaves the folder of the new root;
	// /run/joist/handover where empty.
	Handover string
	// Init is executed in the new root; /lib/systemd/systemd where empty.
	Init string
}

// ReportFD is the file descriptor on which the agent reports to the supervisor, one line each:
// "ok" (progress), "fail MESSAGE" (shown, and counted against the 15 minutes) or "say MESSAGE" (shown).
const ReportFD = 3

// Run is PID 1. It does not return.
func Run(config Config) {
	if len(config.Agent) == 0 {
		config.Agent = []string{"/joist-agent", "scout"}
	}
	if config.Handover == "" {
		config.Handover = "/run/joist/handover"
	}
	if config.Init == "" {
		config.Init = "/lib/systemd/systemd"
	}
	s := &supervisor{Config: config, exits: make(chan exit), born: make(chan struct{}, 1), reports: make(chan report, 16)}
	defer func() {
		// A bug must not become a kernel panic without a word, though the machine would start over after it: see its command line.
		if p := recover(); p != nil {
			s.show(fmt.Sprintf("internal error in the supervisor: %v", p))
		}
		time.Sleep(time.Minute)
		s.reboot()
	}()
	if err := mountAll(); err != nil {
		s.show(err.Error())
	}
	s.consoles = openConsoles()
	// Kernel chatter below errors would hide what scout says.
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("4\n"), 0) // the kernel's default stays
	start := time.Now()
	s.say(fmt.Sprintf("scout started, kernel up %.1f s", bootClock().Seconds()))
	if err := loadModules(); err != nil {
		s.show(err.Error())
	}
	s.say(fmt.Sprintf("drivers loaded in %.2f s", time.Since(start).Seconds()))
	s.loop()
}

type exit struct {
	pid    int
	status syscall.WaitStatus
}

type report struct{ kind, message string }

type supervisor struct {
	Config
	consoles []*os.File
	health   health
	exits    chan exit
	born     chan struct{} // a child was started: there is something to reap
	reports  chan report
	restarts int
}

// bootClock is the time since the kernel started; nobody sets it.
func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// loop starts the agent, and again whenever it ends, until it hands over or has failed for too long.
func (s *supervisor) loop() {
	go s.reap()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	pid := s.start()
	var again <-chan time.Time
	if pid == 0 {
		again = time.After(backoff(0))
	}
	for {
		select {
		case e := <-s.exits:
			if e.pid != pid {
				continue // an orphan
			}
			pid = 0
			root, err := s.handover(e.status)
			if err == nil {
				err = s.switchRoot(root)
			}
			s.fail(err.Error())
			wait := backoff(s.restarts)
			s.restarts++
			again = time.After(wait)
		case <-again:
			again = nil
			if pid = s.start(); pid == 0 {
				again = time.After(backoff(s.restarts))
				s.restarts++
			}
		case r := <-s.reports:
			switch r.kind {
			case "ok":
				s.health.ok()
				s.restarts = 0
			case "say":
				s.show(r.message)
			default:
				s.fail(r.message)
			}
		case <-tick.C:
			if s.health.expired(bootClock()) {
				s.show("failed for 15 minutes: rebooting")
				s.reboot()
			}
		}
	}
}

// start starts the agent and returns its pid, or 0.
func (s *supervisor) start() int {
	r, w, err := os.Pipe()
	if err != nil {
		s.fail("cannot make the agent's report pipe: " + err.Error())
		return 0
	}
	defer w.Close()
	pid, err := syscall.ForkExec(s.Agent[0], s.Agent, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/bin", "HOME=/", "TERM=dumb"},
		Files: []uintptr{0, 1, 2, w.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_ = r.Close()
		s.fail(fmt.Sprintf("cannot start %s: %v", s.Agent[0], err))
		return 0
	}
	go s.listen(r)
	select {
	case s.born <- struct{}{}:
	default:
	}
	return pid
}

// listen reads one agent's reports until it ends.
func (s *supervisor) listen(r io.ReadCloser) {
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		word, message, _ := strings.Cut(lines.Text(), " ")
		s.reports <- report{word, message}
	}
}

// reap collects every child, its own and orphans.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			<-s.born
		case err == nil && (status.Exited() || status.Signaled()):
			s.exits <- exit{pid, status}
		}
	}
}

// handover tells which new root the agent left, or why there is none.
func (s *supervisor) handover(status syscall.WaitStatus) (string, error) {
	switch {
	case status.Signaled():
		return "", fmt.Errorf("the agent was killed by signal %d (%s)", status.Signal(), status.Signal())
	case status.ExitStatus() != 0:
		return "", fmt.Errorf("the agent ended with status %d", status.ExitStatus())
	}
	root, err := os.ReadFile(s.Handover)
	if err != nil {
		return "", errors.New("the agent ended without a new root")
	}
	_ = os.Remove(s.Handover) // best effort: it is used up either way
	return strings.TrimSpace(string(root)), nil
}

func (s *supervisor) fail(message string) {
	now := bootClock()
	if s.health.fail(now, message) {
		s.show(fmt.Sprintf("%s (reboot in %s unless it recovers)", message, s.health.left(now).Round(time.Second)))
	}
}

// say writes a line to the main console.
func (s *supervisor) say(message string) { fmt.Fprintf(os.Stderr, "joist: %s\r\n", message) }

// show writes a line to every console. None may block the machine: one that does not take it is passed over.
func (s *supervisor) show(message string) {
	line := []byte("\r\njoist: " + message + "\r\n")
	if len(s.consoles) == 0 {
		_, _ = os.Stderr.Write(line)
		return
	}
	var all sync.WaitGroup
	for _, c := range s.consoles {
		all.Go(func() {
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second)) // terminals opened without blocking support it
			_, _ = c.Write(line)
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
	}
}

// reboot does not return.
func (s *supervisor) reboot() {
	for {
		unix.Sync()
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
			s.say("cannot reboot: " + err.Error())
		}
		time.Sleep(10 * time.Second)
	}
}

// openConsoles opens every terminal that the kernel takes for a console, and the first virtual one.
func openConsoles() []*os.File {
	names := map[string]bool{"tty0": true}
	if b, err := os.ReadFile("/sys/class/tty/console/active"); err == nil {
		for _, n := range strings.Fields(string(b)) {
			names[n] = true
		}
	}
	var files []*os.File
	for n := range names {
		if f, err := os.OpenFile("/dev/"+n, os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0); err == nil {
			files = append(files, f)
		}
	}
	return files
}

// loadModules loads what scout itself needs and a driver for each device.
func loadModules() error {
	l, err := kmod.NewLoader()
	if err != nil {
		return err
	}
	var problems []error
	for _, m := range []string{"loop", "squashfs", "overlay"} {
		problems = append(problems, l.Load(m))
	}
	return errors.Join(append(problems, l.Coldplug())...)
}
