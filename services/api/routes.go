package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	v1 "joist/services/api/v1"
)

// Route is one operation of the API.
type Route struct {
	Method string
	Path   string // with {names} for variables
	Doc    string
}

type route struct {
	Route
	do    func(http.ResponseWriter, *http.Request) error
	large bool // its body may have Config.MaxBody bytes
}

func (s *Server) routes() []route {
	r := func(method, path, doc string, do func(http.ResponseWriter, *http.Request) error) route {
		return route{Route: Route{method, path, doc}, do: do}
	}
	large := func(r route) route {
		r.large = true
		return r
	}
	return []route{
		r("GET", "/v1", "this list", s.index),
		r("GET", "/v1/status", "the engine, its clusters and machines", s.status),
		large(r("POST", "/v1/plan", "plan a declaration and change nothing", s.preview)),
		r("GET", "/v1/clusters", "every cluster", s.clusters),
		large(r("POST", "/v1/clusters", "make a declaration the goal", s.apply)),
		r("GET", "/v1/clusters/{cluster}", "one cluster", s.cluster),
		r("DELETE", "/v1/clusters/{cluster}", "destroy a cluster", s.destroy),
		r("GET", "/v1/clusters/{cluster}/plan", "every instance and what is to happen to it (?destroy=1: if the cluster were destroyed)", s.plan),
		r("GET", "/v1/clusters/{cluster}/outputs", "what the workflow yields", s.outputs),
		r("GET", "/v1/clusters/{cluster}/why", "why an instance is as it is (?instance=task[node]; without, the one that came last)", s.why),
		r("GET", "/v1/clusters/{cluster}/replay", "run the core again over the journal and compare (?run=event&at=event)", s.replay),
		r("GET", "/v1/clusters/{cluster}/instances/{instance}", "one instance and the log of its last attempt", s.instance),
		r("POST", "/v1/clusters/{cluster}/actions", "retry, cancel, close-breaker, force, skip, approve, aside, return or wipe", s.act),
		r("POST", "/v1/clusters/{cluster}/verify", "look whether what is in place still is", s.verify),
		r("GET", "/v1/clusters/{cluster}/verify", "how far that is (?id=&skip=)", s.verified),
		r("POST", "/v1/clusters/{cluster}/certificate", "certify an operator's key", s.certify),
		r("GET", "/v1/events", "events after a cursor (?journal=&after=&limit=), as JSON or as text/event-stream", s.events),
		r("GET", "/v1/machines", "every machine", s.machines),
		r("POST", "/v1/machines", "make a virtual machine, in a lab", s.define),
		r("DELETE", "/v1/machines/{machine}", "remove a virtual machine", s.undefine),
		r("GET", "/v1/machines/{machine}", "one machine with its facts", s.machine),
		r("POST", "/v1/machines/{machine}/approve", "confirm the key with a fingerprint", s.approve),
		r("POST", "/v1/machines/{machine}/power", "on, off, reset or cycle", s.power),
		r("POST", "/v1/machines/{machine}/wipe", "erase the data disks of a machine that no cluster has", s.wipe),
		r("GET", "/v1/machines/{machine}/console", "the console as text (?tail=bytes&follow=1)", s.console),
		r("PUT", "/v1/artifacts/{digest}", "store a file by its digest", s.putArtifact),
		r("HEAD", "/v1/artifacts/{digest}", "whether a file is there, and whole", s.headArtifact),
		r("GET", "/v1/artifacts/{digest}", "a stored file, whole or in ranges", s.getArtifact),
		r("GET", "/v1/mirror", "what clusters can use, by name", s.mirrorList),
		large(r("POST", "/v1/mirror", "enter files that were stored before", s.mirrorAdd)),
		r("POST", "/v1/mirror/verify", "read every file again", s.mirrorVerify),
		r("POST", "/v1/mirror/gc", "remove what nothing names", s.mirrorCollect),
		r("GET", "/v1/mirror/sets", "the frozen sets", s.frozenList),
		large(r("POST", "/v1/mirror/sets", "freeze everything that a cluster uses", s.freeze)),
		r("GET", "/v1/mirror/sets/{set}", "one frozen set with its files", s.frozen),
		r("DELETE", "/v1/mirror/sets/{set}", "forget a frozen set", s.thaw),
		r("GET", "/v1/bootsets", "the registered boot sets", s.bootSets),
		r("POST", "/v1/bootsets", "register a boot set whose files were stored before", s.registerBootSet),
	}
}

// Routes lists every operation of the API.
func (s *Server) Routes() []Route {
	var list []Route
	for _, r := range s.routes() {
		list = append(list, r.Route)
	}
	return list
}

// router has one handler for each path, so that a wrong method is told which ones are right.
func (s *Server) router() http.Handler {
	byPath := map[string]map[string]route{}
	for _, r := range s.routes() {
		if byPath[r.Path] == nil {
			byPath[r.Path] = map[string]route{}
		}
		byPath[r.Path][r.Method] = r
	}
	m := mux.NewRouter()
	for path, methods := range byPath {
		var allowed []string
		for method := range methods {
			allowed = append(allowed, method)
		}
		slices.Sort(allowed)
		m.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			found, ok := methods[r.Method]
			if !ok {
				w.Header().Set("Allow", strings.Join(allowed, ", "))
				writeProblem(w, Fail(v1.Method, fmt.Errorf("%s is not for %s", r.Method, r.URL.Path), "use "+strings.Join(allowed, " or ")))
				return
			}
			s.serve(found, w, r)
		})
	}
	m.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, Fail(v1.NotFound, fmt.Errorf("there is nothing at %.200s", r.URL.Path), "GET /v1 lists every address"))
	})
	return m
}

// serve is the top of a request: the one place where an error is answered, and one of the engine's own logged.
func (s *Server) serve(found route, w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // the documented sentinel of a panic, never wrapped
				panic(p)
			}
			s.cfg.Log.Error("internal error: a request panicked", "route", found.Path, "panic", p, "stack", string(debug.Stack()))
			writeProblem(w, fmt.Errorf("internal error in %s %s", found.Method, found.Path))
		}
	}()
	err := s.do(found, w, r)
	if err == nil {
		return
	}
	if p := problemOf(err); p.Of(v1.Internal) {
		s.cfg.Log.Error("request failed", "method", found.Method, "route", found.Path, "error", err)
	}
	writeProblem(w, err)
}

func (s *Server) do(found route, w http.ResponseWriter, r *http.Request) error {
	if found.large {
		done, err := s.bodies.take(w, r)
		if err != nil {
			return err
		}
		defer done()
	}
	return found.do(w, r)
}

func answer(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that went away hears nothing
	return nil
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, struct {
		Version string  `json:"version"`
		Routes  []Route `json:"routes"`
	}{s.cfg.Info.Version, s.Routes()})
}
