package entries

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
)

// Memory is a Store in memory, for simulation and tests. The zero value is ready for use.
type Memory struct {
	mu      sync.Mutex
	entries map[Scope]map[string]Entry
	epochs  map[string]uint64
	version uint64
}

// Replace implements Store.
func (m *Memory) Replace(_ context.Context, scope Scope, owner Writer, want []Entry) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if newest := m.epochs[scope.Cluster]; owner.Epoch < newest {
		return 0, &StaleEpochError{Asked: owner.Epoch, Newest: newest}
	}
	table := m.entries[scope]
	wanted := make(map[string]Entry, len(want))
	for _, e := range want {
		if held, ok := table[e.Key]; ok && held.Owner != owner.Owner {
			return 0, &OwnedError{Key: e.Key, Owner: held.Owner, Asked: owner.Owner}
		}
		e.Scope, e.Owner, e.Value = scope, owner.Owner, bytes.Clone(e.Value)
		wanted[e.Key] = e
	}
	if m.entries == nil {
		m.entries, m.epochs = map[Scope]map[string]Entry{}, map[string]uint64{}
	}
	if table == nil {
		table = map[string]Entry{}
		m.entries[scope] = table
	}
	m.epochs[scope.Cluster] = owner.Epoch
	changed := false
	for key, held := range table {
		if _, keep := wanted[key]; held.Owner == owner.Owner && !keep {
			delete(table, key)
			changed = true
		}
	}
	for key, e := range wanted {
		if held, ok := table[key]; !ok || !bytes.Equal(held.Value, e.Value) {
			table[key] = e
			changed = true
		}
	}
	if changed {
		m.version++
	}
	return m.version, nil
}

// List implements Store.
func (m *Memory) List(_ context.Context, scope Scope) ([]Entry, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Entry
	for s, table := range m.entries {
		if s.Service != scope.Service || scope.Cluster != "" && s.Cluster != scope.Cluster {
			continue
		}
		for _, e := range table {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int {
		if c := strings.Compare(a.Cluster, b.Cluster); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	return list, m.version, nil
}
