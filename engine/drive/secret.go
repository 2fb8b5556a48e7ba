package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/value"
)

// errNoSecrets is why a step that has to do with secrets fails in an engine without a keeper of them.
var errNoSecrets = errors.New("this engine keeps no secrets")

// sealed gives a report in which each secret is its handle. What cannot be sealed makes the report one of a failure, which
// says nothing of the outputs; an error of the keeper is "not now", and whoever reports tries again.
func (c *Cluster) sealed(ctx context.Context, t history.Target, r run.Report) (run.Report, error) {
	if r.Error != "" {
		r.Outputs = nil
		return r, nil
	}
	if len(r.Outputs) == 0 || !c.shelf.yieldsSecrets() {
		return r, nil
	}
	s, err := c.stepOf(ctx, t, r.ID)
	if err != nil || s == nil || !s.OutputType().Holds(value.Secret) {
		return r, err
	}
	var given map[string]json.RawMessage
	if json.Unmarshal(r.Outputs, &given) != nil {
		return run.Report{ID: r.ID, Error: fmt.Sprintf("step %s: its outputs are not a JSON object", s.Name)}, nil
	}
	for _, f := range s.Outputs {
		data, ok := given[f.Name]
		if !ok || !f.Type.Holds(value.Secret) {
			continue
		}
		var keeper error
		v, err := f.Type.Seal(data, func(plain []byte) (value.Handle, error) {
			if c.cfg.Secrets == nil {
				return value.Handle{}, errNoSecrets
			}
			h, err := c.cfg.Secrets.Seal(ctx, c.cfg.Cluster, plain)
			keeper = err
			return h, err
		})
		if keeper != nil {
			return r, fmt.Errorf("cannot seal output %s of %s: %w", f.Name, c.address(t), keeper)
		}
		if err == nil {
			given[f.Name], err = v.MarshalJSON()
		}
		if err != nil {
			return run.Report{ID: r.ID, Error: fmt.Sprintf("step %s: output %s: %v", s.Name, f.Name, err)}, nil
		}
	}
	r.Outputs, err = json.Marshal(given)
	return r, err
}

// stepOf gives the step of an attempt in flight, nil if it is not in flight any more.
func (c *Cluster) stepOf(ctx context.Context, t history.Target, id uint64) (*model.Step, error) {
	var s *model.Step
	err := c.send(ctx, func(m *run.Machine, _ time.Time) ([]history.Event, error) {
		row := m.State().Row(t)
		if row == nil || row.Flight == nil || row.Started != id {
			return nil, nil
		}
		if was := c.shelf.Model(m.State().Goals[row.Goal]); was != nil {
			if task := was.Task(t.Task); task != nil {
				s = task.Step
			}
		}
		return nil, nil
	})
	return s, err
}

// clear gives the inputs as JSON with their secrets in clear, and the names of those that hold some.
func (c *Cluster) clear(ctx context.Context, fields []model.Field, inputs map[string]value.Value) (map[string]json.RawMessage, []string, error) {
	all, secret := make(map[string]json.RawMessage, len(inputs)), []string(nil)
	types := make(map[string]value.Type, len(fields))
	for _, f := range fields {
		types[f.Name] = f.Type
		if f.Type.Holds(value.Secret) {
			secret = append(secret, f.Name)
		}
	}
	for name, v := range inputs {
		data, err := c.open(ctx, types[name], v)
		if err != nil {
			return nil, nil, fmt.Errorf("input %s: %w", name, err)
		}
		all[name] = data
	}
	return all, secret, nil
}

// clearOutputs gives the outputs of the last success, as a remove gets them.
func (c *Cluster) clearOutputs(ctx context.Context, s *model.Step, outputs json.RawMessage) (json.RawMessage, error) {
	if !s.OutputType().Holds(value.Secret) {
		return outputs, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(outputs, &all); err != nil {
		return nil, fmt.Errorf("the outputs in the journal cannot be read: %w", err)
	}
	for _, f := range s.Outputs {
		data, ok := all[f.Name]
		if !ok || !f.Type.Holds(value.Secret) {
			continue
		}
		v, err := f.Type.Parse(data)
		if err == nil {
			all[f.Name], err = c.open(ctx, f.Type, v)
		}
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", f.Name, err)
		}
	}
	return json.Marshal(all)
}

func (c *Cluster) open(ctx context.Context, t value.Type, v value.Value) (json.RawMessage, error) {
	return t.Open(v, func(h value.Handle) ([]byte, error) {
		if c.cfg.Secrets == nil {
			return nil, errNoSecrets
		}
		return c.cfg.Secrets.Open(ctx, c.cfg.Cluster, h)
	})
}
