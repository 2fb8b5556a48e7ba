package timers

import "time"

// Clock makes of the readings of a computer's clock a time that never goes back. Where the clock was set back, time goes on
// from where it was, at half the pace, until the clock has caught up: what waits for a time is late by no more than it would
// have waited, and never waits for what was.
type Clock struct {
	reading time.Time // the last one
	peak    time.Time // the latest one
	now     time.Time // the time then, never before it
}

// Since begins a clock that knows that it was this late already; zero for one that knows nothing.
func Since(now time.Time) Clock { return Clock{now: now} }

// Read gives the time at a reading, and remembers it.
func (c *Clock) Read(reading time.Time) time.Time {
	reading = reading.Round(0) // readings of different processes are compared by what they say
	passed := time.Duration(0)
	if !c.reading.IsZero() {
		passed = max(reading.Sub(c.reading), 0)
	}
	if c.reading.Before(c.peak) && !reading.Before(c.peak) { // set right again, it may be: that was no time that passed
		passed = 0
	}
	if c.reading = reading; reading.After(c.peak) {
		c.peak = reading
	}
	if c.now = c.now.Add(passed / 2); !c.now.After(reading) {
		c.now = reading
	}
	return c.now
}

// ahead is how much later it is than the clock says.
func (c *Clock) ahead() time.Duration { return c.now.Sub(c.reading) }

// True reports whether it is as late as the clock says.
func (c *Clock) True() bool { return c.ahead() == 0 }

// Reading gives what the clock will show at a time to come, unless it is set; zero for the zero time.
func (c *Clock) Reading(at time.Time) time.Time {
	if at.IsZero() || c.True() {
		return at
	}
	d := at.Sub(c.now)
	if d > 0 {
		d = min(2*d, d+c.ahead())
	}
	return c.reading.Add(d)
}

// At gives how late it will be when the clock shows a reading to come: the inverse of Reading.
func (c *Clock) At(reading time.Time) time.Time {
	if reading.IsZero() || c.True() {
		return reading
	}
	d := reading.Sub(c.reading)
	if d > 0 {
		d = max(d/2, d-c.ahead())
	}
	return c.now.Add(d)
}
