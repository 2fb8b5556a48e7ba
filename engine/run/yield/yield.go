// Package yield is about what steps yield: it computes that of pure steps, and checks that of all.
package yield

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"joist/engine/model"
	"joist/engine/value"
)

// Compute evaluates a pure step's outputs from its inputs. A gate that is not open is an error.
func Compute(s *model.Step, inputs map[string]value.Value) (json.RawMessage, error) {
	if s.Apply.Approve != nil {
		return json.RawMessage("{}"), nil
	}
	scope := bodyScope(inputs)
	if s.Apply.When != nil {
		v, err := s.Apply.When.Expr.Eval(scope)
		if err != nil {
			return nil, err
		}
		if !v.True() {
			return nil, fmt.Errorf("the gate %s is not open yet", s.Name)
		}
		return json.RawMessage("{}"), nil
	}
	out := make(map[string]value.Value, len(s.Apply.Outputs))
	for name, a := range s.Apply.Outputs {
		v, err := a.Expr.Eval(scope)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		out[name] = v
	}
	return value.Dict(out).MarshalJSON()
}

type bodyScope map[string]value.Value

// Lookup implements model.Scope.
func (b bodyScope) Lookup(r model.Ref) value.Value { return b[r.Name] }

// Check checks what a step yielded against what it declares: all of it, nothing else, of the declared types.
func Check(s *model.Step, data json.RawMessage) (json.RawMessage, error) {
	given := map[string]json.RawMessage{}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &given); err != nil {
			return nil, fmt.Errorf("step %s: its outputs are not a JSON object: %w", s.Name, err)
		}
	}
	for _, f := range s.Outputs {
		part, ok := given[f.Name]
		if !ok {
			if f.Optional {
				continue
			}
			return nil, fmt.Errorf("step %s did not yield its output %q; write it to outputs.json", s.Name, f.Name)
		}
		v, err := f.Type.Parse(part)
		if err == nil && v.Null() && !f.Optional && f.Type.Kind != value.Any {
			err = errors.New("it is null; give it a value or leave it out of an optional one")
		}
		if err != nil {
			return nil, fmt.Errorf("step %s: output %s: %w", s.Name, f.Name, err)
		}
		if given[f.Name], err = v.MarshalJSON(); err != nil {
			return nil, fmt.Errorf("step %s: output %s: %w", s.Name, f.Name, err)
		}
	}
	if len(given) > len(s.Outputs) {
		var names []string
		for name := range maps.Keys(given) {
			if !slices.ContainsFunc(s.Outputs, func(f model.Field) bool { return f.Name == name }) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			slices.Sort(names)
			return nil, fmt.Errorf("step %s yielded what it does not declare: %s", s.Name, strings.Join(names, ", "))
		}
	}
	return json.Marshal(given)
}
