package scout

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RunDir is the folder through which scout leaves everything to the node stage: mode 0700, in memory, and never part
// of an image.
const RunDir = "/run/joist"

const (
	sessionName  = "session.json"
	leaseName    = "lease.json"
	agentName    = "agent"
	handoverName = "handover"
)

// Session is what both stages of the agent know of this boot. It holds no secret.
type Session struct {
	// URLs are the engine's base addresses, in the order to be tried.
	URLs []string `json:"urls"`
	// Pin is the SHA-256 of the root's public key, 64 hexadecimal digits; empty where none was given.
	Pin string `json:"pin,omitempty"`
	// Boot is the id of this boot, 32 hexadecimal digits.
	Boot string `json:"boot,omitempty"`
	// Incarnation identifies the node's writable root, as a UUID.
	Incarnation string `json:"incarnation"`
	// MAC is the boot interface's hardware address.
	MAC string `json:"mac"`
	// Log is a second terminal for the agent's log; none where empty.
	Log string `json:"log,omitempty"`
	// Address is the boot interface's address.
	Address string `json:"address,omitempty"`
	// Image is what the node runs; zero in scout.
	Image Image `json:"image,omitzero"`
}

// ReadSession reads what scout left in dir.
func ReadSession(dir string) (*Session, error) {
	var s Session
	if err := readJSON(filepath.Join(dir, sessionName), &s); err != nil {
		return nil, fmt.Errorf("cannot read what scout left: %w", err)
	}
	return &s, nil
}

// write leaves the session in dir.
func (s *Session) write(dir string) error { return writeJSON(filepath.Join(dir, sessionName), s) }

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file as a whole, readable by its owner only.
func writeJSON(path string, value any) error {
	b, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// bootClock is the time since the kernel started. It survives the hand-over, and nobody sets it.
func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// clockTolerance is how far a clock may be off before scout sets it.
const clockTolerance = time.Minute

// clockStep decides what a clock that shows now is to be set to, given the engine's time when it wrote the boot script
// and how long the kernel has run since. Zero: leave it. Firmware and loader run between script and kernel, so the
// result is a little late, which certificates forgive and an early clock would not.
func clockStep(now, told time.Time, up time.Duration) time.Time {
	if told.IsZero() {
		return time.Time{}
	}
	want := told.Add(up)
	if d := now.Sub(want); d <= clockTolerance && d >= -clockTolerance {
		return time.Time{}
	}
	return want
}

// SetClock sets the machine's clock if it is more than a minute from what the engine told, and says what it did.
func SetClock(told time.Time) (from, to time.Time, err error) {
	now := time.Now()
	to = clockStep(now, told, bootClock())
	if to.IsZero() {
		return now, now, nil
	}
	return now, to, StepClock(to)
}

// StepClock sets the machine's clock.
func StepClock(to time.Time) error {
	ts := unix.NsecToTimespec(to.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("cannot set the clock: %w", err)
	}
	return nil
}

// errNoURL says what is missing from the boot script.
var errNoURL = errors.New("the kernel command line names no engine: joist.url is missing")
