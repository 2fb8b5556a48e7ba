package phase

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

// at makes marks, one for each phase given, ten seconds apart from the given second on.
func at(second int, phases ...Phase) []Mark {
	var out []Mark
	for i, p := range phases {
		out = append(out, Mark{p, start.Add(time.Duration(second+10*i) * time.Second)})
	}
	return out
}

func TestDescribe(t *testing.T) {
	cat := func(parts ...[]Mark) (all []Mark) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	loop := []Phase{Offer, Loader, Offer, Script, Kernel, Initrd}
	for _, tc := range []struct {
		name  string
		marks []Mark
		now   int // seconds
		want  string
		stuck bool
		boots int
	}{
		{"nothing", nil, 0, "nothing seen yet", false, 0},
		{"powered", at(0, Power), 30, "powered on 30 s ago", false, 1},
		{"firmware never asks", at(0, Power), 180, "powered on 3 min ago, firmware silent", true, 1},
		{"switched on twice", at(0, Power, Power), 190, "powered on 3 min ago, firmware silent", true, 1},
		{"no TFTP", at(0, Power, Offer), 130, "address offered 2 min ago, no loader or script asked for", true, 1},
		{"no TFTP, asks again and again", at(0, Power, Offer, Offer, Offer, Offer), 130, "address offered 2 min ago, no loader or script asked for", true, 1},
		{"iPXE dies", at(0, Power, Offer, Loader), 140, "loader fetched 2 min ago, iPXE silent", true, 1},
		{"iPXE asks DHCP again", at(0, Power, Offer, Loader, Offer), 40, "loader fetched 20 s ago", false, 1},
		{"no HTTP", at(0, Power, Offer, Loader, Offer, Script), 220, "script sent 3 min ago, kernel not fetched", true, 1},
		{"scout silent, initrd not seen", at(0, Script, Kernel), 190, "kernel fetched 3 min ago, scout silent", true, 1},
		{"scout silent", at(0, Power, Offer, Loader, Offer, Script, Kernel, Initrd), 240, "kernel and scout fetched 3 min ago, scout silent", true, 1},
		{"scout on its way", at(0, Script, Kernel, Initrd), 60, "kernel and scout fetched 40 s ago", false, 1},
		{"waits for approval", at(0, Script, Kernel, Initrd, Enrol), 30 + 7200, "enrolment requested 2 h ago, not trusted yet", true, 1},
		{"image never fetched", at(0, Enrol, Trusted), 320, "trusted 5 min ago, node image not fetched", true, 1},
		{"hand-over failed", at(0, Trusted, Image), 250, "node image fetched 4 min ago, agent silent", true, 1},
		{"works", at(0, Script, Kernel, Initrd, Enrol, Trusted, Image, Agent), 3600 * 72, "agent connected 2 days ago", false, 1},
		{"second boot counts", cat(at(0, Script, Kernel, Initrd, Enrol), at(300, Power)), 310, "powered on 10 s ago", false, 2},
		{"boots in a circle", cat(at(0, loop...), at(100, loop...), at(200, loop...)), 255, "kernel and scout fetched 5 s ago; started over 2 times", true, 3},
		{"a boot after a good one is no circle", cat(at(0, Script, Agent), at(100, Script, Agent), at(200, Script)), 205, "script sent 5 s ago", false, 1},
		{"script sent again in the same boot", at(0, Script, Kernel, Script), 25, "script sent 5 s ago", false, 2},
		{"clock ran back", at(100, Power), 0, "powered on just now", false, 1},
		{"newer version's phase", at(0, Script, 77), 0, "in a phase this version does not know (77)", false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Describe(tc.marks, start.Add(time.Duration(tc.now)*time.Second))
			if got.Sentence != tc.want || got.Stuck != tc.stuck || got.Boots != tc.boots || got.Stuck != (got.Advice != "") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestLost(t *testing.T) {
	after := func(parts ...[]Mark) (all []Mark) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	good := at(0, Power, Script, Kernel, Initrd, Enrol, Trusted, Image, Agent)
	for _, tc := range []struct {
		name  string
		marks []Mark
		from  int // second from which on it is lost; 0 for never
	}{
		{"nothing seen", nil, 0},
		{"switched on, silent", at(0, Power), 300},
		{"the kernel hangs", at(0, Power, Offer, Script, Kernel), 330},
		{"not switched on by us", at(0, Offer, Script, Kernel), 0},
		{"an agent came and fell silent", good, 0},
		{"it starts over by itself", after(at(0, Power, Offer, Script), at(1000, Offer, Script)), 1310},
		{"it waits for a person's word", at(0, Power, Script, Enrol), 0},
		{"trusted, and then silent", at(0, Power, Script, Enrol, Trusted), 330},
		{"switched on a second time", after(at(0, Power, Offer), at(400, Power)), 1000},
		{"switched on a third time", after(at(0, Power, Offer), at(400, Power), at(1100, Power)), 2300},
		{"switched on for the tenth time", at(0, Power, Power, Power, Power, Power, Power, Power, Power, Power, Power), 90 + 3600},
		{"an agent came before", after(at(0, Power), at(400, Power), at(1100, Power, Agent), at(1200, Power)), 1500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, second := range []int{0, 299, tc.from - 1, tc.from, tc.from + 1, 100_000} {
				now := start.Add(time.Duration(second) * time.Second)
				if got, want := Lost(tc.marks, start, now), tc.from > 0 && second >= tc.from; got != want {
					t.Errorf("lost after %d s: %t", second, got)
				}
				if Lost(tc.marks, now.Add(-299*time.Second), now) {
					t.Errorf("lost after %d s, of which nobody listened but for 299", second)
				}
			}
		})
	}
}

func TestDescribeAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var marks []Mark
		for range rapid.IntRange(0, 20).Draw(t, "marks") {
			marks = append(marks, Mark{Phase(rapid.Uint8Range(0, 12).Draw(t, "phase")), start.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "at")) * time.Second)})
		}
		before := append([]Mark(nil), marks...)
		r := Describe(marks, start.Add(time.Duration(rapid.IntRange(-10, 1e6).Draw(t, "now"))*time.Second))
		if r.Sentence == "" || strings.Contains(r.Sentence, "-") || r.Stuck != (r.Advice != "") || (r.Boots == 0) != (len(marks) == 0) {
			t.Fatalf("%+v", r)
		}
		for i := range marks {
			if marks[i] != before[i] {
				t.Fatal("the marks were changed")
			}
		}
	})
}
