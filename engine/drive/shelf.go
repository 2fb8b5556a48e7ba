package drive

import (
	"context"
	"fmt"
	"sync"

	"joist/engine/addr"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/value"
)

// shelf holds the models and large values that the machine may ask for, so that the pure core never waits for I/O.
type shelf struct {
	library Library
	blobs   journal.Blobs

	mu     sync.Mutex
	models map[value.Digest]*model.Model
	last   *model.Model
	recent map[value.Digest][]byte
}

// stock loads the models of every goal that matters still: the newest, and those of live rows.
func (s *shelf) stock(ctx context.Context, state *history.State) error {
	needed := map[int]bool{len(state.Goals) - 1: true}
	for _, c := range state.Columns {
		for _, r := range c.Rows {
			if r != nil && r.Phase != history.Absent {
				needed[r.Goal] = true
			}
		}
	}
	for i, g := range state.Goals {
		if !needed[i] || g.Destroy {
			continue
		}
		if _, err := s.load(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) load(ctx context.Context, g history.Goal) (*model.Model, error) {
	if m := s.Model(g); m != nil {
		return m, nil
	}
	m, err := s.library.Model(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("cannot load the model of goal %s: %w", g.Model.Short(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models[g.Model], s.last = m, m
	return m, nil
}

// Model implements run.Library.
func (s *shelf) Model(g history.Goal) *model.Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.models[g.Model]
}

func (s *shelf) newest() *model.Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// keep remembers a large value that was just stored, until it is asked for from the store.
func (s *shelf) keep(k run.Keep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recent == nil || len(s.recent) > 256 {
		s.recent = map[value.Digest][]byte{}
	}
	s.recent[k.Digest] = k.Data
}

// Blob implements run.Library. The store is local and content-addressed, so that the answer is always the same.
func (s *shelf) Blob(d value.Digest) []byte {
	s.mu.Lock()
	data, ok := s.recent[d]
	s.mu.Unlock()
	if ok {
		return data
	}
	data, err := s.blobs.Get(context.Background(), d.String())
	if err != nil {
		return nil
	}
	return data
}

func (c *Cluster) address(t history.Target) string {
	return addr.Instance{Cluster: c.cfg.Cluster, Task: t.Task, Node: t.Node}.String()
}
