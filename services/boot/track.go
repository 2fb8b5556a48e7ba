package boot

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"joist/services/boot/decide"
	"joist/services/boot/phase"
)

// Traffic counts what a machine was sent over HTTP.
type Traffic struct {
	Bytes    uint64 // of artifacts, handed to the network
	Requests uint64 // for artifacts
	Scripts  uint64 // boot scripts of any kind
}

const (
	maxTracked = 16384 // machines and addresses that are remembered; the one unseen for longest makes room
	maxMarks   = 64    // for each machine
	quiet      = 10 * time.Minute
	// A machine may ask for ten scripts at once and then for one every three seconds: each may cost a journal entry.
	scriptBurst = 10
	scriptEvery = 3 * time.Second
	// Whoever is on the segment can make up machines by the thousand, and each notice is an event of the site's journal and
	// pushes another one out of what people are shown: over all machines there are twenty at once, and then one a minute.
	noticeBurst = 20
	noticeEvery = time.Minute
)

// tracker remembers what each machine did lately, within bounds. What it knows helps people, and says of a machine that was switched
// on whether it is worth waiting for; it decides nothing else.
type tracker struct {
	observer Observer

	mu       sync.Mutex
	machines map[decide.MAC]*tracked
	peers    map[netip.Addr]*peer
	told     time.Time     // when the allowance of notices was last reckoned; zero for never
	budget   time.Duration // of notices, in time: one costs noticeEvery
	unsaid   int           // notices that it did not allow
}

type tracked struct {
	marks    []phase.Mark
	traffic  Traffic
	seen     time.Time
	held     string // what the last script said, if it was not to start scout
	heldAt   time.Time
	notice   string
	noticeAt time.Time
}

// peer is an address that talked to us.
type peer struct {
	mac    decide.MAC
	seen   time.Time
	budget time.Duration // script allowance, in time: one script costs scriptEvery
}

func newTracker(o Observer) *tracker {
	return &tracker{observer: o, machines: map[decide.MAC]*tracked{}, peers: map[netip.Addr]*peer{}}
}

// machine returns the machine's entry, made if need be. The caller holds the lock.
func (t *tracker) machine(mac decide.MAC, now time.Time) *tracked {
	m := t.machines[mac]
	if m == nil {
		if len(t.machines) >= maxTracked {
			delete(t.machines, oldest(t.machines, func(m *tracked) time.Time { return m.seen }))
		}
		m = &tracked{}
		t.machines[mac] = m
	}
	m.seen = now
	return m
}

// peer returns the address's entry, made if need be. The caller holds the lock.
func (t *tracker) peer(addr netip.Addr, now time.Time) *peer {
	p := t.peers[addr]
	if p == nil {
		if len(t.peers) >= maxTracked {
			delete(t.peers, oldest(t.peers, func(p *peer) time.Time { return p.seen }))
		}
		p = &peer{budget: scriptBurst * scriptEvery, seen: now}
		t.peers[addr] = p
	}
	p.budget = min(scriptBurst*scriptEvery, p.budget+max(0, now.Sub(p.seen)))
	p.seen = now
	return p
}

func oldest[K comparable, V any](m map[K]V, seen func(V) time.Time) K {
	var key K
	var at time.Time
	for k, v := range m {
		if s := seen(v); at.IsZero() || s.Before(at) {
			key, at = k, s
		}
	}
	return key
}

// at notes that the machine has the address.
func (t *tracker) at(addr netip.Addr, mac decide.MAC, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peer(addr, now).mac = mac
}

// who returns the machine that has the address.
func (t *tracker) who(addr netip.Addr) (decide.MAC, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[addr]
	if p == nil || p.mac == "" {
		return "", false
	}
	return p.mac, true
}

// mayAsk takes one script from the address's allowance.
func (t *tracker) mayAsk(addr netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peer(addr, now)
	if p.budget < scriptEvery {
		return false
	}
	p.budget -= scriptEvery
	return true
}

// reached records a mark and tells the observer. A phase that is seen again right after itself is no news, unless it
// begins a boot.
func (t *tracker) reached(mac decide.MAC, m phase.Mark) {
	t.mu.Lock()
	e := t.machine(mac, m.At)
	again := len(e.marks) > 0 && e.marks[len(e.marks)-1].Phase == m.Phase && m.Phase != phase.Power && m.Phase != phase.Script
	if !again {
		if len(e.marks) == maxMarks {
			e.marks = e.marks[1:]
		}
		e.marks, e.held = append(e.marks, m), ""
	}
	t.mu.Unlock()
	if !again && t.observer != nil {
		t.observer.Reached(mac, m)
	}
}

// hold records that a machine was told something else than to start scout. It stands until the next mark.
func (t *tracker) hold(mac decide.MAC, why string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.machine(mac, now)
	e.held, e.heldAt = why, now
}

// holding returns what hold recorded, if it still stands.
func (t *tracker) holding(mac decide.MAC) (why string, at time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.machines[mac]
	if e == nil || e.held == "" {
		return "", time.Time{}, false
	}
	return e.held, e.heldAt, true
}

func (t *tracker) notice(mac decide.MAC, text string, now time.Time) {
	t.mu.Lock()
	e := t.machine(mac, now)
	again := e.notice == text && now.Sub(e.noticeAt) < quiet
	if !again {
		e.notice, e.noticeAt = text, now
	}
	may, unsaid := false, 0
	if !again {
		may, unsaid = t.mayTell(now)
	}
	t.mu.Unlock()
	if !may || t.observer == nil {
		return
	}
	if unsaid > 0 {
		text += fmt.Sprintf(" (before it, %d notices about machines were left out: there were too many; does somebody forge requests?)", unsaid)
	}
	t.observer.Notice(mac, text)
}

// mayTell takes one notice from the allowance, or counts one that is not said. It gives how many were not said before. The
// caller holds the lock.
func (t *tracker) mayTell(now time.Time) (may bool, unsaid int) {
	if t.told.IsZero() {
		t.budget = noticeBurst * noticeEvery
	} else {
		t.budget = min(noticeBurst*noticeEvery, t.budget+max(0, now.Sub(t.told)))
	}
	t.told = now
	if t.budget < noticeEvery {
		t.unsaid++
		return false, 0
	}
	t.budget -= noticeEvery
	unsaid, t.unsaid = t.unsaid, 0
	return true, unsaid
}

func (t *tracker) count(mac decide.MAC, add Traffic, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.machine(mac, now)
	e.traffic.Bytes += add.Bytes
	e.traffic.Requests += add.Requests
	e.traffic.Scripts += add.Scripts
}

func (t *tracker) marks(mac decide.MAC) []phase.Mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.machines[mac]; e != nil {
		return slices.Clone(e.marks)
	}
	return nil
}

func (t *tracker) traffic(mac decide.MAC) Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.machines[mac]; e != nil {
		return e.traffic
	}
	return Traffic{}
}
