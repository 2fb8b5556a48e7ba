package sim_test

import (
	"errors"
	"time"

	"joist/engine/run"
)

// now is what the engine's clock shows.
func (l *lab) now() time.Time { return l.world.Now().Add(l.skew) }

// there gives an effect as the world takes it, whose clocks are right.
func (l *lab) there(e run.Effect) run.Effect {
	switch e := e.(type) {
	case run.Dispatch:
		e.Deadline = e.Deadline.Add(-l.skew)
		return e
	case run.Call:
		e.Deadline = e.Deadline.Add(-l.skew)
		return e
	}
	return e
}

// setClock sets the engine's clock now and then: back by minutes or hours, or right.
func (l *lab) setClock() {
	if l.set == nil || l.err != nil {
		return
	}
	before := l.skew
	switch l.set.IntN(6) {
	case 0:
		l.skew -= time.Duration(1+l.set.IntN(59)) * time.Minute
	case 1:
		l.skew -= time.Duration(1+l.set.IntN(4)) * time.Hour
	case 2:
		l.skew = 0
	}
	if l.skew != before {
		l.logf("the engine's clock is set by %v", l.skew-before)
	}
}

// clocks is chaos with an engine whose clock is set back again and again.
func clocks(seed uint64, f fault) error {
	sh := full
	sh.clocks = true
	if l := chaosOf(sh, seed, f); l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// clockProperties are what holds whatever the engine's clock shows.
func clockProperties() []property {
	return []property{
		{law: "clock: time never goes back", does: "an engine that starts believes its clock", seeds: 100, try: clocks, faults: map[string]fault{"clock": {dated: true}}},
	}
}
