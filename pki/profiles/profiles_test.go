package profiles

import (
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All() {
		if seen[p.Name] || p.Validity <= 0 || !p.Server && !p.Client || p.Names == p.URI {
			t.Errorf("profile %+v is of no use", p)
		}
		seen[p.Name] = true
		if found, err := Find(p.Name); err != nil || found != p {
			t.Errorf("Find(%s) = %+v, %v", p.Name, found, err)
		}
	}
	for _, name := range ForClusters() {
		if p, err := Find(name); err != nil || p.URI {
			t.Errorf("clusters may ask for %s: %v", name, err)
		}
	}
	if _, err := Find("ca"); err == nil || !strings.Contains(err.Error(), "peer, server, client, agent, engine") {
		t.Errorf("Find(ca) = %v", err)
	}
}
