package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"joist/engine/addr"
	"joist/engine/entries"
	"joist/pki/authority"
	"joist/pki/enrol"
	"joist/pki/profiles"
	"joist/services/agents"
	"joist/services/reserve"
)

// issuer signs; an authority.Issuer does.
type issuer interface {
	Issue(ctx context.Context, r authority.Request) (authority.Certificate, error)
}

// signer implements agents.Signer. It keeps what it issued for enrolments in memory, so that one that is repeated gets
// the same certificate.
type signer struct {
	issuer issuer
	now    func() time.Time

	mu     sync.Mutex // held while a certificate is made, so that one is made for requests at the same time
	issued map[issuedKey]authority.Certificate
	swept  time.Time
}

type issuedKey struct {
	boot     enrol.BootID
	key      enrol.KeyID
	identity string
}

func newSigner(i issuer, now func() time.Time) *signer {
	return &signer{issuer: i, now: now, issued: map[issuedKey]authority.Certificate{}}
}

func (s *signer) Sign(ctx context.Context, c agents.Certify) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	k := issuedKey{c.Boot, c.Key, c.Identity.URI().String()}
	if was, ok := s.issued[k]; ok && !c.Renew && was.NotAfter.Sub(now) > was.NotAfter.Sub(was.NotBefore)*2/3 {
		return was.Leaf + was.Chain, nil
	}
	cert, err := s.issuer.Issue(ctx, authority.Request{
		CSR: c.CSR, Profile: profiles.Agent, Owner: "node/" + c.Identity.Node, Subject: c.Identity.Node, URI: c.Identity.URI(),
	})
	if err != nil {
		return "", err
	}
	if now.Sub(s.swept) > time.Hour {
		s.swept = now
		for old, was := range s.issued {
			if now.After(was.NotAfter) {
				delete(s.issued, old)
			}
		}
	}
	if !c.Renew {
		s.issued[k] = cert
	}
	return cert.Leaf + cert.Chain, nil
}

// inventory implements certs.Inventory: a node may carry its own address, the names that its cluster's names service
// gives to it, and those that it gives to the cluster as a whole. The cluster as a whole may carry the latter. Names that
// the cluster reserved count like those that are served.
type inventory struct{ s *System }

func (i inventory) Allowed(ctx context.Context, cluster, node string, wanted []string) error {
	if _, err := i.s.Clusters.Get(cluster); err != nil {
		return err
	}
	list, _, err := i.s.db.Entries().List(ctx, entries.Scope{Service: "names", Cluster: cluster})
	if err != nil {
		return fmt.Errorf("cannot look up the names of cluster %s: %w", cluster, err)
	}
	who := identity{cluster: cluster, node: node}
	if m, ok := i.s.Site.Lookup(node); ok && m.Cluster == cluster {
		if seen, ok := i.s.seen(node); ok {
			who.address = seen.Address
		}
	}
	owners, err := ownersOf(list)
	if err != nil {
		return err
	}
	reserved, err := reserve.Names(ctx, i.s.db.Entries(), cluster, nodeOf)
	if err != nil {
		return err
	}
	for name, holder := range reserved {
		if _, served := owners[name]; !served {
			owners[name] = holder
		}
	}
	return who.may(wanted, owners)
}

func nodeOf(owner string) (string, error) {
	a, err := addr.Parse(owner)
	return a.Node, err
}

// ownersOf gives the node of each name that the names service serves: empty for the cluster as a whole.
func ownersOf(list []entries.Entry) (map[string]string, error) {
	owners := make(map[string]string, len(list))
	for _, e := range list {
		var v struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return nil, fmt.Errorf("cannot read the entry %s: %w", e.Key, err)
		}
		var err error
		if owners[v.Name], err = nodeOf(e.Owner); err != nil {
			return nil, err
		}
	}
	return owners, nil
}

// identity is who asks to carry names.
type identity struct {
	cluster string
	node    string // empty for the cluster as a whole
	address string // of the node; empty if it has none
}

// may says whether a certificate of the identity may carry the names, given whose the cluster's names are.
func (i identity) may(wanted []string, owners map[string]string) error {
	for _, name := range wanted {
		if name == i.address && name != "" {
			continue
		}
		holder, known := owners[name]
		switch {
		case !known:
			return fmt.Errorf("nothing in cluster %s gives %s the name %s; put the name first (base.dns_record, base.balancer, base.names)", i.cluster, i, name)
		case holder != "" && holder != i.node:
			return fmt.Errorf("%s is the name of node %s, and not of %s", name, holder, i)
		}
	}
	return nil
}

// digests gives the digests of a cluster's live entries by service; a service that has none is left out.
func (s *System) digests(ctx context.Context, cluster string) (map[string]string, error) {
	all := map[string]string{}
	for _, service := range []string{"names", "certs", "balance", reserve.Table} {
		list, _, err := s.db.Entries().List(ctx, entries.Scope{Service: service, Cluster: cluster})
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			all[service] = entries.Digest(list)
		}
	}
	return all, nil
}

func (i identity) String() string {
	if i.node == "" {
		return "the cluster"
	}
	return "node " + i.node
}

// forget destroys what is secret of a cluster that is destroyed.
func (s *System) forget(cluster string) error {
	return errors.Join(s.secrets.Forget(cluster), s.authority.Forget(context.Background(), cluster))
}
