package power_test

import (
	"context"
	"testing"

	sim "joist/providers/sim/power"
	"joist/services/power"
	"joist/services/power/powertest"
)

func TestConformance(t *testing.T) {
	for _, disk := range []bool{true, false} {
		powertest.Run(t, func(t *testing.T) powertest.Subject {
			m := sim.New(sim.Config{Disk: disk})
			return powertest.Subject{Power: m, Disk: disk, Obeys: true, Starts: m.Starts}
		})
	}
}

func TestStartsAndStopsAreTold(t *testing.T) {
	var told []int
	m := sim.New(sim.Config{Disk: true, OnStart: func(n int) { told = append(told, n) }, OnStop: func() { told = append(told, 0) }})
	ctx := context.Background()
	for _, do := range []func() error{
		func() error { return m.On(ctx) },
		func() error { return m.SetBoot(ctx, power.Boot{First: power.Disk, Once: true}) },
		func() error { return m.Reset(ctx) },
		func() error { m.Cut(); m.Cut(); return nil },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 3 || told[0] != 1 || told[1] != 2 || told[2] != 0 {
		t.Errorf("told %v", told)
	}
	if m.Booted() != power.Disk {
		t.Errorf("booted from %q", m.Booted())
	}
}
