// Package entries is the table that stands behind every service: keys with values, each owned by the one instance that
// wrote it. A service (names, certificates, balancer, boot) is a small driver over such a table, and what it serves is
// a cache of it.
package entries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Scope names one service's table within one cluster.
type Scope struct {
	Service string // "names", "certs", "balance", …
	Cluster string // cluster name
}

// Entry is one live fact that a service serves.
type Entry struct {
	Scope
	Key   string          // unique within the scope, such as "a/n1.demo.lab"
	Owner string          // address of the instance that wrote it
	Value json.RawMessage // canonical JSON (as json.Marshal of a struct gives), so that equal entries have equal digests
}

// Store keeps entries durably.
type Store interface {
	// Replace makes the entries that owner holds in the scope exactly want (none removes all of them), durably and at
	// once, and returns the table's new version, which grows with every change of any scope. An unchanged set keeps the
	// version. A key held by another owner fails the whole call with *OwnedError; an epoch older than the newest seen in
	// the scope's cluster fails it with *StaleEpochError.
	Replace(ctx context.Context, scope Scope, owner Writer, want []Entry) (version uint64, err error)

	// List returns the live entries of a service, sorted by cluster and key, and the table's version. An empty cluster
	// in the scope means all clusters.
	List(ctx context.Context, scope Scope) ([]Entry, uint64, error)
}

// Writer says in whose name a table is changed.
type Writer struct {
	Owner string // address of the instance
	Epoch uint64 // epoch of the controller that asks
}

// OwnedError reports a key that another instance holds.
type OwnedError struct{ Key, Owner, Asked string }

// Error implements error.
func (e *OwnedError) Error() string {
	return fmt.Sprintf("cannot write %s for %s: it belongs to %s; choose another name, or remove that instance first", e.Key, e.Asked, e.Owner)
}

// StaleEpochError reports a request by a controller that has been succeeded by another.
type StaleEpochError struct{ Asked, Newest uint64 }

// Error implements error.
func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("cannot write with epoch %d: a controller with epoch %d has taken over", e.Asked, e.Newest)
}

// Digest is the digest of a set of live entries, in hexadecimal SHA-256: equal for equal sets whatever their order.
// Counters and history (serials, revocation lists, lease affinity) are no entries and lie outside it.
func Digest(list []Entry) string {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b Entry) int {
		return strings.Compare(a.Service+"\x00"+a.Cluster+"\x00"+a.Key, b.Service+"\x00"+b.Cluster+"\x00"+b.Key)
	})
	h := sha256.New()
	for _, e := range sorted {
		for _, field := range []string{e.Service, e.Cluster, e.Key, e.Owner, string(e.Value)} {
			fmt.Fprintf(h, "%d:%s", len(field), field)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
