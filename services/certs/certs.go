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

// Service signs certificates. It is safe for concurrent use.
type Service struct{ cfg Config }

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
		Call:     callSign,
		Inputs:   map[string]string{"csr": "csr", "profile": "string", "names": "list(string)"},
		Outputs:  map[string]string{"certificate": "certificate"},
		Optional: []string{"names"},
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
}

type outputs struct {
	Certificate authority.Certificate `json:"certificate"`
}

// value is an entry's value. All of it is public.
type value struct {
	Node      string                `json:"node,omitempty"`
	Profile   string                `json:"profile"`
	Names     []string              `json:"names"`
	Key       enrol.KeyID           `json:"key"`
	NotBefore time.Time             `json:"not_before"`
	NotAfter  time.Time             `json:"not_after"`
	Issued    authority.Certificate `json:"certificate"`
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
	held, err := s.held(ctx, call, want)
	if err != nil {
		return step.Result{}, err
	}
	switch call.Action {
	case step.Apply:
		return s.apply(ctx, call, want, csr, held)
	case step.Verify:
		if held == nil || !s.cfg.Now().Before(held.NotAfter) {
			return step.Result{}, fmt.Errorf("%s has no valid certificate for this key, profile and names", call.Owner)
		}
		return result(held)
	default:
		return step.Result{}, fmt.Errorf("certs.sign has no action %q", call.Action)
	}
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
	return value{Node: call.Node, Profile: in.Profile, Names: names, Key: enrol.IDOf(request.RawSubjectPublicKeyInfo)}, request.Raw, nil
}

// held gives the owner's certificate if it is what is wanted, else nil. A key that certifies another node is refused:
// keys stay on the node that made them, so one that appears on two was copied.
func (s *Service) held(ctx context.Context, call step.Call, want value) (*value, error) {
	list, _, err := s.cfg.Store.List(ctx, entries.Scope{Service: table})
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificates of %s: %w", call.Cluster, err)
	}
	var found *value
	for _, e := range list {
		var v value
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return nil, fmt.Errorf("internal error: entry %s of certs: %w", e.Key, err)
		}
		switch {
		case v.Key == want.Key && (v.Node != want.Node || e.Cluster != call.Cluster):
			return nil, fmt.Errorf("cannot sign a certificate: its key is that of %s (%s in cluster %s), and no key is on two nodes; make a new key",
				v.Node, e.Owner, e.Cluster)
		case e.Cluster == call.Cluster && e.Owner == call.Owner && v.Key == want.Key && v.Profile == want.Profile && slices.Equal(v.Names, want.Names):
			found = &v
		}
	}
	return found, nil
}

// apply gives the owner's certificate again while more than two thirds of its life are left, so that an attempt that is
// repeated after a crash yields what the first one did; else it issues one.
func (s *Service) apply(ctx context.Context, call step.Call, want value, csr []byte, held *value) (step.Result, error) {
	if err := s.cfg.Inventory.Allowed(ctx, call.Cluster, call.Node, want.Names); err != nil {
		return step.Result{}, fmt.Errorf("cannot sign a certificate for %s: %w", call.Owner, err)
	}
	v := want
	if held != nil && held.NotAfter.Sub(s.cfg.Now()) > held.NotAfter.Sub(held.NotBefore)*2/3 {
		v = *held
	} else {
		issuer, err := s.cfg.Authority.Cluster(ctx, call.Cluster)
		if err != nil {
			return step.Result{}, err
		}
		c, err := issuer.Issue(ctx, authority.Request{
			CSR: csr, Profile: v.Profile, Owner: call.Owner, Subject: subject(call.Node, v.Names), Names: v.Names,
		})
		if err != nil {
			return step.Result{}, err
		}
		v.Issued, v.NotBefore, v.NotAfter = c, c.NotBefore, c.NotAfter
		raw, err := json.Marshal(v)
		if err != nil {
			return step.Result{}, fmt.Errorf("internal error: entry of certs: %w", err)
		}
		// Until here nobody but the ledger has the certificate; what fails now leaves an unused serial behind.
		if err := s.write(ctx, call, []entries.Entry{{Key: keyPrefix + c.Serial, Value: raw}}); err != nil {
			return step.Result{}, err
		}
	}
	return result(&v)
}

// subject is the common name: the first name, where it is short enough (RFC 5280 appendix A.1: 64), else the node's.
func subject(node string, names []string) string {
	if len(names) > 0 && len(names[0]) <= 64 {
		return names[0]
	}
	return node
}

// revoke puts the owner's certificates on the revocation list, then takes the entry away: after a crash between the
// two, the removal runs again.
func (s *Service) revoke(ctx context.Context, call step.Call) error {
	issuer, err := s.cfg.Authority.Cluster(ctx, call.Cluster)
	if err != nil {
		return err
	}
	if _, err := issuer.RevokeOwner(ctx, call.Owner); err != nil {
		return err
	}
	return s.write(ctx, call, nil)
}

func (s *Service) write(ctx context.Context, call step.Call, want []entries.Entry) error {
	_, err := s.cfg.Store.Replace(ctx, entries.Scope{Service: table, Cluster: call.Cluster},
		entries.Writer{Owner: call.Owner, Epoch: call.Epoch}, want)
	if err != nil {
		return fmt.Errorf("cannot write the certificate of %s: %w", call.Owner, err)
	}
	return nil
}

func result(v *value) (step.Result, error) {
	out, err := json.Marshal(outputs{Certificate: v.Issued})
	if err != nil {
		return step.Result{}, fmt.Errorf("internal error: outputs of certs.sign: %w", err)
	}
	return step.Result{Outputs: out, ValidUntil: v.NotAfter}, nil
}

// Operator certifies a key that a person's client made, for a few hours and as a client of one cluster. The CSR is DER
// or PEM. It is no entry: it grants nothing that a digest should show, and expires by itself.
func (s *Service) Operator(ctx context.Context, cluster string, csr []byte) (authority.Certificate, error) {
	if err := s.cfg.Inventory.Allowed(ctx, cluster, "", nil); err != nil {
		return authority.Certificate{}, fmt.Errorf("cannot certify an operator: %w", err)
	}
	issuer, err := s.cfg.Authority.Cluster(ctx, cluster)
	if err != nil {
		return authority.Certificate{}, err
	}
	return issuer.Issue(ctx, authority.Request{
		CSR: csr, Profile: profiles.Client, Owner: operatorOwner, Subject: operatorOwner, Validity: OperatorValidity,
	})
}

// CRL gives a cluster's revocation list, in DER.
func (s *Service) CRL(ctx context.Context, cluster string) ([]byte, error) {
	issuer, err := s.cfg.Authority.Cluster(ctx, cluster)
	if err != nil {
		return nil, err
	}
	return issuer.CRL(ctx)
}
