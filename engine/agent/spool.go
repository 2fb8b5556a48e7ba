package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"joist/engine/agent/wire"
)

// spool remembers on disk what requests were begun and how they ended, so that none runs twice and no result is lost
// when the agent or the engine dies. It also remembers the newest epoch of each cluster.
//
// Results that the engine has confirmed are kept too, up to a bound, to answer a repeated request.
type spool struct {
	dir  string
	keep int      // confirmed results kept
	lock *os.File // held while the spool is open: two agents would run everything twice

	mu     sync.Mutex
	index  map[string]entry  // by request id
	epochs map[string]uint64 // by cluster
}

type entry struct {
	done  bool
	acked bool
	asked int // how often it was asked for again
	ended time.Time
}

// record is one file of the spool.
type record struct {
	ID       string       `json:"id"`
	Instance string       `json:"instance"`
	Attempt  int          `json:"attempt"`
	Begun    time.Time    `json:"begun"`
	Result   *wire.Result `json:"result,omitempty"` // none: it was begun
	Acked    bool         `json:"acked,omitempty"`
}

const (
	epochsFile  = "epochs.json"
	recordStart = "r-"
)

// openSpool reads the spool in dir. The interrupted requests are those begun but not ended.
func openSpool(dir string, keep int) (s *spool, interrupted []record, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot open the spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the spool: %w", err)
	}
	s = &spool{dir: dir, keep: keep, lock: lock, index: map[string]entry{}, epochs: map[string]uint64{}}
	if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("cannot open the spool %s: another agent has it open: %w", dir, err)
	} else {
		interrupted, err = s.load()
	}
	if err != nil {
		s.close()
		return nil, nil, err
	}
	return s, interrupted, nil
}

// close lets another agent open the spool.
func (s *spool) close() { s.lock.Close() }

// load reads what is on disk.
func (s *spool) load() (interrupted []record, err error) {
	dir := s.dir
	raw, err := os.ReadFile(filepath.Join(dir, epochsFile))
	if err == nil {
		err = json.Unmarshal(raw, &s.epochs)
	}
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("cannot read the spool's epochs: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the spool: %w", err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".tmp-") { // a write that a crash cut short
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("cannot clean the spool: %w", err)
			}
		}
		if !strings.HasPrefix(f.Name(), recordStart) {
			continue
		}
		rec, err := s.read(f.Name())
		if err != nil {
			return nil, err
		}
		if rec.Result == nil {
			interrupted = append(interrupted, rec)
			s.index[rec.ID] = entry{}
			continue
		}
		s.index[rec.ID] = entry{done: true, acked: rec.Acked, ended: rec.Result.Ended}
	}
	return interrupted, nil
}

func fileOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return recordStart + hex.EncodeToString(sum[:16]) + ".json"
}

func (s *spool) read(name string) (record, error) {
	var rec record
	raw, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return rec, fmt.Errorf("cannot read the spool: %w", err)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, fmt.Errorf("cannot read the spool's %s: %w", name, err)
	}
	return rec, nil
}

func (s *spool) write(rec record) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("cannot encode a record of the spool: %w", err)
	}
	if err := writeFile(filepath.Join(s.dir, fileOf(rec.ID)), raw, 0o600); err != nil {
		return fmt.Errorf("cannot write to the spool: %w", err)
	}
	return nil
}

// admit compares an epoch with the newest seen for the cluster and remembers a newer one durably.
func (s *spool) admit(cluster string, epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.epochs[cluster]
	if epoch < newest {
		return fmt.Errorf("a controller with epoch %d has taken over from epoch %d", newest, epoch)
	}
	if epoch == newest {
		return nil
	}
	s.epochs[cluster] = epoch
	raw, err := json.Marshal(s.epochs)
	if err == nil {
		err = writeFile(filepath.Join(s.dir, epochsFile), raw, 0o600)
	}
	if err != nil {
		s.epochs[cluster] = newest
		return fmt.Errorf("cannot remember the epoch: %w", err)
	}
	return nil
}

// repeat says whether the request was begun before. If it has ended, its result is to be sent again.
func (s *spool) repeat(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.index[id]
	if known && e.done {
		e.acked = false
		e.asked++
		s.index[id] = e
	}
	return known
}

// begin records durably that the request starts now.
func (s *spool) begin(req wire.Request) error {
	if err := s.write(record{ID: req.ID, Instance: req.Instance, Attempt: req.Attempt, Begun: time.Now()}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index[req.ID] = entry{}
	return nil
}

// finish records a result durably.
func (s *spool) finish(res wire.Result) error {
	if err := s.write(record{ID: res.ID, Instance: res.Instance, Attempt: res.Attempt, Begun: res.Started, Result: &res}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index[res.ID] = entry{done: true, ended: res.Ended}
	return nil
}

// waiting gives the ids of results that the engine has not confirmed, the oldest first.
func (s *spool) waiting() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id, e := range s.index {
		if e.done && !e.acked {
			ids = append(ids, id)
		}
	}
	s.sort(ids)
	return ids
}

func (s *spool) sort(ids []string) {
	slices.SortFunc(ids, func(a, b string) int {
		if c := s.index[a].ended.Compare(s.index[b].ended); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
}

// result reads a result from disk; asked is for ack.
func (s *spool) result(id string) (res wire.Result, asked int, err error) {
	s.mu.Lock()
	asked = s.index[id].asked
	s.mu.Unlock()
	rec, err := s.read(fileOf(id))
	if err != nil {
		return wire.Result{}, 0, err
	}
	if rec.Result == nil {
		return wire.Result{}, 0, fmt.Errorf("cannot send the result of %s: it has not ended", id)
	}
	return *rec.Result, asked, nil
}

// ack notes that the engine has the result, unless it was asked for again since it was read, and forgets the oldest of
// those beyond the bound. A result sent twice does no harm.
func (s *spool) ack(id string, asked int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.index[id]
	if !known || !e.done || e.asked != asked {
		return nil
	}
	e.acked = true
	s.index[id] = e
	rec, err := s.read(fileOf(id))
	if err != nil {
		return err
	}
	rec.Acked = true
	if err := s.write(rec); err != nil {
		return err
	}
	var acked []string
	for id, e := range s.index {
		if e.acked {
			acked = append(acked, id)
		}
	}
	if len(acked) <= s.keep {
		return nil
	}
	s.sort(acked)
	for _, id := range acked[:len(acked)-s.keep] {
		if err := os.Remove(filepath.Join(s.dir, fileOf(id))); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("cannot forget an old result: %w", err)
		}
		delete(s.index, id)
	}
	return nil
}
