package history

import (
	"fmt"

	"joist/engine/addr"
)

// CauseKind says of what sort a cause is.
type CauseKind string

// The kinds of causes of verdicts, and of waiting.
const (
	Same         CauseKind = ""              // nothing changed
	FirstTime    CauseKind = "new"           // it never ran for this target
	StepChanged  CauseKind = "step changed"  // the step's apply is another one
	InputChanged CauseKind = "input changed" // Input differs from what it was
	Upstream     CauseKind = "upstream"      // Of has to run first
	Lifetime     CauseKind = "lifetime"      // its node's incarnation ended, or the root it wrote to is gone
	Interrupted  CauseKind = "interrupted"   // it was started, and did not succeed since
	ExpiredCause CauseKind = "expired"       // its success is due for renewal
	Drift        CauseKind = "drift"         // a verify found the effect gone
	ForcedCause  CauseKind = "forced"        // a person asked for it
	Unwanted     CauseKind = "unwanted"      // the goal does not have it any more
	Unasked      CauseKind = "on demand"     // it runs when somebody asks for it, and nobody has
	FailedCause  CauseKind = "failed"        // Of failed
	Undecidable  CauseKind = "undecidable"   // an expression cannot be evaluated

	Running     CauseKind = "running"      // an attempt is in flight
	Order       CauseKind = "order"        // Of has to be in place first (after)
	NotUp       CauseKind = "not enrolled" // its node has not come up yet
	Distrust    CauseKind = "trust"        // its node is not trusted enough
	Offline     CauseKind = "offline"      // its node does not answer
	InScout     CauseKind = "scout"        // its node has to be in the discovery image for it, and was handed over already
	Executor    CauseKind = "no executor"  // no node can execute it now
	Consumer    CauseKind = "consumer"     // Of still uses its outputs
	RetryWait   CauseKind = "retry"        // the next attempt's time has not come
	LaterWait   CauseKind = "later"        // the step asked to be tried again later, or waits for something outside
	SkippedBy   CauseKind = "skipped"      // a person wants the goal without it
	NoPlace     CauseKind = "budget"       // its rollout has no place for its node now, or was stopped by failures
	MakesWay    CauseKind = "makes way"    // Of is to run, and it is in place except during that
	WayMade     CauseKind = "made way"     // it was out while Of ran
	InTheWay    CauseKind = "in the way"   // Of has to come out first, which is in place except while this runs
	During      CauseKind = "during"       // it is in place only while Of runs
	Over        CauseKind = "over"         // nothing runs any more that it is in place for
	Unguarded   CauseKind = "unguarded"    // Of has to come in first, which is in place only while this runs
	CancelledBy CauseKind = "cancelled"    // a person stopped the pursuit
	PolicyHeld  CauseKind = "policy"       // a policy refuses it
	Accept      CauseKind = "accept"       // a changed fact would remove it; that waits for a person
	AskedFor    CauseKind = "approval"     // a person has to approve it
	OnAside     CauseKind = "set aside"    // its node is set aside
	Wiping      CauseKind = "wiping"       // its node is being wiped, which takes the effect with it
)

// Cause is why an instance has its verdict, or what it waits for.
type Cause struct {
	Kind  CauseKind `json:"kind"`
	Of    Target    `json:"of,omitzero"`     // the instance that brought it about
	Input string    `json:"input,omitempty"` // the input that changed
	Text  string    `json:"text,omitempty"`  // details for people
}

// Since completes why an instance is started, or is to be, by what its row says of the time before: what was taken away again,
// or ended with its node, had run all the same. No event has that.
func (c Cause) Since(r *Row) Cause {
	if c.Kind == FirstTime && c.Text == "" && r != nil && r.Phase == Absent && r.Started > 0 {
		c.Text = fmt.Sprintf("nothing is left of what it did before, since event %d", r.Ended)
	}
	return c
}

// Because gives the cause as a phrase.
func (c Cause) Because() string {
	of := c.Of.String()
	var text string
	switch c.Kind {
	case Same:
		text = "nothing changed"
	case FirstTime:
		if text = "it had never run for this target"; c.Text != "" {
			text, c.Text = c.Text, "" // it had, but nothing of that is left
		}
	case Interrupted: // or failed: nobody knows how far it came
		return "it was started and has not succeeded since"
	case StepChanged:
		text = "the step's apply is another one"
	case InputChanged:
		text = "its inputs changed"
		if c.Input != "" {
			text = "input " + c.Input + " changed"
		}
	case Upstream:
		text = of + " has to run first"
		of = ""
	case FailedCause:
		text = of + " failed"
		of = ""
	case Order:
		text = of + " has to be in place first"
		of = ""
	case Consumer:
		text = of + " still uses its outputs"
		of = ""
	case MakesWay:
		text = "it makes way for " + of
		of = ""
	case WayMade:
		text = "it had made way"
	case InTheWay:
		text = of + " has to come out first"
		of = ""
	case During:
		text, of = "it is in place only while "+of+" runs", ""
	case Over:
		text = "nothing runs that it is in place for"
	case Unguarded:
		text, of = of+" has to come in first", ""
	case NotUp:
		text, of = node(of)+" has not come up yet", ""
	case Distrust:
		text, of = node(of)+" is not trusted enough", ""
	case Offline:
		text, of = node(of)+" does not answer", ""
	case Wiping:
		text, of = node(of)+" is being wiped", ""
	case InScout:
		return "waits for the node to be in scout: " + of + " has to boot once more"
	case LaterWait:
		text = "it asked to be tried again later"
	case NoPlace:
		if text = c.Text; text == "" {
			text = "its rollout has no place for it"
		}
		if of != "" && c.Of.Task != "" {
			text += " of " + of
		}
		return text
	case PolicyHeld:
		return c.Text
	case SkippedBy:
		text = "a person skipped it"
		if of != "" {
			text, of = of+" was skipped, whose outputs it reads", ""
		}
	case AskedFor:
		text, of = "waiting for approval", ""
	case OnAside:
		text, of = "its node is set aside", ""
	case Running:
		text = "an attempt is in flight"
	case Unwanted:
		text = "the goal does not have it any more"
	case Unasked:
		text = "it runs on demand"
	default:
		text = string(c.Kind)
	}
	if of != "" {
		text += ", after " + of
	}
	if c.Text != "" {
		text += " (" + c.Text + ")"
	}
	return text
}

// node is who a cause is about, where that is a node.
func node(of string) string {
	if of == "" {
		return "its node"
	}
	return of
}

// OutOfScout is what a step that runs in the discovery image waits for on a node that is not there.
func (n *Node) OutOfScout() Cause {
	c := Cause{Kind: InScout, Of: Target{Node: n.Name}}
	switch {
	case !n.Alive():
		c.Kind = NotUp
	case !n.Online:
		c.Kind = Offline
	}
	return c
}

// String gives the target as task[node].
func (t Target) String() string {
	if t.Task == "" && t.Node != "" {
		return "node " + t.Node
	}
	return addr.Path(t.Task, t.Node)
}
