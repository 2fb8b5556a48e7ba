package power

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"
)

// Config sets the times of a Controller. Every zero field has the default named beside it.
type Config struct {
	CallTimeout time.Duration // longest wait for one answer of the hardware; 10 s
	Settle      time.Duration // longest wait for a change to be read back; 30 s
	Graceful    time.Duration // longest wait for an operating system to shut down; 2 min
	Poll        time.Duration // first pause between two readings, doubled up to 8 times this; 500 ms
	Tries       int           // how often a command is given whose effect cannot be read back; 3
	BackOff     time.Duration // first pause between two attempts of KeepOn, doubled up to BackOffMax; 5 s
	BackOffMax  time.Duration // longest such pause; 10 min
	Readers     int           // machines that Survey reads at the same time; 64
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"CallTimeout", &c.CallTimeout, 10 * time.Second},
		{"Settle", &c.Settle, 30 * time.Second},
		{"Graceful", &c.Graceful, 2 * time.Minute},
		{"Poll", &c.Poll, 500 * time.Millisecond},
		{"BackOff", &c.BackOff, 5 * time.Second},
		{"BackOffMax", &c.BackOffMax, 10 * time.Minute},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("power: %s is negative", d.name)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if c.Tries < 0 || c.Readers < 0 {
		return c, fmt.Errorf("power: Tries and Readers must not be negative")
	}
	if c.Tries == 0 {
		c.Tries = 3
	}
	if c.Readers == 0 {
		c.Readers = 64
	}
	if c.BackOffMax < c.BackOff {
		c.BackOffMax = c.BackOff
	}
	return c, nil
}

// Controller is the engine's way to the power of all machines, whatever their provider. It is safe for concurrent
// use: operations on one machine happen one after another, those on different machines independently.
type Controller struct {
	cfg Config

	mu       sync.Mutex
	machines map[string]*Machine
}

// NewController makes a Controller that knows no machine yet.
func NewController(cfg Config) (*Controller, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Controller{cfg: cfg, machines: map[string]*Machine{}}, nil
}

// Add makes a machine known under its name, or replaces its power control. The returned Machine is the checked form of p.
func (c *Controller) Add(name string, p Power) *Machine {
	m := &Machine{name: name, raw: p, cfg: c.cfg, turn: make(chan struct{}, 1), wire: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machines[name] = m
	return m
}

// Remove forgets a machine. An operation on it that is under way finishes.
func (c *Controller) Remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.machines, name)
}

// Machine looks a machine up by name; ErrUnknown if there is none.
func (c *Controller) Machine(name string) (*Machine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.machines[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	return m, nil
}

// Reading is one machine's part of a Survey.
type Reading struct {
	Machine string
	Status  Status // meaningful if Err is nil
	Err     error
}

// Survey reads every machine and hands each reading to got as it comes in, one at a time and in no order. Machines whose last
// call failed are read by workers of their own (an eighth as many), so that those that answer never queue behind
// those that do not. It returns when all are read or ctx ends.
func (c *Controller) Survey(ctx context.Context, got func(Reading)) {
	c.mu.Lock()
	var sound, suspect []*Machine
	for _, m := range c.machines {
		if m.failing() {
			suspect = append(suspect, m)
		} else {
			sound = append(sound, m)
		}
	}
	c.mu.Unlock()
	var out sync.Mutex
	var wg sync.WaitGroup
	read := func(ms []*Machine, workers int) {
		sort.Slice(ms, func(i, j int) bool { return ms[i].name < ms[j].name })
		queue := make(chan *Machine, len(ms))
		for _, m := range ms {
			queue <- m
		}
		close(queue)
		for range min(workers, len(ms)) {
			wg.Go(func() {
				for m := range queue {
					if ctx.Err() != nil {
						return
					}
					st, err := m.State(ctx)
					out.Lock()
					got(Reading{Machine: m.name, Status: st, Err: err})
					out.Unlock()
				}
			})
		}
	}
	read(sound, c.cfg.Readers)
	read(suspect, max(1, c.cfg.Readers/8))
	wg.Wait()
}
