// Package powertest is the conformance suite of power.Power: every implementation runs it, and so does every wrapper.
package powertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"joist/services/power"
)

// Subject is one machine under test. It starts off, with the network as its boot device.
type Subject struct {
	Power power.Power
	// Disk: the machine has a local disk to boot from.
	Disk bool
	// Obeys: the operating system shuts down when asked. Otherwise a graceful Off is only checked to be accepted.
	Obeys bool
	// Starts counts, by a way other than Power, how often the machine has started; nil if nobody can tell.
	Starts func() int
	// Within is how long a command's effect may take to show; 1 s if zero.
	Within time.Duration
}

// Run runs the suite. fresh makes a new Subject for each test and registers its own cleanup.
func Run(t *testing.T, fresh func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *subject)
	}{
		{"a fresh machine is off and boots from the network", testFresh},
		{"on is idempotent", testOn},
		{"off by force is idempotent", testOffForce},
		{"off gracefully", testOffGraceful},
		{"reset restarts and only what is on", testReset},
		{"boot device is kept and read back, off and on", testBoot},
		{"boot once is used up by one start", testBootOnce},
		{"what cannot be is refused", testRefused},
		{"calls end with their context", testContext},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fresh(t)
			if s.Within == 0 {
				s.Within = time.Second
			}
			c.test(t, &subject{Subject: s, t: t})
		})
	}
}

// callTimeout bounds each call of the suite; slower is a failure.
const callTimeout = 30 * time.Second

type subject struct {
	Subject
	t *testing.T
}

func (s *subject) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *subject) do(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *subject) status() power.Status {
	s.t.Helper()
	st, err := s.Power.State(s.ctx())
	s.do("State", err)
	return st
}

// eventually polls until ok or Within is over.
func (s *subject) eventually(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(s.Within); ; {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s; status %+v", s.Within, what, s.status())
		}
		time.Sleep(min(50*time.Millisecond, s.Within/10))
	}
}

func (s *subject) reads(want power.State) {
	s.t.Helper()
	s.eventually("power reads "+string(want), func() bool { return s.status().Power == want })
}

func (s *subject) boots(want power.Boot) {
	s.t.Helper()
	s.eventually("boot reads "+want.String(), func() bool { return s.status().Boot == want })
}

func (s *subject) started(want int) {
	s.t.Helper()
	if s.Starts == nil {
		return
	}
	s.eventually("the count of starts", func() bool { return s.Starts() >= want })
	if got := s.Starts(); got != want {
		s.t.Fatalf("the machine started %d times, want %d", got, want)
	}
}

func (s *subject) on() {
	s.t.Helper()
	s.do("On", s.Power.On(s.ctx()))
	s.reads(power.On)
}

func testFresh(t *testing.T, s *subject) {
	if st := s.status(); st != (power.Status{Power: power.Off, Boot: power.Boot{First: power.Network}}) {
		t.Fatalf("status %+v", st)
	}
	s.started(0)
}

func testOn(_ *testing.T, s *subject) {
	s.on()
	s.started(1)
	s.on()
	s.started(1)
}

func testOffForce(_ *testing.T, s *subject) {
	s.do("Off a machine that is off", s.Power.Off(s.ctx(), power.Force))
	s.reads(power.Off)
	s.on()
	s.started(1)
	s.do("Off", s.Power.Off(s.ctx(), power.Force))
	s.reads(power.Off)
	s.do("Off again", s.Power.Off(s.ctx(), power.Force))
	s.reads(power.Off)
	s.on()
	s.started(2)
}

func testOffGraceful(_ *testing.T, s *subject) {
	s.do("Off a machine that is off", s.Power.Off(s.ctx(), power.Graceful))
	s.reads(power.Off)
	s.on()
	s.started(1)
	if !s.Obeys {
		// A checked Power may report that the operating system did not obey; a raw one cannot know.
		var no *power.NotReachedError
		if err := s.Power.Off(s.ctx(), power.Graceful); err != nil && !errors.As(err, &no) {
			s.t.Fatalf("Off: %v", err)
		}
		return
	}
	s.do("Off", s.Power.Off(s.ctx(), power.Graceful))
	s.reads(power.Off)
}

func testReset(t *testing.T, s *subject) {
	if err := s.Power.Reset(s.ctx()); !errors.Is(err, power.ErrOff) {
		t.Fatalf("Reset of a machine that is off: %v, want ErrOff", err)
	}
	s.reads(power.Off)
	s.on()
	s.started(1)
	s.do("Reset", s.Power.Reset(s.ctx()))
	s.reads(power.On)
	s.started(2)
}

func testBoot(_ *testing.T, s *subject) {
	set := func(b power.Boot) {
		s.t.Helper()
		s.do("SetBoot "+b.String(), s.Power.SetBoot(s.ctx(), b))
		s.boots(b)
	}
	network, disk := power.Boot{First: power.Network}, power.Boot{First: power.Disk}
	set(network)
	if s.Disk {
		set(disk)
	}
	s.on()
	if !s.Disk {
		set(network)
		return
	}
	s.boots(disk)
	set(network)
	set(disk)
	s.started(1) // setting restarts nothing
	s.do("Off", s.Power.Off(s.ctx(), power.Force))
	s.reads(power.Off)
	s.boots(disk)
}

func testBootOnce(t *testing.T, s *subject) {
	if !s.Disk {
		t.Skip("one boot device only")
	}
	last, once := power.Boot{First: power.Disk}, power.Boot{First: power.Network, Once: true}
	s.do("SetBoot", s.Power.SetBoot(s.ctx(), last))
	s.do("SetBoot", s.Power.SetBoot(s.ctx(), once))
	s.boots(once)
	s.on()
	s.boots(last)
	s.started(1)
	s.do("SetBoot", s.Power.SetBoot(s.ctx(), once))
	s.boots(once)
	s.do("Reset", s.Power.Reset(s.ctx()))
	s.started(2)
	s.boots(last)
	s.do("SetBoot", s.Power.SetBoot(s.ctx(), once))
	s.do("SetBoot", s.Power.SetBoot(s.ctx(), last)) // a lasting setting takes a pending one away
	s.boots(last)
}

func testRefused(t *testing.T, s *subject) {
	devices := []power.Device{"", "floppy"}
	if !s.Disk {
		devices = append(devices, power.Disk)
	}
	for _, d := range devices {
		if err := s.Power.SetBoot(s.ctx(), power.Boot{First: d}); !errors.Is(err, power.ErrUnsupported) {
			t.Errorf("SetBoot %q: %v, want ErrUnsupported", d, err)
		}
	}
	s.on()
	if err := s.Power.Off(s.ctx(), "politely"); !errors.Is(err, power.ErrUnsupported) {
		t.Errorf("Off in an unknown mode: %v, want ErrUnsupported", err)
	}
	s.reads(power.On)
}

func testContext(t *testing.T, s *subject) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	begin := time.Now()
	if err := s.Power.On(ctx); err == nil {
		t.Error("On with an ended context succeeded")
	}
	if _, err := s.Power.State(ctx); err == nil {
		t.Error("State with an ended context succeeded")
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("two calls with an ended context took %v", took)
	}
	s.reads(power.Off)
}
