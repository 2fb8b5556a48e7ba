// Package model is what the language compiles to and all that the engine knows of it: a flat list of tasks in
// dependency order, with expressions behind a two-method interface. Workflows called as tasks are already flattened
// into their caller, and references to their inputs and outputs replaced by what those stand for.
package model

import (
	"slices"
	"time"

	"joist/engine/value"
)

// Model is a checked cluster: a workflow at a version with its inputs. It is immutable.
type Model struct {
	Digest    value.Digest // of the packs, the cluster file and the inputs
	Cluster   string
	Workflow  string // "pack.workflow"
	Trust     string // level that the packs' secrets need: claimed, approved, vouched or attested
	Storage   string // "disk" or "memory", from the cluster file
	TrustBoot bool   // reboot = "trust-boot-network" in the cluster file: a boot that the engine ordered may keep a machine's approval
	Roles     []Role
	Inputs    map[string]value.Value // of the top workflow, checked, defaults filled in
	Tasks     []Task                 // each after everything it refers to
	Rollouts  []Rollout
	Outputs   []Output
	Drift     Drift
	Policies  []Policy
	Gone      Names   // what its policies are about and it does not have any more, by what that was called last
	Unmet     []Unmet // what they name and is unknown: only of a tentative model, for NamesAfter to find in the cluster

	Artifacts []Artifact   // all that its steps name, by pack and name, each once
	Frozen    value.Digest // of the frozen set that all of it comes from, boot set included; zero for none
}

// Drift says how often what is in place is looked at, and what comes of it if a verify finds it otherwise.
type Drift struct {
	Every  time.Duration // between two verifies of an instance, spread over that time; 0 for never
	AtOnce int           // verifies under way in the whole cluster; 0 for DriftAtOnce. On a node it is one
	Waits  bool          // what has drifted waits for a person; else it is converged like any other change
}

// What a cluster file's drift means where it says nothing.
const (
	DriftEvery  = time.Hour
	DriftAtOnce = 16
)

// Role is a part that nodes play.
type Role struct {
	Name   string
	Called string   // what the workflow calls it now: Name, unless it was renamed
	Was    []string // what it was called before
	Min    int
	Max    int   // 0 for no limit
	Memory int64 // declared need in bytes, 0 if none

	// Tolerate is how many of its nodes may be set aside because they failed for good; zero for none. Min of them stay in any
	// case.
	Tolerate Count
}

// Task is one call of a step.
type Task struct {
	Name   string   // "member", or "etcd.member" inside a called workflow: what its instances stand by, whatever it is called
	Called string   // what the workflow calls it now: Name, unless it was renamed; empty is Name
	Was    []string // what it was called before
	Doc    string   // of the step
	Step   *Step    // never nil
	Each   []string // roles; one instance for each node that plays any of them. Empty: a single instance
	On     string   // role whose nodes execute a cluster-scope script; empty if none
	With   []Argument
	When   *Argument // decides whether instances exist; nil for always
	Asked  string    // on demand: instances run when somebody asks for this, the task or the call that it is part of; empty for by itself
	After  []After
	Except []string // tasks of the same nodes: instances are in place except while those of the same target run
	During []string // tasks of the same nodes: instances are in place only while an apply of those of the same target runs
	Guards []string // tasks that name this one in During
	Range  Range    // where the task stands
}

// Argument is an expression that feeds an input, with what the engine may know about it.
type Argument struct {
	Name   string
	Expr   Expr
	Refs   []Ref        // Expr.Refs(), kept
	Parts  []Expr       // sub-expressions that mention nothing of the target and look at many instances; none if Shared
	Own    []Ref        // with Parts: of Refs, those that are not in Parts alone
	Digest value.Digest // of the compiled expression
	Shared bool         // mentions nothing of its target (no node, no task of the same node, no host): evaluated once per task
}

// Outside reports whether the argument lies outside every digest and the journal: it looks at the node that executes, or at
// what is in place only while the task runs.
func (a *Argument) Outside() bool { return a.Uses(RefHost) || a.Uses(RefDuring) }

// Uses reports whether the argument has a reference of a kind.
func (a *Argument) Uses(kind RefKind) bool {
	return slices.ContainsFunc(a.Refs, func(r Ref) bool { return r.Kind == kind })
}

// Expr is a compiled expression.
type Expr interface {
	// Refs lists everything that Eval may look up, without repetition.
	Refs() []Ref
	// Eval computes the value. What is unknown in the scope makes what depends on it unknown in the result. An error is a
	// diagnostic for people, with its place.
	Eval(Scope) (value.Value, error)
}

// Scope gives an expression the values it refers to.
type Scope interface {
	Lookup(Ref) value.Value
}

// Once is a Scope that evaluates what mentions nothing of the target once for all instances of a task.
type Once interface {
	// Once gives the value of an expression that is one of an Argument's Parts.
	Once(Expr) (value.Value, error)
}

// RefKind says what a Ref refers to.
type RefKind uint8

// What expressions can refer to. A step's own expressions (`apply { outputs }`, `apply { when }`) refer to RefStep only.
const (
	RefInput  RefKind = iota // input.Name of the top workflow
	RefNode                  // node.Attr of the instance's node
	RefRole                  // role.Name: map from node name to node object
	RefTask                  // task.Name.Attr: same node, or the only instance
	RefAll                   // all.Name: map from node name to outputs; Attr, if not empty, is the only output used
	RefHost                  // host.Name.Attr: on the node that executes; outside every digest
	RefStep                  // input.Name inside a step's body
	RefDuring                // task.Name.Attr of one of the task's Guards: same node, or the only instance; outside every digest
)

// Ref is one thing an expression refers to. It is comparable.
type Ref struct {
	Kind RefKind
	Name string // input, role or task
	Attr string // output or node attribute; empty for the whole
}

// Where nodes keep their data.
const (
	InMemory = "memory"
	OnDisk   = "disk"
)

// Node attributes that RefNode and the values of RefRole have: name (string), address (address), incarnation (string),
// boot (string), facts (any), storage (string: "disk" or "memory").
const (
	NodeName        = "name"
	NodeAddress     = "address"
	NodeIncarnation = "incarnation"
	NodeBoot        = "boot"
	NodeFacts       = "facts"
	NodeStorage     = "storage"
)

// After is an ordering without data.
type After struct {
	Task  string
	All   bool  // `all.x`, `most.x` or `any.x`: wait for instances of every node; otherwise the same node's, or the only one
	Share Share // with All: how many of them
}

// Share says how many of a task's instances have to be in place.
type Share uint8

// The shares.
const (
	Every Share = iota
	Most        // more than half
	Any         // one of them, if there is one
)

// Of gives how many out of n a share is.
func (s Share) Of(n int) int {
	switch s {
	case Most:
		return min(n, n/2+1)
	case Any:
		return min(n, 1)
	}
	return n
}

// StepScope is where a step executes.
type StepScope uint8

// The scopes of steps.
const (
	Node    StepScope = iota // the agent on the instance's node
	Service                  // one of the engine's services
	Cluster                  // a pure value, a gate, or a script on one node of the task's On role
)

// Step is a function with declared inputs and outputs.
type Step struct {
	Name         string   // "pack.step"
	Was          []string // names that it had before: what stands by one of them is this step's
	Doc          string
	Scope        StepScope
	Inputs       []Field
	Outputs      []Field
	Apply        Action
	Verify       *Action
	Remove       *Action    // nil if irreversible, pure, or a service step with the default remove
	Irreversible string     // why there is no remove
	Once         bool       // the first success holds for the target's lifetime
	Reboots      bool       // its node reboots after each apply, which goes well once the node is back; a node step
	Scout        bool       // it runs in the discovery image, and its success lives as long as the machine; a node step
	Artifacts    []Artifact // what its scripts find on the node, by name
	Digest       value.Digest
	Archive      value.Digest // of the pack that holds it, for its removal after the pack has changed
}

// Artifact is a file that a step's scripts find on the node where they run: a program, an image, a bundle of both.
type Artifact struct {
	Name    string // as the pack calls it, and the mirror
	Pack    string // that declares it
	Version string
	Arch    string // of the machines it is for, such as amd64
	Kind    ArtifactKind
	Licence string // SPDX expression
	URL     string // where it was published; empty if it has to be brought by hand
	Lag     Lag    // how far its version may be from others'

	// Digest is the SHA-256 of its content, Size its length in bytes. A pack may leave either open: zero until the model is
	// compiled for an engine that has the file.
	Digest value.Digest
	Size   int64
}

// Pin says which file an artifact is: what a pack may leave open, and is decided when a goal is set.
type Pin struct {
	Digest value.Digest `json:"sha256"`
	Size   int64        `json:"size"` // bytes
}

// PinName names the artifact among those of all packs.
func (a *Artifact) PinName() string { return a.Pack + "." + a.Name }

// ArtifactKind says what an artifact is. Two artifacts of one name may differ in it.
type ArtifactKind string

// The kinds of artifacts. Scripts find a bundle mounted, and any other as the file that it is, readable and executable.
const (
	File    ArtifactKind = "file"
	Program ArtifactKind = "program" // a static executable
	Image   ArtifactKind = "image"   // a container image in a tar file
	Bundle  ArtifactKind = "bundle"  // a squashfs, mounted read-only
)

// ArtifactKinds lists them.
func ArtifactKinds() []string {
	return []string{string(File), string(Program), string(Image), string(Bundle)}
}

// Field is a declared input or output.
type Field struct {
	Name     string
	Type     value.Type
	Optional bool         // an input that may be left out
	Default  *value.Value // of an input, checked; nil for none (null if Optional)
	Doc      string
}

// Action is one of a step's actions. Exactly one of Script, Builtin, Call, Outputs, When and Approve is set.
type Action struct {
	Script  *Script
	Builtin string              // an action compiled into the agent
	Call    string              // a service operation such as "names.put"
	Outputs map[string]Argument // pure: expressions over RefStep
	When    *Argument           // gate: succeeds when true
	Approve *Argument           // what a person is asked: succeeds when one has approved it, with the very inputs that it is asked for

	Valid    time.Duration // how long an approval holds for what has yet to start; 0 for ever
	Timeout  time.Duration // of one attempt; never 0
	Attempts int           // at least 1
	Backoff  time.Duration // before the second attempt; doubles, to at most 5 minutes
}

// Script is a program with the files it needs beside it.
type Script struct {
	Name  string            // path within the pack, for people
	Body  []byte            // starts with #!
	Files map[string][]byte // further files by name
}

// Rollout limits how many nodes are changed at once.
type Rollout struct {
	Name        string
	Called      string   // as of a Task: inside a called workflow it has the name of the call
	Was         []string // likewise
	Tasks       []string
	Roles       []string // the nodes it ranges over: roles of its tasks
	Canaries    int
	Waves       []Count       // places at first, wave by wave; then MaxInFlight
	MaxInFlight Count         // zero: 1
	StopAfter   Count         // zero: 1
	Settle      time.Duration // how long the group is watched, and then verified, before a place is given back
	Spread      *Argument     // failure domain of a node, over RefNode; places are spread evenly over the domains. nil for none
	Together    bool          // founding = "together"
}

// Count is a number of nodes, absolute or a percentage of the role's nodes before the change.
type Count struct {
	N       int
	Percent bool
}

// Output is a value that a workflow yields.
type Output struct {
	Argument
	Each []string // roles, if there is one for each node
}

// Range is a place in a source file, for people.
type Range struct {
	File      string
	Line, Col int // from 1
}

// The levels of trust in a node, lowest first.
const (
	Claimed  = "claimed"  // a MAC address and a UUID were seen
	Approved = "approved" // a person confirmed the key
	Vouched  = "vouched"  // a secret given out of band was proved
	Attested = "attested" // the TPM was checked
)

// Suffices reports whether trust of level have meets level need. An unknown level suffices for nothing.
func Suffices(have, need string) bool {
	rank := func(level string) int {
		for i, l := range [...]string{Claimed, Approved, Vouched, Attested} {
			if l == level {
				return i
			}
		}
		return -1
	}
	return rank(have) >= 0 && rank(have) >= rank(need)
}

// Task finds a task by name.
func (m *Model) Task(name string) *Task {
	for i := range m.Tasks {
		if m.Tasks[i].Name == name {
			return &m.Tasks[i]
		}
	}
	return nil
}

// Role finds a role by name, or nil.
func (m *Model) Role(name string) *Role {
	for i := range m.Roles {
		if m.Roles[i].Name == name {
			return &m.Roles[i]
		}
	}
	return nil
}

// Pure reports whether the step's apply is computed by the engine itself, with no effect outside it. Of an approval that is so
// once a person has given it.
func (s *Step) Pure() bool {
	return s.Apply.Outputs != nil || s.Apply.When != nil || s.Apply.Approve != nil
}

// Is reports whether the step has a name, or had it before.
func (s *Step) Is(name string) bool { return s.Name == name || slices.Contains(s.Was, name) }

// OutputType is the object type of the step's outputs.
func (s *Step) OutputType() value.Type {
	attrs := make(map[string]value.Attr, len(s.Outputs))
	for _, f := range s.Outputs {
		attrs[f.Name] = value.Attr{Type: f.Type, Optional: f.Optional}
	}
	return value.Type{Kind: value.Object, Attrs: attrs}
}

// Complete fills in the defaults of inputs that are not given.
func (s *Step) Complete(given map[string]value.Value) map[string]value.Value {
	for _, f := range s.Inputs {
		if v, ok := given[f.Name]; ok && !(v.Null() && f.Default != nil) {
			continue
		}
		switch {
		case f.Default != nil:
			given[f.Name] = *f.Default
		default:
			given[f.Name] = value.NullOf(f.Type)
		}
	}
	return given
}

// Edges lists the tasks that a task waits for, data first, without repetition.
func (t *Task) Edges() []Edge {
	var edges []Edge
	seen := map[Edge]bool{}
	add := func(e Edge) {
		if !seen[e] {
			seen[e] = true
			edges = append(edges, e)
		}
	}
	args := t.With
	if t.When != nil {
		args = append(args[:len(args):len(args)], *t.When)
	}
	for _, a := range args {
		for _, r := range a.Refs {
			switch r.Kind {
			case RefTask:
				add(Edge{Task: r.Name})
			case RefAll:
				add(Edge{Task: r.Name, All: true})
			case RefHost:
				add(Edge{Task: r.Name, Host: true})
			}
		}
	}
	for _, a := range t.After {
		add(Edge{Task: a.Task, All: a.All, Share: a.Share, Order: true})
	}
	for _, name := range t.Except {
		add(Edge{Task: name, Order: true})
	}
	return edges
}

// Guard lets every task know which tasks are in place only while it runs, as their During says.
func Guard(tasks []Task) {
	for i := range tasks {
		for k := 0; k < len(tasks) && len(tasks[i].During) > 0; k++ {
			if slices.Contains(tasks[i].During, tasks[k].Name) {
				tasks[k].Guards = append(tasks[k].Guards, tasks[i].Name)
			}
		}
	}
}

// Edge says that a task waits for another one.
type Edge struct {
	Task  string
	All   bool // for every instance; otherwise the same node's, or the only one
	Share Share
	Order bool // without data: waits, and never wakes
	Host  bool // for the instance on the node that executes: a condition for choosing that node
}
