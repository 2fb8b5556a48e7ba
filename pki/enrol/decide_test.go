package enrol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// site is the caller in small: it decides, folds the events, and keeps the journal.
type site struct {
	m       Machine
	now     time.Time
	answers bool
	journal []Event
}

func newSite() *site { return &site{m: Machine{Name: "n1"}, now: t0} }

func (s *site) fold(events ...Event) {
	for _, e := range events {
		s.m = Fold(s.m, e)
		s.journal = append(s.journal, e)
	}
}

func (s *site) boot(n byte) {
	s.fold(Event{Kind: BootIssued, Machine: "n1", Boot: BootID{n}, MAC: "52:54:00:00:00:01", At: s.now})
}

func fp(key string) string { return strings.ToUpper(strings.Repeat(key, 8))[:8] }

func (s *site) ask(boot byte, key string, with ...func(*Proven)) Decision {
	p := Proven{Boot: BootID{boot}, Key: KeyID(key), Fingerprint: fp(key), Incarnation: fmt.Sprint("i", boot), Time: s.now}
	for _, f := range with {
		f(&p)
	}
	d := Decide(View{Machine: s.m, Answers: s.answers}, p, s.now)
	s.fold(d.Events...)
	return d
}

func vouched(p *Proven) { p.Vouched = true }

func (s *site) approve(t *testing.T, key string) {
	t.Helper()
	events, err := Approve(s.m, Word{Fingerprint: fp(key), By: "ada", At: s.now})
	if err != nil {
		t.Fatal(err)
	}
	s.fold(events...)
}

func expect(t *testing.T, d Decision, outcome Outcome, reason Reason, level Level) {
	t.Helper()
	if d.Outcome != outcome || d.Reason != reason || d.Level != level {
		t.Fatalf("got %s %s %s (%s), want %s %s %s", d.Outcome, d.Reason, d.Level, d.Message, outcome, reason, level)
	}
}

// plays are conversations with a site, each with what the decision must be at every turn.
var plays = map[string]func(*testing.T, *site){
	"voucher": func(t *testing.T, s *site) {
		s.boot(1)
		expect(t, s.ask(1, "a", vouched), Accept, VoucherProved, Vouched)
		expect(t, s.ask(1, "a", vouched), Same, KnownKey, Vouched)
		if s.m.Current != "a" || s.m.Level() != Vouched {
			t.Errorf("current %q at %s", s.m.Current, s.m.Level())
		}
	},
	"approval": func(t *testing.T, s *site) {
		s.boot(1)
		expect(t, s.ask(1, "a"), Pending, AwaitsApproval, Claimed)
		s.now = s.now.Add(time.Hour) // a boot id that took its key outlives its validity
		d := s.ask(1, "a")
		expect(t, d, Pending, AwaitsApproval, Claimed)
		if d.Events != nil {
			t.Errorf("waiting is no event: %v", d.Events)
		}
		s.approve(t, "a")
		if s.m.Current != "" {
			t.Error("an approval alone makes nothing current")
		}
		expect(t, s.ask(1, "a"), Accept, PersonConfirmed, Approved)
		expect(t, s.ask(1, "a"), Same, KnownKey, Approved)
		expect(t, s.ask(1, "a", vouched), Accept, VoucherProved, Vouched)
	},
	"unknown boot id": func(t *testing.T, s *site) {
		s.boot(1)
		expect(t, s.ask(2, "a", vouched), Refuse, UnknownBoot, 0)
	},
	"machine never seen": func(t *testing.T, s *site) {
		s.m = Machine{}
		expect(t, s.ask(2, "a", vouched), Refuse, UnknownBoot, 0)
	},
	"expired boot id": func(t *testing.T, s *site) {
		s.boot(1)
		s.now = s.now.Add(BootValidity)
		expect(t, s.ask(1, "a", vouched), Refuse, ExpiredBoot, 0)
	},
	"last moment of a boot id": func(t *testing.T, s *site) {
		s.boot(1)
		s.now = s.now.Add(BootValidity - 1)
		expect(t, s.ask(1, "a", vouched), Accept, VoucherProved, Vouched)
	},
	"other key with the same boot id": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		expect(t, s.ask(1, "b", vouched), Quarantine, OtherKey, 0)
		if s.m.Current != "" || s.m.Level() != 0 || s.m.Keys["a"].State != StateQuarantined || s.m.Keys["b"].State != StateQuarantined {
			t.Errorf("machine %+v", s.m)
		}
		d := s.ask(1, "a", vouched)
		expect(t, d, Quarantine, OtherKey, 0)
		if d.Events != nil {
			t.Error("a quarantine is noted once")
		}
	},
	"other key with an expired boot id": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		s.now = s.now.Add(BootValidity)
		expect(t, s.ask(1, "b", vouched), Refuse, ExpiredBoot, 0)
		expect(t, s.ask(1, "a", vouched), Same, KnownKey, Vouched)
	},
	"other key while the first waits": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a")
		expect(t, s.ask(1, "b"), Quarantine, OtherKey, 0)
	},
	"stolen MAC while the owner is up": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		s.boot(2)
		s.answers = true
		expect(t, s.ask(2, "b"), Quarantine, OwnerAnswers, 0)
		if s.m.Keys["a"].State != StateQuarantined {
			t.Error("the owner is still served")
		}
	},
	"stolen MAC while the owner is silent, and the owner returns": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		s.boot(2)
		s.now = s.now.Add(time.Second)
		expect(t, s.ask(2, "b"), Pending, AwaitsApproval, Claimed)
		if s.m.Current != "a" {
			t.Fatal("a waiting key displaced the owner")
		}
		s.answers = true
		expect(t, s.ask(2, "b"), Quarantine, OwnerAnswers, 0)
	},
	"the owner asks again after a newer boot": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a")
		s.now = s.now.Add(time.Second)
		s.boot(2)
		s.ask(2, "b")
		expect(t, s.ask(1, "a"), Quarantine, OlderKeyAsks, 0)
	},
	"reboot without the old agent": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		s.now = s.now.Add(time.Minute)
		s.boot(2)
		d := s.ask(2, "b", vouched)
		expect(t, d, Accept, VoucherProved, Vouched)
		if d.Events[0].Other != "a" || s.m.Current != "b" {
			t.Errorf("event %+v", d.Events[0])
		}
		s.answers = true
		d = s.ask(1, "a", vouched)
		expect(t, d, Refuse, EndedKey, 0)
		if len(d.Events) != 1 || d.Events[0].Kind != Returned {
			t.Errorf("events %v", d.Events)
		}
		if d = s.ask(1, "a", vouched); d.Events != nil {
			t.Error("a returned key is noted once")
		}
	},
	"reboot drops an approval": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a")
		s.approve(t, "a")
		s.ask(1, "a")
		s.boot(2)
		s.now = s.now.Add(time.Minute)
		expect(t, s.ask(2, "b"), Pending, AwaitsApproval, Claimed)
	},
	"the same key after a reboot": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a")
		s.approve(t, "a")
		s.ask(1, "a")
		s.now = s.now.Add(time.Hour)
		s.boot(2)
		s.answers = true // by this very agent
		expect(t, s.ask(2, "a"), Accept, KnownKey, Approved)
		expect(t, s.ask(2, "a"), Same, KnownKey, Approved)
	},
	"clock in 2001": func(t *testing.T, s *site) {
		s.boot(1)
		d := s.ask(1, "a", vouched, func(p *Proven) { p.Time = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) })
		expect(t, d, Refuse, BadClock, 0)
		if r := d.Reply("n1", "", s.now); !r.Now.Equal(s.now) || r.RetryAfter == 0 {
			t.Errorf("reply %+v tells no time", r)
		}
		expect(t, s.ask(1, "a", vouched), Accept, VoucherProved, Vouched)
	},
	"clock ahead": func(t *testing.T, s *site) {
		s.boot(1)
		expect(t, s.ask(1, "a", vouched, func(p *Proven) { p.Time = s.now.Add(MaxSkew + 1) }), Refuse, BadClock, 0)
		expect(t, s.ask(1, "a", vouched, func(p *Proven) { p.Time = s.now.Add(MaxSkew) }), Accept, VoucherProved, Vouched)
	},
	"other MAC": func(t *testing.T, s *site) {
		s.boot(1)
		expect(t, s.ask(1, "a", func(p *Proven) { p.MAC = "52:54:00:00:00:02" }), Refuse, OtherMAC, 0)
	},
	"other incarnation within one boot": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		expect(t, s.ask(1, "a", vouched, func(p *Proven) { p.Incarnation = "other" }), Refuse, OtherRoot, 0)
	},
	"release keeps the named key": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "b") // the thief was first
		s.ask(1, "a")
		events, err := Release(s.m, Word{Fingerprint: fp("a"), By: "ada", At: s.now})
		if err != nil {
			t.Fatal(err)
		}
		s.fold(events...)
		expect(t, s.ask(1, "a"), Same, KnownKey, Approved)
		expect(t, s.ask(1, "b"), Refuse, EndedKey, 0)
	},
	"release of all": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "b")
		s.ask(1, "a")
		events, err := Release(s.m, Word{By: "ada", At: s.now})
		if err != nil {
			t.Fatal(err)
		}
		s.fold(events...)
		expect(t, s.ask(1, "a"), Refuse, EndedKey, 0)
		s.boot(2)
		expect(t, s.ask(2, "c"), Pending, AwaitsApproval, Claimed)
	},
	"end": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a", vouched)
		s.fold(End(s.m, "ada", s.now)...)
		expect(t, s.ask(1, "a", vouched), Refuse, EndedKey, 0)
		if End(s.m, "ada", s.now) != nil || s.m.Level() != 0 {
			t.Error("ended twice")
		}
	},
	"approvals name a waiting key": func(t *testing.T, s *site) {
		s.boot(1)
		s.ask(1, "a")
		for _, typed := range []string{fp("b"), "", "AAAA"} {
			if _, err := Approve(s.m, Word{Fingerprint: typed}); err == nil {
				t.Errorf("approved %q", typed)
			}
		}
		s.boot(2)
		s.now = s.now.Add(time.Second)
		s.ask(2, "b", func(p *Proven) { p.Fingerprint = fp("a") })
		if _, err := Approve(s.m, Word{Fingerprint: fp("a")}); err == nil || !strings.Contains(err.Error(), "two keys") {
			t.Errorf("approved one of two keys with one fingerprint: %v", err)
		}
	},
	"old keys are forgotten": func(t *testing.T, s *site) {
		for n := range byte(50) {
			s.boot(n + 1)
			s.ask(n+1, fmt.Sprint("k", n), vouched)
			s.now = s.now.Add(6 * time.Hour)
		}
		if len(s.m.Boots) > 6 || len(s.m.Keys) > 6 {
			t.Errorf("%d boot ids and %d keys are kept", len(s.m.Boots), len(s.m.Keys))
		}
	},
}

func TestDecide(t *testing.T) {
	for name, play := range plays {
		t.Run(name, func(t *testing.T) { play(t, newSite()) })
	}
}

// TestNeverTwoKeys: whatever is asked, in whatever order, a boot id has one key as long as no person says otherwise,
// at most one key is current, a current key that answers is never displaced by asking, and nothing below approved is
// ever current.
func TestNeverTwoKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSite()
		owner := map[BootID]KeyID{}
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			before := s.m
			s.answers = rapid.Bool().Draw(t, "answers")
			person := false
			var d Decision
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				s.boot(byte(rapid.IntRange(1, 3).Draw(t, "new")) + byte(len(s.journal))) // boot ids are drawn anew
			case 1:
				s.now = s.now.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "seconds")) * time.Second)
			case 2:
				person = true
				word := Word{Fingerprint: fp(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "approved")), At: s.now}
				if events, err := Approve(s.m, word); err == nil {
					s.fold(events...)
				} else if events, err := Release(s.m, word); err == nil {
					s.fold(events...)
					owner = map[BootID]KeyID{}
				}
			default:
				boot := BootID{99}
				if len(s.m.Boots) > 0 {
					boot = rapid.SampledFrom(bootsOf(s.m)).Draw(t, "boot")
				}
				key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
				vouch := rapid.Bool().Draw(t, "vouch")
				d = s.ask(boot[0], key, func(p *Proven) { p.Vouched = vouch })
				if again := Decide(View{Machine: before, Answers: s.answers}, Proven{
					Boot: boot, Key: KeyID(key), Fingerprint: fp(key), Incarnation: fmt.Sprint("i", boot[0]), Time: s.now, Vouched: vouch,
				}, s.now); fmt.Sprint(again) != fmt.Sprint(d) {
					t.Fatalf("decided %v, then %v", d, again)
				}
			}
			current := 0
			for id, key := range s.m.Keys {
				if key.State == StateCurrent {
					current++
					if id != s.m.Current || key.Level < Approved || s.m.Quarantine != "" || s.m.Boots[key.Boot].Key != id {
						t.Fatalf("key %s is current in %+v", id, s.m)
					}
				}
			}
			if current > 1 || (current == 0) != (s.m.Current == "") {
				t.Fatalf("%d current keys in %+v", current, s.m)
			}
			for id, boot := range s.m.Boots {
				if was := owner[id]; was != "" && boot.Key != was {
					t.Fatalf("boot id %s went from key %s to %s", id, was, boot.Key)
				}
				if boot.Key != "" {
					owner[id] = boot.Key
				}
			}
			if !person && before.Current != "" && s.answers && s.m.Current != before.Current && s.m.Current != "" {
				t.Fatalf("key %s displaced %s, which answers", s.m.Current, before.Current)
			}
			if d.Outcome == Refuse && s.m.Current != before.Current {
				t.Fatalf("a refusal changed the current key")
			}
		}
		replay := Machine{Name: "n1"}
		for _, e := range s.journal {
			replay = Fold(replay, e)
		}
		if fmt.Sprint(replay) != fmt.Sprint(s.m) {
			t.Fatalf("replayed to %+v, was %+v", replay, s.m)
		}
	})
}

func bootsOf(m Machine) []BootID {
	var ids []BootID
	for n := range 256 {
		if _, ok := m.Boots[BootID{byte(n)}]; ok {
			ids = append(ids, BootID{byte(n)})
		}
	}
	return ids
}
