package clusters

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/policy"
)

// policyOf reads a word such as "policy=removal/1", "policy=wipe/never/override" or "policy=removal/22:00-23:00".
func policyOf(word string) ([]model.Policy, bool) {
	text, ok := strings.CutPrefix(word, "policy=")
	if !ok {
		return nil, false
	}
	parts := strings.Split(text, "/")
	p := model.Policy{Name: "limit", Refuse: model.Danger(parts[0]), Override: len(parts) > 2, Range: model.Range{File: "c.hcl", Line: 7, Col: 10}}
	if w, err := model.ParseWindow(parts[1]); err == nil {
		p.Outside = []model.Window{w}
	} else {
		p.Bounded = true
		_, _ = fmt.Sscan(parts[1], &p.Beyond) // 0 for what is no number
	}
	return []model.Policy{p}, true
}

// TestPolicies holds what a policy refuses, in the plan and when it is applied: nothing is claimed, written or started. The
// bubble's time is 2000-01-01 00:00 UTC.
func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		policy, next string // and the nodes wanted next; empty for the cluster's destruction
		want         string // empty if it passes
	}{
		{"policy=removal/1", "n1 n2", ""},
		{"policy=removal/1", "n1", "c.hcl:7:10): the plan has a removal of n2, n3, and one node in a run may pass; go in smaller steps"},
		{"policy=removal/2", "n1", ""},
		{"policy=removal/0", "n1 n2", "the plan has a removal of n3, and none in a run may pass; leave it out, or change the policy"},
		{"policy=removal/22:00-23:00", "n1 n2", "the plan has a removal of n3, and that passes at 22:00-23:00 UTC only; apply it from 2000-01-01T22:00:00Z on"},
		{"policy=removal/00:00-01:00", "n1 n2", ""},
		{"policy=replacement/0", "n1 n2", ""},
		{"policy=wipe/2", "", "the plan has a wipe of n1, n2, n3, and 2 nodes in a run may pass; change the policy"},
		{"policy=wipe/0/override", "", "override it with --override limit --reason WHY"},
		{"policy=wipe/00:00-01:00", "", ""},
		{"policy=wipe/0", "n1", "the plan has a wipe of n2, n3, and none in a run may pass; leave it out"},
		{"policy=wipe/2", "n1", ""},
	} {
		t.Run(test.policy+" "+test.next, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.Close()
				w.apply("demo: n1 n2 n3 " + test.policy)
				w.calls = nil
				before, source := w.length(), Source{FileName: "c.hcl", File: []byte("demo: " + test.next + " " + test.policy)}
				look := func() (*Plan, error) { return w.Preview(t.Context(), source) }
				act := func(o ...history.Override) error {
					_, err := w.ApplyAs(t.Context(), source, Said{By: "ada", Overrides: o})
					return err
				}
				if test.next == "" {
					look = func() (*Plan, error) { return w.PreviewDestroy(t.Context(), "demo") }
					act = func(o ...history.Override) error { return w.Destroy(t.Context(), "demo", "ada", o...) }
				}
				if may := strings.Contains(test.policy, "override"); may { // a plan as it would be
					word := history.Override{Policy: "limit", Reason: "it burns"}
					p, err := w.Preview(t.Context(), source, word)
					if test.next == "" {
						p, err = w.PreviewDestroy(t.Context(), "demo", word)
					}
					if err != nil || len(p.Refused) != 1 || p.Refused[0].By == nil {
						t.Errorf("overridden in the plan: %+v, %v", p, err)
					}
					word.Policy = "limits"
					if _, err := w.PreviewDestroy(t.Context(), "demo", word); err == nil {
						t.Error("a policy that is not there was overridden in a plan")
					}
				}
				p, err := look()
				if err != nil || len(p.Refused) == 1 != (test.want != "") {
					t.Fatalf("the plan: %v, refused %+v", err, p.Refused)
				}
				var wiped []string // named whether a policy is about them or not
				for _, n := range p.Nodes {
					if n.Wiped {
						wiped = append(wiped, n.Name)
					}
				}
				if left := strings.Fields("n1 n2 n3")[len(strings.Fields(test.next)):]; !slices.Equal(wiped, left) {
					t.Errorf("the plan wipes %v, want %v", wiped, left)
				}
				err = act()
				var refused *policy.RefusedError
				switch {
				case test.want == "" && err != nil, test.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), test.want)):
					t.Fatalf("%v\n\twant %s", err, test.want)
				case test.want == "":
					return
				}
				synctest.Wait()
				if w.length() != before || len(w.calls) > 0 || w.owners() != "map[n1:demo n2:demo n3:demo]" {
					t.Errorf("it left %d events, %v, %s", w.length()-before, w.calls, w.owners())
				}
				err = act(history.Override{Policy: "limit", Reason: "it burns"})
				if may := strings.Contains(test.policy, "override"); (err == nil) != may {
					t.Errorf("overridden: %v", err)
				}
				synctest.Wait()
				if err := act(history.Override{Policy: "limits", Reason: "it burns"}); err == nil {
					t.Error("a policy that is not there was overridden")
				}
			})
		})
	}
}

// TestPolicyWipe: an order to wipe all is weighed as well.
func TestPolicyWipe(t *testing.T) {
	for word, refused := range map[string]bool{"policy=wipe/1": true, "policy=wipe/2": false, "policy=removal/0": false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.Close()
			w.apply("demo: n1 n2 " + word)
			loop, err := w.Get("demo")
			if err != nil {
				t.Fatal(err)
			}
			if err := loop.Look(t.Context(), func(s *history.State, p *plan.Planner) {
				if err := policy.RefuseWipe(s, p, history.WipeOrdered{}, s.Now); (err != nil) != refused {
					t.Errorf("%s: %v", word, err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestHeldWipeOutlastsRestart: what policies hold of a destruction they hold after the engine was started again.
func TestHeldWipeOutlastsRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mu.Lock()
		w.fail = errors.New("nothing comes to be in place")
		w.mu.Unlock()
		w.apply("demo: n1 policy=wipe/22:00-23:00")
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		loop, err := w.Get("demo")
		if err != nil {
			t.Fatal(err)
		}
		var g history.Goal
		if err := loop.Look(t.Context(), func(s *history.State, _ *plan.Planner) { g = *s.Goal() }); err != nil {
			t.Fatal(err)
		}
		g.Destroy, g.Changed, g.Roles = true, true, nil
		if err := loop.Pursue(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"before", "after"} {
			time.Sleep(5 * time.Minute)
			if got, _ := w.rests("demo"); got != history.OutcomeStopped {
				t.Errorf("%s the start it is %q", when, got)
			}
			w.Close()
			w.start()
		}
		w.Close()
	})
}
