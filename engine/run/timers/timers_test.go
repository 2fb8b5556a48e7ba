package timers

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"joist/engine/history"
)

// TestClock: whatever the clock shows, time never goes back, is never before the clock, stands still only while the clock goes
// back, and has caught up once the clock has gone on for twice as long as it was set back.
func TestClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reading := time.Unix(1_700_000_000, 0)
		c := Since(reading.Add(time.Duration(rapid.Int64Range(-1e13, 1e13).Draw(t, "journal"))))
		last := c.now
		for range rapid.IntRange(1, 20).Draw(t, "readings") {
			step := time.Duration(rapid.Int64Range(-1e13, 1e13).Draw(t, "step"))
			first := c.reading.IsZero()
			reading = reading.Add(step)
			peaks := c.reading.Before(c.peak) && !reading.Before(c.peak)
			now := c.Read(reading)
			switch {
			case now.Before(last) || now.Before(reading):
				t.Fatalf("it is %v after %v at %v", now, last, reading)
			case !first && !peaks && step > 1 && !now.After(last):
				t.Fatalf("time stands still at %v, %v on", now, step)
			}
			last = now
			wait := time.Duration(rapid.Int64Range(0, 1e13).Draw(t, "wait"))
			shows := c.Reading(now.Add(wait))
			if late := shows.Sub(reading); late > 2*wait || late < wait {
				t.Fatalf("%v from now the clock shows %v more, ahead %v", wait, late, c.ahead())
			}
			if back := c.At(shows).Sub(now.Add(wait)); back < -1 || back > 1 {
				t.Fatalf("the inverse is off by %v", back)
			}
			twin := c
			if twin.reading.Before(twin.peak) && !shows.Before(twin.peak) {
				continue
			}
			if off := twin.Read(shows).Sub(now.Add(wait)); off < -1 || off > 1 {
				t.Fatalf("when the clock shows that it is %v off", off)
			}
		}
		if c.Read(reading.Add(2 * c.ahead())); c.ahead() > 1 {
			t.Fatalf("still %v ahead", c.ahead())
		}
	})
}

// TestClockSetRight: a clock that is set back, and right again, has taken no time that was not there.
func TestClockSetRight(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	var c Clock
	for _, at := range []struct{ shows, want time.Duration }{{0, 0}, {-time.Hour, 0}, {-time.Hour + 20*time.Second, 10 * time.Second}, {40 * time.Second, 40 * time.Second}, {50 * time.Second, 50 * time.Second}} {
		if got := c.Read(start.Add(at.shows)).Sub(start); got != at.want {
			t.Errorf("at %v it is %v, want %v", at.shows, got, at.want)
		}
	}
}

// TestSet: of several times for one instance the earliest counts, and what is due comes in the fixed order.
func TestSet(t *testing.T) {
	var s Set
	at := time.Unix(1000, 0)
	a, b := history.Target{Task: "a", Node: "n"}, history.Target{Task: "b"}
	s.Add(time.Time{}, a)
	if !s.Next().IsZero() {
		t.Error("the zero time is due")
	}
	s.Add(at.Add(2), b)
	s.Add(at.Add(3), a)
	s.Add(at.Add(1), a)
	s.Add(at.Add(5), a)
	if !s.Next().Equal(at.Add(1)) || len(s.Until(at)) != 0 {
		t.Errorf("next %v", s.Next())
	}
	if due := s.Until(at.Add(2)); len(due) != 2 || due[0] != a || due[1] != b {
		t.Errorf("due %v", due)
	}
	if due := s.Until(at.Add(9)); len(due) != 0 {
		t.Errorf("due again: %v", due)
	}
}
