package names

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"joist/dhcp-dns/zone"
	"joist/engine/entries"
)

// cache is the table in the form in which it is served.
type cache struct {
	version uint64        // of the table
	set     *zone.Set     // what is served
	zones   map[claim]int // which clusters have names where, and how many
	values  map[place]decoded
}

// place is where an entry stands in the table.
type place struct{ cluster, key string }

// decoded is an entry's value, kept because most of a table is the same from one version to the next.
type decoded struct {
	raw   json.RawMessage
	value value
}

// Load reads the table and serves it, if that has not been done. Calls do so by themselves; a start calls it so that names
// resolve before the first call.
func (s *Service) Load(ctx context.Context) error {
	s.mu.Lock()
	loaded := s.loaded
	s.mu.Unlock()
	if loaded {
		return nil
	}
	return s.refresh(ctx, 0)
}

// Version is the version of the table that is served, 0 before Load.
func (s *Service) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Digest is the digest of a cluster's live names, of all clusters' for "".
func (s *Service) Digest(ctx context.Context, cluster string) (string, error) {
	live, _, err := s.cfg.Store.List(ctx, entries.Scope{Service: table, Cluster: cluster})
	if err != nil {
		return "", fmt.Errorf("cannot read the table of names: %w", err)
	}
	return entries.Digest(live), nil
}

// refresh returns once a table of at least the given version is served. Calls that wait for one another here find their
// change served by the one before, so that many concurrent changes cost few readings.
func (s *Service) refresh(ctx context.Context, atLeast uint64) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	s.mu.Lock()
	done, served, known := s.loaded && s.version >= atLeast, s.version, s.values
	s.mu.Unlock()
	if done {
		return nil
	}
	next, err := s.read(ctx, max(served, atLeast), known)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = err == nil // what was served stays served, but the next call reads again before it decides anything
	if err != nil {
		return err
	}
	s.cfg.Server.Swap(next.set)
	s.cache = next
	return nil
}

// read builds what the table holds, which must be of at least the given version. Known are values that were read before.
func (s *Service) read(ctx context.Context, atLeast uint64, known map[place]decoded) (cache, error) {
	live, version, err := s.cfg.Store.List(ctx, entries.Scope{Service: table})
	if err != nil {
		return cache{}, fmt.Errorf("cannot read the table of names: %w", err)
	}
	if version < atLeast {
		return cache{}, fmt.Errorf("the table of names went back from version %d to %d; the old names stay served", atLeast, version)
	}
	next := cache{version: version, zones: map[claim]int{}, values: make(map[place]decoded, len(live))}
	zones, err := next.group(live, known)
	if err != nil {
		return cache{}, err
	}
	cfg := s.cfg.Zone
	cfg.Serial = zone.SerialOf(version)
	if next.set, err = zone.Build(cfg, zones); err != nil {
		return cache{}, fmt.Errorf("cannot build the zones of table version %d: %w", version, err)
	}
	return next, nil
}

// group sorts entries into zones, and notes their values and which clusters have names in which.
func (c *cache) group(live []entries.Entry, known map[place]decoded) ([]zone.Forward, error) {
	byDomain := map[string]int{}
	var zones []zone.Forward
	for _, e := range live {
		at := place{cluster: e.Cluster, key: e.Key}
		d := known[at]
		if !bytes.Equal(d.raw, e.Value) {
			d = decoded{raw: e.Value}
			if err := json.Unmarshal(e.Value, &d.value); err != nil {
				return nil, fmt.Errorf("cannot read entry %s of cluster %s: %w", e.Key, e.Cluster, err)
			}
		}
		c.values[at] = d
		v := d.value
		i, ok := byDomain[v.Zone]
		if !ok {
			i = len(zones)
			byDomain[v.Zone] = i
			zones = append(zones, zone.Forward{Domain: v.Zone})
		}
		zones[i].Entries = append(zones[i].Entries, zone.Entry{Name: v.Name, Addresses: v.Addresses})
		c.zones[claim{zone: v.Zone, cluster: e.Cluster}]++
	}
	return zones, nil
}
