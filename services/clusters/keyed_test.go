package clusters

import (
	"crypto/sha256"
	"sync"
	"testing"
)

// TestKeyed: one at a time for a key, others meanwhile, and nothing is left behind.
func TestKeyed(t *testing.T) {
	var k keyed
	unlock := k.lock("other")
	counts := map[string]*int{"a": new(int), "b": new(int)}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			key := string(sha256.New().Sum([]byte{'a' + byte(i%2)})[:1])
			defer k.lock(key)()
			*counts[key]++
		})
	}
	wg.Wait()
	unlock()
	if *counts["a"] != 100 || *counts["b"] != 100 || len(k.held) != 0 {
		t.Errorf("%d, %d, %d locks left", *counts["a"], *counts["b"], len(k.held))
	}
}
