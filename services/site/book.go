package site

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"joist/engine/journal"
	"joist/pki/enrol"
)

// JournalName is the name of the site's journal.
const JournalName = "site"

// Config says what a book works with.
type Config struct {
	Store   journal.Store
	Holder  string
	Random  io.Reader                         // of boot ids
	Secret  func(machine string) []byte       // voucher secret given out of band; nil for none
	Now     func() time.Time                  // nil for time.Now
	Log     *slog.Logger                      // nil for nowhere
	Changed func(machine string, now Machine) // told after each change of a machine, of a forgotten one but the name; nil for nobody
}

// Book is the site's one writer. It is safe for concurrent use. What it hands out is shared and not to be changed.
type Book struct {
	cfg    Config
	writer *journal.Writer

	mu    sync.RWMutex // guards state; held for writing while an append is under way
	state *State
}

// Open acquires the site's journal and folds it.
func Open(ctx context.Context, cfg Config) (*Book, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Book{cfg: cfg, state: newState()}
	var err error
	b.writer, err = journal.Open(ctx, journal.Config{Store: cfg.Store, Journal: JournalName, Holder: cfg.Holder, Log: cfg.Log, Fold: func(r journal.Record) error {
		e, err := decode(r)
		if err == nil {
			b.state.fold(r.Time, e)
		}
		return err
	}})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Journal gives access to the site's events as they become durable.
func (b *Book) Journal() *journal.Writer { return b.writer }

// append makes events durable, then folds them. The caller holds the lock.
func (b *Book) append(ctx context.Context, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	now := b.cfg.Now()
	records := make([]journal.Record, len(events))
	for i, e := range events {
		r, err := encode(e, now)
		if err != nil {
			return err
		}
		records[i] = r
	}
	if err := b.writer.Append(ctx, records); err != nil {
		return err
	}
	for _, e := range events {
		b.state.fold(now, e)
	}
	return nil
}

// change makes what decide says durable, with the lock held, and then tells who wants to know, without it: the machines
// that decide names, if there was anything to say.
func (b *Book) change(ctx context.Context, decide func(s *State) (events []Event, machines []string, err error)) error {
	b.mu.Lock()
	events, machines, err := decide(b.state)
	if err == nil {
		err = b.append(ctx, events...)
	}
	b.mu.Unlock()
	if err != nil || len(events) == 0 || b.cfg.Changed == nil {
		return err
	}
	for _, name := range machines {
		m, ok := b.Lookup(name)
		if !ok {
			m = Machine{Name: name}
		}
		b.cfg.Changed(name, m)
	}
	return nil
}

// Define makes a machine known, or known better. A MAC address or UUID that another machine has is refused.
func (b *Book) Define(ctx context.Context, d Defined) error {
	if !enrol.ValidNode(d.Name) {
		return fmt.Errorf("cannot define machine %q: a name has lower-case letters, digits and hyphens", d.Name)
	}
	macs := make([]string, 0, len(d.MACs))
	for _, text := range d.MACs {
		mac, err := canonicalMAC(text)
		if err != nil {
			return fmt.Errorf("cannot define machine %s: %w", d.Name, err)
		}
		if !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	d.MACs, d.UUID = macs, strings.ToLower(d.UUID)
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		if m, ok := s.machines[d.Name]; ok && slices.Equal(m.MACs, d.MACs) && m.UUID == d.UUID && m.Provider == d.Provider && string(m.Declared) == string(d.Facts) {
			return nil, nil, nil
		}
		for _, mac := range d.MACs {
			if holder, ok := s.macs[mac]; ok && holder != d.Name {
				return nil, nil, fmt.Errorf("cannot define machine %s: its MAC address %s is that of %s; two machines with one MAC address cannot be told apart", d.Name, mac, holder)
			}
		}
		if holder, ok := s.uuids[d.UUID]; ok && holder != d.Name {
			return nil, nil, fmt.Errorf("cannot define machine %s: its UUID %s is that of %s", d.Name, d.UUID, holder)
		}
		return []Event{d}, []string{d.Name}, nil
	})
}

// canonicalMAC gives a MAC address in lower case, with colons.
func canonicalMAC(text string) (string, error) {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return "", fmt.Errorf("%q is not a MAC address; expected a form such as 52:54:00:00:00:01", text)
	}
	return mac.String(), nil
}

// Forget removes a machine that no cluster has claimed, and ends its keys with it.
func (b *Book) Forget(ctx context.Context, name string) error {
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		m, ok := s.machines[name]
		if !ok {
			return nil, nil, &UnknownError{name}
		}
		if m.Cluster != "" {
			return nil, nil, fmt.Errorf("cannot forget %s: cluster %s has claimed it; take it out of the cluster first", name, m.Cluster)
		}
		return []Event{Forgotten{Name: name}}, []string{name}, nil
	})
}

// UnknownError reports a machine that the site does not have.
type UnknownError struct{ Name string }

// Error implements error.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no machine %q; joist node list names them all", e.Name)
}

// Lookup gives a machine by name.
func (b *Book) Lookup(name string) (Machine, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m, ok := b.state.machines[name]
	if !ok {
		return Machine{}, false
	}
	return *m, true
}

// Find gives the machine with a MAC address, or else with a UUID, both in lower case.
func (b *Book) Find(mac, uuid string) (Machine, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if m := b.state.find(mac, uuid); m != nil {
		return *m, true
	}
	return Machine{}, false
}

// Machines lists every machine, by name.
func (b *Book) Machines() []Machine {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.state.list()
}

// Boot is who asked for a boot script.
type Boot struct {
	MAC, UUID, Address string
}

// Issue gives out a boot id, durable before it is returned. A machine nobody has defined is given a name of its MAC
// address.
func (b *Book) Issue(ctx context.Context, r Boot) (enrol.BootID, error) {
	mac, err := canonicalMAC(r.MAC)
	if err != nil {
		return enrol.BootID{}, fmt.Errorf("cannot give out a boot id: %w", err)
	}
	uuid := strings.ToLower(r.UUID)
	id, err := enrol.NewBootID(b.cfg.Random)
	if err != nil {
		return id, fmt.Errorf("cannot make a boot id: %w", err)
	}
	err = b.change(ctx, func(s *State) ([]Event, []string, error) {
		var events []Event
		name := "m-" + strings.ReplaceAll(mac, ":", "")
		if m := s.find(mac, uuid); m != nil {
			name = m.Name
		} else if _, taken := s.machines[name]; taken {
			return nil, nil, fmt.Errorf("cannot name the machine with MAC address %s: another one is called %s; define it under a name of its own", mac, name)
		} else {
			events = append(events, Defined{Name: name, MACs: []string{mac}, UUID: uuid})
		}
		issued := enrol.Event{Kind: enrol.BootIssued, Machine: name, Boot: id, MAC: mac, Address: r.Address, At: b.cfg.Now().UTC()}
		return append(events, Enrolled{issued}), nil, nil // nobody acts on a boot id before it is used
	})
	return id, err
}

// Boot gives the machine that a boot id was given to, and the secret that it may vouch with.
func (b *Book) Boot(_ context.Context, id enrol.BootID) (string, []byte, error) {
	b.mu.RLock()
	name, ok := b.state.boots[id]
	b.mu.RUnlock()
	if !ok || b.cfg.Secret == nil {
		return name, nil, nil
	}
	return name, b.cfg.Secret(name), nil
}

// Update decides about one machine's enrolment and makes what was decided durable. There is nothing to decide about a
// machine that is not known.
func (b *Book) Update(ctx context.Context, name string, decide func(enrol.Machine) []enrol.Event) (enrol.Machine, error) {
	now := enrol.Machine{Name: name}
	err := b.change(ctx, func(s *State) ([]Event, []string, error) {
		m, ok := s.machines[name]
		if ok {
			now = m.Enrol
		}
		var events []Event
		for _, e := range decide(now) {
			if e.Machine != name {
				return nil, nil, fmt.Errorf("internal error: a decision about %s names %q", name, e.Machine)
			}
			events = append(events, Enrolled{e})
			now = enrol.Fold(now, e)
		}
		if !ok && len(events) > 0 {
			return nil, nil, &UnknownError{name}
		}
		return events, []string{name}, nil
	})
	if err != nil {
		return enrol.Machine{}, err
	}
	return now, nil
}

// Machine gives what is known of a machine's keys; the zero Machine if there is none of that name.
func (b *Book) Machine(_ context.Context, name string) (enrol.Machine, error) {
	m, _ := b.Lookup(name)
	return m.Enrol, nil
}

// Facts keeps what a machine said of itself, if it is something new.
func (b *Book) Facts(ctx context.Context, name string, facts json.RawMessage) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, facts); err != nil {
		return fmt.Errorf("cannot read the facts of %s: %w", name, err)
	}
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		m, ok := s.machines[name]
		if !ok {
			return nil, nil, &UnknownError{name}
		}
		if bytes.Equal(m.Reported, compact.Bytes()) {
			return nil, nil, nil
		}
		return []Event{Reported{Name: name, Facts: compact.Bytes()}}, []string{name}, nil
	})
}

// Approve confirms a machine's waiting key, which the fingerprint names, or ends its quarantine in that key's favour.
func (b *Book) Approve(ctx context.Context, name string, w enrol.Word) error {
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		m, ok := s.machines[name]
		if !ok {
			return nil, nil, &UnknownError{name}
		}
		approve := enrol.Approve
		if m.Enrol.Quarantine != "" {
			approve = enrol.Release
		}
		decided, err := approve(m.Enrol, w)
		var events []Event
		for _, e := range decided {
			events = append(events, Enrolled{e})
		}
		return events, []string{name}, err
	})
}

// Order notes, before it is done, that the engine has a machine boot anew, if its cluster trusts the boot network. The time of w is
// the book's own.
func (b *Book) Order(ctx context.Context, name string, w enrol.Wanted) error {
	if m, ok := b.Lookup(name); !ok || !m.Enrol.TrustBoot {
		return nil
	}
	w.At = b.cfg.Now().UTC()
	_, err := b.Update(ctx, name, func(m enrol.Machine) []enrol.Event { return enrol.Order(m, w) })
	return err
}

// Switch notes, before it is done, that the engine switches a machine on that is off.
func (b *Book) Switch(ctx context.Context, name string) error {
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		if _, ok := s.machines[name]; !ok {
			return nil, nil, &UnknownError{name}
		}
		return []Event{Switched{Machine: name, At: b.cfg.Now().UTC()}}, nil, nil
	})
}

// Claim is what Book.Claim is asked for.
type Claim struct {
	Cluster string
	Disk    bool // whether the cluster keeps its data on disks
	Trust   bool // whether it trusts the boot network
}

// Claim gives machines to a cluster: choose is shown every machine and names those the cluster is to have from now on,
// its earlier ones included. Nobody else claims meanwhile. A machine of another cluster is refused, and so is one whose disks
// may hold another one's data.
//
// choose must not use the Book: it is locked.
func (b *Book) Claim(ctx context.Context, c Claim, choose func([]Machine) ([]string, error)) error {
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		names, err := choose(s.list())
		if err != nil {
			return nil, nil, err
		}
		var fresh []string
		for _, name := range names {
			m, ok := s.machines[name]
			switch {
			case !ok:
				return nil, nil, &UnknownError{name}
			case m.Cluster == c.Cluster && m.Disk == c.Disk && m.Enrol.TrustBoot == c.Trust:
			case m.Cluster == c.Cluster:
				fresh = append(fresh, name)
			case m.Cluster != "":
				return nil, nil, fmt.Errorf("cannot claim %s for cluster %s: cluster %s has it; choose another machine, or take it out of that cluster first", name, c.Cluster, m.Cluster)
			case m.Unwiped(c.Cluster) != "":
				return nil, nil, fmt.Errorf("cannot claim %s for cluster %s: %s", name, c.Cluster, m.Unwiped(c.Cluster))
			default:
				fresh = append(fresh, name)
			}
		}
		if len(fresh) == 0 {
			return nil, nil, nil
		}
		slices.Sort(fresh)
		fresh = slices.Compact(fresh)
		return []Event{Claimed{Cluster: c.Cluster, Machines: fresh, Disk: c.Disk, Trust: c.Trust}}, fresh, nil
	})
}

// Life says how many clusters of a name were forgotten: the numbers of the events of each begin anew.
func (b *Book) Life(cluster string) int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.state.dropped[cluster]
}

// Claims lists the machines that each cluster has, by name.
func (b *Book) Claims() map[string][]string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	claims := map[string][]string{}
	for _, m := range b.state.machines {
		if m.Cluster != "" {
			claims[m.Cluster] = append(claims[m.Cluster], m.Name)
		}
	}
	for _, names := range claims {
		slices.Sort(names)
	}
	return claims
}

// Free gives a machine of a cluster back to the site. One that the cluster does not have is left alone.
func (b *Book) Free(ctx context.Context, cluster, name string) error {
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		if m, ok := s.machines[name]; !ok || m.Cluster != cluster || cluster == "" {
			return nil, nil, nil
		}
		return []Event{Freed{Cluster: cluster, Machine: name}}, []string{name}, nil
	})
}

// Store says that a machine's disks may hold data of its cluster from now on. It is durable before the first byte is.
func (b *Book) Store(ctx context.Context, name string) error {
	return b.change(ctx, func(s *State) ([]Event, []string, error) {
		m, ok := s.machines[name]
		if !ok || m.Cluster == "" || m.Data == m.Cluster {
			return nil, nil, nil
		}
		return []Event{Stored{Cluster: m.Cluster, Machine: name}}, []string{name}, nil
	})
}

// OrderWipe orders that a machine's data disks be erased. An order that stands is not repeated; fresh says whether this
// one is new.
func (b *Book) OrderWipe(ctx context.Context, name, by string) (fresh bool, err error) {
	err = b.change(ctx, func(s *State) ([]Event, []string, error) {
		m, ok := s.machines[name]
		if !ok {
			return nil, nil, &UnknownError{name}
		}
		if m.Wipe != nil {
			return nil, nil, nil
		}
		fresh = true
		return []Event{WipeOrdered{Machine: name, By: by, At: b.cfg.Now().UTC()}}, []string{name}, nil
	})
	return fresh, err
}

// Wiped takes in the proof of a wipe that was ordered. It reports false if none was.
func (b *Book) Wiped(ctx context.Context, w Wiped) (ordered bool, err error) {
	err = b.change(ctx, func(s *State) ([]Event, []string, error) {
		if m, ok := s.machines[w.Machine]; !ok || m.Wipe == nil {
			return nil, nil, nil
		}
		ordered = true
		return []Event{w}, []string{w.Machine}, nil
	})
	return ordered, err
}

// Note makes an event durable that changes no machine: a notice, a certificate about to be issued, or a cluster about to be forgotten.
func (b *Book) Note(ctx context.Context, e Event) error {
	switch e.(type) {
	case Noticed, Issued, Dropped:
	default:
		return fmt.Errorf("internal error: %s is no note", e.kind())
	}
	return b.change(ctx, func(*State) ([]Event, []string, error) { return []Event{e}, nil, nil })
}
