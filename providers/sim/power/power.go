// Package power simulates the power of a machine in memory: a machine that behaves, or one whose management controller
// lies, hangs or is slow, as those of real machines do.
package power

import (
	"context"
	"fmt"
	"sync"
	"time"

	"joist/services/power"
)

// Faults is how a simulated management controller misbehaves. The zero value is one that does not.
type Faults struct {
	Ignore     int           // that many commands from now on are answered with success and not carried out
	Hang       bool          // no call returns before its context ends
	Deaf       bool          // no call returns before Heal, whatever its context says
	Delay      time.Duration // each call takes this long
	Lag        time.Duration // a command takes effect this long after it was accepted
	NoGraceful bool          // the operating system ignores the power button
	ReadErrors int           // that many readings from now on fail with power.ErrUnreachable
}

// Config is what a simulated machine is. The zero value boots from the network, has no disk and knows nobody.
type Config struct {
	Disk    bool             // has a local disk to boot from
	OnStart func(start int)  // called without locks at each start, with the count of starts; may be nil
	OnStop  func()           // called without locks when the machine loses power; may be nil
	Now     func() time.Time // for Lag; time.Now if nil
}

// Machine is a simulated machine. It is safe for concurrent use and implements power.Power.
type Machine struct {
	cfg Config

	mu      sync.Mutex
	on      bool
	boot    power.Device
	once    power.Device // empty if none
	booted  power.Device // what the latest start tried first
	starts  int
	pending []effect
	faults  Faults
	healed  chan struct{}
	log     []string
}

type effect struct {
	at time.Time
	do func(*Machine) func()
}

var _ power.Power = (*Machine)(nil)

// New makes a machine that is off and boots from the network.
func New(cfg Config) *Machine {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Machine{cfg: cfg, boot: power.Network, healed: make(chan struct{})}
}

// Inject makes the management controller misbehave from now on.
func (m *Machine) Inject(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
}

// Heal ends all faults and lets calls return that a Deaf controller holds.
func (m *Machine) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = Faults{}
	close(m.healed)
	m.healed = make(chan struct{})
}

// Cut takes the power away, as a power failure would.
func (m *Machine) Cut() { m.run(func(m *Machine) func() { return m.stop() }) }

// Starts is how often the machine has started: power-ons and resets.
func (m *Machine) Starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts
}

// Booted is the device that the latest start tried first; empty before the first.
func (m *Machine) Booted() power.Device {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.booted
}

// Commands is every command that was accepted, in order, those that were ignored included.
func (m *Machine) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.log...)
}

// State implements power.Power.
func (m *Machine) State(ctx context.Context) (power.Status, error) {
	if err := m.answer(ctx); err != nil {
		return power.Status{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.faults.ReadErrors > 0 {
		m.faults.ReadErrors--
		return power.Status{}, power.ErrUnreachable
	}
	st := power.Status{Power: power.Off, Boot: power.Boot{First: m.boot}}
	if m.on {
		st.Power = power.On
	}
	if m.once != "" {
		st.Boot = power.Boot{First: m.once, Once: true}
	}
	return st, nil
}

// On implements power.Power.
func (m *Machine) On(ctx context.Context) error {
	return m.command(ctx, "on", func(m *Machine) func() {
		if m.on {
			return nil
		}
		return m.start()
	})
}

// Off implements power.Power.
func (m *Machine) Off(ctx context.Context, mode power.Mode) error {
	if mode != power.Graceful && mode != power.Force {
		return fmt.Errorf("cannot switch off in mode %q: %w", mode, power.ErrUnsupported)
	}
	return m.command(ctx, "off "+string(mode), func(m *Machine) func() {
		if mode == power.Graceful && m.faults.NoGraceful {
			return nil
		}
		return m.stop()
	})
}

// Reset implements power.Power.
func (m *Machine) Reset(ctx context.Context) error {
	m.mu.Lock()
	on := m.on
	m.mu.Unlock()
	if !on {
		if err := m.answer(ctx); err != nil {
			return err
		}
		return fmt.Errorf("cannot reset: %w", power.ErrOff)
	}
	return m.command(ctx, "reset", func(m *Machine) func() {
		if !m.on {
			return nil
		}
		return m.start()
	})
}

// SetBoot implements power.Power.
func (m *Machine) SetBoot(ctx context.Context, boot power.Boot) error {
	if boot.First != power.Network && (boot.First != power.Disk || !m.cfg.Disk) {
		return fmt.Errorf("cannot boot from %q: %w", boot.First, power.ErrUnsupported)
	}
	return m.command(ctx, "boot "+boot.String(), func(m *Machine) func() {
		if boot.Once {
			m.once = boot.First
		} else {
			m.boot, m.once = boot.First, ""
		}
		return nil
	})
}

// start and stop run with the lock held and return what to call without it.
func (m *Machine) start() func() {
	m.on, m.starts, m.booted = true, m.starts+1, m.boot
	if m.once != "" {
		m.booted, m.once = m.once, ""
	}
	if m.cfg.OnStart == nil {
		return nil
	}
	n := m.starts
	return func() { m.cfg.OnStart(n) }
}

func (m *Machine) stop() func() {
	if !m.on {
		return nil
	}
	m.on = false
	return m.cfg.OnStop
}

// answer applies the faults of time: it returns once the controller would have answered.
func (m *Machine) answer(ctx context.Context) error {
	m.mu.Lock()
	f, healed := m.faults, m.healed
	m.mu.Unlock()
	if f.Deaf {
		<-healed
		return power.ErrUnreachable
	}
	if f.Hang {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", power.ErrUnreachable, ctx.Err())
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", power.ErrUnreachable, ctx.Err())
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", power.ErrUnreachable, err)
	}
	m.run(nil)
	return nil
}

func (m *Machine) command(ctx context.Context, what string, do func(*Machine) func()) error {
	if err := m.answer(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	m.log = append(m.log, what)
	if m.faults.Ignore > 0 {
		m.faults.Ignore--
		m.mu.Unlock()
		return nil
	}
	if lag := m.faults.Lag; lag > 0 {
		m.pending = append(m.pending, effect{at: m.cfg.Now().Add(lag), do: do})
		m.mu.Unlock()
		return nil
	}
	m.mu.Unlock()
	m.run(do)
	return nil
}

// run carries out the pending effects whose time has come, then do.
func (m *Machine) run(do func(*Machine) func()) {
	m.mu.Lock()
	var after []func()
	now := m.cfg.Now()
	for len(m.pending) > 0 && !m.pending[0].at.After(now) {
		after = append(after, m.pending[0].do(m))
		m.pending = m.pending[1:]
	}
	if do != nil {
		after = append(after, do(m))
	}
	m.mu.Unlock()
	for _, f := range after {
		if f != nil {
			f()
		}
	}
}
