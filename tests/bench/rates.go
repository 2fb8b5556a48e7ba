package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// ourselves is the name of joist among candidates.
const ourselves = "joist"

// contest starts each candidate in turn, measures it, stops it, and does that several times over, so that what else the
// machine does falls on all alike. It gives the medians by candidate.
func contest(ctx context.Context, rounds int, list []candidate, measure func(name string) (map[string]float64, error)) (map[string]map[string]float64, error) {
	figures := map[string]map[string][]float64{} // by figure and candidate
	for range rounds {
		for _, c := range list {
			got, err := once(ctx, c, measure)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			for figure, v := range got {
				if figures[figure] == nil {
					figures[figure] = map[string][]float64{}
				}
				figures[figure][c.name] = append(figures[figure][c.name], v)
			}
		}
	}
	medians := map[string]map[string]float64{}
	for figure, by := range figures {
		medians[figure] = map[string]float64{}
		for name, list := range by {
			medians[figure][name] = median(list)
		}
	}
	return medians, nil
}

func once(ctx context.Context, c candidate, measure func(string) (map[string]float64, error)) (map[string]float64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := c.start()
	if err != nil {
		return nil, err
	}
	defer p.kill()
	return measure(c.name)
}

// show prints a figure of joist against the others.
func show(s *suite, name, unit string, by map[string]float64) error {
	ours, ok := by[ourselves]
	if !ok {
		return errors.New("internal error: joist itself was not measured")
	}
	peers := maps.Clone(by)
	delete(peers, ourselves)
	s.out.peers(name, unit, ours, peers)
	return nil
}
