// Package phase turns the marks that a booting machine leaves into one sentence for people: how far it came, how long
// ago, and what is missing. It is pure.
package phase

import (
	"fmt"
	"slices"
	"time"
)

// Phase is a point on the way from power to a working agent, in order.
type Phase uint8

// The phases, each a thing that was seen to have happened.
const (
	Power   Phase = iota // the provider switched the machine on
	Offer                // DHCP answered it
	Loader               // the first loader was sent by TFTP
	Script               // iPXE was sent its script
	Kernel               // the kernel was sent to its last byte
	Initrd               // so was the scout initramfs
	Enrol                // scout asked to be enrolled
	Trusted              // its level of trust suffices
	Image                // the node image was sent to its last byte
	Agent                // the agent on the node is connected
	count
)

// traits says how each phase reads, what comes next, how long that may take, and what to look at if it does not come.
type trait struct {
	done, missing string
	patience      time.Duration
	advice        string
}

func traits() [count]trait {
	return [count]trait{
		Power:   {"powered on", "firmware silent", 2 * time.Minute, "does it boot from the network first, and is its cable in this network?"},
		Offer:   {"address offered", "no loader or script asked for", time.Minute, "a second DHCP server, or UDP port 69 closed?"},
		Loader:  {"loader fetched", "iPXE silent", time.Minute, "iPXE may not drive this network card; try another card"},
		Script:  {"script sent", "kernel not fetched", time.Minute, "can the machine reach the engine's HTTP port?"},
		Kernel:  {"kernel fetched", "scout silent", 2 * time.Minute, "look at its console: no driver or firmware for its network card, or too little memory?"},
		Initrd:  {"kernel and scout fetched", "scout silent", 2 * time.Minute, "look at its console: no driver or firmware for its network card, or too little memory?"},
		Enrol:   {"enrolment requested", "not trusted yet", 2 * time.Minute, "compare its fingerprint and approve it with joist node approve"},
		Trusted: {"trusted", "node image not fetched", 5 * time.Minute, "is it assigned to a cluster? look at its console"},
		Image:   {"node image fetched", "agent silent", 3 * time.Minute, "look at its console: the hand-over to systemd failed, or the image is larger than memory?"},
		Agent:   {"agent connected", "", 0, ""},
	}
}

// Mark says when a phase was seen.
type Mark struct {
	Phase Phase
	At    time.Time
}

// Report is what status shows of one machine's boot.
type Report struct {
	Sentence string // such as "kernel fetched 3 min ago, scout silent"
	Advice   string // what to look at; empty unless Stuck
	Stuck    bool   // the next phase is overdue
	Boots    int    // how often the machine started over within the marks, the current boot included; 0 if nothing was seen
}

// Describe says how far a machine came. The marks may be in any order and of several boots; the last boot counts. A
// machine that started over three times or more without an agent is stuck, however fresh its last mark is.
func Describe(marks []Mark, now time.Time) Report {
	boot, boots := lastBoot(marks)
	if len(boot) == 0 {
		return Report{Sentence: "nothing seen yet"}
	}
	last := furthest(boot)
	if last.Phase >= count {
		return Report{Sentence: fmt.Sprintf("in a phase this version does not know (%d)", last.Phase), Boots: boots}
	}
	tr := traits()[last.Phase]
	age := now.Sub(last.At)
	r := Report{Sentence: tr.done + " " + Ago(age), Boots: boots}
	if last.Phase == Agent {
		return r
	}
	if age >= tr.patience {
		r.Sentence += ", " + tr.missing
		r.Stuck, r.Advice = true, tr.advice
	}
	if boots >= 3 {
		r.Sentence += fmt.Sprintf("; started over %d times", boots-1)
		if !r.Stuck {
			r.Stuck, r.Advice = true, "it boots in a circle: look at its console and its boot order"
		}
	}
	return r
}

// Bounds of how long nothing may be seen of a machine that was switched on before it is held for lost.
const (
	lostAfter  = 5 * time.Minute
	lostAtMost = time.Hour
)

// Lost reports whether nothing comes any more of a machine that was switched on: no agent was connected since, it does not
// wait for a person's word, and nothing further was seen of it for five minutes, twice as long with each time that it was switched
// on since, an hour at most: firmware that takes its time is not to be cut off for ever. Such a machine runs nothing of a cluster.
// Of the time before since nobody knows what would have been seen.
func Lost(marks []Mark, since, now time.Time) bool {
	on, patience := false, lostAfter
	var last Mark
	for _, m := range byTime(marks) {
		switch {
		case m.Phase == Agent:
			on, patience = false, lostAfter
		case m.Phase == Power && on:
			patience = min(2*patience, lostAtMost)
		case m.Phase == Power:
			on = true
		}
		last = m
	}
	if last.At.After(since) {
		since = last.At
	}
	return on && last.Phase != Enrol && now.Sub(since) >= patience
}

func byTime(marks []Mark) []Mark {
	sorted := slices.Clone(marks)
	slices.SortStableFunc(sorted, func(a, b Mark) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return int(a.Phase) - int(b.Phase)
	})
	return sorted
}

// lastBoot returns the marks of the last boot and how many boots there were since the agent was last connected. A boot
// begins with power, or with a phase before the kernel when the boot before had come to its script or further.
func lastBoot(marks []Mark) ([]Mark, int) {
	sorted := byTime(marks)
	start, boots := 0, 0
	top := count // nothing before the first mark: any phase begins a boot
	for i, m := range sorted {
		if m.Phase == Power && (i == start || sorted[i-1].Phase == Power) && boots > 0 {
			continue // switched on twice before anything was seen
		}
		if m.Phase == Power || (m.Phase <= Script && top >= Script && top > m.Phase) || top == count {
			if top == Agent {
				boots = 0
			}
			start, boots, top = i, boots+1, m.Phase
			continue
		}
		top = max(top, m.Phase)
	}
	return sorted[start:], boots
}

// furthest returns the first sight of the furthest phase: firmware that asks again every few seconds is no further.
func furthest(marks []Mark) Mark {
	best := marks[0]
	for _, m := range marks {
		if m.Phase > best.Phase {
			best = m
		}
	}
	return best
}

// Ago says how long ago something was, as people say it; a clock that ran backwards counts as now.
func Ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	}
}
