// Package process names processes in a way that survives a restart of whoever started them: by process id and start
// time, so that a process id which the kernel has given to another program since is never taken for the old one.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ID names one process for as long as the host runs.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after the host's start (proc(5), field 22 of /proc/PID/stat)
}

// ErrGone says that there is no such process, or it has ended and waits to be reaped.
var ErrGone = errors.New("the process has ended")

// Detach makes a command that outlives this program one of a session of its own, which a Ctrl-C does not reach, and without
// what this program has itself been given open beside its standard files: a lock that a shell holds by a descriptor, say,
// would otherwise be held until the detached process ends.
func Detach(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("cannot keep open files from a new process: %w", err)
	}
	return nil
}

// Find gives the ID of the process that has this process id now.
func Find(pid int) (ID, error) {
	if pid <= 1 {
		return ID{}, fmt.Errorf("process id %d is none of ours", pid)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ID{}, ErrGone
	}
	if err != nil {
		return ID{}, fmt.Errorf("cannot look at process %d: %w", pid, err)
	}
	state, start, err := parseStat(string(raw))
	if err != nil {
		return ID{}, fmt.Errorf("cannot look at process %d: %w", pid, err)
	}
	if state == 'Z' || state == 'X' {
		return ID{}, ErrGone
	}
	return ID{PID: pid, Start: start}, nil
}

// parseStat reads state and start time from a line of /proc/PID/stat. The second field is the program's name in
// parentheses and may itself hold spaces and parentheses.
func parseStat(line string) (state byte, start uint64, err error) {
	_, rest, ok := cutLast(line, ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("unexpected stat line %.80q", line)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("unexpected start time in stat line: %w", err)
	}
	return fields[0][0], start, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Alive tells whether the process still runs.
func (id ID) Alive() bool {
	now, err := Find(id.PID)
	return err == nil && now == id
}

// Kill ends the process with SIGKILL and waits until it is gone, or ctx ends. A process that has ended is no error,
// and no other process that has its process id by now is touched.
func (id ID) Kill(ctx context.Context) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot hold process %d: %w", id.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !id.Alive() { // looked at after the descriptor was opened: from here on it can be no other process
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot kill process %d: %w", id.PID, err)
	}
	return wait(ctx, fd, id)
}

// Wait waits until the process has ended, whoever its parent is.
func (id ID) Wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot hold process %d: %w", id.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	return wait(ctx, fd, id)
}

func wait(ctx context.Context, fd int, id ID) error {
	for id.Alive() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("process %d still runs: %w", id.PID, err)
		}
		// A pidfd becomes readable when its process ends; the time limit is there to look at ctx.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cannot wait for process %d: %w", id.PID, err)
		}
	}
	return nil
}

// Record is a process that somebody must be able to end later, and a name for people.
type Record struct {
	Name  string    `json:"name"`
	ID    ID        `json:"process"`
	Since time.Time `json:"since"`
}

// Save writes a record into dir, which is made if need be, in place of an older one of that name.
func Save(dir, name string, id ID) error {
	raw, err := json.Marshal(Record{Name: name, ID: id, Since: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot record process %q: %w", name, err)
	}
	tmp := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return fmt.Errorf("cannot record process %q: %w", name, err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name+".json")); err != nil {
		return fmt.Errorf("cannot record process %q: %w", name, err)
	}
	return nil
}

// Load reads one record; os.ErrNotExist if there is none.
func Load(dir, name string) (Record, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the record of process %q: %w", name, err)
	}
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Record{}, fmt.Errorf("cannot read the record of process %q: %w", name, err)
	}
	return r, nil
}

// LoadAll reads all records of dir; none if dir does not exist. Those that cannot be read are left out and make an error.
func LoadAll(dir string) ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Record
	var bad error
	for _, n := range names {
		r, err := Load(dir, strings.TrimSuffix(filepath.Base(n), ".json"))
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		all = append(all, r)
	}
	return all, bad
}

// Forget removes a record; one that does not exist is no error.
func Forget(dir, name string) error {
	err := os.Remove(filepath.Join(dir, name+".json"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot forget process %q: %w", name, err)
	}
	return nil
}
