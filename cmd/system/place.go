package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// place is where the engine of a data folder serves: what boot scripts told machines.
type place struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
}

func (s *System) placeFile() string { return filepath.Join(s.cfg.Data, "place.json") }

// checkPlace refuses an address other than the last one while machines know the engine by it, unless the operator has
// said that it moved.
func (s *System) checkPlace(context.Context) error {
	data, err := os.ReadFile(s.placeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var was place
	if err == nil {
		err = json.Unmarshal(data, &was)
	}
	if err != nil {
		return fmt.Errorf("cannot read where the engine served last: %w; remove %s if its address is the same", err, s.placeFile())
	}
	if was.Address == s.cfg.Address && was.Subnet == s.cfg.Subnet {
		return nil
	}
	var names []string
	for _, m := range s.Site.Machines() {
		if m.Enrol.Current != "" {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	some := strings.Join(names[:min(5, len(names))], ", ")
	if len(names) > 5 {
		some += ", …"
	}
	now := place{s.cfg.Address, s.cfg.Subnet}
	if !s.cfg.Moved {
		return fmt.Errorf("cannot serve at %s: this data folder's engine was at %s, and %d machines (%s) know it by that address only; serve at %s again, or add --moved and then boot these machines from the network",
			now, was, len(names), some, was)
	}
	s.notices.add(s.now(), fmt.Sprintf("the engine moved from %s to %s: boot these machines from the network, they look for it at the old address: %s", was, now, some))
	s.cfg.Log.Warn("the engine moved; machines that run look for it at the old address until they boot from the network", "was", was.String(), "now", now.String(), "machines", len(names))
	return nil
}

// keepPlace records where the engine serves, once it does.
func (s *System) keepPlace() error {
	data, err := json.Marshal(place{s.cfg.Address, s.cfg.Subnet})
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	if was, err := os.ReadFile(s.placeFile()); err == nil && string(was) == string(data) {
		return nil
	}
	if err := writeDurably(s.placeFile(), data); err != nil {
		return fmt.Errorf("cannot record where the engine serves: %w", err)
	}
	return nil
}

// String names the place, such as 10.77.0.1/24.
func (p place) String() string { return netip.PrefixFrom(p.Address, p.Subnet.Bits()).String() }
