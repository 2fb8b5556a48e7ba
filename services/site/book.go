package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	Changed func(machine string, now Machine) // told after each change of a machine; nil for nobody
}

// Book is the site's one writer. It is safe for concurrent use.
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

// changed tells who wants to know, without the lock.
func (b *Book) changed(names ...string) {
	if b.cfg.Changed == nil {
		return
	}
	for _, name := range names {
		if m, ok := b.Lookup(name); ok {
			b.cfg.Changed(name, m)
		}
	}
}

// Define makes a machine known, or known better. A MAC address or UUID that another machine has is refused.
func (b *Book) Define(ctx context.Context, d Defined) error {
	if !enrol.ValidNode(d.Name) {
		return fmt.Errorf("cannot define machine %q: a name has lower-case letters, digits and hyphens", d.Name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.state.machines {
		if m.Name == d.Name {
			if slices.Equal(m.MACs, d.MACs) && m.UUID == d.UUID && m.Provider == d.Provider && string(m.Declared) == string(d.Facts) {
				return nil
			}
			continue
		}
		for _, mac := range d.MACs {
			if slices.Contains(m.MACs, mac) {
				return fmt.Errorf("cannot define machine %s: its MAC address %s is that of %s; two machines with one MAC address cannot be told apart", d.Name, mac, m.Name)
			}
		}
		if d.UUID != "" && m.UUID == d.UUID {
			return fmt.Errorf("cannot define machine %s: its UUID %s is that of %s", d.Name, d.UUID, m.Name)
		}
	}
	return b.append(ctx, d)
}

// Forget removes a machine that no cluster has claimed.
func (b *Book) Forget(ctx context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.state.machines[name]
	if !ok {
		return &UnknownError{name}
	}
	if m.Cluster != "" {
		return fmt.Errorf("cannot forget %s: cluster %s has claimed it; take it out of the cluster first", name, m.Cluster)
	}
	return b.append(ctx, Forgotten{Name: name})
}

// UnknownError reports a machine that the site does not have.
type UnknownError struct{ Name string }

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

// Find gives the machine with a MAC address, or else with a UUID.
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

// Boot request: who asked for a boot script.
type Boot struct {
	MAC, UUID, Address string
}

// Issue gives out a boot id, durable before it is returned. A machine nobody has defined is given a name of its MAC
// address.
func (b *Book) Issue(ctx context.Context, r Boot) (enrol.BootID, error) {
	id, err := enrol.NewBootID(b.cfg.Random)
	if err != nil {
		return id, fmt.Errorf("cannot make a boot id: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var events []Event
	name := ""
	if m := b.state.find(r.MAC, r.UUID); m != nil {
		name = m.Name
	} else {
		name = "m-" + strings.ReplaceAll(r.MAC, ":", "")
		events = append(events, Defined{Name: name, MACs: []string{r.MAC}, UUID: r.UUID})
	}
	events = append(events, Enrolled{enrol.Event{Kind: enrol.BootIssued, Machine: name, Boot: id, MAC: r.MAC, Address: r.Address, At: b.cfg.Now().UTC()}})
	return id, b.append(ctx, events...)
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

// Update decides about one machine's enrolment and makes what was decided durable.
func (b *Book) Update(ctx context.Context, name string, decide func(enrol.Machine) []enrol.Event) (enrol.Machine, error) {
	m, err := b.update(ctx, name, decide)
	if err == nil {
		b.changed(name)
	}
	return m, err
}

func (b *Book) update(ctx context.Context, name string, decide func(enrol.Machine) []enrol.Event) (enrol.Machine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := enrol.Machine{Name: name}
	if m, ok := b.state.machines[name]; ok {
		was = m.Enrol
	}
	var events []Event
	for _, e := range decide(was) {
		events = append(events, Enrolled{e})
	}
	if err := b.append(ctx, events...); err != nil {
		return enrol.Machine{}, err
	}
	if m, ok := b.state.machines[name]; ok {
		return m.Enrol, nil
	}
	return was, nil
}

// Machine gives what is known of a machine's keys; the zero Machine if there is none of that name.
func (b *Book) Machine(_ context.Context, name string) (enrol.Machine, error) {
	m, _ := b.Lookup(name)
	return m.Enrol, nil
}

// Facts keeps what a machine said of itself, if it is something new.
func (b *Book) Facts(ctx context.Context, name string, facts json.RawMessage) error {
	b.mu.Lock()
	m, ok := b.state.machines[name]
	if !ok {
		b.mu.Unlock()
		return &UnknownError{name}
	}
	var err error
	if string(m.Reported) != string(facts) {
		err = b.append(ctx, Reported{Name: name, Facts: facts})
	}
	b.mu.Unlock()
	if err == nil {
		b.changed(name)
	}
	return err
}

// Approve confirms a machine's waiting key, which the fingerprint names.
func (b *Book) Approve(ctx context.Context, name string, w enrol.Word) error {
	if _, ok := b.Lookup(name); !ok {
		return &UnknownError{name}
	}
	var refused error
	_, err := b.Update(ctx, name, func(m enrol.Machine) []enrol.Event {
		events, err := enrol.Approve(m, w)
		if m.Quarantine != "" {
			events, err = enrol.Release(m, w)
		}
		refused = err
		return events
	})
	return errors.Join(refused, err)
}

// Claim gives machines to a cluster: choose is shown every machine and names those the cluster is to have from now on,
// its earlier ones included. Nobody else claims meanwhile. A machine of another cluster is refused.
func (b *Book) Claim(ctx context.Context, cluster string, choose func([]Machine) ([]string, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	names, err := choose(b.state.list())
	if err != nil {
		return err
	}
	var fresh []string
	for _, name := range names {
		m, ok := b.state.machines[name]
		switch {
		case !ok:
			return &UnknownError{name}
		case m.Cluster == cluster:
		case m.Cluster != "":
			return fmt.Errorf("cannot claim %s for cluster %s: cluster %s has it; choose another machine, or take it out of that cluster first", name, cluster, m.Cluster)
		default:
			fresh = append(fresh, name)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	slices.Sort(fresh)
	return b.append(ctx, Claimed{Cluster: cluster, Machines: slices.Compact(fresh)})
}

// Free gives a machine of a cluster back to the site. One that the cluster does not have is left alone.
func (b *Book) Free(ctx context.Context, cluster, name string) error {
	b.mu.Lock()
	m, ok := b.state.machines[name]
	if !ok || m.Cluster != cluster {
		b.mu.Unlock()
		return nil
	}
	err := b.append(ctx, Freed{Cluster: cluster, Machine: name})
	b.mu.Unlock()
	if err == nil {
		b.changed(name)
	}
	return err
}

// Note makes an event durable that changes no machine: a notice, or a certificate about to be issued.
func (b *Book) Note(ctx context.Context, e Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(ctx, e)
}
