// Package run pursues a goal: a state machine from (state, events) to (state, events, effects). It starts what the plan
// finds ready, within budgets; retries, times out, cancels and removes. It does nothing itself: effects are data that
// the driver performs once the events are durable.
package run

import (
	"encoding/json"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// Effect is something for the driver to do.
type Effect interface{ effect() }

// Dispatch asks a node's agent to perform an action of a step.
type Dispatch struct {
	history.Target
	ID          uint64 // event that started it; with the cluster, the request's identity
	Agent       string // node that performs it
	Incarnation string // of that node, which must still be the same
	Boot        string // likewise: on another root the effect would be where nobody looks for it
	Action      step.Action
	Attempt     int
	Step        *model.Step
	Inputs      map[string]value.Value // of type path and secret still as the plan has them
	Outputs     json.RawMessage        // for a remove: outputs of the last success
	Deadline    time.Time
	Broken      string // why the inputs cannot be read back, so that the attempt fails; empty if they can
}

// Call asks one of the engine's services.
type Call struct {
	history.Target
	ID       uint64
	Name     string
	Action   step.Action
	Attempt  int
	Inputs   map[string]value.Value
	Deadline time.Time
	Broken   string // as of a Dispatch
}

// Abort asks to give up an attempt that a Dispatch or Call began; its report may still come.
type Abort struct {
	history.Target
	ID    uint64
	Agent string
}

// HandOver asks that a machine that waits in the discovery image be handed over to its node image: nothing of the goal is left
// to be done there.
type HandOver struct{ Node, Boot string }

// Raise asks that a wanted node be powered on if it is off, or if nothing came of it since.
type Raise struct{ Node string }

// Fence asks that a leaving node that does not answer be powered off, and that this be read back. The driver answers
// with history.NodeEnded.
type Fence struct{ Node, Incarnation string }

// Wipe asks that a node's durable state be destroyed. The driver answers with history.NodeEnded.
type Wipe struct{ Node, Incarnation string }

// WipeAll asks that the durable state of several nodes be destroyed, all of them being switched off before any comes up
// again. The driver answers with one history.NodeEnded for each, all at once: to a cluster that is built anew, none of
// them is the one to join.
type WipeAll struct{ Nodes []history.Rest }

// Release asks that a node that has nothing of the cluster on it any more be given back to the site. The driver answers
// with history.NodeReleased.
type Release struct{ Node string }

// Keep asks that a large value be stored by its digest before the events are.
type Keep struct {
	Digest value.Digest
	Data   []byte
}

func (Dispatch) effect() {}
func (Call) effect()     {}
func (Abort) effect()    {}
func (HandOver) effect() {}
func (Raise) effect()    {}
func (Fence) effect()    {}
func (Wipe) effect()     {}
func (WipeAll) effect()  {}
func (Release) effect()  {}
func (Keep) effect()     {}
