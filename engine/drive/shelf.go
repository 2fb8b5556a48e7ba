package drive

import (
	"context"
	"fmt"
	"sync"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/value"
)

// shelf holds the models and large values that the machine may ask for, so that the pure core never waits for a network.
type shelf struct {
	cfg Config

	mu      sync.Mutex
	models  map[value.Digest]*model.Model
	recent  map[value.Digest][]byte // large values of the last starts
	secrets bool                    // some model has a step that yields a secret
}

// recentValues is how many large values are kept in memory.
const recentValues = 256

// stock loads the models of every goal that matters still: the newest, and those of live rows.
func (s *shelf) stock(ctx context.Context, state *history.State) error {
	needed := map[int]bool{len(state.Goals) - 1: true}
	for _, c := range state.Columns {
		for _, r := range c.Rows {
			if r != nil && r.Phase != history.Absent {
				needed[r.Goal], needed[r.Stood] = true, true
			}
		}
	}
	for i, g := range state.Goals {
		if !needed[i] || g.Destroy && g.Model == (value.Digest{}) {
			continue
		}
		switch _, err := s.load(ctx, g); {
		case err == nil:
		case g.Destroy: // all of it is but the policies: a cluster whose packs are lost can be taken away still
			s.cfg.Log.Error("cannot look whether a policy holds what a destruction wipes", "cluster", s.cfg.Cluster, "error", err)
		default:
			return err
		}
	}
	return nil
}

func (s *shelf) load(ctx context.Context, g history.Goal) (*model.Model, error) {
	if m := s.Model(g); m != nil {
		return m, nil
	}
	m, err := s.cfg.Library.Model(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("cannot load the model of goal %s: %w", g.Model.Short(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models[g.Model] = m
	for i := range m.Tasks {
		s.secrets = s.secrets || m.Tasks[i].Step.OutputType().Holds(value.Secret)
	}
	return m, nil
}

// Model implements run.Library.
func (s *shelf) Model(g history.Goal) *model.Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.models[g.Model]
}

// yieldsSecrets reports whether any report may hold a secret.
func (s *shelf) yieldsSecrets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets
}

// keep remembers a large value that was just stored, until it is asked for from the store.
func (s *shelf) keep(k run.Keep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.recent) >= recentValues {
		clear(s.recent)
	}
	s.recent[k.Digest] = k.Data
}

// Blob implements run.Library. The store is local and content-addressed, so that the answer is always the same. What
// cannot be read is nil, which the machine makes the failure of whatever needs it.
func (s *shelf) Blob(d value.Digest) []byte {
	s.mu.Lock()
	data, ok := s.recent[d]
	s.mu.Unlock()
	if ok {
		return data
	}
	data, err := s.cfg.Blobs.Get(context.Background(), d.String())
	if err != nil {
		s.cfg.Log.Error("cannot read a large input; what needs it fails", "cluster", s.cfg.Cluster, "digest", d.Short(), "error", err)
		return nil
	}
	return data
}
