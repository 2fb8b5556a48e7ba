package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	v1 "joist/services/api/v1"
)

// Error is an error that a client can do something about. Whoever implements the interfaces of this package wraps what
// it refuses in one; every other error is the engine's own trouble and is answered with status 500.
type Error struct {
	Kind   string // v1.NotFound, v1.Refused, v1.Conflict, v1.Unsupported, v1.Unavailable, v1.Malformed
	Advice string // what to do
	Err    error

	Findings []v1.Finding // what Err says of a source, as data
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// Fail makes an Error.
func Fail(kind string, err error, advice string) error {
	return &Error{Kind: kind, Err: err, Advice: advice}
}

type trait struct {
	status int
	title  string
}

func traits() map[string]trait {
	return map[string]trait{
		v1.NotFound:    {http.StatusNotFound, "There is no such thing"},
		v1.Malformed:   {http.StatusBadRequest, "The request cannot be read"},
		v1.TooLarge:    {http.StatusRequestEntityTooLarge, "The request is too large"},
		v1.Method:      {http.StatusMethodNotAllowed, "This method is not for this address"},
		v1.Refused:     {http.StatusUnprocessableEntity, "The request was refused"},
		v1.Conflict:    {http.StatusConflict, "This cannot be done in the present state"},
		v1.Unsupported: {http.StatusNotImplemented, "This is not possible yet"},
		v1.Unavailable: {http.StatusServiceUnavailable, "The engine cannot do this now"},
		v1.Internal:    {http.StatusInternalServerError, "The engine failed"},
	}
}

// problemOf gives the form in which an error is answered.
func problemOf(err error) *v1.Problem {
	kind, advice := v1.Internal, "look at the engine's log"
	var findings []v1.Finding
	var e *Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		kind, advice, findings = e.Kind, e.Advice, e.Findings
	case errors.As(err, &tooLarge):
		kind, advice = v1.TooLarge, "send less"
		err = fmt.Errorf("the request has more than %d bytes", tooLarge.Limit)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		kind, advice = v1.Unavailable, "try again"
	}
	t, ok := traits()[kind]
	if !ok {
		kind, t = v1.Internal, traits()[v1.Internal]
	}
	return &v1.Problem{Type: v1.ProblemPrefix + kind, Title: t.title, Status: t.status, Detail: err.Error(), Advice: advice, Findings: findings}
}

func writeProblem(w http.ResponseWriter, err error) {
	p := problemOf(err)
	w.Header().Set("Content-Type", v1.ProblemMedia)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that went away hears nothing
}
