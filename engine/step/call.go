// Package step holds the contract between the engine and whatever performs a step's actions: the request and the
// result, as data, that travel to an agent on a node or to one of the engine's services.
package step

import (
	"context"
	"encoding/json"
	"time"
)

// Action is what is asked of a step.
type Action string

// The three actions that a step can have.
const (
	Apply  Action = "apply"  // bring the effect about; must be safe to run twice
	Verify Action = "verify" // look whether the effect still holds; changes nothing
	Remove Action = "remove" // the inverse of apply; must be safe to run twice, and after a half-done apply
)

// Call is one request to a service, made by a service-scope step (`apply { call = "names.put" }`).
type Call struct {
	Name    string          // operation, "service.verb"
	Action  Action          // apply writes the owner's entries, remove deletes them
	Cluster string          // the cluster on whose behalf the call is made
	Owner   string          // address of the instance; it owns every entry the call writes
	Node    string          // name of the node the instance is for; empty for a single instance
	Epoch   uint64          // the controller's epoch; a service refuses an epoch older than the newest it saw
	Inputs  json.RawMessage // JSON object of the step's declared inputs
}

// Result is what a successful call yields.
type Result struct {
	Outputs    json.RawMessage // JSON object of the step's declared outputs; nil for none
	ValidUntil time.Time       // when the success expires; zero for never
}

// Handler performs the calls of one operation. A returned error fails the attempt; the engine decides about retries.
// A handler is safe for concurrent use, is idempotent for equal (Owner, Inputs), and returns only once its effect is
// served (a name resolves, a backend takes connections).
type Handler interface {
	Call(ctx context.Context, call Call) (Result, error)
}

// HandlerFunc makes a function a Handler.
type HandlerFunc func(ctx context.Context, call Call) (Result, error)

// Call implements Handler.
func (f HandlerFunc) Call(ctx context.Context, call Call) (Result, error) { return f(ctx, call) }
