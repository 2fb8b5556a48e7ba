// Package reserve is the service that sets things aside for a cluster which only that cluster may use, and which nothing
// outside of it is asked for: names and addresses that certificates of the cluster may carry although no DNS server
// gives them out (reserve.names), and a part of a network for each node (reserve.network).
//
// Both are entries. Whoever checks names for certificates reads them with [Names].
package reserve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"joist/engine/entries"
	"joist/engine/step"
	"joist/pki/authority"
)

// Table is the service's table.
const Table = "reserve"

const (
	callNames   = "reserve.names"
	callNetwork = "reserve.network"
	nameKey     = "name/"
	networkKey  = "network/"
)

// maxParts bounds the parts that a network is divided into: a search through them all must be quick.
const maxParts = 1 << 16

// Service performs the calls. It is safe for concurrent use. One service writes to a Store at a time.
type Service struct {
	store entries.Store
	mu    sync.Mutex // held from the look at what is taken to the write
}

// New makes the service over a store.
func New(store entries.Store) *Service { return &Service{store: store} }

// Signatures describes the calls of this service.
func Signatures() []step.Signature {
	return []step.Signature{
		{Call: callNames, Inputs: map[string]string{"names": "list(string)"}, Outputs: map[string]string{"names": "list(string)"}},
		{Call: callNetwork, Inputs: map[string]string{"within": "cidr", "prefix": "number"}, Outputs: map[string]string{"network": "cidr"}},
	}
}

// Handlers are the service's calls by name.
func (s *Service) Handlers() map[string]step.Handler {
	return map[string]step.Handler{callNames: step.HandlerFunc(s.names), callNetwork: step.HandlerFunc(s.network)}
}

// Reserved is an entry's value.
type Reserved struct {
	Name    string `json:"name,omitempty"`    // of reserve.names: a DNS name or an address
	Network string `json:"network,omitempty"` // of reserve.network
}

type namesInputs struct {
	Names []string `json:"names"`
}

type namesOutputs struct {
	Names []string `json:"names"`
}

func (s *Service) names(ctx context.Context, call step.Call) (step.Result, error) {
	if call.Action == step.Remove {
		return step.Result{}, s.write(ctx, call, nil)
	}
	var in namesInputs
	if err := decode(call.Inputs, &in); err != nil {
		return step.Result{}, fmt.Errorf("cannot reserve names: %w", err)
	}
	var want []entries.Entry
	for _, name := range in.Names {
		if err := authority.CheckName(name); err != nil {
			return step.Result{}, fmt.Errorf("cannot reserve a name: %w", err)
		}
		e, err := entry(call, nameKey+name, Reserved{Name: name})
		if err != nil {
			return step.Result{}, err
		}
		if !slices.ContainsFunc(want, func(o entries.Entry) bool { return o.Key == e.Key }) {
			want = append(want, e)
		}
	}
	if call.Action == step.Apply {
		if err := s.write(ctx, call, want); err != nil {
			return step.Result{}, err
		}
	} else if err := s.holds(ctx, call, want); err != nil {
		return step.Result{}, err
	}
	return result(namesOutputs(in))
}

type networkInputs struct {
	Within string `json:"within"`
	Prefix int    `json:"prefix"`
}

type networkOutputs struct {
	Network string `json:"network"`
}

// network gives the owner the lowest free part of a network, or the part that it has, if that is one of just this size
// of just this network.
func (s *Service) network(ctx context.Context, call step.Call) (step.Result, error) {
	if call.Action == step.Remove {
		return step.Result{}, s.write(ctx, call, nil)
	}
	var in networkInputs
	if err := decode(call.Inputs, &in); err != nil {
		return step.Result{}, fmt.Errorf("cannot reserve a network: %w", err)
	}
	within, err := netip.ParsePrefix(in.Within)
	switch {
	case err != nil || within.Masked() != within:
		return step.Result{}, fmt.Errorf("cannot reserve a part of %q: want a network such as 10.200.0.0/16", in.Within)
	case in.Prefix < within.Bits() || in.Prefix > within.Addr().BitLen() || in.Prefix-within.Bits() > 16:
		return step.Result{}, fmt.Errorf("cannot divide %s into parts of prefix length %d: want %d to %d", within, in.Prefix,
			within.Bits(), min(within.Bits()+16, within.Addr().BitLen()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _, err := s.store.List(ctx, scope(call))
	if err != nil {
		return step.Result{}, fmt.Errorf("cannot read what is reserved: %w", err)
	}
	mine, taken, err := networksOf(list, call.Owner)
	if err != nil {
		return step.Result{}, err
	}
	if !mine.IsValid() || mine.Bits() != in.Prefix || !within.Contains(mine.Addr()) {
		if call.Action != step.Apply {
			return step.Result{}, fmt.Errorf("%s has no part of %s", call.Owner, within)
		}
		if mine, err = free(within, in.Prefix, taken); err != nil {
			return step.Result{}, err
		}
		e, err := entry(call, networkKey+mine.String(), Reserved{Network: mine.String()})
		if err != nil {
			return step.Result{}, err
		}
		if err := s.write(ctx, call, []entries.Entry{e}); err != nil {
			return step.Result{}, err
		}
	}
	return result(networkOutputs{mine.String()})
}

// networksOf reads the networks that the owner and all others have.
func networksOf(list []entries.Entry, owner string) (mine netip.Prefix, taken []netip.Prefix, err error) {
	for _, e := range list {
		if !strings.HasPrefix(e.Key, networkKey) {
			continue
		}
		var v Reserved
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return mine, nil, fmt.Errorf("internal error: entry %s of %s: %w", e.Key, Table, err)
		}
		p, err := netip.ParsePrefix(v.Network)
		if err != nil {
			return mine, nil, fmt.Errorf("internal error: entry %s of %s: %w", e.Key, Table, err)
		}
		if e.Owner == owner {
			mine = p
		} else {
			taken = append(taken, p)
		}
	}
	return mine, taken, nil
}

// free finds the lowest part of a network that overlaps nothing that is taken.
func free(within netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, error) {
	first := new(big.Int).SetBytes(within.Addr().AsSlice())
	size := new(big.Int).Lsh(big.NewInt(1), uint(within.Addr().BitLen()-bits))
	for i := range min(1<<(bits-within.Bits()), maxParts) {
		at := new(big.Int).Add(first, new(big.Int).Mul(size, big.NewInt(int64(i))))
		addr, ok := netip.AddrFromSlice(at.FillBytes(make([]byte, within.Addr().BitLen()/8)))
		if !ok {
			break
		}
		part := netip.PrefixFrom(addr, bits)
		if !slices.ContainsFunc(taken, part.Overlaps) {
			return part, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("cannot reserve a part of %s with prefix length %d: all are taken; make the network larger, or the parts smaller", within, bits)
}

// Names reads the names that are reserved in a cluster, with the node for which each is: empty for the whole cluster.
func Names(ctx context.Context, store entries.Store, cluster string, node func(owner string) (string, error)) (map[string]string, error) {
	list, _, err := store.List(ctx, entries.Scope{Service: Table, Cluster: cluster})
	if err != nil {
		return nil, fmt.Errorf("cannot look up the names that cluster %s reserves: %w", cluster, err)
	}
	out := map[string]string{}
	for _, e := range list {
		name, ok := strings.CutPrefix(e.Key, nameKey)
		if !ok {
			continue
		}
		if out[name], err = node(e.Owner); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func scope(call step.Call) entries.Scope { return entries.Scope{Service: Table, Cluster: call.Cluster} }

func entry(call step.Call, key string, v Reserved) (entries.Entry, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return entries.Entry{}, fmt.Errorf("internal error: entry of %s: %w", Table, err)
	}
	return entries.Entry{Scope: scope(call), Key: key, Owner: call.Owner, Value: raw}, nil
}

// holds says whether the owner's entries are these.
func (s *Service) holds(ctx context.Context, call step.Call, want []entries.Entry) error {
	list, _, err := s.store.List(ctx, scope(call))
	if err != nil {
		return fmt.Errorf("cannot read what is reserved: %w", err)
	}
	for _, e := range want {
		if !slices.ContainsFunc(list, func(o entries.Entry) bool { return o.Key == e.Key && o.Owner == e.Owner }) {
			return fmt.Errorf("%s does not hold %s", call.Owner, e.Key)
		}
	}
	return nil
}

func (s *Service) write(ctx context.Context, call step.Call, want []entries.Entry) error {
	_, err := s.store.Replace(ctx, scope(call), entries.Writer{Owner: call.Owner, Epoch: call.Epoch}, want)
	if err != nil {
		return fmt.Errorf("cannot write what %s reserves: %w", call.Owner, err)
	}
	return nil
}

func result(outputs any) (step.Result, error) {
	out, err := json.Marshal(outputs)
	if err != nil {
		return step.Result{}, fmt.Errorf("internal error: outputs of %s: %w", Table, err)
	}
	return step.Result{Outputs: out}, nil
}

func decode(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("its inputs do not fit: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("its inputs do not fit: something follows them")
	}
	return nil
}
