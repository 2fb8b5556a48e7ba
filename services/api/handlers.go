package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	v1 "joist/services/api/v1"
)

// variable gives a checked name from the request's address.
func variable(r *http.Request, what string) (string, error) {
	name := mux.Vars(r)[what]
	return name, checkName(what, name)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	clusters, err := s.cfg.Clusters.List(r.Context())
	if err != nil {
		return err
	}
	machines, err := s.cfg.Machines.List(r.Context())
	if err != nil {
		return err
	}
	i := s.cfg.Info
	return answer(w, http.StatusOK, v1.Status{
		Version: i.Version, Data: i.Data, Address: i.Address, Lab: i.Lab, Started: i.Started.UTC(), Now: s.cfg.Now().UTC(), Clusters: clusters, Machines: machines, Notices: s.cfg.Notices(),
	})
}

func (s *Server) preview(w http.ResponseWriter, r *http.Request) error {
	var a v1.Apply
	if err := read(w, r, s.cfg.MaxBody, &a); err != nil {
		return err
	}
	if err := checkSource(a.Source); err != nil {
		return err
	}
	p, err := s.cfg.Clusters.Preview(r.Context(), a)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, p)
}

func checkSource(s v1.Source) error {
	if len(s.File) == 0 {
		return Fail(v1.Malformed, errors.New("the request has no cluster file"), `send it base64-encoded as "file"`)
	}
	if len(s.FileName) > 4096 {
		return Fail(v1.Malformed, errors.New("the cluster file's name is too long"), "send its base name")
	}
	return nil
}

func (s *Server) clusters(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Clusters.List(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, list)
}

func (s *Server) apply(w http.ResponseWriter, r *http.Request) error {
	var a v1.Apply
	if err := read(w, r, s.cfg.MaxBody, &a); err != nil {
		return err
	}
	if err := checkSource(a.Source); err != nil {
		return err
	}
	a.By = by(r, a.By)
	accepted, err := s.cfg.Changes.Apply(r.Context(), a)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/clusters/"+accepted.Cluster)
	return answer(w, http.StatusAccepted, accepted)
}

func (s *Server) cluster(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "cluster", func(name string) (any, error) { return s.cfg.Clusters.Get(r.Context(), name) })
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request) error {
	destroy := r.URL.Query().Get("destroy") == "1"
	return one(w, r, "cluster", func(name string) (any, error) {
		return s.cfg.Clusters.Plan(r.Context(), name, destroy, overridesOf(r.URL.Query()))
	})
}

func (s *Server) outputs(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "cluster", func(name string) (any, error) { return s.cfg.Clusters.Outputs(r.Context(), name) })
}

func one(w http.ResponseWriter, r *http.Request, what string, get func(name string) (any, error)) error {
	name, err := variable(r, what)
	if err != nil {
		return err
	}
	v, err := get(name)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, v)
}

func (s *Server) destroy(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "cluster")
	if err != nil {
		return err
	}
	q := r.URL.Query()
	accepted, err := s.cfg.Changes.Destroy(r.Context(), name, v1.Destroy{By: by(r, q.Get("by")), Run: q.Get("run"), Overrides: overridesOf(q)})
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, accepted)
}

// overridesOf reads the policies that a query overrides, all for one reason.
func overridesOf(q url.Values) (list []v1.Override) {
	for _, policy := range q["override"] {
		list = append(list, v1.Override{Policy: policy, Reason: q.Get("reason")})
	}
	return list
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "cluster", func(name string) (any, error) {
		instance := r.URL.Query().Get("instance")
		if instance != "" { // none asks for the one that came last
			var err error
			if instance, err = checkInstance(name, instance); err != nil {
				return nil, err
			}
		}
		return s.cfg.Instances.Why(r.Context(), name, instance)
	})
}

func (s *Server) replay(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "cluster", func(name string) (any, error) {
		var q v1.ReplayQuery
		for key, to := range map[string]*uint64{"run": &q.Run, "at": &q.At} {
			text := r.URL.Query().Get(key)
			if text == "" {
				continue
			}
			n, err := strconv.ParseUint(text, 10, 63)
			if err != nil || n == 0 {
				return nil, Fail(v1.Malformed, fmt.Errorf("%s=%.40q is not the number of an event", key, text), "events count from 1")
			}
			*to = n
		}
		return s.cfg.Instances.Replay(r.Context(), name, q)
	})
}

func (s *Server) instance(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "cluster", func(name string) (any, error) {
		instance, err := checkInstance(name, mux.Vars(r)["instance"])
		if err != nil {
			return nil, err
		}
		return s.cfg.Instances.Instance(r.Context(), name, instance)
	})
}

// mostVerified bounds the instances of one request.
const mostVerified = 1000

func (s *Server) verify(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "cluster")
	if err != nil {
		return err
	}
	var v v1.Verify
	if err := read(w, r, maxSmall, &v); err != nil {
		return err
	}
	if len(v.Instances) > mostVerified {
		return Fail(v1.Malformed, fmt.Errorf("it names %d instances", len(v.Instances)), fmt.Sprintf("name at most %d, or none for all", mostVerified))
	}
	for i, text := range v.Instances {
		if v.Instances[i], err = checkInstance(name, text); err != nil {
			return err
		}
	}
	v.By = by(r, v.By)
	out, err := s.cfg.Instances.Verify(r.Context(), name, v)
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, out)
}

func (s *Server) verified(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "cluster", func(name string) (any, error) {
		q := r.URL.Query()
		id, err := strconv.ParseUint(q.Get("id"), 10, 64)
		if err != nil {
			return nil, Fail(v1.Malformed, fmt.Errorf("%.40q is not the id of a verification", q.Get("id")), "send the one that POST answered with")
		}
		skip := 0
		if text := q.Get("skip"); text != "" {
			if skip, err = strconv.Atoi(text); err != nil || skip < 0 {
				return nil, Fail(v1.Malformed, fmt.Errorf("%.40q is not a number to skip", text), "")
			}
		}
		return s.cfg.Instances.Verified(r.Context(), name, id, skip)
	})
}

func (s *Server) act(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "cluster")
	if err != nil {
		return err
	}
	var a v1.Action
	if err := read(w, r, maxSmall, &a); err != nil {
		return err
	}
	if len(a.Overrides) > 0 && a.Action != v1.WipeAll {
		return Fail(v1.Malformed, errors.New("this action overrides no policies"), "wipe does, as a goal and a destruction do")
	}
	switch a.Action {
	case v1.Retry, v1.Cancel, v1.WipeAll, v1.Forget:
	case v1.CloseBreaker:
		if a.Rollout == "" {
			return Fail(v1.Malformed, errors.New("no rollout is named"), `name it as "rollout"; the cluster's status lists the open ones`)
		}
	case v1.Aside, v1.Return:
		if a.Node == "" {
			return Fail(v1.Malformed, errors.New("no node is named"), `name it as "node"`)
		}
	case v1.Force, v1.Skip, v1.Approval:
		if a.Instance, err = checkInstance(name, a.Instance); err != nil {
			return err
		}
	default:
		return Fail(v1.Malformed, fmt.Errorf("there is no action %.40q", a.Action), "use retry, cancel, close-breaker, force, skip, approve, aside, return, wipe or forget")
	}
	a.By = by(r, a.By)
	accepted, err := s.cfg.Changes.Act(r.Context(), name, a)
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, accepted)
}

func (s *Server) certify(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "cluster")
	if err != nil {
		return err
	}
	var c v1.CertificateRequest
	if err := read(w, r, maxSmall, &c); err != nil {
		return err
	}
	var ttl time.Duration
	if c.TTL != "" {
		if ttl, err = time.ParseDuration(c.TTL); err != nil || ttl <= 0 {
			return Fail(v1.Malformed, fmt.Errorf("cannot read the lifetime %.40q", c.TTL), "write it such as 4h or 30m")
		}
	}
	cert, err := s.cfg.Changes.Certify(r.Context(), name, c, ttl)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, cert)
}

func (s *Server) machines(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Machines.List(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, list)
}

func (s *Server) define(w http.ResponseWriter, r *http.Request) error {
	var spec v1.MachineSpec
	if err := read(w, r, maxSmall, &spec); err != nil {
		return err
	}
	if s.cfg.Lab == nil {
		return Fail(v1.Unsupported, errors.New("this engine makes no virtual machines"), "start one in a lab: joist lab up")
	}
	m, err := s.cfg.Lab.Define(r.Context(), spec)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, m)
}

func (s *Server) undefine(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "machine")
	if err != nil {
		return err
	}
	if s.cfg.Lab == nil {
		return Fail(v1.Unsupported, errors.New("this engine makes no virtual machines"), "")
	}
	if err := s.cfg.Lab.Undefine(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) machine(w http.ResponseWriter, r *http.Request) error {
	return one(w, r, "machine", func(name string) (any, error) { return s.cfg.Machines.Get(r.Context(), name) })
}

func (s *Server) approve(w http.ResponseWriter, r *http.Request) error {
	return s.command(w, r, func(name string) error {
		var a v1.Approve
		if err := read(w, r, maxSmall, &a); err != nil {
			return err
		}
		if a.Fingerprint == "" || len(a.Fingerprint) > 64 {
			return Fail(v1.Malformed, errors.New("no fingerprint is given"), "send the one that the machine's console shows")
		}
		a.By = by(r, a.By)
		return s.cfg.Machines.Approve(r.Context(), name, a)
	})
}

func (s *Server) power(w http.ResponseWriter, r *http.Request) error {
	return s.command(w, r, func(name string) error {
		var p v1.Power
		if err := read(w, r, maxSmall, &p); err != nil {
			return err
		}
		switch p.Action {
		case v1.PowerOn, v1.PowerOff, v1.PowerReset, v1.PowerCycle:
			return s.cfg.Machines.Power(r.Context(), name, p.Action)
		}
		return Fail(v1.Malformed, fmt.Errorf("there is no power action %.40q", p.Action), "use on, off, reset or cycle")
	})
}

func (s *Server) wipe(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "machine")
	if err != nil {
		return err
	}
	var in v1.Wipe
	if err := read(w, r, maxSmall, &in); err != nil {
		return err
	}
	done, err := s.cfg.Changes.Wipe(r.Context(), name, by(r, in.By))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, done)
}

// command does something to a machine and answers with the machine.
func (s *Server) command(w http.ResponseWriter, r *http.Request, do func(name string) error) error {
	return one(w, r, "machine", func(name string) (any, error) {
		if err := do(name); err != nil {
			return nil, err
		}
		return s.cfg.Machines.Get(r.Context(), name)
	})
}

func (s *Server) console(w http.ResponseWriter, r *http.Request) error {
	name, err := variable(r, "machine")
	if err != nil {
		return err
	}
	view := ConsoleView{Tail: -1, Follow: flag(r, "follow")}
	if text := r.URL.Query().Get("tail"); text != "" {
		if view.Tail, err = strconv.ParseInt(text, 10, 64); err != nil || view.Tail < 0 {
			return Fail(v1.Malformed, fmt.Errorf("cannot read tail=%.40q", text), "write a number of bytes")
		}
	}
	if _, err := s.cfg.Machines.Get(r.Context(), name); err != nil {
		return err
	}
	out := &flusher{w: w}
	err = s.cfg.Machines.Console(r.Context(), name, out, view)
	switch {
	case err != nil && !out.begun:
		return err
	case err != nil:
		panic(http.ErrAbortHandler) // the only way left to say that the text is not whole
	}
	out.begin()
	return nil
}

func flag(r *http.Request, name string) bool {
	v, err := strconv.ParseBool(r.URL.Query().Get(name))
	return err == nil && v
}

// flusher sends each write at once, as text.
type flusher struct {
	w     http.ResponseWriter
	begun bool
}

func (f *flusher) begin() {
	if f.begun {
		return
	}
	f.begun = true
	f.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	f.w.Header().Set("X-Content-Type-Options", "nosniff")
	f.w.WriteHeader(http.StatusOK)
}

// Write implements io.Writer.
func (f *flusher) Write(p []byte) (int, error) {
	f.begin()
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}

func (s *Server) artifacts() (Artifacts, error) {
	if s.cfg.Artifacts == nil {
		return nil, Fail(v1.Unsupported, errors.New("this engine keeps no artifacts"), "start it with a boot service")
	}
	return s.cfg.Artifacts, nil
}

func artifact(r *http.Request) (string, error) {
	digest := mux.Vars(r)["digest"]
	if !digestForm.MatchString(digest) {
		return "", Fail(v1.Malformed, fmt.Errorf("%.100q is no digest", digest), "write sha256- and 64 lower-case hexadecimal digits")
	}
	return digest, nil
}

func (s *Server) putArtifact(w http.ResponseWriter, r *http.Request) error {
	store, err := s.artifacts()
	if err != nil {
		return err
	}
	digest, err := artifact(r)
	if err != nil {
		return err
	}
	if r.ContentLength > s.cfg.MaxArtifact {
		return &http.MaxBytesError{Limit: s.cfg.MaxArtifact}
	}
	a, err := store.Put(r.Context(), digest, http.MaxBytesReader(w, r.Body, s.cfg.MaxArtifact))
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, a)
}

func (s *Server) headArtifact(w http.ResponseWriter, r *http.Request) error {
	store, err := s.artifacts()
	if err != nil {
		return err
	}
	digest, err := artifact(r)
	if err != nil {
		return err
	}
	size, err := store.Whole(r.Context(), digest)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	describe(w, digest)
	return nil
}

// describe writes what is the same of an artifact's headers, whether or not its content follows.
func describe(w http.ResponseWriter, digest string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
}

func (s *Server) getArtifact(w http.ResponseWriter, r *http.Request) error {
	store, err := s.artifacts()
	if err != nil {
		return err
	}
	digest, err := artifact(r)
	if err != nil {
		return err
	}
	f, _, err := store.Open(r.Context(), digest)
	if err != nil {
		return err
	}
	defer f.Close()
	describe(w, digest)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

func (s *Server) bootSets(w http.ResponseWriter, r *http.Request) error {
	store, err := s.artifacts()
	if err != nil {
		return err
	}
	sets, err := store.BootSets(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, sets)
}

func (s *Server) registerBootSet(w http.ResponseWriter, r *http.Request) error {
	store, err := s.artifacts()
	if err != nil {
		return err
	}
	var manifest map[string]json.RawMessage
	if err := read(w, r, maxSmall, &manifest); err != nil {
		return err
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return fmt.Errorf("cannot encode a manifest: %w", err)
	}
	set, err := store.Register(r.Context(), data)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, set)
}
