package system

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"joist/dhcp-dns/dhcp"
	"joist/engine/journal"
	"joist/pki/enrol"
	"joist/services/boot/phase"
	"joist/services/site"
)

const (
	noticesKept  = 100              // the oldest make room
	noticesRead  = 5000             // events of the site's journal that are searched for notices at a start
	rivalEvery   = 5 * time.Minute  // between two looks for other DHCP servers
	rivalPatient = 10 * time.Second // how long one look waits for answers: dnsmasq pings an address for 3 s before it offers it
)

// notice is something that a person should know of.
type notice struct {
	at   time.Time
	text string
}

// notices keeps the latest. What is said again counts once, by its last time.
type notices struct {
	mu     sync.Mutex
	list   []notice
	rivals []notice // DHCP servers that answered the last look
}

func (n *notices) add(at time.Time, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = slices.DeleteFunc(n.list, func(o notice) bool { return o.text == text })
	n.list = append(n.list, notice{at, text})
	n.list = n.list[max(0, len(n.list)-noticesKept):]
}

func (n *notices) all() []notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Concat(n.list, n.rivals)
}

// setRivals replaces the DHCP servers that answer, and gives those that are new and how many are gone.
func (n *notices) setRivals(at time.Time, rivals []string) (fresh []string, gone int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.rivals
	n.rivals = nil
	for _, text := range rivals[:min(len(rivals), noticesKept)] {
		if i := slices.IndexFunc(was, func(o notice) bool { return o.text == text }); i >= 0 {
			was = slices.Delete(was, i, i+1)
		} else {
			fresh = append(fresh, text)
		}
		n.rivals = append(n.rivals, notice{at, text})
	}
	return fresh, len(was)
}

// Notices lists what a person should know of, newest first.
func (s *System) Notices() []string {
	all := s.notices.all()
	for _, m := range s.Site.Machines() {
		if m.Enrol.Quarantine == "" {
			continue
		}
		var since time.Time
		for _, key := range m.Enrol.Keys {
			if key.State == enrol.StateQuarantined && key.Since.After(since) {
				since = key.Since
			}
		}
		all = append(all, notice{since, fmt.Sprintf("machine %s is in quarantine (%s): two keys claim it; compare the consoles, then name the right one with joist node approve %s FINGERPRINT", m.Name, m.Enrol.Quarantine, m.Name)})
	}
	if s.sets.current() == nil {
		all = append(all, notice{s.started, "there is no boot set, so machines wait in iPXE; build one with joist bootset build and give it to the engine with joist bootset push"})
	}
	slices.SortStableFunc(all, func(a, b notice) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.text, b.text)) })
	now := s.now()
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = n.text + " (" + phase.Ago(now.Sub(n.at)) + ")"
	}
	return texts
}

// recallNotices takes up the notices that an earlier run left in the site's journal.
func (s *System) recallNotices(ctx context.Context) error {
	after := s.Site.Journal().Last()
	after -= min(after, noticesRead)
	err := s.db.Journals().Read(ctx, site.JournalName, after, func(r journal.Record) error {
		var n site.Noticed
		if r.Kind == "notice" && json.Unmarshal(r.Data, &n) == nil {
			s.notices.add(r.Time, noticeText(n))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot recall the site's notices: %w", err)
	}
	return nil
}

func noticeText(n site.Noticed) string {
	if n.Machine == "" {
		return n.Text
	}
	return "machine " + n.Machine + ": " + n.Text
}

// watchRivals looks for other DHCP servers on the segment, now and every few minutes, until ctx ends. It only tells.
func (s *System) watchRivals(ctx context.Context, probe func(context.Context) ([]dhcp.Rival, error)) error {
	tick := time.NewTicker(rivalEvery)
	defer tick.Stop()
	for {
		list, err := probe(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.cfg.Log.Warn("cannot look for other DHCP servers", "error", err)
		default:
			texts := make([]string, len(list))
			for i, r := range list {
				texts[i] = r.String()
			}
			slices.Sort(texts)
			fresh, gone := s.notices.setRivals(s.now(), texts)
			for _, text := range fresh {
				s.cfg.Log.Warn(text)
			}
			if gone > 0 {
				s.cfg.Log.Info("other DHCP servers do not answer any more", "gone", gone)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *System) probeRivals(ctx context.Context) ([]dhcp.Rival, error) {
	return dhcp.Probe(ctx, s.cfg.Interface, rivalPatient, s.cfg.Address)
}

// suspect notes what tells that two machines may be taken for one: boot scripts are asked for by address and UUID.
func (s *System) suspect(m site.Machine, mac, uuid string) {
	switch {
	case !slices.Contains(m.MACs, mac):
		s.tell(fmt.Sprintf("%s asks to boot with the UUID of machine %s (%s): another network card of it, or two machines with one UUID; compare their mainboards' serial numbers", mac, m.Name, m.UUID))
	case uuid != "" && m.UUID != "" && uuid != m.UUID:
		s.tell(fmt.Sprintf("machine %s (%s) asks to boot with UUID %s, and had %s: its mainboard was changed, or two machines have one MAC address", m.Name, mac, uuid, m.UUID))
	}
}

// tell notes and logs something for people.
func (s *System) tell(text string) {
	s.cfg.Log.Warn(text)
	s.notices.add(s.now(), text)
}

// storeFailed hears of writes that the database refused. What was acknowledged is safe; an engine that cannot write
// can do nothing more, so it ends.
func (s *System) storeFailed(err error) {
	var full *journal.DiskFullError
	var damaged *journal.DamagedError
	if !errors.As(err, &full) && !errors.As(err, &damaged) {
		return
	}
	select {
	case s.failed <- err:
	default: // it ends already
	}
}

// awaitFailure ends with the first refused write, or with ctx.
func (s *System) awaitFailure(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}
