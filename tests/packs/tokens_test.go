package packs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/drive"
	"joist/engine/step"
)

const tokenKeys = "/etc/kubernetes/token-keys.pem"

// trusts runs the two steps of a control-plane node that make its file of keys, given requests of all members and what they have seen
// leave, and gives what it has seen itself.
func (s *stage) trusts(t *testing.T, requests map[string]string, others ...json.RawMessage) json.RawMessage {
	t.Helper()
	m := must(t, goal(1, 1), "", nil)
	keys, err := json.Marshal(requests)
	s.must(t, err)
	raw, err := s.run(&m.Task("token_keys").Step.Apply, step.Apply, map[string]json.RawMessage{"keys": keys, "life": json.RawMessage("24")})
	s.must(t, err)
	valid := s.valid
	var out map[string]json.RawMessage
	s.must(t, json.Unmarshal(raw, &out))
	left, err := json.Marshal(append(others, out["left"]))
	s.must(t, err)
	_, err = s.run(&m.Task("token_file").Step.Apply, step.Apply, map[string]json.RawMessage{"folder": out["folder"], "known": out["known"], "left": left})
	s.must(t, err)
	s.valid = valid
	return out["left"]
}

// keysIn counts the public keys of a file of a stage.
func keysIn(s *stage) int { return strings.Count(s.read(tokenKeys), "BEGIN PUBLIC KEY") }

// A key that left is trusted as long as tokens it signed may live, and no longer.
func TestTokenKeysLeave(t *testing.T) {
	s := newStage(t, "c1", "10.77.0.11")
	requests := map[string]string{"c1": request(t), "c2": request(t), "c3": request(t)}
	run := func() {
		t.Helper()
		s.trusts(t, requests)
	}
	if run(); keysIn(s) != 3 || s.valid != "" {
		t.Fatalf("three members: %d keys, valid until %q", keysIn(s), s.valid)
	}
	delete(requests, "c3")
	run()
	until, err := time.Parse(time.RFC3339, s.valid)
	if err != nil || keysIn(s) != 3 {
		t.Fatalf("c3 left: %d keys, %v", keysIn(s), err)
	}
	// The engine renews when a third of the time is left, or up to a tenth of it sooner.
	if life := time.Until(until); life*17/30 < 24*time.Hour || life*2/3 > 30*time.Hour {
		t.Errorf("c3 left, and is looked at again after %s to %s", life*17/30, life*2/3)
	}
	left, err := filepath.Glob(s.root + "/var/lib/joist/service-accounts/public/c3-*.pem.left")
	if err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
	age := func(d time.Duration) {
		t.Helper()
		s.must(t, os.Chtimes(left[0], time.Now().Add(-d), time.Now().Add(-d)))
	}
	age(23 * time.Hour)
	run()
	if until, err := time.Parse(time.RFC3339, s.valid); err != nil || keysIn(s) != 3 || time.Until(until)*2/3 > 2*time.Hour {
		t.Errorf("tokens of c3 live for another hour: %d keys, valid until %q", keysIn(s), s.valid)
	}
	age(24*time.Hour + 2*time.Minute)
	if run(); keysIn(s) != 2 || s.valid != "" {
		t.Errorf("no token of c3 lives: %d keys, valid until %q", keysIn(s), s.valid)
	}
}

// TestTokenKeysReachNewMembers: who comes later trusts what left before, as long as the others do.
func TestTokenKeysReachNewMembers(t *testing.T) {
	first, later := newStage(t, "c1", "10.77.0.11"), newStage(t, "c4", "10.77.0.14")
	requests := map[string]string{"c1": request(t), "c2": request(t), "c3": request(t)}
	first.trusts(t, requests)
	gone := requests["c3"]
	delete(requests, "c3")
	requests["c4"] = request(t)
	left := first.trusts(t, requests)
	later.trusts(t, requests, left)
	if keysIn(first) != 4 || first.read(tokenKeys) != later.read(tokenKeys) {
		t.Errorf("c1 knows %d keys, c4 %d", keysIn(first), keysIn(later))
	}

	// Its machine is wiped, and the same member comes back with another key: what it signed before is trusted as well.
	wiped := newStage(t, "c1", "10.77.0.11")
	before := requests["c1"]
	requests["c1"] = request(t)
	seen := later.trusts(t, requests, left)
	wiped.trusts(t, requests, seen, left)
	if keysIn(wiped) != 5 || wiped.read(tokenKeys) != later.read(tokenKeys) || requests["c1"] == before {
		t.Errorf("c1 knows %d keys after it was wiped, c4 %d", keysIn(wiped), keysIn(later))
	}
	later.trusts(t, requests, json.RawMessage("{}"))
	if keysIn(later) != 4 || gone == "" { // the others have dropped the key of c3
		t.Errorf("c4 knows %d keys once those of c3 are over", keysIn(later))
	}

	// A name that would be a file elsewhere is refused.
	m := must(t, goal(1, 1), "", nil)
	_, err := later.run(&m.Task("token_file").Step.Apply, step.Apply, map[string]json.RawMessage{
		"folder": json.RawMessage(`"/var/lib/joist/service-accounts/public"`), "known": json.RawMessage(`[]`), "left": json.RawMessage(`[{"../../../../etc/x.pem": "x"}]`),
	})
	if err == nil || !strings.Contains(err.Error(), "not the name of a key") {
		t.Errorf("a name with a way in it: %v", err)
	}
}

// Every apiserver knows the keys of all members.
func TestTokenKeysOfAllMembers(t *testing.T) {
	var mu sync.Mutex
	given := map[string]map[string]json.RawMessage{}
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.Close()
		b.perform = func(o drive.Order) (json.RawMessage, error) {
			switch {
			case o.Action != step.Apply:
				return nil, nil
			case o.Task == "token_key":
				_, out, err := newKey(o.Clear)
				return out, err
			case o.Task == "token_keys":
				mu.Lock()
				given[o.Agent] = o.Clear
				mu.Unlock()
			}
			return b.outputs(o.Step, o.Target, o.Clear), nil
		}
		b.up("c1", "c2", "c3", "w5")
		b.pursue(must(t, goal(3, 1), "", nil), goal(3, 1))
	})
	files := map[string]bool{}
	for i := range 3 {
		name := fmt.Sprintf("c%d", i+1)
		s := newStage(t, name, fmt.Sprintf("10.77.0.1%d", i+1))
		var requests map[string]string
		s.must(t, json.Unmarshal(given[name]["keys"], &requests))
		s.trusts(t, requests)
		if keysIn(s) != 3 {
			t.Errorf("%s knows %d keys", name, keysIn(s))
		}
		files[s.read(tokenKeys)] = true
	}
	if len(files) != 1 {
		t.Errorf("three members know %d different sets of keys", len(files))
	}
}
