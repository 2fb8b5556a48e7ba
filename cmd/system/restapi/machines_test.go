package restapi

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"joist/engine/journal"
	"joist/pki/enrol"
	sim "joist/providers/sim/power"
	v1 "joist/services/api/v1"
	"joist/services/power"
	"joist/services/site"
)

// TestPowerOrdersABoot: a boot is noted as ordered if the machine is made to boot. Switching on a machine that is on leaves nothing
// behind that would approve whatever boots in its place within ten minutes.
func TestPowerOrdersABoot(t *testing.T) {
	for _, test := range []struct {
		action      string
		on, ordered bool
	}{
		{v1.PowerOn, false, true}, {v1.PowerOn, true, false}, {v1.PowerOff, true, false}, {v1.PowerReset, true, true}, {v1.PowerCycle, true, true}, {v1.PowerCycle, false, true},
	} {
		ctx := t.Context()
		book, err := site.Open(ctx, site.Config{Store: &journal.Memory{}, Holder: "test", Random: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		if err := book.Define(ctx, site.Defined{Name: "n1"}); err != nil {
			t.Fatal(err)
		}
		claim := site.Claim{Cluster: "demo", Trust: true}
		if err := book.Claim(ctx, claim, func([]site.Machine) ([]string, error) { return []string{"n1"}, nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := book.Update(ctx, "n1", func(enrol.Machine) []enrol.Event {
			return []enrol.Event{{Kind: enrol.Accepted, Machine: "n1", Boot: enrol.BootID{1}, Key: "a", Fingerprint: "AAAA0000", Level: enrol.Approved, At: time.Now()}}
		}); err != nil {
			t.Fatal(err)
		}
		control, err := power.NewController(power.Config{Poll: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		raw := sim.New(sim.Config{})
		control.Add("n1", raw)
		if test.on {
			if err := raw.On(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if err := (&apiMachines{Parts{Site: book, Power: control.Machine, Now: time.Now}}).Power(ctx, "n1", test.action); err != nil {
			t.Errorf("%s: %v", test.action, err)
		}
		if m, _ := book.Lookup("n1"); (m.Enrol.Ordered != enrol.Ordered{}) != test.ordered {
			t.Errorf("%s of a machine (on: %v): ordered %+v", test.action, test.on, m.Enrol.Ordered)
		}
	}
}
