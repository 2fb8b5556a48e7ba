// Package balance is the service that gives clients outside a cluster one address for it: a front, made by a step
// (`balance.front`), and backends, which steps add in the middle of a run (`balance.backend`). What balances is a
// [Driver]; package tcp beside this one is the engine's own, in process. Clients inside a cluster never depend on it.
//
// The truth is the table of entries; what the driver serves is a cache of it. Each front listens on an address of its
// own, so that any number of clusters may want the same port.
package balance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"joist/engine/entries"
	"joist/engine/step"
)

// The service's table and its calls.
const (
	table       = "balance"
	callFront   = "balance.front"
	callBackend = "balance.backend"
	frontKey    = "front/"
	backendKey  = "backend/"
)

// HealthWait is how long balance.backend waits for a new backend to take connections, where Config gives no other time.
const HealthWait = 20 * time.Second

// Front is what a driver is to serve.
type Front struct {
	URL      string // "https://etcd.demo.lab:2379"; one front has it
	Cluster  string
	Listen   netip.AddrPort
	Ready    string           // path that a ready backend answers over HTTPS with 200; empty: one is ready that takes connections
	Backends []netip.AddrPort // sorted
}

// Driver balances connections. HAProxy and keepalived could stand behind it as well. It is safe for concurrent use.
type Driver interface {
	// Set makes a front exist with exactly these backends, and returns when it listens. Connections to backends that
	// stay, or go, go on; a changed address, or another way to ask whether they are ready, ends them.
	Set(ctx context.Context, f Front) error
	// Drop ends a front and its connections. One that does not exist is no error.
	Drop(ctx context.Context, url string) error
	// Healthy returns when a backend of a front passes its health check; at the context's end it says why it does not.
	Healthy(ctx context.Context, url string, backend netip.AddrPort) error
	// Status tells of all fronts, sorted by URL.
	Status() []Status
}

// Status is what a driver knows about a front.
type Status struct {
	URL      string         `json:"url"`
	Listen   netip.AddrPort `json:"listen"`
	Open     int            `json:"open"`    // connections now
	Refused  uint64         `json:"refused"` // connections refused for want of a healthy backend, since the front exists
	Backends []Health       `json:"backends"`
}

// Health is what a driver knows about a backend.
type Health struct {
	Backend netip.AddrPort `json:"backend"`
	Healthy bool           `json:"healthy"`
	Error   string         `json:"error,omitempty"` // of the last check, if it failed
	Open    int            `json:"open"`            // connections now
	Total   uint64         `json:"total"`           // connections since the backend was added
}

// Frontends gives fronts the addresses that they listen on.
type Frontends interface {
	// Claim picks an address that is not among the taken ones. What was picked stays with the front, in its entry.
	Claim(ctx context.Context, owner string, taken []netip.Addr) (netip.Addr, error)
}

// Config is what the service needs; Store, Driver, Frontends and Log are required.
type Config struct {
	Store     entries.Store
	Driver    Driver
	Frontends Frontends
	Names     step.Handler // names.put, called in the front's name with its address; nil publishes no name
	Foresee   step.Foresee // of names.put; nil asks nobody
	Log       *slog.Logger
	Wait      time.Duration // how long balance.backend waits for health; 0 means HealthWait
}

// Service performs calls on fronts and backends. It is safe for concurrent use. One service writes to a Store at a time:
// it sees to it that no two clusters get one address.
type Service struct {
	cfg Config

	mu     sync.Mutex       // held through every change, so that an older table never replaces a newer one
	served map[string]Front // by URL: what the driver was last told
}

// New checks the configuration. Load must follow before anything is served.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Driver == nil || cfg.Frontends == nil || cfg.Log == nil {
		return nil, errors.New("internal error: balance needs a store, a driver, frontends and a log")
	}
	if cfg.Wait == 0 {
		cfg.Wait = HealthWait
	}
	return &Service{cfg: cfg, served: map[string]Front{}}, nil
}

// Signatures describes the calls of this service.
func Signatures() []step.Signature {
	return []step.Signature{
		{Call: callFront, Inputs: map[string]string{"name": "fqdn", "port": "number", "ready": "string"}, Outputs: map[string]string{"url": "url"}, Optional: []string{"ready"}},
		{Call: callBackend, Inputs: map[string]string{"front": "url", "address": "address", "port": "number"}, Outputs: map[string]string{}},
	}
}

// Handlers are the service's calls by name.
func (s *Service) Handlers() map[string]step.Handler {
	return map[string]step.Handler{callFront: step.HandlerFunc(s.front), callBackend: step.HandlerFunc(s.backend)}
}

// Load serves what the table holds. A front that cannot be served is logged and tried again with the next change; the
// others are served.
func (s *Service) Load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed, err := s.refresh(ctx)
	for url, cause := range failed {
		s.cfg.Log.Error("front is not served", "front", url, "error", cause)
	}
	return err
}

// Status tells of all fronts and the health of their backends.
func (s *Service) Status() []Status { return s.cfg.Driver.Status() }

type frontInputs struct {
	Name  string `json:"name"`
	Port  uint16 `json:"port"`
	Ready string `json:"ready"`
}

type frontValue struct {
	URL     string     `json:"url"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Ready   string     `json:"ready,omitempty"`
}

type frontOutputs struct {
	URL string `json:"url"`
}

// path is what may be asked of a backend: letters that mean nothing else in a URL.
var path = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+/?$`)

var fqdn = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (s *Service) front(ctx context.Context, call step.Call) (step.Result, error) {
	if call.Action == step.Remove {
		return step.Result{}, s.removeFront(ctx, call)
	}
	var in frontInputs
	if err := decode(call.Inputs, &in); err != nil {
		return step.Result{}, fmt.Errorf("cannot make a front: %w", err)
	}
	if len(in.Name) > 253 || !fqdn.MatchString(in.Name) || in.Port == 0 {
		return step.Result{}, fmt.Errorf("cannot make a front for %.80q, port %d: want a domain name in lower case and a port from 1 to 65535", in.Name, in.Port)
	}
	if in.Ready != "" && (len(in.Ready) > 200 || !path.MatchString(in.Ready)) {
		return step.Result{}, fmt.Errorf("cannot ask backends of %s for %.80q: ready is a path such as /readyz", in.Name, in.Ready)
	}
	link := "https://" + in.Name + ":" + strconv.Itoa(int(in.Port))
	switch call.Action {
	case step.Apply:
		if err := s.putFront(ctx, call, in, link); err != nil {
			return step.Result{}, err
		}
	case step.Verify:
		if err := s.verifyFront(ctx, call, in.Name, link); err != nil {
			return step.Result{}, err
		}
	default:
		return step.Result{}, fmt.Errorf("balance.front has no action %q", call.Action)
	}
	out, err := json.Marshal(frontOutputs{URL: link})
	if err != nil {
		return step.Result{}, fmt.Errorf("internal error: outputs of balance.front: %w", err)
	}
	return step.Result{Outputs: out}, nil
}

// verifyFront looks whether a front is served, and its name gives its address.
func (s *Service) verifyFront(ctx context.Context, call step.Call, name, link string) error {
	st, ok := s.status(link)
	switch {
	case !ok:
		return fmt.Errorf("front %s is not served", link)
	case s.cfg.Names == nil:
		return nil
	}
	return s.publish(ctx, call, map[string]any{"name": name, "addresses": []netip.Addr{st.Listen.Addr()}})
}

func (s *Service) status(link string) (Status, bool) {
	list := s.Status()
	i := slices.IndexFunc(list, func(st Status) bool { return st.URL == link })
	if i < 0 {
		return Status{}, false
	}
	return list[i], true
}

// verifyBackend looks whether a front is served with a backend. How that is says its health, which comes and goes.
func (s *Service) verifyBackend(in backendInputs) error {
	st, ok := s.status(in.Front)
	if !ok {
		return fmt.Errorf("front %s is not served", in.Front)
	}
	if !slices.ContainsFunc(st.Backends, func(h Health) bool { return h.Backend == in.addr() }) {
		return fmt.Errorf("front %s is served without the backend %s", in.Front, in.addr())
	}
	return nil
}

// putFront writes the front's entry with an address, serves it, and then publishes its name.
func (s *Service) putFront(ctx context.Context, call step.Call, in frontInputs, link string) error {
	v := frontValue{URL: link, Port: in.Port, Ready: in.Ready}
	err := s.change(ctx, call, link, func(list []entries.Entry) ([]entries.Entry, error) {
		var taken []netip.Addr
		for _, e := range list {
			var other frontValue
			if !strings.HasPrefix(e.Key, frontKey) {
				continue
			}
			if err := json.Unmarshal(e.Value, &other); err != nil {
				return nil, fmt.Errorf("internal error: entry %s of balance: %w", e.Key, err)
			}
			switch {
			case e.Cluster == call.Cluster && e.Owner == call.Owner:
				v.Address = other.Address // sticky
			case other.URL == link:
				return nil, fmt.Errorf("cannot make the front %s: it belongs to %s in cluster %s; choose another name or port", link, e.Owner, e.Cluster)
			}
			taken = append(taken, other.Address)
		}
		if !v.Address.IsValid() {
			claimed, err := s.cfg.Frontends.Claim(ctx, call.Owner, taken)
			if err != nil {
				return nil, fmt.Errorf("cannot make the front %s: %w", link, err)
			}
			v.Address = claimed
		}
		return entry(frontKey+link, v)
	})
	if err != nil || s.cfg.Names == nil {
		return err
	}
	return s.publish(ctx, call, map[string]any{"name": in.Name, "addresses": []netip.Addr{v.Address}})
}

// removeFront takes the name away first, so that nobody is sent to an address that is another front's by then.
func (s *Service) removeFront(ctx context.Context, call step.Call) error {
	if s.cfg.Names != nil {
		if err := s.publish(ctx, call, nil); err != nil {
			return err
		}
	}
	return s.change(ctx, call, "", func([]entries.Entry) ([]entries.Entry, error) { return nil, nil })
}

// publish passes the front's call on to names.put, whose entries then belong to the front's instance.
func (s *Service) publish(ctx context.Context, call step.Call, inputs map[string]any) error {
	raw, err := json.Marshal(inputs)
	if err != nil {
		return fmt.Errorf("internal error: inputs of names.put: %w", err)
	}
	call.Name, call.Inputs = "names.put", raw
	_, err = s.cfg.Names.Call(ctx, call)
	return err
}

type backendInputs struct {
	Front   string     `json:"front"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
}

// backendValue repeats the inputs: they are canonical once they are checked.
type backendValue = backendInputs

func (s *Service) backend(ctx context.Context, call step.Call) (step.Result, error) {
	if call.Action == step.Remove {
		return step.Result{}, s.change(ctx, call, "", func([]entries.Entry) ([]entries.Entry, error) { return nil, nil })
	}
	var in backendInputs
	if err := decode(call.Inputs, &in); err != nil {
		return step.Result{}, fmt.Errorf("cannot add a backend: %w", err)
	}
	link, err := url.Parse(in.Front)
	if err != nil || link.Scheme != "https" || link.Host == "" || "https://"+link.Host != in.Front || in.Port == 0 || !in.Address.IsValid() || in.Address.Zone() != "" {
		return step.Result{}, fmt.Errorf("cannot add a backend to front %.120q: want the url of a balance.front, an address, and a port from 1 to 65535", in.Front)
	}
	in.Address = in.Address.Unmap()
	switch call.Action {
	case step.Verify:
		return step.Result{}, s.verifyBackend(in)
	case step.Apply:
		err = s.change(ctx, call, in.Front, func(list []entries.Entry) ([]entries.Entry, error) {
			if !slices.ContainsFunc(list, func(e entries.Entry) bool { return e.Cluster == call.Cluster && e.Key == frontKey+in.Front }) {
				return nil, fmt.Errorf("cannot add a backend to %s: cluster %s has no such front", in.Front, call.Cluster)
			}
			return entry(backendKey+in.Front+"/"+in.addr().String(), backendValue(in))
		})
	default:
		err = fmt.Errorf("balance.backend has no action %q", call.Action)
	}
	if err != nil {
		return step.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Wait)
	defer cancel()
	return step.Result{}, s.cfg.Driver.Healthy(ctx, in.Front, in.addr())
}

func (b backendInputs) addr() netip.AddrPort { return netip.AddrPortFrom(b.Address, b.Port) }

// change makes the owner's entries what want says, given all entries, and serves the table. An error in serving the
// front that the call is about fails the call.
func (s *Service) change(ctx context.Context, call step.Call, about string, want func([]entries.Entry) ([]entries.Entry, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _, err := s.cfg.Store.List(ctx, entries.Scope{Service: table})
	if err != nil {
		return fmt.Errorf("cannot read the fronts: %w", err)
	}
	wanted, err := want(list)
	if err != nil {
		return err
	}
	if _, err := s.cfg.Store.Replace(ctx, entries.Scope{Service: table, Cluster: call.Cluster},
		entries.Writer{Owner: call.Owner, Epoch: call.Epoch}, wanted); err != nil {
		return fmt.Errorf("cannot write what %s balances: %w", call.Owner, err)
	}
	// The change is durable, and so is served even if the caller no longer waits.
	failed, err := s.refresh(context.WithoutCancel(ctx))
	for link, cause := range failed {
		if link != about {
			s.cfg.Log.Error("front is not served", "front", link, "error", cause)
		}
	}
	return errors.Join(err, failed[about])
}

// refresh makes the driver serve the table. It gives the fronts that the driver could not serve. The caller holds mu.
func (s *Service) refresh(ctx context.Context) (failed map[string]error, err error) {
	list, _, err := s.cfg.Store.List(ctx, entries.Scope{Service: table})
	if err != nil {
		return nil, fmt.Errorf("cannot read the fronts: %w", err)
	}
	want, err := fronts(list)
	if err != nil {
		return nil, err
	}
	failed = map[string]error{}
	for link := range s.served {
		if _, stays := want[link]; !stays {
			if err := s.cfg.Driver.Drop(ctx, link); err != nil {
				failed[link] = fmt.Errorf("cannot end the front %s: %w", link, err)
				continue
			}
			delete(s.served, link)
		}
	}
	for link, f := range want {
		if old, ok := s.served[link]; ok && old.Listen == f.Listen && old.Ready == f.Ready && slices.Equal(old.Backends, f.Backends) {
			continue
		}
		if err := s.cfg.Driver.Set(ctx, f); err != nil {
			failed[link] = fmt.Errorf("cannot serve the front %s: %w", link, err)
			delete(s.served, link)
			continue
		}
		s.served[link] = f
	}
	return failed, nil
}

// fronts builds what is to be served from the table. Backends without their front wait for it.
func fronts(list []entries.Entry) (map[string]Front, error) {
	out := map[string]Front{}
	var backends []entries.Entry
	for _, e := range list {
		if strings.HasPrefix(e.Key, backendKey) {
			backends = append(backends, e)
			continue
		}
		var v frontValue
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return nil, fmt.Errorf("internal error: entry %s of balance: %w", e.Key, err)
		}
		out[v.URL] = Front{URL: v.URL, Cluster: e.Cluster, Listen: netip.AddrPortFrom(v.Address, v.Port), Ready: v.Ready}
	}
	for _, e := range backends {
		var v backendValue
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return nil, fmt.Errorf("internal error: entry %s of balance: %w", e.Key, err)
		}
		if f, ok := out[v.Front]; ok && f.Cluster == e.Cluster {
			f.Backends = append(f.Backends, v.addr())
			out[v.Front] = f
		}
	}
	for _, f := range out {
		slices.SortFunc(f.Backends, netip.AddrPort.Compare)
	}
	return out, nil
}

func entry(key string, v any) ([]entries.Entry, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("internal error: entry %s of balance: %w", key, err)
	}
	return []entries.Entry{{Key: key, Value: raw}}, nil
}

func decode(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("its inputs do not fit: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("its inputs do not fit: something follows them")
	}
	return nil
}

// Prefix is a Frontends that picks the lowest free address of a prefix. The addresses have to be the host's already; one
// route does that for a whole prefix (`ip route add local 10.0.0.192/26 dev lo`).
type Prefix netip.Prefix

// Claim implements Frontends. Of an IPv4 prefix shorter than /31 it leaves out the first and the last address.
func (p Prefix) Claim(_ context.Context, owner string, taken []netip.Addr) (netip.Addr, error) {
	prefix := netip.Prefix(p).Masked()
	if !prefix.IsValid() {
		return netip.Addr{}, errors.New("no addresses are configured for fronts; give the engine a prefix for them")
	}
	edges := prefix.Addr().Is4() && prefix.Bits() < 31
	for addr := prefix.Addr(); prefix.Contains(addr); addr = addr.Next() {
		if edges && (addr == prefix.Addr() || !prefix.Contains(addr.Next())) {
			continue
		}
		if !slices.Contains(taken, addr) {
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are taken by fronts, none is left for %s; remove a front, or give the engine a larger prefix", prefix, owner)
}
