// Package limit is the arithmetic of rollouts: how many nodes may be taken at a time.
package limit

import (
	"joist/engine/model"
)

// Places turns a count into a number of nodes out of total: percentages are rounded down, and it is at least 1.
func Places(c model.Count, total int) int {
	n := c.N
	if c.Percent {
		n = total * c.N / 100
	}
	return max(n, 1)
}

// Of is how many places of a rollout may be taken while proven of its nodes are done, out of total before the change:
// those of the wave that is under way. A wave begins when every node of the waves before it is proven; the last has no end.
// Canaries come out of the first waves.
func Of(r *model.Rollout, proven, total int) int {
	limit, end := Places(r.MaxInFlight, total), 0
	for _, wave := range r.Waves {
		size := Places(wave, total)
		if end += size; proven < end {
			limit = min(size, end-proven)
			break
		}
	}
	if proven < r.Canaries {
		limit = min(limit, r.Canaries-proven)
	}
	return limit
}

// Share is how many places nodes of one failure domain may hold at a time, if limit places are spread over a number of
// domains: an even share, rounded up.
func Share(limit, domains int) int {
	if domains <= 1 {
		return limit
	}
	return max((limit+domains-1)/domains, 1)
}
