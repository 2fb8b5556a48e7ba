// Package power is what joist knows about switching machines on and off: the interface that every provider of
// machines implements (Redfish, IPMI, QEMU, simulated), and Controller, through which the engine uses it.
//
// A management controller is not to be believed. It may answer "OK" and do nothing, answer for a state it will leave
// again, answer late, or not at all. So an implementation of Power only reports what the hardware says and passes on
// what it is told; Controller reads back after every change, bounds every call in time, serialises the calls to one
// machine and keeps a dead machine from delaying the others.
package power

import (
	"context"
	"errors"
	"fmt"
)

// State is whether a machine has power.
type State string

// The power states. A machine that is being switched on counts as on, one that is shutting down as on until it is off;
// a sleeping or paused machine is on.
const (
	On  State = "on"
	Off State = "off"
)

// Mode is how a machine is switched off.
type Mode string

// The two ways of switching off.
const (
	Graceful Mode = "graceful" // ask the operating system (ACPI power button); it may ignore that
	Force    Mode = "force"    // cut the power, whatever runs
)

// Device is a kind of boot device.
type Device string

// The boot devices that can be asked for. Whatever is not named keeps its place behind the named one.
const (
	Network Device = "network" // firmware network boot (PXE, or UEFI PXE/HTTP) of the machine's boot NIC
	Disk    Device = "disk"    // the machine's first local disk
)

// Boot is which device the firmware tries first.
type Boot struct {
	First Device `json:"first"`          // never empty
	Once  bool   `json:"once,omitempty"` // for the next start only, then back to the lasting setting
}

// String gives the form used in messages: "disk", or "disk once".
func (b Boot) String() string {
	if b.Once {
		return string(b.First) + " once"
	}
	return string(b.First)
}

// Status is one reading of a machine: what the hardware says now, never what was last asked of it.
type Status struct {
	Power State `json:"power"`
	Boot  Boot  `json:"boot"` // what the next start will try first
}

// Power switches one machine. Implementations are thin: they translate, they do not retry, wait or remember.
//
// A call returns as soon as the hardware has accepted the command; whether the command had its effect is seen from
// State, and Controller looks. All commands are idempotent: On for a machine that is on and Off for one that is off
// succeed and disturb nothing. Every call returns within a second of its context's end. Methods need not be safe for
// concurrent use: Controller makes one call at a time. Errors that somebody branches on are ErrUnreachable and
// ErrUnsupported; any other error is a refusal by the hardware and is passed on wrapped.
//
// The conformance suite is powertest.Run.
type Power interface {
	// State reads the power state and the boot setting from the hardware.
	State(ctx context.Context) (Status, error)
	// On switches the machine on.
	On(ctx context.Context) error
	// Off switches the machine off.
	Off(ctx context.Context, mode Mode) error
	// Reset restarts a machine that is on, without asking its operating system. A machine that is off stays off, and
	// the call fails with ErrOff.
	Reset(ctx context.Context) error
	// SetBoot says what the next start (Once) or every start tries first. It is accepted on and off, and changes
	// nothing about what runs now. A device that the machine does not have is refused with ErrUnsupported.
	SetBoot(ctx context.Context, boot Boot) error
}

var (
	// ErrUnreachable says that the management controller did not answer in time, or cannot be connected to. Nothing is known
	// about the machine; above all it must not be taken for off.
	ErrUnreachable = errors.New("the machine's power control does not answer")
	// ErrUnsupported says that this machine can never do what was asked.
	ErrUnsupported = errors.New("not supported by this machine's power control")
	// ErrOff says that the command needs a machine that is on.
	ErrOff = errors.New("the machine is off")
	// ErrUnknown says that no machine of that name has power control.
	ErrUnknown = errors.New("no such machine")
)

// NotReachedError says that the hardware accepted a command and that reading back never showed its effect.
type NotReachedError struct {
	Machine string
	Command string // what was asked, such as "power off (force)"
	Wanted  string // the reading that was waited for
	Got     Status // the last reading
	Tries   int    // how often the command was accepted
}

// Error implements error.
func (e *NotReachedError) Error() string {
	return fmt.Sprintf("%s: %s was accepted %d times, but the machine still reads power %s, boot %s (wanted %s)",
		e.Machine, e.Command, e.Tries, e.Got.Power, e.Got.Boot, e.Wanted)
}
