package ci

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/cmd/joist/progress"
	"joist/cmd/joist/redeploy"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
	"joist/workflows/format"
)

// engine answers as one in which, while a run asks for cluster prod, somebody makes it.
func engine(t *testing.T, answer int, whose func(run string) string) (socket string, deleted *[]string) {
	t.Helper()
	deleted = new([]string)
	var run string
	say := func(w http.ResponseWriter, status int, v any) {
		if status >= 300 {
			w.Header().Set("Content-Type", v1.ProblemMedia)
			v = v1.Problem{Status: status, Detail: "no"}
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			var a v1.Apply
			if err := json.NewDecoder(r.Body).Decode(&a); err != nil || a.Run == "" {
				t.Errorf("it applies without saying which run it is: %v", err)
			}
			if time.Duration(a.TTL*float64(time.Second)) < time.Minute+3*time.Second { // of a run of a minute
				t.Errorf("the engine takes the cluster away after %v s, before the run can tell how far it came", a.TTL)
			}
			run = a.Run
			if answer == 0 {
				panic(http.ErrAbortHandler) // the answer is lost
			}
			say(w, answer, nil)
		case r.Method == http.MethodDelete:
			*deleted = append(*deleted, r.URL.Query().Get("run"))
			say(w, http.StatusConflict, nil)
		case r.URL.Path == "/v1/clusters/prod" && run == "":
			say(w, http.StatusNotFound, nil)
		case r.URL.Path == "/v1/clusters/prod":
			d := v1.ClusterDetail{}
			d.Name, d.Outcome, d.Goal.Run = "prod", converged, whose(run)
			say(w, http.StatusOK, d)
		default:
			say(w, http.StatusOK, struct{}{})
		}
	}))
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return socket, deleted
}

// TestRefusedKeeps: a run takes away nothing but what it made: not what somebody else made while it was refused, or while the
// answer to it got lost.
func TestRefusedKeeps(t *testing.T) {
	own, other := func(run string) string { return run }, func(string) string { return "" }
	for name, test := range map[string]struct {
		answer  int
		whose   func(string) string
		deletes bool
	}{
		"refused":                   {http.StatusUnprocessableEntity, other, false},
		"taken":                     {http.StatusConflict, other, false},
		"refused, and there anyhow": {http.StatusUnprocessableEntity, own, false},
		"failed, another's":         {http.StatusInternalServerError, other, false},
		"lost, another's":           {0, other, false},
		"lost, its own":             {0, own, true},
	} {
		socket, deleted := engine(t, test.answer, test.whose)
		api := client.New(socket)
		p := Program{
			Program: redeploy.Program{
				API: func() *client.Client { return api }, Printf: func(string, ...any) {}, Table: func([][]string) {},
				JSON:   func(any) (bool, error) { return true, nil },
				Follow: func(context.Context, redeploy.Following) (*progress.Tracker, error) { return nil, errors.New("no") },
			},
			Now: time.Now, Exit: func(_ int, err error) error { return err },
		}
		if err := p.run(t.Context(), v1.Source{}, "prod", options{ttl: time.Minute, teardown: time.Minute}); err == nil {
			t.Errorf("%s: all went well", name)
		}
		if got := len(*deleted) > 0; got != test.deletes || got && (*deleted)[0] == "" {
			t.Errorf("%s: it destroyed runs %q", name, *deleted)
		}
		api.Close()
	}
}

// TestName: a name that no cluster can have is refused before anything is asked of the engine.
func TestName(t *testing.T) {
	p := Program{
		Program: redeploy.Program{Usage: func(format string, _ ...any) error { return errors.New(format) }},
		Source: func(string, format.Cluster) (*v1.Source, error) {
			return &v1.Source{FileName: "c.hcl", File: []byte("cluster \"demo\" {\n}\n")}, nil
		},
	}
	for _, name := range []string{"T/..", "..", "a/b", "A", "-", "a?x=1", strings.Repeat("a", 64)} {
		if _, _, err := p.adapted("c.hcl", options{name: name}); err == nil {
			t.Errorf("%q is taken for a cluster's name", name)
		}
	}
	if _, name, err := p.adapted("c.hcl", options{name: "ci-17"}); err != nil || name != "ci-17" {
		t.Errorf("%q, %v", name, err)
	}
}

// TestDemands: a call is asked for once, in the plan's order.
func TestDemands(t *testing.T) {
	plan := &v1.Plan{Items: []v1.Item{{Instance: "a"}, {Instance: "smoke.look[n1]", Asked: "smoke"}, {Instance: "smoke.look[n2]", Asked: "smoke"}, {Instance: "load", Asked: "load"}, {Instance: "smoke.test", Asked: "smoke"}}}
	if got := strings.Join(demands(plan), " "); got != "smoke load" {
		t.Error(got)
	}
}
