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
	"slices"
	"strings"

	"joist/engine/journal"
	"joist/services/site"
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

// checkWhole refuses a data folder that an engine has served from and of which a part is gone: it would be made anew, empty
// or with other keys, and every machine and certificate would be strange to it. That an engine has served says the record
// of its place, which is written after everything else.
func (s *System) checkWhole(ctx context.Context) error {
	if _, err := os.Stat(s.placeFile()); err != nil {
		return nil //nolint:nilerr // nothing was served from here; what cannot be read is told by checkPlace
	}
	list, err := s.db.Journals().List(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(i journal.Info) bool { return i.Journal == site.JournalName }) {
		return notWhole(s.cfg.Data, "the contents of its database, joist.db with its -wal, are")
	}
	for _, name := range []string{"root.age", "engine.age", "agents.age", "ledger.jsonl"} {
		name = filepath.Join("ca", name)
		if _, err := os.Stat(filepath.Join(s.cfg.Data, name)); errors.Is(err, fs.ErrNotExist) {
			return notWhole(s.cfg.Data, name+" is")
		}
	}
	return nil
}

func notWhole(data, what string) error {
	return fmt.Errorf("cannot use %s: an engine has served from it, and %s missing; bring the whole folder back from the backup, or begin anew with another one", data, what)
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
