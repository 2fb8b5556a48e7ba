// Package site keeps the book of everything outside any one cluster: which machines there are, how they enrolled, what
// they say of themselves, and which cluster has claimed them. It is the fold of the site's journal, and the one writer
// of it.
package site

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/journal"
	"joist/pki/enrol"
)

// Machine is what the site knows of one machine.
type Machine struct {
	Name     string          `json:"name"`
	MACs     []string        `json:"macs,omitempty"` // lower case, with colons
	UUID     string          `json:"uuid,omitempty"` // SMBIOS, canonical
	Provider string          `json:"provider,omitempty"`
	Declared json.RawMessage `json:"declared,omitempty"` // facts that the provider declares, before the machine ever ran
	Reported json.RawMessage `json:"reported,omitempty"` // facts that the machine reported since it was trusted
	Cluster  string          `json:"cluster,omitempty"`  // that has claimed it
	Claimed  time.Time       `json:"claimed,omitzero"`
	Disk     bool            `json:"disk,omitempty"`    // the cluster keeps its data on disks
	Data     string          `json:"data,omitempty"`    // cluster whose data the machine's disks may hold, until they are wiped; Stranger if it is not known
	Wipe     *WipeOrdered    `json:"wipe,omitempty"`    // until it is proven
	Spent    string          `json:"spent,omitempty"`   // incarnation that ended with a wipe: the machine has to start anew before it is of use
	Switched time.Time       `json:"switched,omitzero"` // when the engine switched it on, until a key of that boot asks
	Enrol    enrol.Machine   `json:"enrol"`
}

// Stranger stands for the cluster of a data disk that the site knows nothing of.
const Stranger = "(unknown)"

// Facts gives what is known of the machine's hardware: what it reported, over what was declared.
func (m *Machine) Facts() json.RawMessage {
	if m.Reported == nil {
		return m.Declared
	}
	if m.Declared == nil {
		return m.Reported
	}
	var all, reported map[string]json.RawMessage
	if json.Unmarshal(m.Declared, &all) != nil || json.Unmarshal(m.Reported, &reported) != nil {
		return m.Reported
	}
	maps.Copy(all, reported)
	data, err := json.Marshal(all)
	if err != nil {
		return m.Reported
	}
	return data
}

// Unwiped says why a cluster may not have a free machine yet, because of what is on its disks; empty if it may.
func (m *Machine) Unwiped(cluster string) string {
	switch {
	case m.Wipe != nil:
		return "it is being wiped"
	case m.Data == Stranger:
		return "it has a data disk of an earlier node, which nobody here knows; wipe it first with joist node wipe " + m.Name
	case m.Data != "" && m.Data != cluster:
		return "its disks may hold data of cluster " + m.Data + "; wipe it first with joist node wipe " + m.Name
	}
	return ""
}

// Defined says that there is a machine, or what it is like now.
type Defined struct {
	Name     string          `json:"name"`
	MACs     []string        `json:"macs"`
	UUID     string          `json:"uuid,omitempty"`
	Provider string          `json:"provider,omitempty"` // empty for one that was discovered on the network
	Facts    json.RawMessage `json:"facts,omitempty"`
}

// Forgotten says that there is a machine no more.
type Forgotten struct {
	Name string `json:"name"`
}

// Enrolled is a fact of a machine's enrolment.
type Enrolled struct{ enrol.Event }

// Reported is what a machine says of itself.
type Reported struct {
	Name  string          `json:"name"`
	Facts json.RawMessage `json:"facts"`
}

// Switched says that the engine is about to switch a machine on that is off.
type Switched struct {
	Machine string    `json:"machine"`
	At      time.Time `json:"at"`
}

// Claimed gives machines to a cluster, all or none of them.
type Claimed struct {
	Cluster  string   `json:"cluster"`
	Machines []string `json:"machines"`
	Disk     bool     `json:"disk,omitempty"`       // the cluster keeps its data on their disks
	Trust    bool     `json:"trust_boot,omitempty"` // the cluster trusts the boot network
}

// Stored says that from now on a machine's disks may hold data of its cluster.
type Stored struct {
	Cluster string `json:"cluster"`
	Machine string `json:"machine"`
}

// WipeOrdered says that a machine's data disks are to be erased.
type WipeOrdered struct {
	Machine string    `json:"machine"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// Wiped proves that a machine's data disks are erased.
type Wiped struct {
	Machine     string `json:"machine"`
	Incarnation string `json:"incarnation"` // that ended with it
	Proof       string `json:"proof"`       // what was done and read back, for people
}

// Freed gives a machine back.
type Freed struct {
	Cluster string `json:"cluster"`
	Machine string `json:"machine"`
}

// Dropped says that a destroyed cluster is forgotten, with its journal.
type Dropped struct {
	Cluster string `json:"cluster"`
	By      string `json:"by"`
	Events  uint64 `json:"events"` // how many its journal had
}

// Noticed is something a person should know of: a refused enrolment, a node that lies.
type Noticed struct {
	Kind    string `json:"kind"`
	Machine string `json:"machine,omitempty"`
	Remote  string `json:"remote,omitempty"`
	Text    string `json:"text"`
}

// Issued records a certificate before it exists (machines.md, Enrolment 4).
type Issued struct {
	Serial   string    `json:"serial"`
	Profile  string    `json:"profile"`
	Subject  string    `json:"subject"`
	Names    []string  `json:"names,omitempty"`
	NotAfter time.Time `json:"not_after"`
}

// Event is a fact of the site's journal.
type Event interface{ kind() string }

func (Defined) kind() string     { return "machine.defined" }
func (Forgotten) kind() string   { return "machine.forgotten" }
func (Enrolled) kind() string    { return "enrolment" }
func (Reported) kind() string    { return "machine.facts" }
func (Switched) kind() string    { return "machine.switched" }
func (Claimed) kind() string     { return "claimed" }
func (Freed) kind() string       { return "freed" }
func (Stored) kind() string      { return "disk.used" }
func (WipeOrdered) kind() string { return "wipe.ordered" }
func (Wiped) kind() string       { return "wiped" }
func (Noticed) kind() string     { return "notice" }
func (Dropped) kind() string     { return "cluster.forgotten" }
func (Issued) kind() string      { return "certificate" }

const version = 1

func encode(e Event, now time.Time) (journal.Record, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return journal.Record{}, fmt.Errorf("cannot encode event %s: %w", e.kind(), err)
	}
	return journal.Record{Time: now.UTC(), Kind: e.kind(), Version: version, Data: data}, nil
}

func decode(r journal.Record) (Event, error) {
	if r.Version != version {
		return nil, fmt.Errorf("cannot read event %d (%s): its form is version %d, this program knows %d; use a newer joist", r.Seq, r.Kind, r.Version, version)
	}
	readers := map[string]func([]byte) (Event, error){
		"machine.defined": read[Defined], "machine.forgotten": read[Forgotten], "enrolment": read[Enrolled], "machine.facts": read[Reported],
		"machine.switched": read[Switched], "claimed": read[Claimed], "freed": read[Freed], "disk.used": read[Stored], "wipe.ordered": read[WipeOrdered], "wiped": read[Wiped], "notice": read[Noticed], "cluster.forgotten": read[Dropped], "certificate": read[Issued],
	}
	f, ok := readers[r.Kind]
	if !ok {
		return nil, fmt.Errorf("cannot read event %d: unknown kind %q; use a newer joist", r.Seq, r.Kind)
	}
	return f(r.Data)
}

func read[E Event](data []byte) (Event, error) {
	var e E
	err := json.Unmarshal(data, &e)
	return e, err
}

// State is the fold of the site's journal.
type State struct {
	machines map[string]*Machine
	boots    map[enrol.BootID]string // machine by boot id that may still be used
	macs     map[string]string       // machine by MAC address
	uuids    map[string]string       // machine by UUID
	dropped  map[string]int          // how often a cluster of that name was forgotten
}

func newState() *State {
	return &State{machines: map[string]*Machine{}, boots: map[enrol.BootID]string{}, macs: map[string]string{}, uuids: map[string]string{}, dropped: map[string]int{}}
}

// fold takes an event in. A machine is replaced, never changed, so that what was handed out stays as it was.
func (s *State) fold(now time.Time, e Event) {
	change := func(name string, f func(*Machine)) {
		m := Machine{Name: name, Enrol: enrol.Machine{Name: name}}
		if was, ok := s.machines[name]; ok {
			m = *was
		}
		f(&m)
		s.machines[name] = &m
	}
	switch e := e.(type) {
	case Defined:
		s.unlist(e.Name)
		change(e.Name, func(m *Machine) { m.MACs, m.UUID, m.Provider, m.Declared = e.MACs, e.UUID, e.Provider, e.Facts })
		for _, mac := range e.MACs {
			s.macs[mac] = e.Name
		}
		if e.UUID != "" {
			s.uuids[e.UUID] = e.Name
		}
	case Forgotten:
		s.unlist(e.Name)
		if m, ok := s.machines[e.Name]; ok {
			for id := range m.Enrol.Boots {
				delete(s.boots, id)
			}
		}
		delete(s.machines, e.Name)
	case Enrolled:
		s.foldEnrolled(e, change)
	case Reported:
		change(e.Name, func(m *Machine) {
			m.Reported = e.Facts
			if m.Data == "" && carriesData(e.Facts) {
				m.Data = cmp.Or(m.Cluster, Stranger)
			}
		})
	case Switched:
		change(e.Machine, func(m *Machine) { m.Switched = e.At })
	case Claimed:
		for _, name := range e.Machines {
			change(name, func(m *Machine) {
				if m.Cluster != e.Cluster || !e.Trust { // it was ordered for another one, or nobody trusts it any more
					m.Enrol.Ordered = enrol.Ordered{}
				}
				m.Cluster, m.Claimed, m.Disk, m.Enrol.TrustBoot = e.Cluster, now, e.Disk, e.Trust
			})
		}
	case Freed:
		if m, ok := s.machines[e.Machine]; ok && m.Cluster == e.Cluster {
			change(e.Machine, func(m *Machine) {
				m.Cluster, m.Claimed, m.Disk, m.Enrol.TrustBoot, m.Enrol.Ordered = "", time.Time{}, false, false, enrol.Ordered{}
			})
		}
	case Dropped:
		s.dropped[e.Cluster]++
	case Stored:
		change(e.Machine, func(m *Machine) { m.Data = e.Cluster })
	case WipeOrdered:
		change(e.Machine, func(m *Machine) { m.Wipe = &e })
	case Wiped:
		change(e.Machine, func(m *Machine) { m.Data, m.Wipe, m.Spent = "", nil, e.Incarnation })
	}
}

// carriesData reports whether the facts of a machine name a disk with an incarnation.
func carriesData(facts json.RawMessage) bool {
	var f struct {
		Disks []struct {
			Incarnation string `json:"incarnation"`
		} `json:"disks"`
	}
	if json.Unmarshal(facts, &f) != nil {
		return false
	}
	for _, d := range f.Disks {
		if d.Incarnation != "" {
			return true
		}
	}
	return false
}

// foldEnrolled takes a fact of an enrolment in, and forgets the boot ids that the machine has forgotten with it.
func (s *State) foldEnrolled(e Enrolled, change func(string, func(*Machine))) {
	change(e.Machine, func(m *Machine) {
		before := m.Enrol.Boots
		m.Enrol = enrol.Fold(m.Enrol, e.Event)
		switch e.Kind {
		case enrol.Asked, enrol.Accepted, enrol.Quarantined:
			m.Switched = time.Time{}
		}
		for id := range before {
			if _, kept := m.Enrol.Boots[id]; !kept {
				delete(s.boots, id)
			}
		}
	})
	if e.Kind == enrol.BootIssued {
		s.boots[e.Boot] = e.Machine
	}
}

// unlist takes a machine out of the indexes.
func (s *State) unlist(name string) {
	m, ok := s.machines[name]
	if !ok {
		return
	}
	for _, mac := range m.MACs {
		delete(s.macs, mac)
	}
	delete(s.uuids, m.UUID)
}

// find gives the machine with a MAC address, or else with a UUID; nil if there is none.
func (s *State) find(mac, uuid string) *Machine {
	if name, ok := s.macs[mac]; ok {
		return s.machines[name]
	}
	if name, ok := s.uuids[uuid]; ok && uuid != "" {
		return s.machines[name]
	}
	return nil
}

// list gives every machine, by name.
func (s *State) list() []Machine {
	list := make([]Machine, 0, len(s.machines))
	for _, m := range s.machines {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Machine) int { return strings.Compare(a.Name, b.Name) })
	return list
}
