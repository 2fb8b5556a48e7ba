package balance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"joist/engine/entries"
	"joist/engine/step"
)

// Foresee is a [step.Foresee]: it refuses fronts that nobody could reach. Another cluster may have the name and the port, or two
// fronts of this one want them; there may be no address left to listen on, or no name that could lead to it.
func (s *Service) Foresee(ctx context.Context, calls []step.Call) (*step.Refusal, error) {
	var fronts []int
	wanted := map[string]string{} // owners by URL
	for i, call := range calls {
		if call.Name != callFront {
			continue
		}
		refuse := func(input, advice, format string, args ...any) (*step.Refusal, error) {
			return &step.Refusal{Call: i, Input: input, Advice: advice, Why: fmt.Sprintf(format, args...)}, nil
		}
		var in struct {
			Name string      `json:"name"`
			Port json.Number `json:"port"`
		}
		if err := json.Unmarshal(call.Inputs, &in); err != nil {
			return refuse("", "Look at its inputs.", "the front of %s cannot be made: its inputs do not fit: %v", call.Owner, err)
		}
		if port, err := strconv.ParseUint(in.Port.String(), 10, 16); err != nil || port == 0 {
			return refuse("port", "Choose a whole number from 1 to 65535.", "nobody could reach %s at %.80s: that is no port", call.Owner, in.Port)
		}
		if len(in.Name) > 253 || !fqdn.MatchString(in.Name) {
			return refuse("name", "Choose a domain name in lower case.", "nobody could reach %s as %.80q: that is no domain name", call.Owner, in.Name)
		}
		link := "https://" + in.Name + ":" + in.Port.String()
		if other := wanted[link]; other != "" {
			return refuse("name", "Give one of them another name or port.", "%s and %s both want to be reached at %s", other, call.Owner, link)
		}
		wanted[link] = call.Owner
		fronts = append(fronts, i)
	}
	if len(fronts) == 0 {
		return nil, nil
	}
	list, _, err := s.cfg.Store.List(ctx, entries.Scope{Service: table})
	if err != nil {
		return nil, fmt.Errorf("cannot read the fronts: %w", err)
	}
	if r, err := s.room(ctx, calls, fronts, list); r != nil || err != nil {
		return r, err
	}
	if s.cfg.Foresee == nil {
		return nil, nil
	}
	published := make([]step.Call, len(fronts))
	for k, i := range fronts {
		published[k] = calls[i]
		published[k].Name = "names.put"
	}
	r, err := s.cfg.Foresee(ctx, published)
	if r != nil {
		r.Call = fronts[r.Call]
	}
	return r, err
}

// room looks whether fronts may have their URLs, and whether there are addresses left for them.
func (s *Service) room(ctx context.Context, calls []step.Call, fronts []int, list []entries.Entry) (*step.Refusal, error) {
	var taken []netip.Addr
	kept := map[string]bool{} // owners whose fronts have an address
	others := map[string]string{}
	for _, e := range list {
		var v frontValue
		if !strings.HasPrefix(e.Key, frontKey) {
			continue
		}
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return nil, fmt.Errorf("internal error: entry %s of balance: %w", e.Key, err)
		}
		taken, kept[e.Owner] = append(taken, v.Address), true
		if e.Cluster != calls[fronts[0]].Cluster {
			others[v.URL] = e.Cluster
		}
	}
	for _, i := range fronts {
		var in frontInputs
		if err := decode(calls[i].Inputs, &in); err != nil {
			return &step.Refusal{Call: i, Advice: "Look at its inputs.", Why: fmt.Sprintf("the front of %s cannot be made: %v", calls[i].Owner, err)}, nil
		}
		link := "https://" + in.Name + ":" + strconv.Itoa(int(in.Port))
		if cluster := others[link]; cluster != "" {
			return &step.Refusal{Call: i, Input: "name", Advice: "Choose another name or port, such as those of a domain of its own.",
				Why: fmt.Sprintf("%s leads to cluster %s already, so nobody would reach this cluster there", link, cluster)}, nil
		}
		if kept[calls[i].Owner] {
			continue
		}
		address, err := s.cfg.Frontends.Claim(ctx, calls[i].Owner, slices.Clone(taken))
		if err != nil {
			return &step.Refusal{Call: i, Advice: "Destroy a cluster that is not needed any more, or serve in a larger subnet.", //nolint:nilerr // that is what is told
				Why: fmt.Sprintf("nobody could reach %s: %v", link, err)}, nil
		}
		taken = append(taken, address)
	}
	return nil, nil
}
