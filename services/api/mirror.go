package api

import (
	"errors"
	"fmt"
	"net/http"

	v1 "joist/services/api/v1"
)

func (s *Server) mirror() (Mirror, error) {
	if s.cfg.Mirror == nil {
		return nil, Fail(v1.Unsupported, errors.New("this engine has no mirror"), "")
	}
	return s.cfg.Mirror, nil
}

func (s *Server) sets() (Frozen, error) {
	if s.cfg.Frozen == nil {
		return nil, Fail(v1.Unsupported, errors.New("this engine freezes nothing"), "")
	}
	return s.cfg.Frozen, nil
}

func (s *Server) mirrorList(w http.ResponseWriter, r *http.Request) error {
	m, err := s.mirror()
	if err != nil {
		return err
	}
	list, err := m.List(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, list)
}

// maxEntries bounds how many entries one request may add.
const maxEntries = 1000

func (s *Server) mirrorAdd(w http.ResponseWriter, r *http.Request) error {
	m, err := s.mirror()
	if err != nil {
		return err
	}
	var a v1.MirrorAdd
	if err := read(w, r, s.cfg.MaxBody, &a); err != nil {
		return err
	}
	if len(a.Entries) == 0 || len(a.Entries) > maxEntries {
		return Fail(v1.Malformed, fmt.Errorf("the request has %d entries", len(a.Entries)), fmt.Sprintf("send 1 to %d", maxEntries))
	}
	if err := m.Add(r.Context(), a); err != nil {
		return err
	}
	return s.mirrorList(w, r)
}

func (s *Server) mirrorVerify(w http.ResponseWriter, r *http.Request) error {
	m, err := s.mirror()
	if err != nil {
		return err
	}
	list, err := m.Verify(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, list)
}

func (s *Server) mirrorCollect(w http.ResponseWriter, r *http.Request) error {
	m, err := s.mirror()
	if err != nil {
		return err
	}
	var c v1.MirrorCollect
	if err := read(w, r, maxSmall, &c); err != nil {
		return err
	}
	done, err := m.Collect(r.Context(), c)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, done)
}

func (s *Server) frozenList(w http.ResponseWriter, r *http.Request) error {
	f, err := s.sets()
	if err != nil {
		return err
	}
	list, err := f.List(r.Context())
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, list)
}

func (s *Server) frozen(w http.ResponseWriter, r *http.Request) error {
	f, err := s.sets()
	if err != nil {
		return err
	}
	return one(w, r, "set", func(name string) (any, error) { return f.Get(r.Context(), name) })
}

func (s *Server) freeze(w http.ResponseWriter, r *http.Request) error {
	f, err := s.sets()
	if err != nil {
		return err
	}
	var in v1.Freeze
	if err := read(w, r, s.cfg.MaxBody, &in); err != nil {
		return err
	}
	set, err := f.Freeze(r.Context(), in)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, set)
}

func (s *Server) thaw(w http.ResponseWriter, r *http.Request) error {
	f, err := s.sets()
	if err != nil {
		return err
	}
	name, err := variable(r, "set")
	if err != nil {
		return err
	}
	if err := f.Thaw(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
