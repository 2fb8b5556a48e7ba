package power_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	sim "joist/providers/sim/power"
	"joist/services/power"
	"joist/services/power/powertest"
)

func controller(t *testing.T, cfg power.Config) *power.Controller {
	t.Helper()
	c, err := power.NewController(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConformance: the checked form keeps the contract of what it checks.
func TestConformance(t *testing.T) {
	powertest.Run(t, func(t *testing.T) powertest.Subject {
		m := sim.New(sim.Config{Disk: true})
		checked := controller(t, power.Config{Poll: time.Millisecond}).Add("n1", m)
		return powertest.Subject{Power: checked, Disk: true, Obeys: true, Starts: m.Starts}
	})
}

func TestConfigRefusesNegative(t *testing.T) {
	for _, cfg := range []power.Config{{CallTimeout: -1}, {Tries: -1}, {Readers: -1}, {BackOffMax: -1}} {
		if _, err := power.NewController(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestFaults(t *testing.T) {
	ctx := context.Background()
	cycle := func(m *power.Machine, ctx context.Context) error { return m.Cycle(ctx, nil) }
	on := (*power.Machine).On
	fence := func(m *power.Machine, ctx context.Context) error {
		p, err := m.Fence(ctx)
		if p.Valid() != (err == nil) {
			return fmt.Errorf("proof %v with error %w", p, err)
		}
		return err
	}
	for _, c := range []struct {
		name     string
		faults   sim.Faults
		startOn  bool
		op       func(*power.Machine, context.Context) error
		want     error // nil, a sentinel, or a *power.NotReachedError for "not reached"
		commands []string
		atMost   time.Duration
	}{
		{"accepts and ignores once", sim.Faults{Ignore: 1}, false, on, nil, []string{"on", "on"}, 30 * time.Second},
		{"accepts and always ignores", sim.Faults{Ignore: 99}, false, on, &power.NotReachedError{}, []string{"on", "on", "on"}, 31 * time.Second},
		{"fencing that is ignored yields no proof", sim.Faults{Ignore: 99}, true, fence, &power.NotReachedError{}, []string{"off force", "off force", "off force"}, 31 * time.Second},
		{"fencing that works", sim.Faults{}, true, fence, nil, []string{"off force"}, time.Second},
		{"fencing commands even what reads off", sim.Faults{}, false, fence, nil, []string{"off force"}, time.Second},
		{"hangs", sim.Faults{Hang: true}, true, fence, power.ErrUnreachable, nil, 11 * time.Second},
		{"hangs and does not heed its context", sim.Faults{Deaf: true}, true, fence, power.ErrUnreachable, nil, 11 * time.Second},
		{"slow answers", sim.Faults{Delay: 8 * time.Second}, true, cycle, nil, []string{"off force", "on"}, time.Minute},
		{"slow effects", sim.Faults{Lag: 7 * time.Second}, true, cycle, nil, []string{"off force", "on"}, time.Minute},
		{"a graceful shutdown that is ignored", sim.Faults{NoGraceful: true}, true,
			func(m *power.Machine, ctx context.Context) error { return m.Off(ctx, power.Graceful) },
			&power.NotReachedError{}, []string{"off graceful", "off graceful", "off graceful"}, 121 * time.Second},
		{"the override is silently dropped", sim.Faults{Ignore: 99}, true,
			func(m *power.Machine, ctx context.Context) error {
				return m.SetBoot(ctx, power.Boot{First: power.Disk})
			},
			&power.NotReachedError{}, []string{"boot disk", "boot disk", "boot disk"}, 31 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw := sim.New(sim.Config{Disk: true})
				if c.startOn {
					if err := raw.On(ctx); err != nil {
						t.Fatal(err)
					}
				}
				before := len(raw.Commands())
				raw.Inject(c.faults)
				m := controller(t, power.Config{}).Add("n1", raw)
				begin := time.Now()
				err := c.op(m, ctx)
				var no *power.NotReachedError
				switch {
				case c.want == nil && err != nil:
					t.Fatal(err)
				case errors.As(c.want, &no):
					if !errors.As(err, &no) || no.Tries != 3 {
						t.Fatalf("%v, want NotReachedError after 3 tries", err)
					}
				case !errors.Is(err, c.want):
					t.Fatalf("%v, want %v", err, c.want)
				}
				if took := time.Since(begin); took > c.atMost {
					t.Errorf("took %v, want at most %v", took, c.atMost)
				}
				if got := raw.Commands()[before:]; !slices.Equal(got, c.commands) {
					t.Errorf("commands %q, want %q", got, c.commands)
				}
				raw.Heal()
			})
		})
	}
}

// TestReadBackSurvivesMissedReadings: a controller busy with switching misses readings; that is no failure.
func TestReadBackSurvivesMissedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := sim.New(sim.Config{})
		flaky := &afterCommand{Machine: raw, faults: sim.Faults{ReadErrors: 3}}
		m := controller(t, power.Config{}).Add("n1", flaky)
		if err := m.On(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := raw.Commands(); !slices.Equal(got, []string{"on"}) {
			t.Errorf("commands %q", got)
		}
	})
}

type afterCommand struct {
	*sim.Machine
	faults sim.Faults
}

func (a *afterCommand) On(ctx context.Context) error {
	err := a.Machine.On(ctx)
	a.Inject(a.faults)
	return err
}

// TestOneAtATime: a call that hangs is never overlapped by another call to the same machine, and later operations work
// once it returned.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		raw := &counting{Machine: sim.New(sim.Config{})}
		raw.Inject(sim.Faults{Deaf: true})
		m := controller(t, power.Config{}).Add("n1", raw)
		for range 3 {
			if err := m.On(ctx); !errors.Is(err, power.ErrUnreachable) {
				t.Fatalf("%v, want ErrUnreachable", err)
			}
		}
		raw.Heal()
		synctest.Wait()
		if err := m.On(ctx); err != nil {
			t.Fatal(err)
		}
		if raw.most != 1 {
			t.Errorf("%d calls at the same time", raw.most)
		}
	})
}

type counting struct {
	*sim.Machine
	now, most int // guarded by what is under test: under -race an overlap is also a data race
}

func (c *counting) State(ctx context.Context) (power.Status, error) {
	c.now++
	c.most = max(c.most, c.now)
	defer func() { c.now-- }()
	return c.Machine.State(ctx)
}

// TestSurveyDeadMachines: many dead machines cost those that answer nothing, from the second survey on, and the first
// is bounded.
func TestSurveyDeadMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controller(t, power.Config{Readers: 8})
		var dead []*sim.Machine
		for i := range 100 {
			m := sim.New(sim.Config{})
			if i%4 == 0 {
				m.Inject(sim.Faults{Hang: true})
				dead = append(dead, m)
			}
			c.Add(fmt.Sprintf("n%03d", i), m)
		}
		survey := func() (slowestSound time.Duration, ok, failed int) {
			begin := time.Now()
			c.Survey(context.Background(), func(r power.Reading) {
				if r.Err == nil {
					ok++
					slowestSound = max(slowestSound, time.Since(begin))
				} else if errors.Is(r.Err, power.ErrUnreachable) {
					failed++
				}
			})
			return slowestSound, ok, failed
		}
		if _, ok, failed := survey(); ok != 75 || failed != 25 {
			t.Fatalf("first survey: %d answered, %d failed", ok, failed)
		}
		if slowest, ok, failed := survey(); slowest > time.Second || ok != 75 || failed != 25 {
			t.Errorf("second survey: %d answered, %d failed, slowest answer after %v", ok, failed, slowest)
		}
		for _, m := range dead {
			m.Heal()
		}
		survey()
		if slowest, ok, _ := survey(); slowest > time.Second || ok != 100 {
			t.Errorf("after healing: %d answered, slowest after %v", ok, slowest)
		}
	})
}

func TestKeepOnBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		raw := sim.New(sim.Config{})
		m := controller(t, power.Config{}).Add("n1", raw)
		var pauses []time.Duration
		last := time.Now()
		for len(pauses) < 10 { // a machine that loses its power a second after each start
			switched, err := m.KeepOn(ctx, nil)
			var later *power.LaterError
			if err != nil && !errors.As(err, &later) {
				t.Fatal(err)
			}
			if switched {
				pauses = append(pauses, time.Since(last))
				last = time.Now()
				time.Sleep(time.Second)
				raw.Cut()
				continue
			}
			time.Sleep(time.Second)
		}
		s := time.Second
		want := []time.Duration{0, 5 * s, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 320 * s, 600 * s, 600 * s}
		if !reflect.DeepEqual(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
		time.Sleep(time.Hour)
		for range 12 { // on for long: forgiven
			if _, err := m.KeepOn(ctx, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		raw.Cut()
		if switched, err := m.KeepOn(ctx, nil); !switched || err != nil {
			t.Errorf("after a calm period: %v, %v", switched, err)
		}
		raw.Cut()
		time.Sleep(6 * s)
		if switched, err := m.KeepOn(ctx, nil); !switched || err != nil {
			t.Errorf("the count starts anew: %v, %v", switched, err)
		}
	})
}

// TestNotedBeforeTheCommand: what is to be noted of a boot is noted once, before the command, only if a command is given, and none is
// given if that fails.
func TestNotedBeforeTheCommand(t *testing.T) {
	ctx, fails := t.Context(), errors.New("the book is full")
	keep := func(m *power.Machine, ctx context.Context, note func(context.Context) error) error {
		_, err := m.KeepOn(ctx, note)
		return err
	}
	for name, on := range map[string]func(*power.Machine, context.Context, func(context.Context) error) error{"Start": (*power.Machine).Start, "KeepOn": keep} {
		raw := sim.New(sim.Config{})
		m := controller(t, power.Config{Poll: time.Millisecond}).Add("n1", raw)
		noted := 0
		note := func(context.Context) error {
			if st, err := raw.State(ctx); err != nil || st.Power != power.Off {
				t.Errorf("%s notes when the machine is %s already, %v", name, st.Power, err)
			}
			noted++
			return nil
		}
		if err := on(m, ctx, func(context.Context) error { return fails }); !errors.Is(err, fails) || raw.Starts() != 0 {
			t.Errorf("%s: %v, and %d starts, though nothing could be noted", name, err, raw.Starts())
		}
		m = controller(t, power.Config{Poll: time.Millisecond}).Add("n1", raw) // one that remembers no attempt
		for range 2 {
			if err := on(m, ctx, note); err != nil || noted != 1 || raw.Starts() != 1 {
				t.Errorf("%s: %v, %d notes, %d starts, want one of each", name, err, noted, raw.Starts())
			}
		}
		raw.Cut()
		if err := keep(m, ctx, note); name == "KeepOn" && (noted != 1 || raw.Starts() != 1) {
			t.Errorf("%d notes, %d starts of a machine that is not tried again yet: %v", noted, raw.Starts(), err)
		}
	}
}

func TestWaitingForTurnEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := sim.New(sim.Config{})
		raw.Inject(sim.Faults{Lag: time.Hour})
		m := controller(t, power.Config{}).Add("n1", raw)
		first := make(chan error)
		go func() { first <- m.On(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.On(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, power.ErrUnreachable) {
			t.Errorf("%v, want the context's end alone", err)
		}
		if err := <-first; err == nil {
			t.Error("a change that takes an hour succeeded")
		}
	})
}

func TestUnknownMachine(t *testing.T) {
	c := controller(t, power.Config{})
	c.Add("n1", sim.New(sim.Config{}))
	c.Remove("n1")
	if _, err := c.Machine("n1"); !errors.Is(err, power.ErrUnknown) {
		t.Errorf("%v, want ErrUnknown", err)
	}
}
