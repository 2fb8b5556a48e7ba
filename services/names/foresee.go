package names

import (
	"context"
	"encoding/json"
	"fmt"

	"joist/dhcp-dns/zone"
	"joist/engine/step"
)

// Foresee is a [step.Foresee]: it refuses names that could not be served, since they are none, are the name server's, or would be
// of a zone that another cluster has. Addresses need not be known yet.
func (s *Service) Foresee(ctx context.Context, calls []step.Call) (*step.Refusal, error) {
	if err := s.Load(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, call := range calls {
		if call.Name != callPut {
			continue
		}
		var in inputs
		if err := json.Unmarshal(call.Inputs, &in); err != nil {
			return &step.Refusal{Call: i, Advice: "Look at its inputs.", Why: fmt.Sprintf("the name of %s cannot be served: its inputs do not fit: %v", call.Owner, err)}, nil
		}
		name, domain, err := s.where(in.Name, in.Zone)
		if err != nil {
			return &step.Refusal{Call: i, Input: "name", Advice: "Choose another domain, such as demo.lab.", Why: fmt.Sprintf("%s would have a name that cannot be served: %v", call.Owner, err)}, nil
		}
		var has claim // the first of those in its way
		for other := range s.zones {
			if other.cluster != call.Cluster && zone.Overlap(other.zone, domain) && (has.zone == "" || other.zone < has.zone) {
				has = other
			}
		}
		if has.zone != "" {
			return &step.Refusal{Call: i, Input: "name", Advice: "Give the clusters domains of which neither contains the other.",
				Why: fmt.Sprintf("%s could not be found by the name %s: cluster %s has the zone %s", call.Owner, name, has.cluster, has.zone)}, nil
		}
	}
	return nil, nil
}
