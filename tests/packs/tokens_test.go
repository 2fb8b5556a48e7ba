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

// keysIn counts the public keys of a file of a stage.
func keysIn(s *stage) int { return strings.Count(s.read(tokenKeys), "BEGIN PUBLIC KEY") }

// A key that left is trusted as long as tokens it signed may live, and no longer.
func TestTokenKeysLeave(t *testing.T) {
	apply := &must(t, goal(1, 1), "", nil).Task("token_keys").Step.Apply
	s := newStage(t, "c1", "10.77.0.11")
	requests := map[string]string{"c1": request(t), "c2": request(t), "c3": request(t)}
	run := func() {
		t.Helper()
		keys, err := json.Marshal(requests)
		s.must(t, err)
		_, err = s.run(apply, step.Apply, map[string]json.RawMessage{"keys": keys, "life": json.RawMessage("24")})
		s.must(t, err)
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

// Every apiserver knows the keys of all members.
func TestTokenKeysOfAllMembers(t *testing.T) {
	var mu sync.Mutex
	given := map[string]map[string]json.RawMessage{}
	apply := &must(t, goal(1, 1), "", nil).Task("token_keys").Step.Apply
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
		if _, err := s.run(apply, step.Apply, given[name]); err != nil {
			t.Fatal(err)
		}
		if keysIn(s) != 3 {
			t.Errorf("%s knows %d keys", name, keysIn(s))
		}
		files[s.read(tokenKeys)] = true
	}
	if len(files) != 1 {
		t.Errorf("three members know %d different sets of keys", len(files))
	}
}
