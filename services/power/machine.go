package power

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Machine is one machine's power under the Controller's care. It implements Power itself, with more to its promises: a
// method returns nil only after the effect was read back.
type Machine struct {
	name string
	raw  Power
	cfg  Config

	turn chan struct{} // held by the operation under way (a command and its readings)
	wire chan struct{} // held by the one call to raw; outlives an operation that gave up on a call that hangs

	mu       sync.Mutex
	failed   bool      // the last call to the hardware was not answered
	attempts int       // KeepOn's power-ons without a calm period between
	notUntil time.Time // when KeepOn may try again
	onSince  time.Time // when KeepOn first read the machine as on, without a reading of off since
}

var _ Power = (*Machine)(nil)

// OffProof says that a machine was read as off after it was forced off: the proof that fencing needs. Only Fence makes
// one. It speaks of the moment At; whoever powers the machine on afterwards voids it.
type OffProof struct {
	machine string
	at      time.Time
}

// Machine is the name of the machine that was off.
func (p OffProof) Machine() string { return p.machine }

// At is when the machine was read as off.
func (p OffProof) At() time.Time { return p.at }

// Valid tells a proof from the zero value.
func (p OffProof) Valid() bool { return p.machine != "" }

// LaterError says that KeepOn does nothing now because earlier attempts did not last.
type LaterError struct {
	Machine  string
	After    time.Time // when it is worth asking again
	Attempts int       // how often the machine was switched on without staying on
}

// Error implements error.
func (e *LaterError) Error() string {
	return fmt.Sprintf("%s: was switched on %d times and did not stay on; next attempt after %s",
		e.Machine, e.Attempts, e.After.Format(time.TimeOnly))
}

// Name is the machine's name.
func (m *Machine) Name() string { return m.name }

// State reads the machine. It does not wait for an operation under way, only for the call that operation is making.
func (m *Machine) State(ctx context.Context) (Status, error) { return m.read(ctx) }

// On switches the machine on and reads that back.
func (m *Machine) On(ctx context.Context) error { return m.Start(ctx, nil) }

// Start is On for whoever has to note that the machine is to boot before it is told to: note is called once, right before the
// command, and if it fails no command is given. A machine that is on already boots nothing, and nothing is noted. Nil notes nothing.
func (m *Machine) Start(ctx context.Context, note func(context.Context) error) error {
	return m.exclusively(ctx, func(ctx context.Context) error { return m.on(ctx, note) })
}

// Off switches the machine off and reads that back. Graceful waits for the operating system (Config.Graceful) and
// fails with NotReachedError if it does not go down; the caller decides whether to use force then.
func (m *Machine) Off(ctx context.Context, mode Mode) error {
	return m.exclusively(ctx, func(ctx context.Context) error { return m.off(ctx, mode) })
}

// Reset restarts the machine and reads back that it is on. Hardware rarely proves a restart; Cycle does.
func (m *Machine) Reset(ctx context.Context) error {
	return m.exclusively(ctx, func(ctx context.Context) error {
		if err := m.call(ctx, "reset", m.raw.Reset); err != nil {
			return err
		}
		return m.settle(ctx, change{command: "reset", wanted: "power on", reached: isOn, within: m.cfg.Settle}, 1)
	})
}

// SetBoot sets the boot device and reads it back.
func (m *Machine) SetBoot(ctx context.Context, boot Boot) error {
	return m.exclusively(ctx, func(ctx context.Context) error {
		return m.make(ctx, change{
			command: "boot from " + boot.String(),
			wanted:  "boot " + boot.String(),
			give:    func(ctx context.Context) error { return m.raw.SetBoot(ctx, boot) },
			reached: func(s Status) bool { return s.Boot == boot },
			within:  m.cfg.Settle,
		})
	})
}

// Cycle forces the machine off, reads that back, and switches it on again: a restart that is proven. It notes like Start.
func (m *Machine) Cycle(ctx context.Context, note func(context.Context) error) error {
	return m.exclusively(ctx, func(ctx context.Context) error {
		if err := m.off(ctx, Force); err != nil {
			return err
		}
		return m.on(ctx, note)
	})
}

// Fence forces the machine off and returns the proof that it is. Any doubt is an error: ErrUnreachable above all, since
// a machine whose power control is silent may well be running.
func (m *Machine) Fence(ctx context.Context) (OffProof, error) {
	var proof OffProof
	err := m.exclusively(ctx, func(ctx context.Context) error {
		ch := m.offChange(Force)
		ch.always = true // a reading of off from before the command proves nothing about a power-on still in flight
		if err := m.make(ctx, ch); err != nil {
			return err
		}
		proof = OffProof{machine: m.name, at: time.Now()}
		return nil
	})
	return proof, err
}

// KeepOn switches the machine on if it is found off, and tells whether it did. A machine that does not stay on is
// tried at growing intervals (Config.BackOff): in between, a machine found off yields a LaterError. Staying on for
// Config.BackOffMax ends the count. It notes like Start.
func (m *Machine) KeepOn(ctx context.Context, note func(context.Context) error) (switched bool, err error) {
	err = m.exclusively(ctx, func(ctx context.Context) error {
		st, err := m.read(ctx)
		if err != nil {
			return err
		}
		if st.Power == On {
			m.calm()
			return nil
		}
		if err := m.mayTry(); err != nil {
			return err
		}
		switched = true
		return m.on(ctx, note)
	})
	return switched && err == nil, err
}

// calm notes that the machine was read as on, and forgets its failures once it has been so for long.
func (m *Machine) calm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.onSince.IsZero() {
		m.onSince = now
	}
	if now.Sub(m.onSince) >= m.cfg.BackOffMax {
		m.attempts, m.notUntil = 0, time.Time{}
	}
}

// mayTry counts an attempt of KeepOn, or refuses it as too early.
func (m *Machine) mayTry() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.onSince = time.Time{}
	if now.Before(m.notUntil) {
		return &LaterError{Machine: m.name, After: m.notUntil, Attempts: m.attempts}
	}
	pause := m.cfg.BackOff
	for i := 0; i < m.attempts && pause < m.cfg.BackOffMax; i++ {
		pause = min(2*pause, m.cfg.BackOffMax)
	}
	m.attempts++
	m.notUntil = now.Add(pause)
	return nil
}

func isOn(s Status) bool  { return s.Power == On }
func isOff(s Status) bool { return s.Power == Off }

func (m *Machine) on(ctx context.Context, note func(context.Context) error) error {
	return m.make(ctx, change{command: "power on", wanted: "power on", note: note, give: m.raw.On, reached: isOn, within: m.cfg.Settle})
}

func (m *Machine) off(ctx context.Context, mode Mode) error { return m.make(ctx, m.offChange(mode)) }

func (m *Machine) offChange(mode Mode) change {
	within := m.cfg.Settle
	if mode == Graceful {
		within = m.cfg.Graceful
	}
	return change{
		command: fmt.Sprintf("power off (%s)", mode),
		wanted:  "power off",
		give:    func(ctx context.Context) error { return m.raw.Off(ctx, mode) },
		reached: isOff,
		within:  within,
	}
}

// change is a command and the reading that shows its effect.
type change struct {
	command string
	wanted  string
	note    func(context.Context) error // called before the command is given; nil for nothing
	give    func(context.Context) error
	reached func(Status) bool
	within  time.Duration
	always  bool // give the command even if the effect shows already
}

// make brings a change about. A reading that shows it already needs no command. A command whose effect is not read
// back is given again, up to Config.Tries times in all, each with an equal share of the time.
func (m *Machine) make(ctx context.Context, ch change) error {
	st, err := m.read(ctx)
	if err != nil {
		return err
	}
	if ch.reached(st) && !ch.always {
		return nil
	}
	if ch.note != nil {
		if err := ch.note(ctx); err != nil {
			return err
		}
	}
	ch.within /= time.Duration(m.cfg.Tries)
	for try := 1; ; try++ {
		if err := m.call(ctx, ch.command, ch.give); err != nil {
			return err
		}
		err := m.settle(ctx, ch, try)
		var no *NotReachedError
		if err == nil || try == m.cfg.Tries || !errors.As(err, &no) {
			return err
		}
	}
}

// settle reads until the change shows, with growing pauses, or its time is over. A single reading that fails is not
// the end: controllers that are busy switching often miss one.
func (m *Machine) settle(ctx context.Context, ch change, tries int) error {
	deadline := time.Now().Add(ch.within)
	var got Status
	var answered bool
	for pause := m.cfg.Poll; ; pause = min(2*pause, 8*m.cfg.Poll) {
		st, err := m.read(ctx)
		switch {
		case err == nil && ch.reached(st):
			return nil
		case err == nil:
			got, answered = st, true
		case ctx.Err() != nil:
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			if !answered {
				return fmt.Errorf("cannot read back %s: %w", ch.command, err)
			}
			return &NotReachedError{Machine: m.name, Command: ch.command, Wanted: ch.wanted, Got: got, Tries: tries}
		}
		if err := sleep(ctx, min(pause, left)); err != nil {
			return fmt.Errorf("%s: %s was accepted and not yet read back: %w", m.name, ch.command, err)
		}
	}
}

// exclusively runs one operation at a time.
func (m *Machine) exclusively(ctx context.Context, op func(context.Context) error) error {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s: another power operation is under way: %w", m.name, ctx.Err())
	}
	defer func() { <-m.turn }()
	return op(ctx)
}

func (m *Machine) read(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1) // not a variable: a call that was given up on may still write
	err := m.call(ctx, "read power state", func(ctx context.Context) error {
		st, err := m.raw.State(ctx)
		answer <- st
		return err
	})
	if err != nil {
		return Status{}, err
	}
	st := <-answer
	if st.Power != On && st.Power != Off {
		return Status{}, fmt.Errorf("%s: power state %q is neither on nor off", m.name, st.Power)
	}
	return st, nil
}

// call makes one bounded call. A driver that does not heed its context is given up on after CallTimeout; the wire
// stays taken until it returns, so that the next call never overlaps with it.
func (m *Machine) call(ctx context.Context, what string, fn func(context.Context) error) error {
	cctx, cancel := context.WithTimeout(ctx, m.cfg.CallTimeout)
	select {
	case m.wire <- struct{}{}:
	case <-cctx.Done():
		cancel()
		return m.unanswered(ctx, what, errors.New("an earlier call still hangs"))
	}
	done := make(chan error, 1)
	go func() {
		defer cancel()
		err := fn(cctx)
		<-m.wire
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case <-cctx.Done():
		// The answer and the end of the time may come together; prefer the answer.
		select {
		case err = <-done:
		default:
			return m.unanswered(ctx, what, cctx.Err())
		}
	}
	if err == nil {
		m.note(false)
		return nil
	}
	if errors.Is(err, ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return m.unanswered(ctx, what, err)
	}
	m.note(false)
	return fmt.Errorf("%s: cannot %s: %w", m.name, what, err)
}

// unanswered makes the error of a call without an answer. If the caller's own context ended, that says nothing about the
// machine.
func (m *Machine) unanswered(ctx context.Context, what string, cause error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: cannot %s: %w", m.name, what, ctx.Err())
	}
	m.note(true)
	if errors.Is(cause, ErrUnreachable) {
		return fmt.Errorf("%s: cannot %s: %w", m.name, what, cause)
	}
	return fmt.Errorf("%s: cannot %s: %w (%w)", m.name, what, ErrUnreachable, cause)
}

func (m *Machine) note(failed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = failed
}

func (m *Machine) failing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
