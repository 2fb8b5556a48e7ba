package system

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"joist/engine/addr"
	"joist/engine/entries"
	"joist/pki/authority"
	"joist/pki/enrol"
	"joist/pki/profiles"
	"joist/services/agents"
)

// signer implements agents.Signer.
type signer struct {
	issuer *authority.Issuer

	mu     sync.Mutex
	issued map[issuedKey]authority.Certificate
}

type issuedKey struct {
	boot enrol.BootID
	key  enrol.KeyID
}

func newSigner(issuer *authority.Issuer) *signer {
	return &signer{issuer: issuer, issued: map[issuedKey]authority.Certificate{}}
}

func (s *signer) Sign(ctx context.Context, c agents.Certify) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := issuedKey{c.Boot, c.Key}
	if was, ok := s.issued[k]; ok && !c.Renew && time.Until(was.NotAfter) > was.NotAfter.Sub(was.NotBefore)*2/3 {
		return was.Leaf + was.Chain, nil
	}
	cert, err := s.issuer.Issue(ctx, authority.Request{
		CSR: c.CSR, Profile: profiles.Agent, Owner: "node/" + c.Identity.Node, Subject: c.Identity.Node, URI: c.Identity.URI(),
	})
	if err != nil {
		return "", err
	}
	for old, was := range s.issued {
		if time.Now().After(was.NotAfter) {
			delete(s.issued, old)
		}
	}
	s.issued[k] = cert
	return cert.Leaf + cert.Chain, nil
}

// inventory implements certs.Inventory: a node may carry its own address, names that its cluster's names service gives
// to that address, and names of the cluster's domain that no node has.
type inventory struct{ s *System }

func (i inventory) Allowed(ctx context.Context, cluster, node string, wanted []string) error {
	if node == "" {
		if _, err := i.s.Clusters.Get(cluster); err != nil {
			return err
		}
	}
	list, _, err := i.s.db.Entries().List(ctx, entries.Scope{Service: "names", Cluster: cluster})
	if err != nil {
		return err
	}
	owners := map[string]string{} // node by name; empty for the cluster as a whole
	for _, e := range list {
		var v struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return fmt.Errorf("cannot read the entry %s: %w", e.Key, err)
		}
		owner, err := addr.Parse(e.Owner)
		if err != nil {
			return err
		}
		owners[v.Name] = owner.Node
	}
	own := ""
	if seen, ok := i.s.seen(node); ok {
		own = seen.Address
	}
	for _, name := range wanted {
		holder, known := owners[name]
		switch {
		case name == own && own != "":
		case known && (holder == node || holder == ""):
		case known:
			return fmt.Errorf("%s is the name of node %s", name, holder)
		case node == "" && slices.Contains(i.s.Clusters.Names(), cluster) && strings.HasPrefix(name, cluster):
		default:
			return fmt.Errorf("nothing in cluster %s gives %s the name %s; put the name first (base.dns_record, base.balancer)", cluster, orCluster(node), name)
		}
	}
	return nil
}

// digests gives the digests of a cluster's live entries by service; a service that has none is left out.
func (s *System) digests(ctx context.Context, cluster string) (map[string]string, error) {
	all := map[string]string{}
	for _, service := range []string{"names", "certs", "balance"} {
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

func orCluster(node string) string {
	if node == "" {
		return "the cluster"
	}
	return "node " + node
}
