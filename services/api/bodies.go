package api

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	v1 "joist/services/api/v1"
)

// The bounds of those who wait for room for their bodies.
const (
	maxWaiting = 2000            // requests
	maxWait    = 5 * time.Minute // of each
)

// bodies bounds the memory that large bodies take, all together: each is held as it came, and decoded, until its request is
// answered. Small ones (maxSmall) are not counted, so that a person's word never waits behind somebody's packs.
type bodies struct {
	room    *semaphore.Weighted // bytes
	largest int64               // of one body, bytes
	waiting atomic.Int64
}

func newBodies(together, largest int64) *bodies {
	return &bodies{room: semaphore.NewWeighted(together), largest: largest}
}

// take waits until there is room for a request's body, and gives the function that gives the room back. One whose length is not
// stated takes what the longest may. If many wait already, or for long, that is said to the client at once, who may come again.
func (b *bodies) take(w http.ResponseWriter, r *http.Request) (done func(), err error) {
	size := r.ContentLength
	switch {
	case size > b.largest:
		return nil, &http.MaxBytesError{Limit: b.largest}
	case size < 0:
		size = b.largest
	case size <= maxSmall:
		return func() {}, nil
	}
	done = func() { b.room.Release(size) }
	if b.room.TryAcquire(size) {
		return done, nil
	}
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) > maxWaiting {
		return nil, busy(w)
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxWait)
	defer cancel()
	switch err := b.room.Acquire(ctx, size); {
	case err == nil:
		return done, nil
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	}
	return nil, busy(w)
}

func busy(w http.ResponseWriter) error {
	w.Header().Set("Retry-After", "10") // seconds (RFC 9110 § 10.2.3)
	return Fail(v1.Unavailable, errors.New("the engine has its hands full of other large requests"), "try again in a moment")
}
