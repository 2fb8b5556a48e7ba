package enrol

import (
	"maps"
	"time"
)

// Kind is what an Event states.
type Kind string

// The kinds of events.
const (
	BootIssued  Kind = "boot-issued"  // a boot script with this boot id was given to a MAC
	Asked       Kind = "asked"        // a key used the boot id for the first time, and waits
	Approval    Kind = "approval"     // a person confirmed the key
	Accepted    Kind = "accepted"     // the key is the machine's current one; Other, if any, ended
	Quarantined Kind = "quarantined"  // Key and Other both claim the machine; neither is served
	Released    Kind = "released"     // a person ended the quarantine; Key, if any, is current, all others ended
	Ended       Kind = "ended"        // a person ended the current key
	Returned    Kind = "returned"     // an ended key asked again (noted once)
	BootOrdered Kind = "boot-ordered" // the engine has the machine boot anew, whose current key is Key
)

// Event is one fact of enrolment, for the site's journal.
type Event struct {
	Kind        Kind      `json:"kind"`
	Machine     string    `json:"machine"`
	Boot        BootID    `json:"boot,omitzero"`
	Key         KeyID     `json:"key,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"` // of Key
	Other       KeyID     `json:"other,omitempty"`
	Level       Level     `json:"level,omitempty"`
	Incarnation string    `json:"incarnation,omitempty"`
	MAC         string    `json:"mac,omitempty"`     // of boot-issued, and of Key's boot in boot-ordered
	Address     string    `json:"address,omitempty"` // likewise
	Reason      Reason    `json:"reason,omitempty"`
	By          string    `json:"by,omitempty"`      // the person, of approval, released and ended; the way, of boot-ordered
	Request     string    `json:"request,omitempty"` // of boot-ordered: what names the order if it may be given again
	At          time.Time `json:"at"`
}

// Boot is a boot id that was given out.
type Boot struct {
	MAC     string    `json:"mac,omitempty"`
	Address string    `json:"address,omitempty"`
	Issued  time.Time `json:"issued"`
	Key     KeyID     `json:"key,omitempty"` // the one key that used it
}

// Expired says whether the boot id no longer accepts a key that it has not seen.
func (b Boot) Expired(now time.Time) bool { return now.Sub(b.Issued) >= BootValidity }

// State is what became of a key.
type State string

// The states of a key.
const (
	StatePending     State = "pending"
	StateCurrent     State = "current"
	StateQuarantined State = "quarantined"
	StateEnded       State = "ended"
)

// Key is a key that asked for a machine.
type Key struct {
	Fingerprint string    `json:"fingerprint"`
	Boot        BootID    `json:"boot"` // the latest it used
	Level       Level     `json:"level"`
	Incarnation string    `json:"incarnation"`
	State       State     `json:"state"`
	Since       time.Time `json:"since"` // when it first used Boot
	Returned    bool      `json:"returned,omitempty"`
}

func (k Key) live() bool { return k.State == StatePending || k.State == StateCurrent }

// Machine is what the site knows of one machine's enrolment: the fold of its events. The zero value with a name is a
// machine that was never seen.
type Machine struct {
	Name       string          `json:"name"`
	Boots      map[BootID]Boot `json:"boots,omitempty"`
	Keys       map[KeyID]Key   `json:"keys,omitempty"`
	Current    KeyID           `json:"current,omitempty"` // the current-key row: a connection by any other key is refused
	Quarantine Reason          `json:"quarantine,omitempty"`
	TrustBoot  bool            `json:"trust_boot,omitempty"` // its cluster trusts the boot network: a boot that the engine ordered may keep the approval
	Ordered    Ordered         `json:"ordered,omitzero"`     // the boot that the engine ordered last, until a key is accepted
}

// Ordered is a boot that the engine ordered.
type Ordered struct {
	At      time.Time `json:"at"`
	Key     KeyID     `json:"key"`               // that was current
	MAC     string    `json:"mac,omitempty"`     // of that key's boot
	Address string    `json:"address,omitempty"` // likewise
	Request string    `json:"request,omitempty"` // what names the order if it may be given again
}

// Level gives the trust that the machine has now: that of its current key, Claimed with only waiting keys, and none
// in quarantine or without any key.
func (m Machine) Level() Level {
	if m.Quarantine != "" {
		return 0
	}
	if key, ok := m.Keys[m.Current]; ok {
		return key.Level
	}
	for _, key := range m.Keys {
		if key.live() {
			return Claimed
		}
	}
	return 0
}

// keptEnded is how long an ended or forgotten key stays known: the life of an agent's certificate.
const keptEnded = 24 * time.Hour

// Fold gives the machine after an event. It shares nothing with m.
func Fold(m Machine, e Event) Machine {
	m.Boots, m.Keys = maps.Clone(m.Boots), maps.Clone(m.Keys)
	if m.Boots == nil {
		m.Boots = map[BootID]Boot{}
	}
	if m.Keys == nil {
		m.Keys = map[KeyID]Key{}
	}
	switch e.Kind {
	case BootIssued:
		m.prune(e.At)
		if _, known := m.Boots[e.Boot]; known {
			break // an id is given out once; it keeps its first use
		}
		m.Boots[e.Boot] = Boot{MAC: e.MAC, Address: e.Address, Issued: e.At}
	case Asked:
		m.use(e, StatePending)
	case Approval:
		if key, ok := m.Keys[e.Key]; ok {
			key.Level = max(key.Level, Approved)
			m.Keys[e.Key] = key
		}
	case Accepted:
		m.end(e.Key)
		m.use(e, StateCurrent)
		m.Current, m.Ordered = e.Key, Ordered{}
	case BootOrdered:
		m.Ordered = Ordered{At: e.At, Key: e.Key, MAC: e.MAC, Address: e.Address, Request: e.Request}
	case Quarantined:
		m.quarantine(e)
	case Released:
		m.end(e.Key)
		m.Quarantine, m.Current = "", e.Key
		if key, ok := m.Keys[e.Key]; ok {
			key.State, key.Level = StateCurrent, max(key.Level, Approved)
			m.Keys[e.Key] = key
			m.bind(key.Boot, e.Key)
		}
	case Ended:
		m.end("")
		m.Current, m.Ordered = "", Ordered{}
	case Returned:
		if key, ok := m.Keys[e.Key]; ok {
			key.Returned = true
			m.Keys[e.Key] = key
		}
	}
	return m
}

// use records that the key of the event uses its boot id.
func (m *Machine) use(e Event, state State) {
	key, known := m.Keys[e.Key]
	if !known || key.Boot != e.Boot {
		key.Since = e.At
	}
	key.Fingerprint, key.Boot, key.Incarnation, key.State = e.Fingerprint, e.Boot, e.Incarnation, state
	key.Level = max(key.Level, e.Level)
	m.Keys[e.Key] = key
	m.bind(e.Boot, e.Key)
}

func (m *Machine) bind(id BootID, key KeyID) {
	boot := m.Boots[id]
	boot.Key = key
	m.Boots[id] = boot
}

// end ends every key but one.
func (m *Machine) end(but KeyID) {
	for id, key := range m.Keys {
		if id != but {
			key.State = StateEnded
			m.Keys[id] = key
		}
	}
}

// quarantine takes every live key out of service and remembers the new one beside them; the boot id stays with the key
// that used it first.
func (m *Machine) quarantine(e Event) {
	for id, key := range m.Keys {
		if key.live() {
			key.State = StateQuarantined
			m.Keys[id] = key
		}
	}
	if _, known := m.Keys[e.Key]; !known {
		m.Keys[e.Key] = Key{
			Fingerprint: e.Fingerprint, Boot: e.Boot, Level: e.Level, Incarnation: e.Incarnation, State: StateQuarantined, Since: e.At,
		}
	}
	if m.Boots[e.Boot].Key == "" {
		m.bind(e.Boot, e.Key)
	}
	m.Quarantine, m.Current, m.Ordered = e.Reason, "", Ordered{}
}

// prune forgets boot ids that can no longer be used, and keys that ended, or waited in vain, long ago.
func (m *Machine) prune(now time.Time) {
	for id, key := range m.Keys {
		if (key.State == StateEnded || key.State == StatePending) && now.Sub(key.Since) >= keptEnded {
			delete(m.Keys, id)
		}
	}
	for id, boot := range m.Boots {
		if _, used := m.Keys[boot.Key]; !used && boot.Expired(now) {
			delete(m.Boots, id)
		}
	}
}
