// Package certs is the service that certifies keys: a node makes a key, and a step has it signed by the cluster's
// authority (`apply { call = "certs.sign" }`) after the requested names were checked against the inventory.
//
// The table has one entry for each instance's certificate, under its serial. Serials, revocations and the numbers of
// revocation lists are history: they lie in the authority's ledger, outside the table's digest, and only grow.
//
// A renewed certificate does not revoke the one before it, which the node uses until it has installed the new one; it
// expires soon. Removing the instance revokes all of its certificates.
package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"joist/engine/entries"
	"joist/engine/step"
	"joist/pki/authority"
	"joist/pki/enrol"
	"joist/pki/profiles"
)

// The service's table, and its one call.
const (
	table     = "certs"
	callSign  = "certs.sign"
	keyPrefix = "serial/"
)

// OperatorValidity is the life of an operator's certificate.
const OperatorValidity = 8 * time.Hour

const operatorOwner = "operator"

// Inventory knows what a node may call itself. The composition root builds it from the site and the names service.
type Inventory interface {
	// Allowed returns nil if the cluster exists and a certificate of the node may carry all of the names: names that the
	// cluster's names service gives to the node or to the cluster as a whole, and the node's addresses. Its error says
	// which name may not be carried, whose it is if known, and what to do. An empty node stands for the cluster.
	Allowed(ctx context.Context, cluster, node string, names []string) error
}

// Config is what the service needs; all of it is required.
type Config struct {
	Authority *authority.Authority
	Store     entries.Store
	Inventory Inventory
	Now       func() time.Time
}

// Service signs certificates. It is safe for concurrent use. One service writes to a Store at a time: it keeps what the
// table holds in memory, for a table of ten thousand nodes is too large to read for each of them.
type Service struct {
	cfg Config

	mu     sync.Mutex // held from the look at the table to the change of it
	loaded bool       // false until the table was read, and after a write that failed
	held   map[holder]value
	keys   map[enrol.KeyID]map[holder]bool
}

// holder is an instance that has a certificate.
type holder struct{ cluster, owner string }

// New checks the configuration.
func New(cfg Config) (*Service, error) {
	if cfg.Authority == nil || cfg.Store == nil || cfg.Inventory == nil || cfg.Now == nil {
		return nil, errors.New("internal error: certs needs an authority, a store, an inventory and a clock")
	}
	return &Service{cfg: cfg}, nil
}

// Signatures describes the calls of this service.
func Signatures() []step.Signature {
	return []step.Signature{{
		Call: callSign,
		Inputs: map[string]string{
			"csr": "csr", "profile": "string", "names": "list(string)", "authority": "string", "common_name": "string", "groups": "list(string)",
		},
		Outputs:  map[string]string{"certificate": "certificate"},
		Optional: []string{"authority", "common_name", "groups", "names"},
	}}
}

// Handlers are the service's calls by name.
func (s *Service) Handlers() map[string]step.Handler {
	return map[string]step.Handler{callSign: step.HandlerFunc(s.sign)}
}

// inputs of certs.sign.
type inputs struct {
	CSR     string   `json:"csr"`     // PKCS #10, PEM; of it only the key counts
	Profile string   `json:"profile"` // peer, server or client
	Names   []string `json:"names"`   // DNS names and addresses

	Authority  string   `json:"authority"`   // one of the cluster's own making, such as "etcd"; empty for its intermediate
	CommonName string   `json:"common_name"` // empty for the first name, or the node's
	Groups     []string `json:"groups"`      // organizations of the subject
}

type outputs struct {
	Certificate authority.Certificate `json:"certificate"`
}

// value is an entry's value. All of it is public.
type value struct {
	Node      string      `json:"node,omitempty"`
	Profile   string      `json:"profile"`
	Names     []string    `json:"names"`
	Authority string      `json:"authority,omitempty"`
	Subject   string      `json:"subject,omitempty"` // where it was asked for
	Groups    []string    `json:"groups,omitempty"`
	Key       enrol.KeyID `json:"key"`
	NotBefore time.Time   `json:"not_before"`
	NotAfter  time.Time   `json:"not_after"`
	Leaf      string      `json:"leaf"` // PEM
}

func (s *Service) sign(ctx context.Context, call step.Call) (step.Result, error) {
	if call.Name != callSign {
		return step.Result{}, fmt.Errorf("certs has no call %q", call.Name)
	}
	if call.Action == step.Remove {
		return step.Result{}, s.revoke(ctx, call)
	}
	want, csr, err := check(call)
	if err != nil {
		return step.Result{}, fmt.Errorf("cannot sign a certificate: %w", err)
	}
	issuer, err := s.cfg.Authority.Named(ctx, call.Cluster, want.Authority)
	if err != nil {
		return step.Result{}, err
	}
	switch call.Action {
	case step.Apply:
		if err := s.cfg.Inventory.Allowed(ctx, call.Cluster, call.Node, want.Names); err != nil {
			return step.Result{}, fmt.Errorf("cannot sign a certificate for %s: %w", call.Owner, err)
		}
		want, err = s.apply(ctx, call, want, authority.Request{
			CSR: csr, Profile: want.Profile, Owner: call.Owner, Subject: want.subject(), Groups: want.Groups, Names: want.Names,
		})
	case step.Verify:
		want, err = s.verify(ctx, call, want)
	default:
		err = fmt.Errorf("certs.sign has no action %q", call.Action)
	}
	if err != nil {
		return step.Result{}, err
	}
	out, err := json.Marshal(outputs{Certificate: issuer.With(want.Leaf)})
	if err != nil {
		return step.Result{}, fmt.Errorf("internal error: outputs of certs.sign: %w", err)
	}
	return step.Result{Outputs: out, ValidUntil: want.NotAfter}, nil
}

// check reads the inputs into what the entry will say of them.
func check(call step.Call) (value, []byte, error) {
	var in inputs
	d := json.NewDecoder(bytes.NewReader(call.Inputs))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return value{}, nil, fmt.Errorf("its inputs do not fit: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return value{}, nil, errors.New("its inputs do not fit: something follows them")
	}
	if !slices.Contains(profiles.ForClusters(), in.Profile) {
		return value{}, nil, fmt.Errorf("profile %.40q is not for steps; choose one of %s", in.Profile, strings.Join(profiles.ForClusters(), ", "))
	}
	request, err := authority.ParseCSR([]byte(in.CSR))
	if err != nil {
		return value{}, nil, err
	}
	names := make([]string, 0, len(in.Names))
	for _, name := range in.Names {
		if err := authority.CheckName(name); err != nil {
			return value{}, nil, err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	want := value{
		Node: call.Node, Profile: in.Profile, Names: names, Key: enrol.IDOf(request.RawSubjectPublicKeyInfo),
		Authority: in.Authority, Subject: in.CommonName, Groups: in.Groups,
	}
	return want, request.Raw, want.ownSubject()
}

// What Kubernetes' node authorizer takes for a node: the subject's group and the beginning of its name.
const (
	nodeGroup  = "system:nodes"
	nodePrefix = "system:node:"
)

// ownSubject refuses a subject by which Kubernetes would take the bearer for another node than it is. Other subjects are
// what the pack says, which has no input from nodes.
func (v value) ownSubject() error {
	name := v.subject()
	if !strings.HasPrefix(name, nodePrefix) && !slices.Contains(v.Groups, nodeGroup) {
		return nil
	}
	if own := nodePrefix + v.Node; v.Node == "" || name != own || !slices.Equal(v.Groups, []string{nodeGroup}) {
		return fmt.Errorf("the subject %q of %q is not that of node %s, which is %q of %q", name, v.Groups, v.Node, own, nodeGroup)
	}
	return nil
}

// apply gives the owner's certificate again while more than two thirds of its life are left, so that an attempt that is
// repeated after a crash yields what the first one did; else it issues one. A key that certifies another node is
// refused: keys stay on the node that made them, so one that appears on two was copied.
func (s *Service) apply(ctx context.Context, call step.Call, want value, r authority.Request) (value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return value{}, err
	}
	for h := range s.keys[want.Key] {
		if v := s.held[h]; v.Node != want.Node || h.cluster != call.Cluster {
			return value{}, fmt.Errorf("cannot sign a certificate for %s: its key is that of %s (%s in cluster %s), and no key is on two nodes; make a new key",
				call.Owner, v.Node, h.owner, h.cluster)
		}
	}
	if v, ok := s.same(call, want); ok && v.NotAfter.Sub(s.cfg.Now()) > v.NotAfter.Sub(v.NotBefore)*2/3 {
		return v, nil
	}
	issuer, err := s.cfg.Authority.Named(ctx, call.Cluster, want.Authority)
	if err != nil {
		return value{}, err
	}
	c, err := issuer.Issue(ctx, r)
	if err != nil {
		return value{}, err
	}
	want.Leaf, want.NotBefore, want.NotAfter = c.Leaf, c.NotBefore, c.NotAfter
	raw, err := json.Marshal(want)
	if err != nil {
		return value{}, fmt.Errorf("internal error: entry of certs: %w", err)
	}
	// Until here nobody but the ledger has the certificate; what fails now leaves an unused serial behind.
	if err := s.write(ctx, call, []entries.Entry{{Key: keyPrefix + c.Serial, Value: raw}}); err != nil {
		return value{}, err
	}
	s.put(holder{call.Cluster, call.Owner}, want)
	return want, nil
}

// verify looks whether the owner has a valid certificate for just this.
func (s *Service) verify(ctx context.Context, call step.Call, want value) (value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return value{}, err
	}
	v, ok := s.same(call, want)
	if !ok || !s.cfg.Now().Before(v.NotAfter) {
		return value{}, fmt.Errorf("%s has no valid certificate for this key, profile and names", call.Owner)
	}
	return v, nil
}

// same gives what the owner holds, if it is for the same key, profile and names. The caller holds mu.
func (s *Service) same(call step.Call, want value) (value, bool) {
	v, ok := s.held[holder{call.Cluster, call.Owner}]
	return v, ok && v.Key == want.Key && v.Profile == want.Profile && slices.Equal(v.Names, want.Names) &&
		v.Authority == want.Authority && v.Subject == want.Subject && slices.Equal(v.Groups, want.Groups)
}

// load reads the table, unless it is in memory already. The caller holds mu.
func (s *Service) load(ctx context.Context) error {
	if s.loaded {
		return nil
	}
	list, _, err := s.cfg.Store.List(ctx, entries.Scope{Service: table})
	if err != nil {
		return fmt.Errorf("cannot read the certificates: %w", err)
	}
	s.held, s.keys = map[holder]value{}, map[enrol.KeyID]map[holder]bool{}
	for _, e := range list {
		var v value
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return fmt.Errorf("internal error: entry %s of certs: %w", e.Key, err)
		}
		s.put(holder{e.Cluster, e.Owner}, v)
	}
	s.loaded = true
	return nil
}

// put remembers what an owner holds. The caller holds mu.
func (s *Service) put(h holder, v value) {
	s.drop(h)
	s.held[h] = v
	if s.keys[v.Key] == nil {
		s.keys[v.Key] = map[holder]bool{}
	}
	s.keys[v.Key][h] = true
}

// drop forgets what an owner holds. The caller holds mu.
func (s *Service) drop(h holder) {
	old := s.held[h].Key
	delete(s.held, h)
	delete(s.keys[old], h)
	if len(s.keys[old]) == 0 {
		delete(s.keys, old)
	}
}

// subject is the common name: what was asked for, else the first name, where it is short enough (RFC 5280 appendix A.1:
// 64), else the node's.
func (v value) subject() string {
	switch {
	case v.Subject != "":
		return v.Subject
	case len(v.Names) > 0 && len(v.Names[0]) <= 64:
		return v.Names[0]
	}
	return v.Node
}

// revoke takes the entry away, which a superseded controller cannot, and then puts all that the ledger knows of the
// owner on the revocation list. After a crash between the two, the removal runs again.
func (s *Service) revoke(ctx context.Context, call step.Call) error {
	var in struct {
		Authority string `json:"authority"`
	}
	if err := json.Unmarshal(call.Inputs, &in); err != nil {
		return fmt.Errorf("cannot revoke the certificate of %s: its inputs do not fit: %w", call.Owner, err)
	}
	issuer, err := s.cfg.Authority.Named(ctx, call.Cluster, in.Authority)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(ctx, call, nil); err != nil {
		return err
	}
	s.drop(holder{call.Cluster, call.Owner})
	_, err = issuer.RevokeOwner(ctx, call.Owner)
	return err
}

// write makes the owner's entries what is wanted. The caller holds mu.
func (s *Service) write(ctx context.Context, call step.Call, want []entries.Entry) error {
	_, err := s.cfg.Store.Replace(ctx, entries.Scope{Service: table, Cluster: call.Cluster},
		entries.Writer{Owner: call.Owner, Epoch: call.Epoch}, want)
	if err != nil {
		s.loaded = false // whether it was written is not known
		return fmt.Errorf("cannot write the certificate of %s: %w", call.Owner, err)
	}
	return nil
}

// Person is an operator's client of a cluster.
type Person struct {
	CSR       []byte        // DER or PEM; of it only the key counts
	Authority string        // of the cluster; empty for its intermediate
	Groups    []string      // organizations of the subject, which say what a client may do
	Validity  time.Duration // at most; 0 for OperatorValidity, which is the most
}

// Operator certifies a key that a person's client made, for a few hours and as a client of one cluster. It is no entry:
// it grants nothing that a digest should show, and expires by itself.
func (s *Service) Operator(ctx context.Context, cluster string, who Person) (authority.Certificate, error) {
	if err := s.cfg.Inventory.Allowed(ctx, cluster, "", nil); err != nil {
		return authority.Certificate{}, fmt.Errorf("cannot certify an operator: %w", err)
	}
	if slices.Contains(who.Groups, nodeGroup) {
		return authority.Certificate{}, errors.New("cannot certify an operator as a node")
	}
	validity := OperatorValidity
	if who.Validity > 0 {
		validity = min(validity, who.Validity)
	}
	issuer, err := s.cfg.Authority.Named(ctx, cluster, who.Authority)
	if err != nil {
		return authority.Certificate{}, err
	}
	return issuer.Issue(ctx, authority.Request{
		CSR: who.CSR, Profile: profiles.Client, Owner: operatorOwner, Subject: operatorOwner, Groups: who.Groups, Validity: validity,
	})
}

// CRL gives the revocation list of a cluster's authority, in DER: of its intermediate if no authority is named, and of the
// site's root if no cluster is. Asking makes no authority: the error is fs.ErrNotExist where there is none.
func (s *Service) CRL(ctx context.Context, cluster, name string) ([]byte, error) {
	if cluster == "" && name == "" {
		return s.cfg.Authority.RootCRL(ctx)
	}
	issuer, err := s.cfg.Authority.Known(ctx, cluster, name)
	if err != nil {
		return nil, err
	}
	return issuer.CRL(ctx)
}
