package system

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/agent/wire"
	"joist/engine/journal"
	"joist/pki/enrol"
	sim "joist/providers/sim/power"
	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/boot/phase"
	"joist/services/power"
	"joist/services/site"
)

// TestRaise: a machine that a cluster wants is switched on, and anew if nothing comes of that. One that somebody else switched
// on, that an agent speaks for, or whose agent spoke since and fell silent, is left alone: its cluster's steps may run there.
func TestRaise(t *testing.T) {
	silence := func(s *System, after time.Duration, reached ...phase.Phase) {
		m, _ := s.Site.Lookup("n1")
		for _, p := range reached {
			s.bootReached(m, p)
		}
		time.Sleep(after)
	}
	for _, tc := range []struct {
		name string
		do   func(s *System, raw *sim.Machine)
		want []string
		says string
	}{
		{"in time", func(s *System, _ *sim.Machine) { silence(s, 4*time.Minute, phase.Script) }, []string{"on"}, ""},
		{"nothing comes", func(s *System, _ *sim.Machine) { silence(s, 6*time.Minute, phase.Script) }, []string{"on", "off force", "on"},
			"machine n1: script sent 6 min ago, kernel not fetched; it is switched off and on again"},
		{"an agent speaks for it", func(s *System, _ *sim.Machine) {
			s.live.set("n1", connection{hello: wire.Hello{Stage: wire.Scout}})
			silence(s, time.Hour, phase.Script)
		}, []string{"on"}, ""},
		{"its agent spoke and fell silent", func(s *System, _ *sim.Machine) { silence(s, time.Hour, phase.Script, phase.Agent) }, []string{"on"}, ""},
		{"it lost power meanwhile", func(s *System, raw *sim.Machine) { silence(s, time.Hour, phase.Script); raw.Cut() }, []string{"on", "on"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw := sim.New(sim.Config{Now: time.Now})
				s := newRaised(t, &journal.Memory{}, raw)
				raise := func() {
					t.Helper()
					if err := (machines{s}).Raise(t.Context(), "demo", "n1"); err != nil {
						t.Fatal(err)
					}
				}
				raise()
				tc.do(s, raw)
				raise()
				if got := raw.Commands(); !slices.Equal(got, tc.want) {
					t.Errorf("commands %q, want %q", got, tc.want)
				}
				var said []string
				for _, n := range s.notices.all() {
					said = append(said, n.text)
				}
				if got := strings.Join(said, "\n"); got != tc.says {
					t.Errorf("said %q, want %q", got, tc.says)
				}
			})
		})
	}
	t.Run("switched on by somebody else", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			raw := sim.New(sim.Config{Now: time.Now})
			s := newRaised(t, &journal.Memory{}, raw)
			if err := raw.On(t.Context()); err != nil {
				t.Fatal(err)
			}
			silence(s, time.Hour, phase.Script)
			if err := (machines{s}).Raise(t.Context(), "demo", "n1"); err != nil || fmt.Sprint(raw.Commands()) != "[on]" {
				t.Errorf("commands %q, %v", raw.Commands(), err)
			}
		})
	})
}

// TestRaiseRemembers: an engine that died after it had switched a machine on knows that after its start, and waits for the machine
// as long as if it had been switched on then. A machine whose key asked is left alone: what became of it the engine cannot know.
func TestRaiseRemembers(t *testing.T) {
	for asked, want := range map[bool]string{false: "[on off force on]", true: "[on]"} {
		synctest.Test(t, func(t *testing.T) {
			raw, store := sim.New(sim.Config{Now: time.Now}), &journal.Memory{}
			s := newRaised(t, store, raw)
			raise := func() {
				t.Helper()
				if err := (machines{s}).Raise(t.Context(), "demo", "n1"); err != nil {
					t.Fatal(err)
				}
			}
			raise()
			if _, err := s.Site.Issue(t.Context(), site.Boot{MAC: raisedMAC}); err != nil {
				t.Fatal(err)
			}
			if asked {
				if _, err := s.Site.Update(t.Context(), "n1", func(m enrol.Machine) []enrol.Event {
					for id := range m.Boots {
						return []enrol.Event{{Kind: enrol.Accepted, Machine: "n1", Boot: id, Key: "a", Fingerprint: "AAAA0000", Level: enrol.Approved, At: time.Now()}}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Hour)
			s = newRaised(t, store, raw)
			m, _ := s.Site.Lookup("n1")
			s.recallBoot(m)
			for range 5 {
				if raise(); fmt.Sprint(raw.Commands()) != "[on]" {
					t.Errorf("asked %t, engine just started: %q", asked, raw.Commands())
				}
				time.Sleep(time.Minute)
			}
			if raise(); fmt.Sprint(raw.Commands()) != want {
				t.Errorf("asked %t: %q, want %s", asked, raw.Commands(), want)
			}
		})
	}
}

const raisedMAC = "52:54:00:00:00:01"

// newRaised makes of an engine what switches its one machine, n1, and hears of its boots.
func newRaised(t *testing.T, store *journal.Memory, raw *sim.Machine) *System {
	t.Helper()
	control, err := power.NewController(power.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &System{cfg: Config{Log: slog.New(slog.DiscardHandler)}, Power: control, now: time.Now, live: newLive()}
	if s.Site, err = site.Open(t.Context(), site.Config{Store: store, Holder: "test", Random: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	if err := s.Site.Define(t.Context(), site.Defined{Name: "n1", MACs: []string{raisedMAC}}); err != nil {
		t.Fatal(err)
	}
	if s.Artifacts, err = artifacts.Open(filepath.Join(t.TempDir(), "artifacts")); err != nil {
		t.Fatal(err)
	}
	if s.Boot, err = boot.New(boot.Config{
		Inventory: bootInventory{s}, Issuer: bootIssuer{s}, Sets: bootSets{s}, Observer: bootObserver{s}, Artifacts: s.Artifacts,
		URLs: []string{"https://10.77.0.1:8443"}, CA: strings.Repeat("0", 64), HTTP: netip.MustParseAddrPort("10.77.0.1:8080"), Loaders: map[string]string{}, Now: s.now,
	}); err != nil {
		t.Fatal(err)
	}
	control.Add("n1", raw)
	return s
}
