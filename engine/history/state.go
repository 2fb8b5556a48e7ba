package history

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"joist/engine/step"
	"joist/engine/value"
)

// State is the fold of a cluster's journal.
type State struct {
	Seq     uint64              // of the last event folded
	Goals   []Goal              // those that live rows name by index, oldest first, and the newest; only the newest has Roles
	GoalSeq uint64              // of the newest goal
	Before  map[string][]string // roles of the goal before the newest
	Resumed time.Time           // when the engine last took up the journal with something in flight
	Nodes   []*Node             // every node ever named, by index; indexes never change
	Columns map[string]*Column
	Budgets map[string]*Budget // by rollout
	// Begun is what has begun in this run that counts under a policy: nodes, or instances that have none, by policy. A run begins
	// with a goal that is another one, and with one that is set, or an order to wipe all, after the goal was reached. nil for nothing.
	Begun map[string]map[string]bool `json:",omitempty"`

	// Waived are policies that do not hold since all machines were ordered to be wiped, until the cluster has converged again.
	Waived []Override `json:",omitempty"`

	Wiping  map[string]string // nodes that are to be wiped for a new beginning, with their incarnations; nil for none
	Outcome string            // how the pursuit of the newest goal came to rest; empty while it is pursued
	Detail  string            // of the outcome
	Now     time.Time         // time of the last event

	index map[string]int
}

// Node is what the cluster knows of a machine.
type Node struct {
	Name        string
	Incarnation string // newest; empty before the node first came up
	Boot        string
	Born        uint64 // event that showed the newest incarnation first
	Up          uint64 // event that showed the newest incarnation and boot first
	Told        uint64 // event that last changed address or facts
	Address     string
	Facts       json.RawMessage
	Level       string
	Online      bool
	Scout       string    // boot in whose discovery image it waits for the hand-over; empty if it does not
	Machine     string    // which machine it is; empty if that is not known
	Since       time.Time // when it last came online or went offline
	Ended       bool      // the newest incarnation has ended
	EndedWhy    string    // why it, or the one before it, ended
	Wiped       bool      `json:",omitempty"` // its durable state was destroyed when it ended
	Released    bool      // given back to the site
	Played      []string  // roles it was given since it was last claimed, sorted; empty for a node that no goal ever had
	Aside       *Aside    // the goal is pursued without it; nil if not
	Past        []Past    // incarnations that ended, oldest first; the last few only
}

// Aside says why the goal is pursued without a node. It is immutable.
type Aside struct {
	By     string // empty for the engine
	Reason string
	Of     Target // the instance that failed, if the engine set it aside
	Seq    uint64 // event that set it aside
}

// Says tells who set the node aside and why, for people.
func (a *Aside) Says() string {
	if a.By == "" {
		return a.Reason
	}
	return "by " + a.By + ": " + a.Reason
}

// Past is an incarnation that has ended.
type Past struct {
	Incarnation string
	Seq         uint64 // event that ended it
}

// mostPast bounds the memory of ended incarnations: what still names an older one is taken to have ended with the oldest.
const mostPast = 16

// Alive reports whether the node has an incarnation that has not ended, and is the cluster's.
func (n *Node) Alive() bool { return n.Incarnation != "" && !n.Ended && !n.Released }

// Holds reports whether the node is the cluster's and may hold durable state of it, which is erased when it is given back.
func (n *Node) Holds() bool {
	return len(n.Played) > 0 && !n.Released && n.Incarnation != "" && !n.Wiped
}

// EndOf gives the event that ended an incarnation, 0 if it has not ended.
func (n *Node) EndOf(incarnation string) uint64 {
	for _, p := range n.Past {
		if p.Incarnation == incarnation {
			return p.Seq
		}
	}
	if incarnation == n.Incarnation || len(n.Past) == 0 {
		return 0
	}
	return n.Past[0].Seq
}

func (n *Node) end(seq uint64, why string) {
	n.EndedWhy = why
	n.Past = append(n.Past, Past{n.Incarnation, seq})
	if len(n.Past) > mostPast {
		n.Past = slices.Delete(n.Past, 0, len(n.Past)-mostPast)
	}
}

// Phase says what an instance's effect is believed to be.
type Phase uint8

// The phases of a row.
const (
	Absent  Phase = iota // never started, or removed, or discharged
	Dirty                // an apply or a remove was started since the last success: the effect may be half there
	InPlace              // the last success stands
)

// Row is the history of one instance.
type Row struct {
	Phase     Phase
	Goal      int               // index of the goal at the last start of an apply: whose model knows how to remove it
	Stood     int               // index of the goal whose success stood before that start: what it used may still be used
	Started   uint64            // event of the last start
	Ended     uint64            // event of the last end
	Life      Rest              // of the last start of an apply; Node is empty for a single instance
	Boot      string            // boot id at that start
	Scout     bool              // it was done to the machine, in the discovery image: it outlasts incarnations
	Machine   string            // to which; empty if that is not known
	Rests     map[string]string // incarnations that a single instance with `on` lives by, by node; empty for one that was let go
	Flight    *Flight           // attempt in flight; nil if none
	Failure   *Failure          // last failure, until a success or a new goal
	Due       time.Time         // when a success with a limited life ends; zero for never
	Skipped   *Skip             // a person wants the goal without it; nil if not
	Approval  *Approval         // a person's word; nil for none
	Forced    bool              // a person forces it to run
	Drifted   string            // what a verify observed, if the effect was no longer in place
	DriftedAt uint64            // event that said so; 0 if it has not drifted
	Expired   bool              // due for renewal
	Cause     Cause             // of the last start
	Begun     time.Time         // time of the last start
	Removes   string            `json:",omitempty"` // of a removal that began and has not succeeded, the danger that policies took it for
	Done      time.Time         // time of the last success

	Step, Ref, Input, Output value.Digest
	Inputs, Outputs          json.RawMessage // of the last start of an apply; of the last success
}

// Skip is a person's word that the goal is to be pursued without an instance, or that its failed removal is done.
type Skip struct {
	By, Reason string
	Removal    bool
}

// Approval is a person's word that something may go on. It is immutable.
type Approval struct {
	Step, Input value.Digest // what was approved
	By, Reason  string
	At          time.Time
}

// Of reports whether it is of this step with this input; a nil Approval is of none.
func (a *Approval) Of(digest, input value.Digest) bool {
	return a != nil && a.Step == digest && a.Input == input
}

// Flight is an attempt in flight.
type Flight struct {
	Action   step.Action
	Attempt  int
	Waits    int    `json:",omitempty"` // attempts before it that came to no end yet: a goal forgets the failure that says so
	Agent    string // node whose agent performs it; empty for a service
	Aborted  bool   // a person cancelled it: however it ends, that is no failure
	Place    string
	Deadline time.Time
	Input    value.Digest
	Reboot   *Reboot `json:",omitempty"` // its node reboots for it; nil if not, or not yet. Immutable
	Again    bool    `json:",omitempty"` // a person has forced it since it began
}

// Reboot is what an attempt waits for whose node reboots for it.
type Reboot struct {
	Boot       string // that ends
	Seq        uint64 // event that says so: what is asked of the node then is named by it
	Outputs    json.RawMessage
	ValidUntil *time.Time
}

// Failure is how the last attempt ended.
type Failure struct {
	Action  step.Action
	Attempt int
	Error   string
	Final   bool
	Retry   time.Time
	Later   step.LaterKind // the attempt came to no end yet, which is no failure
	Waits   int            // attempts up to this one that came to no end
	Step    value.Digest   // what failed: another step or input is not held to have failed
	Input   value.Digest
	At      time.Time
	Place   string // rollout in which it counts; empty for none
}

// waitsOf counts the attempts before one that came to no end yet and so use up none; a nil Failure has none.
func (f *Failure) waitsOf(action step.Action, attempt int) int {
	if f == nil || f.Action != action || attempt != f.Attempt+1 {
		return 0
	}
	return f.Waits
}

// Waiting is what an instance waits for whose last attempt is to be repeated.
func (f *Failure) Waiting() Cause {
	switch f.Later {
	case step.RetryAfter:
		return Cause{Kind: LaterWait, Text: f.Error}
	case step.WaitingFor:
		return Cause{Kind: LaterWait, Text: string(f.Later) + " " + f.Error}
	}
	return Cause{Kind: RetryWait, Text: f.Error}
}

// Of reports whether an apply failed with this step and input; a nil Failure is none.
func (f *Failure) Of(digest, input value.Digest) bool {
	return f != nil && f.Action == step.Apply && f.Step == digest && f.Input == input
}

// Column is the history of one task: the single instance at index 0, the instance of node i at i+1. Rows are nil where
// nothing was ever started.
type Column struct{ Rows []*Row }

// Row gives the row of a node index (-1 for the single instance), or nil.
func (c *Column) Row(node int) *Row {
	if c == nil || node+1 >= len(c.Rows) {
		return nil
	}
	return c.Rows[node+1]
}

// Budget is what a rollout has spent; it survives runs.
type Budget struct {
	Places   map[string]bool  // nodes that hold a place
	Failures int              // since the breaker was last closed
	Settling map[string]Watch // of the nodes that hold a place, those that are watched
	Proven   map[string]bool  // nodes whose whole group came to be in place since the goal last changed
}

// Watch is a node's watch before it gives its place back.
type Watch struct {
	Until time.Time
	Seq   uint64          // event that began it
	Seen  map[string]bool // tasks whose verify has found them in place since Until

	Asked   uint64    // event that asked for the verifies; 0 if they have yet to be asked for
	AskedAt time.Time // when that was
	By      time.Time // until when they may answer
}

// New is the state of an empty journal.
func New() *State {
	return &State{Columns: map[string]*Column{}, Budgets: map[string]*Budget{}, index: map[string]int{}}
}

// Node gives a node by name, or nil.
func (s *State) Node(name string) *Node {
	if i, ok := s.index[name]; ok {
		return s.Nodes[i]
	}
	return nil
}

// Index gives the index of a node, giving it one if it has none yet.
func (s *State) Index(name string) int {
	if name == "" {
		return -1
	}
	i, ok := s.index[name]
	if !ok {
		i = len(s.Nodes)
		s.index[name] = i
		s.Nodes = append(s.Nodes, &Node{Name: name})
	}
	return i
}

// Goal gives the newest goal, or nil.
func (s *State) Goal() *Goal {
	if len(s.Goals) == 0 {
		return nil
	}
	return &s.Goals[len(s.Goals)-1]
}

// Row gives the history of an instance, or nil.
func (s *State) Row(t Target) *Row {
	node := -1
	if t.Node != "" {
		i, ok := s.index[t.Node]
		if !ok {
			return nil
		}
		node = i
	}
	return s.Columns[t.Task].Row(node)
}

// Lives reports whether an incarnation has not ended.
func (s *State) Lives(r Rest) bool {
	n := s.Node(r.Node)
	return n != nil && n.Alive() && n.Incarnation == r.Incarnation
}

// Stands reports whether what the last start was done to is still there: the incarnation, or of what was done to the machine,
// that, as long as the cluster has it.
func (s *State) Stands(r *Row) bool {
	if !r.Scout {
		return s.Lives(r.Life)
	}
	n := s.Node(r.Life.Node)
	return n != nil && !n.Released && (r.Machine == "" || n.Machine == "" || r.Machine == n.Machine)
}

// Rests reports whether any incarnation has not ended that a single instance lives by.
func (s *State) Rests(r *Row) bool {
	for node, incarnation := range r.Rests {
		if s.Lives(Rest{Node: node, Incarnation: incarnation}) {
			return true
		}
	}
	return false
}

func (s *State) row(t Target) *Row {
	node := s.Index(t.Node)
	c := s.Columns[t.Task]
	if c == nil {
		c = &Column{}
		s.Columns[t.Task] = c
	}
	for node+1 >= len(c.Rows) {
		c.Rows = append(c.Rows, nil)
	}
	if c.Rows[node+1] == nil {
		c.Rows[node+1] = &Row{}
	}
	return c.Rows[node+1]
}

func (s *State) budget(rollout string) *Budget {
	b := s.Budgets[rollout]
	if b == nil {
		b = &Budget{Places: map[string]bool{}, Settling: map[string]Watch{}, Proven: map[string]bool{}}
		s.Budgets[rollout] = b
	}
	return b
}

// Clone gives a state that can be folded further while s stays as it is.
func (s *State) Clone() *State {
	c := *s
	c.Goals = slices.Clone(s.Goals)
	c.Before = maps.Clone(s.Before)
	c.index = maps.Clone(s.index)
	c.Nodes = make([]*Node, len(s.Nodes))
	for i, n := range s.Nodes {
		copied := *n
		copied.Past, copied.Played = slices.Clone(n.Past), slices.Clone(n.Played)
		c.Nodes[i] = &copied
	}
	c.Columns = make(map[string]*Column, len(s.Columns))
	for name, column := range s.Columns {
		rows := make([]*Row, len(column.Rows))
		for i, r := range column.Rows {
			if r != nil {
				copied := *r
				copied.Rests = maps.Clone(r.Rests)
				if r.Flight != nil {
					flight := *r.Flight
					copied.Flight = &flight
				}
				rows[i] = &copied
			}
		}
		c.Columns[name] = &Column{Rows: rows}
	}
	c.Wiping = maps.Clone(s.Wiping)
	c.Begun = maps.Clone(s.Begun)
	for policy, begun := range s.Begun {
		c.Begun[policy] = maps.Clone(begun)
	}
	c.Budgets = make(map[string]*Budget, len(s.Budgets))
	for name, b := range s.Budgets {
		copied := &Budget{Places: maps.Clone(b.Places), Settling: make(map[string]Watch, len(b.Settling)), Failures: b.Failures, Proven: maps.Clone(b.Proven)}
		for node, w := range b.Settling {
			w.Seen = maps.Clone(w.Seen)
			copied.Settling[node] = w
		}
		c.Budgets[name] = copied
	}
	return &c
}

// Find gives the index of a node that was named before.
func (s *State) Find(name string) (int, bool) {
	i, ok := s.index[name]
	return i, ok
}
