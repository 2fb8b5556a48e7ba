// Package names is the service that gives names to addresses: steps put them (`apply { call = "names.put" }`), and the
// DNS server answers with them, forward and reverse, from the moment the step succeeds.
//
// The truth is the table of entries; the zones that are served are a cache of it, with the table's version. That version
// is also the serial of every zone: the table keeps it durably and raises it with every change (see entries.Store), so a
// serial never goes back, neither when entries are removed nor when the engine restarts. It may grow although a zone is
// unchanged, because another one changed; a secondary then transfers once too often, which is harmless.
package names

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"joist/dhcp-dns/zone"
	"joist/engine/entries"
	"joist/engine/step"
)

// The service's table, and its one call.
const (
	table     = "names"
	callPut   = "names.put"
	keyPrefix = "a/"
)

// Server serves zones; dhcp-dns/dns has one. Once Swap returns, every later query is answered from the set.
type Server interface {
	Swap(set *zone.Set)
}

// Config is what the service needs; Store and Server are required.
type Config struct {
	Store  entries.Store
	Server Server
	Zone   zone.Config // how zones are built; its Serial is ignored
}

// Service performs calls on names. It is safe for concurrent use. Only one at a time may write to a Store: whether zones
// of two clusters overlap is decided by what this one has seen.
type Service struct {
	cfg Config

	refreshing sync.Mutex // held while the table is read and published, so that an older one never replaces a newer one

	mu     sync.Mutex // guards what follows
	loaded bool       // false until the first refresh, and after a failed one
	cache
	flying map[claim]int // zones of calls that are being written, with their number
}

// claim says that a cluster has names in a zone.
type claim struct{ zone, cluster string }

// New checks the configuration. Load must follow before anything is served.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Server == nil {
		return nil, errors.New("internal error: names needs a store and a server")
	}
	if _, err := zone.Build(cfg.Zone, nil); err != nil {
		return nil, fmt.Errorf("cannot serve names: %w", err)
	}
	cfg.Zone.Server = strings.ToLower(strings.TrimSuffix(cfg.Zone.Server, ".")) // as Build has just checked it
	return &Service{cfg: cfg, flying: map[claim]int{}}, nil
}

// Signatures describes the calls of this service.
func Signatures() []step.Signature {
	return []step.Signature{{
		Call:     callPut,
		Inputs:   map[string]string{"name": "fqdn", "addresses": "list(address)", "zone": "fqdn"},
		Outputs:  map[string]string{"fqdn": "fqdn", "addresses": "list(address)"},
		Optional: []string{"zone"},
	}}
}

// Handlers are the service's calls by name.
func (s *Service) Handlers() map[string]step.Handler {
	return map[string]step.Handler{callPut: step.HandlerFunc(s.put)}
}

// inputs of names.put. Zone is the domain that the name is served in; by default what follows the name's first dot.
type inputs struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Zone      string   `json:"zone,omitempty"`
}

// value is an entry's value.
type value struct {
	Name      string       `json:"name"`
	Zone      string       `json:"zone"`
	Addresses []netip.Addr `json:"addresses"`
}

type outputs struct {
	FQDN      string       `json:"fqdn"`
	Addresses []netip.Addr `json:"addresses"` // as served, sorted
}

func (s *Service) put(ctx context.Context, call step.Call) (step.Result, error) {
	if call.Name != callPut {
		return step.Result{}, fmt.Errorf("names has no call %q", call.Name)
	}
	if call.Action == step.Remove {
		return step.Result{}, s.write(ctx, call, nil)
	}
	v, err := s.check(call)
	if err != nil {
		return step.Result{}, fmt.Errorf("cannot put a name: %w", err)
	}
	switch call.Action {
	case step.Apply:
		err = s.write(ctx, call, v)
	case step.Verify:
		err = s.verify(ctx, call, v)
	default:
		err = fmt.Errorf("names.put has no action %q", call.Action)
	}
	if err != nil {
		return step.Result{}, err
	}
	out, err := json.Marshal(outputs{FQDN: v.Name, Addresses: v.Addresses})
	if err != nil {
		return step.Result{}, fmt.Errorf("internal error: outputs of names.put: %w", err)
	}
	return step.Result{Outputs: out}, nil
}

// check reads the inputs into an entry's value: canonical, so that equal inputs give equal digests.
func (s *Service) check(call step.Call) (*value, error) {
	var in inputs
	d := json.NewDecoder(bytes.NewReader(call.Inputs))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("its inputs do not fit: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("its inputs do not fit: something follows them")
	}
	name, domain, err := s.where(in.Name, in.Zone)
	if err != nil {
		return nil, err
	}
	v := &value{Name: name, Zone: domain}
	if len(in.Addresses) == 0 {
		return nil, fmt.Errorf("name %s has no address", name)
	}
	for _, text := range in.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("name %s: %q is no IP address", name, text)
		}
		if err := zone.CheckAddress(addr.Unmap()); err != nil {
			return nil, fmt.Errorf("name %s: %w", name, err)
		}
		v.Addresses = append(v.Addresses, addr.Unmap())
	}
	slices.SortFunc(v.Addresses, netip.Addr.Compare)
	v.Addresses = slices.Compact(v.Addresses)
	return v, nil
}

// where gives a name in its canonical form, and the domain that it is served in; by default what follows its first dot.
func (s *Service) where(text, domain string) (name, within string, err error) {
	if name, err = zone.ParseName(text); err != nil {
		return "", "", err
	}
	if domain == "" {
		if domain = zone.Parent(name); domain == "" {
			return "", "", fmt.Errorf("name %q has no domain; give it one, as in %q", text, name+".demo.lab")
		}
	}
	if domain, err = zone.ParseDomain(domain); err != nil {
		return "", "", fmt.Errorf("zone of %s: %w", name, err)
	}
	if !zone.Within(name, domain) {
		return "", "", fmt.Errorf("name %s lies outside its zone %s", name, domain)
	}
	if name == s.cfg.Zone.Server || s.cfg.Zone.Server == "" && name == zone.ServerOf(domain) {
		return "", "", fmt.Errorf("name %s is that of the name server itself; choose another", name)
	}
	return name, domain, nil
}

// write makes v the owner's only entry (nil: none) and returns when that is served.
func (s *Service) write(ctx context.Context, call step.Call, v *value) error {
	var want []entries.Entry
	if v != nil {
		if err := s.Load(ctx); err != nil {
			return err
		}
		release, err := s.reserve(claim{zone: v.Zone, cluster: call.Cluster})
		if err != nil {
			return fmt.Errorf("cannot put name %s: %w", v.Name, err)
		}
		defer release()
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("internal error: entry of %s: %w", v.Name, err)
		}
		want = []entries.Entry{{Key: keyPrefix + v.Name, Value: raw}}
	}
	version, err := s.cfg.Store.Replace(ctx, entries.Scope{Service: table, Cluster: call.Cluster},
		entries.Writer{Owner: call.Owner, Epoch: call.Epoch}, want)
	if err != nil {
		return fmt.Errorf("cannot write the names of %s: %w", call.Owner, err)
	}
	// The change is durable: it is served even if the caller no longer waits, or the next call would decide about
	// overlaps from an old table.
	return s.refresh(context.WithoutCancel(ctx), version)
}

// reserve takes a zone for a cluster until the returned function is called. By then the entry that asked for it is served
// and keeps it, or was not written. It fails where another cluster has a zone that overlaps.
func (s *Service) reserve(c claim) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, held := range []map[claim]int{s.zones, s.flying} {
		for other := range held {
			if other.cluster != c.cluster && zone.Overlap(other.zone, c.zone) {
				return nil, fmt.Errorf(
					"zone %s of cluster %s overlaps zone %s of cluster %s; give the clusters domains of which neither contains the other",
					c.zone, c.cluster, other.zone, other.cluster)
			}
		}
	}
	s.flying[c]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.flying[c]--; s.flying[c] == 0 {
			delete(s.flying, c)
		}
	}, nil
}

// verify compares what is served with what should be. It changes nothing.
func (s *Service) verify(ctx context.Context, call step.Call, v *value) error {
	if err := s.Load(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	set := s.set
	s.mu.Unlock()
	var served []netip.Addr
	for _, t := range []zone.Type{zone.A, zone.AAAA} {
		for _, r := range set.Lookup(v.Name, t).Records {
			served = append(served, r.Addr)
		}
	}
	if !slices.Equal(served, v.Addresses) {
		return fmt.Errorf("name %s of %s resolves to %s instead of %s", v.Name, call.Owner, list(served), list(v.Addresses))
	}
	return nil
}

func list(addresses []netip.Addr) string {
	if len(addresses) == 0 {
		return "nothing"
	}
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}
