package enrol

import (
	"testing"
	"time"
)

// card is the network card of the machine, as a request names it.
func card(p *Proven) { p.MAC = "52:54:00:00:00:01" }

func (s *site) bootAt(n byte, mac, address string) {
	s.fold(Event{Kind: BootIssued, Machine: "n1", Boot: BootID{n}, MAC: mac, Address: address, At: s.now})
}

// TestOrderedBoot: only the one claim of a boot that the engine ordered of an approved machine, from the same card and address and within
// its window, keeps the approval, and only where the cluster trusts the boot network. Anything else asks a person again.
func TestOrderedBoot(t *testing.T) {
	const mac, address = "52:54:00:00:00:01", "10.0.0.7"
	tests := map[string]struct {
		before func(s *site) // the order
		after  func(s *site) // the order, and before the request
		want   Reason
	}{
		"ordered":                {nil, nil, OrderedBoot},
		"the last moment":        {nil, func(s *site) { s.now = s.now.Add(OrderValidity - 2*time.Second - 1) }, OrderedBoot},
		"too late":               {nil, func(s *site) { s.now = s.now.Add(OrderValidity) }, AwaitsApproval},
		"nobody trusts that":     {func(s *site) { s.m.TrustBoot = false }, nil, AwaitsApproval},
		"not trusted any more":   {nil, func(s *site) { s.m.TrustBoot = false }, AwaitsApproval},
		"nobody ordered it":      {nil, func(s *site) { s.m.Ordered = Ordered{} }, AwaitsApproval},
		"another card":           {nil, func(s *site) { s.m.Ordered.MAC = "52:54:00:00:00:02" }, AwaitsApproval},
		"another address":        {nil, func(s *site) { s.m.Ordered.Address = "10.0.0.8" }, AwaitsApproval},
		"no address":             {nil, func(s *site) { s.m.Ordered.Address = "" }, AwaitsApproval},
		"a second boot script":   {nil, func(s *site) { s.bootAt(3, mac, address) }, AwaitsApproval},
		"another key asks":       {nil, func(s *site) { s.bootAt(3, mac, address); s.ask(3, "c", card) }, AwaitsApproval},
		"one waited before":      {func(s *site) { s.bootAt(4, mac, address); s.ask(4, "c", card) }, nil, AwaitsApproval},
		"a person ended the key": {nil, func(s *site) { s.fold(End(s.m, "ada", s.now)...) }, AwaitsApproval},
		"it was only claimed": {func(s *site) {
			key := s.m.Keys["a"]
			key.Level = Claimed
			s.m.Keys["a"] = key
		}, nil, AwaitsApproval},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSite()
			s.m.TrustBoot = true
			s.bootAt(1, mac, address)
			s.ask(1, "a", card)
			s.approve(t, "a")
			s.ask(1, "a", card)
			s.now = s.now.Add(time.Hour)
			if test.before != nil {
				test.before(s)
			}
			s.fold(Order(s.m, Wanted{Why: "power cycle", At: s.now})...)
			s.now = s.now.Add(time.Second)
			s.bootAt(2, mac, address)
			s.now = s.now.Add(time.Second)
			if test.after != nil {
				test.after(s)
			}
			d := s.ask(2, "b", card)
			if test.want == OrderedBoot {
				expect(t, d, Accept, OrderedBoot, Approved)
				if e := d.Events[0]; e.Reason != OrderedBoot || e.Other != "a" || s.m.Current != "b" || s.m.Keys["a"].State != StateEnded || s.m.Ordered != (Ordered{}) {
					t.Errorf("event %+v, machine %+v", e, s.m)
				}
				expect(t, s.ask(2, "b", card), Same, KnownKey, Approved)
			} else {
				expect(t, d, Pending, test.want, Claimed)
			}
		})
	}
}

// orderedSite is a site whose machine was approved, in a cluster that trusts the boot network, and has just been ordered to boot.
func orderedSite(t *testing.T, what string) *site {
	t.Helper()
	s := newSite()
	s.m.TrustBoot = true
	s.bootAt(1, "52:54:00:00:00:01", "10.0.0.7")
	s.ask(1, "a", card)
	s.approve(t, "a")
	s.ask(1, "a", card)
	s.fold(Order(s.m, Wanted{Why: what, At: s.now})...)
	s.now = s.now.Add(time.Second)
	return s
}

// TestOrderIsUsedOnce: a boot that follows the ordered one by itself asks a person.
func TestOrderIsUsedOnce(t *testing.T) {
	s := orderedSite(t, "power on")
	s.bootAt(2, "52:54:00:00:00:01", "10.0.0.7")
	expect(t, s.ask(2, "b", card), Accept, OrderedBoot, Approved)
	s.now = s.now.Add(time.Second)
	s.bootAt(3, "52:54:00:00:00:01", "10.0.0.7")
	expect(t, s.ask(3, "c", card), Pending, AwaitsApproval, Claimed)
}

// TestOwnerOfAnOrderedBootAnswers: a request while the machine's agent still answers is no boot that was ordered.
func TestOwnerOfAnOrderedBootAnswers(t *testing.T) {
	s := orderedSite(t, "power cycle")
	s.bootAt(2, "52:54:00:00:00:01", "10.0.0.7")
	s.answers = true
	expect(t, s.ask(2, "b", card), Quarantine, OwnerAnswers, 0)
}

// TestOrderIsRepeated: an engine that was started anew asks again for the reboot it had asked for, while the machine boots already. That
// boot is still the one that was ordered. Another order is one for another boot, and so is one whose time is over.
func TestOrderIsRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		again Wanted
		after time.Duration // the boot id was given out
		want  Reason
	}{
		"the same":                {Wanted{Request: "demo/t[n1]#12"}, 0, OrderedBoot},
		"another attempt":         {Wanted{Request: "demo/t[n1]#15"}, 0, AwaitsApproval},
		"a person's":              {Wanted{Why: "power cycle"}, 0, AwaitsApproval},
		"the same, in vain":       {Wanted{Request: "demo/t[n1]#12"}, OrderValidity, AwaitsApproval},
		"the same, not prolonged": {Wanted{Request: "demo/t[n1]#12"}, OrderValidity - 4*time.Second, AwaitsApproval},
	} {
		t.Run(name, func(t *testing.T) {
			s := orderedSite(t, "power on")
			s.fold(Order(s.m, Wanted{Why: "reboot", Request: "demo/t[n1]#12", At: s.now})...)
			s.now = s.now.Add(time.Second)
			s.fold(Order(s.m, Wanted{Why: "reboot", Request: "demo/t[n1]#12", At: s.now})...) // before anything booted: from now on
			if !s.m.Ordered.At.Equal(s.now) {
				t.Errorf("ordered at %s, want %s", s.m.Ordered.At, s.now)
			}
			s.now = s.now.Add(time.Second)
			s.bootAt(2, "52:54:00:00:00:01", "10.0.0.7")
			s.now = s.now.Add(c.after + time.Second)
			c.again.At = s.now
			s.fold(Order(s.m, c.again)...)
			s.now = s.now.Add(3 * time.Second)
			if d := s.ask(2, "b", card); d.Reason != c.want {
				t.Errorf("%s, want %s", d.Reason, c.want)
			}
		})
	}
}
