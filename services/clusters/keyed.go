package clusters

import "sync"

// keyed is a lock for each key.
type keyed struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	mu    sync.Mutex
	wants int // who has it or waits for it
}

// lock takes the key's lock and gives the function that gives it back.
func (k *keyed) lock(key string) (unlock func()) {
	k.mu.Lock()
	h := k.held[key]
	if h == nil {
		h = &turn{}
		if k.held == nil {
			k.held = map[string]*turn{}
		}
		k.held[key] = h
	}
	h.wants++
	k.mu.Unlock()
	h.mu.Lock()
	return func() {
		h.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.wants--; h.wants == 0 {
			delete(k.held, key)
		}
	}
}
