package drive_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// safe is drive.Secrets in memory.
type safe struct {
	mu    sync.Mutex
	plain map[string]string
	err   error
}

func (s *safe) Seal(_ context.Context, cluster string, plain []byte) (value.Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := value.HandleOf(value.Sum([]byte("key"), plain))
	s.plain[cluster+h.String()] = string(plain)
	return h, s.err
}

func (s *safe) Open(_ context.Context, cluster string, h value.Handle) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	plain, ok := s.plain[cluster+h.String()]
	if !ok {
		return nil, errors.New("no such secret")
	}
	return []byte(plain), nil
}

const password = "correct horse battery staple"

func TestSecrets(t *testing.T) {
	secret := value.Of(value.Secret, text)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("draw", model.Service, text, refer(""), secret), task("n", model.Node, secret, refer("draw"), secret))
		w.handle = func(context.Context, step.Call) (step.Result, error) {
			return step.Result{Outputs: json.RawMessage(fmt.Sprintf(`{"out":%q}`, password))}, nil
		}
		s := &safe{plain: map[string]string{}}
		w.cfg.Secrets, w.cfg.Snapshots, w.cfg.Every = s, w.store, 1
		c := w.open()
		w.begin(c, "n1")
		synctest.Wait()
		if len(w.orders) != 1 {
			t.Fatalf("did %q; failed with %q", w.done, w.failure(c, "draw"))
		}
		o := w.orders[0]
		if string(o.Clear["in"]) != `"`+password+`"` || len(o.Secret) != 1 || o.Secret[0] != "in" || o.Trust != model.Vouched {
			t.Errorf("order: clear %s, secret %v, trust %s", o.Clear, o.Secret, o.Trust)
		}
		if strings.Contains(fmt.Sprint(o), password) {
			t.Error("an order prints its secret")
		}
		s.err = errors.New("disk full")
		report := run.Report{ID: o.ID, Outputs: json.RawMessage(fmt.Sprintf(`{"out":%q}`, password))}
		if err := c.Report(t.Context(), o.Target, report); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("a secret that could not be kept was acknowledged: %v", err)
		}
		s.err = nil
		if err := c.Report(t.Context(), o.Target, report); err != nil {
			t.Error(err)
		}
		if got := w.outcome(c); got != "converged" {
			t.Errorf("outcome %q: %s", got, w.failure(c, "n"))
		}
		if err := c.Pursue(t.Context(), history.Goal{Model: w.model.Digest, Roles: map[string][]string{}, Changed: true}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if last := w.orders[len(w.orders)-1]; last.Action != step.Remove || !strings.Contains(string(last.Outputs), password) || string(last.Clear["in"]) != `"`+password+`"` {
			t.Errorf("order to remove: %s, outputs %s", last, last.Outputs)
		}
		c.Close()
		w.searchFor(password)
	})
}

// searchFor looks for a text in everything that is durable, and in the log.
func (w *world) searchFor(plain string) {
	w.t.Helper()
	records, secrets := 0, 0
	if err := w.store.Read(w.t.Context(), "cluster/demo", 0, func(r journal.Record) error {
		records++
		secrets += strings.Count(string(r.Data), "secret:")
		if strings.Contains(string(r.Data), plain) {
			w.t.Errorf("record %d shows the secret: %s", r.Seq, r.Data)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if records == 0 || secrets == 0 {
		w.t.Errorf("%d records with %d handles were searched", records, secrets)
	}
	s, err := w.store.Load(w.t.Context(), "cluster/demo")
	if err != nil || s.Seq == 0 || strings.Contains(string(s.Data), plain) {
		w.t.Errorf("snapshot up to %d, %v, or it shows the secret", s.Seq, err)
	}
	if strings.Contains(w.logs.String(), plain) {
		w.t.Errorf("the log shows the secret: %s", w.logs)
	}
}

// TestSecretsThatCannotBe: an output that is no secret of its type, or that nobody can keep, fails without being shown.
func TestSecretsThatCannotBe(t *testing.T) {
	address := value.Of(value.Secret, value.Type{Kind: value.Address})
	for name, test := range map[string]struct {
		keep bool
		want string
	}{
		"wrong type": {true, "step p.draw: output out: it is not a value of type secret(address)"},
		"no keeper":  {false, "step p.draw: output out: it is not a value of type secret(address)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, task("draw", model.Node, text, refer(""), address))
				w.cfg.Snapshots, w.cfg.Every = w.store, 1
				if test.keep {
					w.cfg.Secrets = &safe{plain: map[string]string{}}
				}
				c := w.open()
				w.begin(c, "n1")
				synctest.Wait()
				o := w.orders[0]
				if err := c.Report(t.Context(), o.Target, run.Report{ID: o.ID, Outputs: json.RawMessage(fmt.Sprintf(`{"out":%q}`, password))}); err != nil {
					t.Error(err)
				}
				if got := w.failure(c, "draw"); got != test.want {
					t.Errorf("failure %q", got)
				}
				c.Close()
				if strings.Contains(fmt.Sprint(w.records("failed")), password) {
					t.Error("the failure shows the secret")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, task("draw", model.Node, text, refer(""), value.Of(value.Secret, text)))
		c := w.open()
		w.begin(c, "n1")
		synctest.Wait()
		o := w.orders[0]
		if err := c.Report(t.Context(), o.Target, run.Report{ID: o.ID, Outputs: json.RawMessage(`{"out":"x"}`)}); err != nil {
			t.Error(err)
		}
		if got := w.failure(c, "draw"); got != "step p.draw: output out: this engine keeps no secrets" {
			t.Errorf("failure %q", got)
		}
		c.Close()
	})
}
