// Package history is what a cluster's journal says happened: the events, and the state that they fold to. Folding is
// pure; nothing here decides anything.
package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"joist/engine/journal"
	"joist/engine/step"
	"joist/engine/value"
)

// Event is a fact of a cluster's journal.
type Event interface{ kind() string }

// Goal is what a person, or the engine on somebody's word, wants the cluster to be. It supersedes the goal before it and
// forgets that one's failures. The same goal again means "try again".
type Goal struct {
	Model   value.Digest        `json:"model"`             // digest of the checked model; the library finds it again
	Source  value.Digest        `json:"source"`            // digest of the archived source that the model is compiled from
	Roles   map[string][]string `json:"roles"`             // node names by role, each sorted
	Destroy bool                `json:"destroy,omitempty"` // nothing is wanted any more
	By      string              `json:"by"`
	Reason  string              `json:"reason,omitempty"` // what a person said who had it tried again
	Expires time.Time           `json:"expires,omitzero"` // when the cluster is to be destroyed; zero for never
	Run     string              `json:"run,omitempty"`    // of the run that made the cluster for itself alone; empty for none
	Seq     uint64              `json:"-"`                // of the event, once it is folded
	Changed bool                `json:"changed"`          // a person changed pack, input or cluster file: opened breakers close

	Overrides []Override `json:"overrides,omitempty"` // policies that do not hold for this goal, on a person's word
}

// Override is a person's word, that of the By beside it, that a policy does not hold for a goal, or for an order to wipe.
type Override struct {
	Policy string `json:"policy"`
	Reason string `json:"reason"`
}

// WipeBegun is the intent to wipe a node, or to fence it, where that counts under some policies. Others need no event of their
// own: the goal, or a WipeOrdered, says that they are wanted.
type WipeBegun struct {
	Node     string   `json:"node"`
	Policies []string `json:"policies"`
}

// NodeSeen is what the cluster knows of a node whose agent speaks to the engine. Of a claimed node that has not come up
// yet it carries the declared facts only.
type NodeSeen struct {
	Node        string          `json:"node"`
	Incarnation string          `json:"incarnation,omitempty"`
	Boot        string          `json:"boot,omitempty"`
	Address     string          `json:"address,omitempty"`
	Facts       json.RawMessage `json:"facts,omitempty"`
	Level       string          `json:"level,omitempty"` // trust
	Online      bool            `json:"online"`
	Scout       string          `json:"scout,omitempty"`   // boot in whose discovery image the machine waits for the hand-over; empty if it does not
	Machine     string          `json:"machine,omitempty"` // which machine it is, as its firmware says (SMBIOS UUID); empty if that is not known
}

// NodeEnded says that an incarnation will never act again.
type NodeEnded struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	Why         string `json:"why"`             // "replaced", "fenced: power off was read back", "wiped", or a person's word
	Wiped       bool   `json:"wiped,omitempty"` // its durable state was destroyed
}

// WipeOrdered is a person's word that every machine of the goal be wiped, disks included. The goal stays: once all are
// wiped, the cluster is built anew. Until then nothing starts.
type WipeOrdered struct {
	By        string     `json:"by"`
	Overrides []Override `json:"overrides,omitempty"` // policies that do not hold until the cluster has converged again
}

// NodeReleased says that a node that left has been given back to the site.
type NodeReleased struct {
	Node string `json:"node"`
}

// NodeAside says that the goal is pursued without a node: nothing further is applied there, and what gathers outputs goes on
// without those that it never had. By is who set it aside; empty if that was the engine, because it failed for good and its
// roles tolerate that. It is forgiven then: its failures do not count in any rollout.
type NodeAside struct {
	Node   string `json:"node"`
	By     string `json:"by,omitempty"`
	Reason string `json:"reason"`
	Of     Target `json:"of,omitzero"` // the instance that failed, if the engine set it aside
}

// NodeReturned is a person's word that a node that was set aside is to be as the goal wants it again. Its failures are
// forgotten.
type NodeReturned struct {
	Node   string `json:"node"`
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
}

// Target names an instance within the cluster.
type Target struct {
	Task string `json:"task"`
	Node string `json:"node,omitempty"`
}

// Started is the intent to perform an action. It is durable before the action begins.
type Started struct {
	Target
	Action      step.Action     `json:"action"`
	Attempt     int             `json:"attempt"` // from 1, per action and cause
	Step        value.Digest    `json:"step"`
	Ref         value.Digest    `json:"ref"`
	Input       value.Digest    `json:"input"`
	Inputs      json.RawMessage `json:"inputs,omitempty"` // object of arguments; those from host.* left out; large ones as Large
	Incarnation string          `json:"incarnation,omitempty"`
	Boot        string          `json:"boot,omitempty"`
	Scout       bool            `json:"scout,omitempty"`   // it is done to the machine: it has no incarnation, and Boot is that of the discovery image
	Machine     string          `json:"machine,omitempty"` // to which, if it is done to the machine and that is known
	Agent       string          `json:"agent,omitempty"`   // node whose agent performs it; empty for a service or a pure value
	Place       string          `json:"place,omitempty"`   // rollout whose place it takes or holds
	Deadline    time.Time       `json:"deadline"`
	Cause       Cause           `json:"cause"`
	Policies    []string        `json:"policies,omitempty"` // those under which it counts, and is let pass
	Danger      string          `json:"danger,omitempty"`   // of a removal, where there are policies: what it was weighed as, a model.Danger
}

// Succeeded ends an action well.
type Succeeded struct {
	Target
	Action     step.Action     `json:"action"`
	Attempt    int             `json:"attempt"`
	Outputs    json.RawMessage `json:"outputs,omitempty"`
	Output     value.Digest    `json:"output"`
	ValidUntil *time.Time      `json:"valid_until,omitempty"`
	RestsOn    []Rest          `json:"rests_on,omitempty"` // incarnations that a single instance with `on` lives by
	Joins      []Join          `json:"joins,omitempty"`    // single instances that this success makes live by its incarnation too
	Silent     *Started        `json:"silent,omitempty"`   // of a pure value: its start, which needs no record of its own
}

// Rest is an incarnation of a node.
type Rest struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
}

// Join makes the single instance of Task live by an incarnation too.
type Join struct {
	Task string `json:"task"`
	Rest
}

// Rebooting says that an apply has done its part, which is durable, and that its node reboots for it. The attempt goes well once the
// node is back with another boot and the same incarnation, and the step's verify, if there is one, finds it so then.
type Rebooting struct {
	Target
	Attempt    int             `json:"attempt"`
	Outputs    json.RawMessage `json:"outputs,omitempty"`
	ValidUntil *time.Time      `json:"valid_until,omitempty"`
	Boot       string          `json:"boot"`     // that ends
	Deadline   time.Time       `json:"deadline"` // when the node has to be back, and verified
}

// Reborn is the error of an apply whose node came back from its reboot as another incarnation. It outlasts what was lost with the old
// one: else the next incarnation would be rebooted too, and so on.
const Reborn = "its node came back from the reboot with nothing of what it had, as another incarnation: what has to outlast a reboot needs a disk that is there before"

// Failed ends an attempt, or with Final the whole action, badly.
type Failed struct {
	Target
	Action  step.Action `json:"action"`
	Attempt int         `json:"attempt"`
	Error   string      `json:"error"`
	Final   bool        `json:"final"`
	Retry   *time.Time  `json:"retry,omitempty"`   // when the next attempt may start
	Excused bool        `json:"excused,omitempty"` // no failure of the step: the incarnation ended, a person cancelled

	// Later says that the attempt came to no end yet, which is no failure: Error says why, or what it waits for.
	Later step.LaterKind `json:"later,omitempty"`

	// Of a failure before anything was started: what it failed with.
	Step  value.Digest  `json:"step,omitzero"`
	Input *value.Digest `json:"input,omitempty"`
}

// Discharged says that an effect is gone by itself, so that its remove need not run.
type Discharged struct {
	Target
	Why string `json:"why"`
}

// PlaceReturned gives a rollout's place back: the node's whole group is in place, or is gone, or has to wait for others
// before it can go.
type PlaceReturned struct {
	Rollout string `json:"rollout"`
	Node    string `json:"node"`
	Proven  bool   `json:"proven,omitempty"` // something of the group is in place: as a canary the node has done its part
}

// Settling begins the watch of a node whose whole group is in place: it keeps its place until then, and until verifies have
// found it so.
type Settling struct {
	Rollout string    `json:"rollout"`
	Node    string    `json:"node"`
	Until   time.Time `json:"until"`
}

// Asked says that a node's watch is over, and that the verifies at its end were asked for. This event's number identifies the
// requests; what has not answered until then has failed.
type Asked struct {
	Rollout string    `json:"rollout"`
	Node    string    `json:"node"`
	Until   time.Time `json:"until"`
}

// Watched is what the verify at the end of a watch found. What is not OK is a failure of its rollout, and drift.
type Watched struct {
	Target
	Rollout  string `json:"rollout"`
	OK       bool   `json:"ok"`
	Observed string `json:"observed,omitempty"` // what was found, if it is not OK
}

// BreakerClosed is a person's word that a stopped rollout may go on.
type BreakerClosed struct {
	Rollout string `json:"rollout"`
	By      string `json:"by"`
	Reason  string `json:"reason,omitempty"`
}

// Forced makes an instance run again whatever its memo says.
type Forced struct {
	Target
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
}

// Skipped is a person's word that the goal is to be pursued without an instance that does not come to be in place: what is
// ordered after it goes on, what reads its outputs does not. It holds until the goal changes, or the instance is forced.
type Skipped struct {
	Target
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// Approved is a person's word that an instance that asks for it may go on, with the step and the inputs that were shown: what
// has changed since asks anew.
type Approved struct {
	Target
	Step   value.Digest `json:"step"`
	Input  value.Digest `json:"input"`
	By     string       `json:"by"`
	Reason string       `json:"reason"`
}

// Drifted says that a verify found the effect no longer in place. Verifies that found nothing new are no events.
type Drifted struct {
	Target
	Observed string `json:"observed"`         // one sentence
	Output   string `json:"output,omitempty"` // the last lines that the verify wrote, at most MostOutput bytes; secrets masked
	By       string `json:"by,omitempty"`     // who asked for the verify; empty for the schedule
}

// MostOutput bounds what a Drifted keeps of a verify's output, in bytes.
const MostOutput = 2 << 10

// Mended says that a verify found in place again what had drifted and was not converged since.
type Mended struct {
	Target
}

// Expired says that a success with a limited life is due for renewal.
type Expired struct {
	Target
}

// Cancelled stops the pursuit of the goal until the next goal: nothing further starts.
type Cancelled struct {
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
}

// Says tells who stopped it and why, for people.
func (c Cancelled) Says() string {
	if c.Reason == "" {
		return "by " + c.By
	}
	return "by " + c.By + ": " + c.Reason
}

// The outcomes of pursuing a goal. Empty while it is pursued.
const (
	OutcomeConverged = "converged" // everything is as the goal wants it
	OutcomeStopped   = "stopped"   // something failed or is blocked, and nothing else is left to do
	OutcomeDestroyed = "destroyed" // nothing is left
	OutcomeCancelled = "cancelled" // a person stopped it
)

// Stirred says that after the goal had come to rest something is under way for it again.
type Stirred struct{}

// Resumed says that the engine took up the journal while something was in flight, whose results may yet come.
type Resumed struct{}

// Ticked records that time passed to a moment something was waiting for.
type Ticked struct{}

// Rested says that nothing more can be done for the goal by itself.
type Rested struct {
	Outcome string `json:"outcome"` // one of the outcomes, but for cancelled
	Detail  string `json:"detail,omitempty"`
}

// TargetOf gives the instance that an event is about, if it is about one.
func TargetOf(e Event) (Target, bool) {
	switch e := e.(type) {
	case Started:
		return e.Target, true
	case Succeeded:
		return e.Target, true
	case Rebooting:
		return e.Target, true
	case Failed:
		return e.Target, true
	case Discharged:
		return e.Target, true
	case Forced:
		return e.Target, true
	case Skipped:
		return e.Target, true
	case Approved:
		return e.Target, true
	case Watched:
		return e.Target, true
	case Drifted:
		return e.Target, true
	case Mended:
		return e.Target, true
	case Expired:
		return e.Target, true
	}
	return Target{}, false
}

// Told reports whether an event of this kind is something that a person, a node or a service told the engine; all others
// the engine decided. A pure value's success is the engine's own. Of a failure only its circumstances tell: an attempt may
// have been reported to have failed, or been given up.
func Told(e Event) bool {
	switch e := e.(type) {
	case NodeAside:
		return e.By != ""
	case Goal, NodeSeen, NodeEnded, NodeReleased, NodeReturned, WipeOrdered, BreakerClosed, Forced, Skipped, Approved, Drifted, Mended, Watched, Cancelled, Ticked, Rebooting:
		return true
	case Succeeded:
		return e.Silent == nil
	case Started, Failed, Discharged, PlaceReturned, Settling, Asked, Expired, Stirred, Resumed, Rested, WipeBegun:
	}
	return false
}

func (Goal) kind() string          { return "goal" }
func (NodeSeen) kind() string      { return "node.seen" }
func (NodeEnded) kind() string     { return "node.ended" }
func (NodeReleased) kind() string  { return "node.released" }
func (NodeAside) kind() string     { return "node.aside" }
func (NodeReturned) kind() string  { return "node.returned" }
func (WipeOrdered) kind() string   { return "wipe.ordered" }
func (WipeBegun) kind() string     { return "wipe.begun" }
func (Started) kind() string       { return "started" }
func (Succeeded) kind() string     { return "succeeded" }
func (Rebooting) kind() string     { return "rebooting" }
func (Failed) kind() string        { return "failed" }
func (Discharged) kind() string    { return "discharged" }
func (PlaceReturned) kind() string { return "place.returned" }
func (BreakerClosed) kind() string { return "breaker.closed" }
func (Forced) kind() string        { return "forced" }
func (Settling) kind() string      { return "settling" }
func (Asked) kind() string         { return "watch.asked" }
func (Watched) kind() string       { return "watched" }
func (Skipped) kind() string       { return "skipped" }
func (Approved) kind() string      { return "approved" }
func (Drifted) kind() string       { return "drifted" }
func (Mended) kind() string        { return "mended" }
func (Expired) kind() string       { return "expired" }
func (Cancelled) kind() string     { return "cancelled" }
func (Ticked) kind() string        { return "ticked" }
func (Stirred) kind() string       { return "stirred" }
func (Resumed) kind() string       { return "resumed" }
func (Rested) kind() string        { return "rested" }

// version of the events' form. A change of form raises it and teaches Decode the older ones.
const version = 1

// Encode makes the journal's record of an event; the store numbers it.
func Encode(e Event, now time.Time) (journal.Record, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return journal.Record{}, fmt.Errorf("cannot encode event %s: %w", e.kind(), err)
	}
	return journal.Record{Time: now.UTC(), Kind: e.kind(), Version: version, Data: data}, nil
}

// Decode reads a journal's record.
func Decode(r journal.Record) (Event, error) {
	if r.Version < 1 || r.Version > version {
		return nil, fmt.Errorf("cannot read event %d (%s): its form is version %d, this program knows 1 to %d; use a newer joist", r.Seq, r.Kind, r.Version, version)
	}
	decode, ok := decoders[r.Kind]
	if !ok {
		return nil, fmt.Errorf("cannot read event %d: unknown kind %q; use a newer joist", r.Seq, r.Kind)
	}
	e, err := decode(r.Data)
	if err != nil {
		return nil, fmt.Errorf("cannot read event %d (%s): %w", r.Seq, r.Kind, err)
	}
	if err := complete(e); err != nil {
		return nil, fmt.Errorf("cannot read event %d (%s): %w", r.Seq, r.Kind, err)
	}
	return e, nil
}

// complete checks that an event names what it is about.
func complete(e Event) error {
	node, task := "-", "-"
	switch e := e.(type) {
	case Goal:
		for role, names := range e.Roles {
			if slices.Contains(names, "") {
				return fmt.Errorf("role %q has a node without a name", role)
			}
		}
	case NodeSeen:
		node = e.Node
	case NodeEnded:
		node = e.Node
	case NodeReleased:
		node = e.Node
	case NodeAside:
		node = e.Node
	case WipeBegun:
		node = e.Node
	case NodeReturned:
		node = e.Node
	case Succeeded:
		task = e.Task
		if e.Silent != nil && e.Silent.Target != e.Target {
			return fmt.Errorf("it ends the start of another instance, %s", e.Silent.Target)
		}
	default:
		if t, aimed := TargetOf(e); aimed {
			task = t.Task
		}
	}
	switch {
	case node == "":
		return errors.New("it names no node")
	case task == "":
		return errors.New("it names no task")
	}
	return nil
}

var decoders = map[string]func([]byte) (Event, error){
	"goal": read[Goal], "node.seen": read[NodeSeen], "node.ended": read[NodeEnded], "node.released": read[NodeReleased], "wipe.ordered": read[WipeOrdered], "wipe.begun": read[WipeBegun], "node.aside": read[NodeAside], "node.returned": read[NodeReturned],
	"started": read[Started], "succeeded": read[Succeeded], "failed": read[Failed], "rebooting": read[Rebooting], "discharged": read[Discharged],
	"place.returned": read[PlaceReturned], "breaker.closed": read[BreakerClosed], "forced": read[Forced], "drifted": read[Drifted], "mended": read[Mended], "skipped": read[Skipped], "approved": read[Approved], "settling": read[Settling], "watch.asked": read[Asked], "watched": read[Watched],
	"expired": read[Expired], "cancelled": read[Cancelled], "ticked": read[Ticked], "rested": read[Rested], "stirred": read[Stirred], "resumed": read[Resumed],
}

// Kinds lists the kinds of all events, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(decoders)) }

func read[E Event](data []byte) (Event, error) {
	var e E
	err := json.Unmarshal(data, &e)
	return e, err
}
