// Package progress follows a cluster's events for people: what started, what is done and how long it took, what failed
// and why, and how far each node came. It is pure: events come in, lines and times come out.
package progress

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/addr"
	v1 "joist/services/api/v1"
)

// Weight says how important a line is.
type Weight int

// The weights.
const (
	Quiet Weight = iota // left out where space is short
	Plain
	Good
	Bad
)

// Line is something to tell a person.
type Line struct {
	At     time.Time
	Weight Weight
	Text   string
	Failed string // instance that failed for good: its log is worth a look
}

// Node is how far a node came, as far as the events tell. Times that are zero were not seen.
type Node struct {
	Wiped    time.Time // what it kept was destroyed; what follows is the time after that
	Script   time.Time // the boot service gave it a boot script: it had power, DHCP and its loader
	Enrolled time.Time // its key was accepted
	Up       time.Time // its agent spoke to the engine
	First    time.Time // its first step started
	Last     time.Time // its last step was done
}

// Tracker folds events. The zero value is not ready; use New.
type Tracker struct {
	Cluster string
	Goal    uint64 // event that set the goal that is followed; a later goal supersedes it
	Past    uint64 // events up to this one had happened before: a rest among them may have ended since
	Start   time.Time
	End     time.Time // of the pursuit; zero while it goes on
	Outcome string    // converged, stopped, destroyed, cancelled, superseded; empty while it goes on
	Detail  string

	Done     int    // actions that went well
	Failures int    // attempts that did not
	last     uint64 // event that was taken
	nodes    map[string]*Node
	begun    map[string]time.Time
	online   map[string]bool
}

// New follows the goal that event goal of a cluster set. The nodes named are known to matter from the beginning.
func New(cluster string, goal uint64, nodes []string) *Tracker {
	t := &Tracker{Cluster: cluster, Goal: goal, nodes: map[string]*Node{}, begun: map[string]time.Time{}, online: map[string]bool{}}
	for _, name := range nodes {
		t.nodes[name] = &Node{}
	}
	return t
}

// Nodes gives how far each node came, by name.
func (t *Tracker) Nodes() map[string]Node {
	all := map[string]Node{}
	for name, n := range t.nodes {
		all[name] = *n
	}
	return all
}

// fact has the fields of all events that matter here; see the engine's history and site packages for their meaning.
type fact struct {
	Task        string              `json:"task"`
	Node        string              `json:"node"`
	Action      string              `json:"action"`
	Attempt     int                 `json:"attempt"`
	Error       string              `json:"error"`
	Final       bool                `json:"final"`
	Excused     bool                `json:"excused"`
	Retry       *time.Time          `json:"retry"`
	Later       string              `json:"later"`
	OK          bool                `json:"ok"`
	Outcome     string              `json:"outcome"`
	Detail      string              `json:"detail"`
	Online      bool                `json:"online"`
	Address     string              `json:"address"`
	Incarnation string              `json:"incarnation"`
	Why         string              `json:"why"`
	By          string              `json:"by"`
	Roles       map[string][]string `json:"roles"`
	Destroy     bool                `json:"destroy"`
	Rollout     string              `json:"rollout"`
	Observed    string              `json:"observed"`
	Silent      json.RawMessage     `json:"silent"`
	Kind        string              `json:"kind"`
	Machine     string              `json:"machine"`
	Fingerprint string              `json:"fingerprint"`
	Reason      string              `json:"reason"`
	Text        string              `json:"text"`
}

func (f *fact) instance() string {
	return addr.Path(f.Task, f.Node)
}

// Take folds an event and gives what there is to say of it. Events of other clusters and machines are passed over.
func (t *Tracker) Take(e v1.Event) []Line {
	var f fact
	if json.Unmarshal(e.Data, &f) != nil { // a form that this program does not know says nothing
		return nil
	}
	switch e.Journal {
	case "cluster/" + t.Cluster:
		if t.Ended() {
			return nil
		}
		t.last = e.Seq
		return t.cluster(e, &f)
	case "site":
		return t.site(e, &f)
	}
	return nil
}

// Ended reports whether the pursuit has come to rest, and nothing that had happened before says otherwise.
func (t *Tracker) Ended() bool { return t.Outcome != "" && t.last >= t.Past }

func say(e v1.Event, w Weight, format string, args ...any) []Line {
	return []Line{{At: e.Time, Weight: w, Text: fmt.Sprintf(format, args...)}}
}

func (t *Tracker) cluster(e v1.Event, f *fact) []Line {
	switch e.Kind {
	case "goal":
		return t.goal(e, f)
	case "node.seen":
		return t.seen(e, f)
	case "node.ended":
		return t.ended(e, f)
	case "wipe.ordered":
		t.Start = e.Time
		return say(e, Plain, "%s wants every machine of cluster %s wiped and the cluster built anew", f.By, t.Cluster)
	case "node.released":
		return say(e, Plain, "node %s was given back to the site", f.Node)
	case "node.aside":
		if f.By == "" {
			return say(e, Bad, "node %s is set aside: %s", f.Node, f.Reason)
		}
		return say(e, Plain, "%s sets node %s aside: %s", f.By, f.Node, f.Reason)
	case "node.returned":
		return say(e, Plain, "%s returns node %s", f.By, f.Node)
	case "started":
		return t.started(e, f)
	case "succeeded":
		return t.succeeded(e, f)
	case "failed":
		return t.failed(e, f)
	case "discharged":
		return say(e, Quiet, "%s is gone: %s", f.instance(), f.Why)
	case "breaker.closed":
		return say(e, Plain, "%s closed the breaker of rollout %s", f.By, f.Rollout)
	case "forced":
		return say(e, Plain, "%s forces %s to run again", f.By, f.instance())
	case "settling":
		return say(e, Quiet, "node %s is watched before its place in rollout %s is given back", f.Node, f.Rollout)
	case "watched":
		if f.OK {
			return nil
		}
		return say(e, Bad, "%s was not in place any more at the end of its watch: %s", f.instance(), f.Observed)
	case "skipped":
		return say(e, Plain, "%s skips %s: %s", f.By, f.instance(), f.Reason)
	case "approved":
		return say(e, Plain, "%s approves %s: %s", f.By, f.instance(), f.Reason)
	case "mended":
		return say(e, Good, "%s, which had drifted, is in place again", f.instance())
	case "drifted":
		return say(e, Bad, "%s has drifted: %s", f.instance(), f.Observed)
	case "expired":
		return say(e, Quiet, "%s is due for renewal", f.instance())
	case "rested":
		t.Outcome, t.Detail, t.End = f.Outcome, f.Detail, e.Time
	case "stirred":
		t.Outcome, t.Detail, t.End = "", "", time.Time{}
		return nil
	case "cancelled":
		t.Outcome, t.Detail, t.End = "cancelled", "by "+f.By, e.Time
		if f.Reason != "" {
			t.Detail += ": " + f.Reason
		}
	default:
		return nil
	}
	text, weight := t.Outcome, Good
	if t.Detail != "" {
		text += ": " + t.Detail
	}
	if t.Outcome != "converged" && t.Outcome != "destroyed" {
		weight = Bad
	}
	return say(e, weight, "cluster %s %s", t.Cluster, text)
}

func (t *Tracker) goal(e v1.Event, f *fact) []Line {
	if e.Seq > t.Goal && t.Goal > 0 {
		t.Outcome, t.Detail, t.End = "superseded", "by a goal that "+f.By+" set", e.Time
		return say(e, Bad, "%s set another goal, which supersedes this one", f.By)
	}
	t.Goal, t.Start = e.Seq, e.Time
	for _, names := range f.Roles {
		for _, name := range names {
			t.node(name)
		}
	}
	if f.Destroy {
		return say(e, Plain, "%s wants cluster %s destroyed", f.By, t.Cluster)
	}
	if len(f.Roles) == 0 {
		return say(e, Plain, "%s set the goal: no machines", f.By)
	}
	return say(e, Plain, "%s set the goal: %s", f.By, rolesText(f.Roles))
}

func rolesText(roles map[string][]string) string {
	var parts []string
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		names := roles[role]
		text := fmt.Sprintf("%d nodes", len(names))
		if len(names) <= 5 {
			text = strings.Join(names, " ")
		}
		parts = append(parts, role+" = "+text)
	}
	return strings.Join(parts, ", ")
}

func (t *Tracker) node(name string) *Node {
	n := t.nodes[name]
	if n == nil {
		n = &Node{}
		t.nodes[name] = n
	}
	return n
}

func (t *Tracker) seen(e v1.Event, f *fact) []Line {
	was := t.online[f.Node]
	t.online[f.Node] = f.Online
	n := t.node(f.Node)
	switch {
	case f.Online && n.Up.IsZero():
		n.Up = e.Time
		return say(e, Plain, "node %s is up at %s, incarnation %.12s", f.Node, f.Address, f.Incarnation)
	case f.Online && !was:
		return say(e, Plain, "node %s answers again", f.Node)
	case was && !f.Online:
		return say(e, Bad, "node %s does not answer", f.Node)
	}
	return nil
}

func (t *Tracker) ended(e v1.Event, f *fact) []Line {
	t.online[f.Node] = false
	if strings.HasPrefix(f.Why, "wiped") {
		*t.node(f.Node) = Node{Wiped: e.Time}
	}
	return say(e, Plain, "node %s ended: %s", f.Node, f.Why)
}

func (t *Tracker) started(e v1.Event, f *fact) []Line {
	t.begun[f.instance()] = e.Time
	if f.Node != "" {
		if n := t.node(f.Node); n.First.IsZero() {
			n.First = e.Time
		}
	}
	verb := ""
	if f.Action == "remove" {
		verb = "removing "
	}
	attempt := ""
	if f.Attempt > 1 {
		attempt = fmt.Sprintf(", attempt %d", f.Attempt)
	}
	return say(e, Quiet, "%s%s started%s", verb, f.instance(), attempt)
}

func (t *Tracker) succeeded(e v1.Event, f *fact) []Line {
	t.Done++
	if f.Node != "" {
		t.node(f.Node).Last = e.Time
	}
	verb := "done"
	if f.Action == "remove" {
		verb = "removed"
	}
	took := ""
	if begun, ok := t.begun[f.instance()]; ok && len(f.Silent) == 0 {
		took = " after " + Duration(e.Time.Sub(begun))
	}
	delete(t.begun, f.instance())
	return say(e, Plain, "%s %s%s", f.instance(), verb, took)
}

func (t *Tracker) failed(e v1.Event, f *fact) []Line {
	delete(t.begun, f.instance())
	what := f.instance()
	if f.Action == "remove" {
		what = "removal of " + what
	}
	switch {
	case f.Excused:
		return say(e, Plain, "%s was given up: %s", what, f.Error)
	case f.Later != "" && f.Retry != nil:
		return say(e, Plain, "%s: %s %s; tried again in %s", what, f.Later, f.Error, Duration(f.Retry.Sub(e.Time)))
	case !f.Final && f.Retry != nil:
		t.Failures++
		return say(e, Bad, "%s failed (attempt %d), again in %s: %s", what, f.Attempt, Duration(f.Retry.Sub(e.Time)), f.Error)
	}
	t.Failures++
	lines := say(e, Bad, "%s FAILED after %d attempts: %s", what, f.Attempt, f.Error)
	lines[0].Failed = f.instance()
	return lines
}

func (t *Tracker) site(e v1.Event, f *fact) []Line {
	n := t.nodes[f.Machine]
	if n == nil {
		return nil
	}
	switch {
	case e.Kind == "notice":
		return say(e, Bad, "machine %s: %s", f.Machine, f.Text)
	case e.Kind != "enrolment":
		return nil
	}
	switch f.Kind {
	case "boot-issued":
		if n.Script.IsZero() {
			n.Script = e.Time
		}
		return say(e, Quiet, "machine %s boots from the network", f.Machine)
	case "asked":
		return say(e, Plain, "machine %s asks to be enrolled, fingerprint %s: joist node approve %s", f.Machine, f.Fingerprint, f.Machine)
	case "accepted":
		if n.Enrolled.IsZero() {
			n.Enrolled = e.Time
		}
		return say(e, Plain, "machine %s is enrolled", f.Machine)
	case "quarantined":
		return say(e, Bad, "machine %s is in quarantine: %s; see joist node show %s", f.Machine, f.Reason, f.Machine)
	}
	return nil
}

// Duration gives a time as people say it: 0.4 s, 12 s, 1:05, 1:02:03.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d:%02d", d/time.Minute, d/time.Second%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", d/time.Hour, d/time.Minute%60, d/time.Second%60)
}

// Phase is a part of the way, from the first node's mark to the last one's.
type Phase struct {
	Name  string
	Nodes int           // that have the mark
	First time.Duration // since the goal was set, of the first node
	Last  time.Duration // of the last one
}

// Phases says how long each part took, as far as the events tell; phases that nobody was seen in are left out.
func (t *Tracker) Phases() []Phase {
	var phases []Phase
	for _, p := range []struct {
		name string
		of   func(*Node) time.Time
	}{
		{"wiped", func(n *Node) time.Time { return n.Wiped }},
		{"booting from the network", func(n *Node) time.Time { return n.Script }},
		{"enrolled", func(n *Node) time.Time { return n.Enrolled }},
		{"agent up", func(n *Node) time.Time { return n.Up }},
		{"first step", func(n *Node) time.Time { return n.First }},
		{"last step done", func(n *Node) time.Time { return n.Last }},
	} {
		ph := Phase{Name: p.name}
		for _, n := range t.nodes {
			at := p.of(n)
			if at.IsZero() || at.Before(t.Start) {
				continue
			}
			d := at.Sub(t.Start)
			if ph.Nodes == 0 || d < ph.First {
				ph.First = d
			}
			ph.Nodes++
			ph.Last = max(ph.Last, d)
		}
		if ph.Nodes > 0 {
			phases = append(phases, ph)
		}
	}
	if t.Outcome == "converged" && len(phases) > 0 {
		at := t.End.Sub(t.Start)
		phases = append(phases, Phase{Name: "converged", Nodes: len(t.nodes), First: at, Last: at})
	}
	return phases
}

// Begun says when the attempt in flight of an instance began.
func (t *Tracker) Begun(instance string) (time.Time, bool) {
	at, ok := t.begun[instance]
	return at, ok
}
