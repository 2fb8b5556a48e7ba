// Package pace says when something is done again: an attempt that failed, one that came to no end yet, and a success whose life
// ends.
package pace

import (
	"hash/fnv"
	"time"

	"joist/engine/history"
	"joist/engine/step"
)

// How soon, and how late at most, an attempt that waits for something outside is repeated.
const (
	firstWait   = 5 * time.Second
	longestWait = time.Minute
)

// Postponed ends an attempt that came to no end yet, the first after f.Waits of them.
func Postponed(now time.Time, t history.Target, f *history.Flight, l step.Later) history.Event {
	after := min(max(l.After, step.LeastAfter), step.MostAfter)
	if l.Kind != step.RetryAfter {
		after = min(Backoff(firstWait, f.Waits+1), longestWait)
	}
	retry := now.Add(after)
	return history.Failed{Target: t, Action: f.Action, Attempt: f.Attempt, Error: l.Reason, Later: l.Kind, Retry: &retry}
}

// longestBackoff bounds the doubling of a step's back-off.
const longestBackoff = 5 * time.Minute

// Backoff is how long to wait after an attempt that failed, counted from 1: base, doubled with each.
func Backoff(base time.Duration, attempt int) time.Duration {
	d := base
	for range attempt - 1 {
		if d *= 2; d >= longestBackoff {
			return longestBackoff
		}
	}
	return d
}

// shortestLife is how soon after a success it is renewed at the earliest, whatever its life.
const shortestLife = 10 * time.Second

// Renewal is when a success with a limited life expires: when a third of that life is left, less a jitter of up to a
// tenth of it hashed from the address, so that what was issued together is not renewed together.
func Renewal(t history.Target, row *history.Row) time.Time {
	life := row.Due.Sub(row.Done)
	h := fnv.New32a()
	h.Write([]byte(t.Task + "\x00" + t.Node))
	jitter := time.Duration(float64(life) / 10 * float64(h.Sum32()%1000) / 1000)
	at, least := row.Due.Add(-life/3-jitter), row.Done.Add(shortestLife)
	if at.Before(least) {
		return least
	}
	return at
}
