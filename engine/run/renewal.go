package run

import (
	"hash/fnv"
	"time"

	"joist/engine/history"
)

// shortestLife is how soon after a success it is renewed at the earliest, whatever its life.
const shortestLife = 10 * time.Second

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// renewal is when a success with a limited life expires: when a third of that life is left, less a jitter of up to a
// tenth of it hashed from the address, so that what was issued together is not renewed together.
func renewal(t history.Target, row *history.Row) time.Time {
	life := row.Due.Sub(row.Done)
	h := fnv.New32a()
	h.Write([]byte(t.Task + "\x00" + t.Node))
	jitter := time.Duration(float64(life) / 10 * float64(h.Sum32()%1000) / 1000)
	return later(row.Due.Add(-life/3-jitter), row.Done.Add(shortestLife))
}
