// Package v1 is the form of the engine's API, version 1: what travels as JSON between a client and the engine. Fields are
// added, never renamed or removed; readers of answers ignore fields they do not know, the engine refuses unknown fields in
// requests. Times are RFC 3339 in UTC, durations are seconds, digests are lower-case hexadecimal. No field ever carries a
// secret.
package v1

import (
	"encoding/json"
	"time"
)

// Status is the engine at a glance: GET /v1/status.
type Status struct {
	Version  string    `json:"version"`
	Data     string    `json:"data"`              // folder or database that holds everything
	Address  string    `json:"address,omitempty"` // the engine's own in the machines' network; it answers DNS there
	Lab      bool      `json:"lab,omitempty"`     // whether it runs in a lab that joist lab up made
	Started  time.Time `json:"started"`
	Now      time.Time `json:"now"` // the engine's clock
	Clusters []Cluster `json:"clusters"`
	Machines []Machine `json:"machines"`
	Notices  []string  `json:"notices,omitempty"` // what a person should know of, newest first
}

// Cluster is one cluster in a list.
type Cluster struct {
	Name     string         `json:"name"`
	Workflow string         `json:"workflow,omitempty"`
	Outcome  string         `json:"outcome"` // converging, converged, stopped, cancelled, destroyed, failed (its loop ended); idle without a goal
	Detail   string         `json:"detail,omitempty"`
	Goal     Goal           `json:"goal,omitzero"`
	Counts   map[string]int `json:"counts"`             // instances by verdict
	States   map[string]int `json:"states"`             // instances by state
	Events   uint64         `json:"events"`             // sequence of the journal's last event
	Nodes    int            `json:"nodes"`              // wanted
	Online   int            `json:"online"`             // of them
	Breakers []Breaker      `json:"breakers,omitempty"` // open ones
}

// Goal is what a cluster pursues.
type Goal struct {
	Model   string              `json:"model"` // digest
	Seq     uint64              `json:"seq"`   // event that set it
	By      string              `json:"by"`
	At      time.Time           `json:"at,omitzero"`
	Roles   map[string][]string `json:"roles,omitempty"` // node names by role
	Destroy bool                `json:"destroy,omitempty"`
	Expires time.Time           `json:"expires,omitzero"` // when the cluster is destroyed by itself
	Run     string              `json:"run,omitempty"`    // of the run that made the cluster for itself alone
}

// Breaker is a rollout that has stopped.
type Breaker struct {
	Rollout  string `json:"rollout"`
	Failures int    `json:"failures"`
}

// ClusterDetail is one cluster: GET /v1/clusters/{c}.
type ClusterDetail struct {
	Cluster
	Members []Member `json:"members"`
	Running []Item   `json:"running"` // at most 200
	Failed  []Item   `json:"failed"`  // at most 200, failures before what they block
	Waiting []Wait   `json:"waiting"` // why instances wait, the nearest reason of each, most first
	Skipped []Item   `json:"skipped,omitempty"`
	Asking  []Asked  `json:"asking,omitempty"` // what waits for a person's approval

	Blocked  []Blockage `json:"blocked"`  // what is at the bottom of everything that waits or is blocked, what needs a person first
	Rollouts []Rollout  `json:"rollouts"` // of the goal

	Drifted []Item `json:"drifted,omitempty"` // in place, found otherwise, and waiting for a person; at most 200
	Drift   *Drift `json:"drift,omitempty"`

	// Digests are those of the cluster's live entries by service (names, certs, balance): equal entries have equal
	// digests. A service without entries of the cluster is left out.
	Digests map[string]string `json:"digests,omitempty"`
}

// Asked is what a person is asked to approve.
type Asked struct {
	Instance string `json:"instance"`
	Asks     string `json:"asks"`
	Digest   string `json:"digest"` // of the inputs that are approved: others ask anew
}

// Drift says how what is in place is verified.
type Drift struct {
	Every    float64   `json:"every"` // seconds between two verifies of an instance; 0 for never
	AtOnce   int       `json:"at_once"`
	Converge string    `json:"converge"` // itself, or person
	InPlace  uint64    `json:"in_place"` // verifies since the engine took the cluster up that found everything as it should be
	Found    uint64    `json:"found"`    // those that found drift
	Silent   uint64    `json:"silent"`   // those without an answer
	Last     time.Time `json:"last,omitzero"`
}

// Verify asks for verifies now: POST /v1/clusters/{c}/verify.
type Verify struct {
	Instances []string `json:"instances,omitempty"` // task[node], or a task for all its instances; none for all there are
	By        string   `json:"by,omitempty"`
}

// Verification says how far a Verify is: GET /v1/clusters/{c}/verify?id=N&skip=N.
type Verification struct {
	ID      uint64         `json:"id"`
	Cluster string         `json:"cluster"`
	By      string         `json:"by"`
	Asked   int            `json:"asked"`
	Open    map[string]int `json:"open"`  // those that have not ended: waiting, running
	Ended   []Look         `json:"ended"` // the others, in the order in which they ended; at most 1000, after the first skip
}

// Look is what came of the verify of one instance.
type Look struct {
	Instance string    `json:"instance"`
	State    string    `json:"state"`              // in place, drifted, no answer, left out
	Observed string    `json:"observed,omitempty"` // what was found, or why nothing was
	At       time.Time `json:"at"`
}

// Blockage is one thing that instances are blocked by, or wait for, in the end.
type Blockage struct {
	By        string   `json:"by"` // failure, approval, trust, budget, cancel, transition
	Says      string   `json:"says"`
	Instance  string   `json:"instance,omitempty"` // the root, if it is an instance
	Node      string   `json:"node,omitempty"`     // the root, if it is a node
	Cause     *Cause   `json:"cause,omitempty"`    // what is with the root
	Count     int      `json:"count"`              // instances that it keeps, itself included
	Instances []string `json:"instances"`          // the first few of them
}

// Rollout is how far a rollout is. Its places and its breaker belong to the cluster and outlast goals.
type Rollout struct {
	Name      string   `json:"name"`
	Tasks     []string `json:"tasks"`
	Nodes     int      `json:"nodes"`              // before the change: what percentages are of
	Limit     int      `json:"limit"`              // places that may be taken now
	Places    []string `json:"places,omitempty"`   // nodes that hold one
	Settling  []string `json:"settling,omitempty"` // of those, that are watched before they give it back
	Proven    int      `json:"proven"`             // nodes done since a person's last change
	Failures  int      `json:"failures"`           // since the breaker was last closed
	StopAfter int      `json:"stop_after"`         // failures that open the breaker
	Stopped   bool     `json:"stopped"`            // the breaker is open: nothing further of the group starts, in any run
	Broke     string   `json:"broke,omitempty"`    // an instance that failed for good
}

// Member is a node of a cluster.
type Member struct {
	Name        string         `json:"name"`
	Roles       []string       `json:"roles,omitempty"`
	Online      bool           `json:"online"`
	Since       time.Time      `json:"since,omitzero"` // when it came online or went offline
	Address     string         `json:"address,omitempty"`
	Incarnation string         `json:"incarnation,omitempty"`
	Level       string         `json:"level,omitempty"` // trust
	Leaving     bool           `json:"leaving,omitempty"`
	Aside       string         `json:"aside,omitempty"` // why it is set aside: by whom, or what failed there
	Boot        string         `json:"boot,omitempty"`  // how far it came, in a sentence
	States      map[string]int `json:"states"`          // its instances by state
}

// Wait is a reason to wait, and how many instances have it.
type Wait struct {
	Says  string `json:"says"`
	Count int    `json:"count"`
}

// Source is a declaration: a cluster file and the packs it names, as archives by name.
type Source struct {
	FileName string            `json:"file_name"`
	File     []byte            `json:"file"`            // base64 in JSON
	Packs    map[string][]byte `json:"packs,omitempty"` // base64 in JSON; packs that the engine ships need not be sent
}

// Apply asks to make a declaration the goal: POST /v1/clusters; or what that would do: POST /v1/plan.
type Apply struct {
	Source
	By   string  `json:"by,omitempty"`          // who asks; empty for the user at the other end of the socket
	TTL  float64 `json:"ttl_seconds,omitempty"` // after which the cluster is destroyed by itself; 0 for never
	Plan *Plan   `json:"plan,omitempty"`        // what was planned: exactly that is done, or the answer is 409 and says what changed

	// Run is a random word, at most 64 bytes, of a run that makes a cluster for itself alone: the answer is 409 if there is a
	// cluster of that name that is not destroyed. The goal keeps it, so that DELETE with ?run= takes away no other cluster.
	Run string `json:"run,omitempty"`

	Overrides []Override `json:"overrides,omitempty"` // policies that are not to hold for it, where they let a person say so
}

// Destroy asks to make nothing the goal: DELETE /v1/clusters/{c}, with by, run, override and reason in the query.
type Destroy struct {
	By        string
	Run       string     // only a cluster that has its goal from this run's Apply, else the answer is 409; empty for any
	Overrides []Override // policies that are not to hold for it
}

// Accepted says what became of a change.
type Accepted struct {
	Cluster  string              `json:"cluster"`
	Goal     string              `json:"goal"` // digest of the model
	Seq      uint64              `json:"seq"`  // event that set it
	Last     uint64              `json:"last"` // newest event of the cluster's journal; what was asked for lies before it
	Roles    map[string][]string `json:"roles,omitempty"`
	Forced   []string            `json:"forced,omitempty"` // instances that run again; of force
	Warnings string              `json:"warnings,omitempty"`
}

// Replay is what came of running the core again over a cluster's journal: GET /v1/clusters/{c}/replay.
type Replay struct {
	Cluster     string       `json:"cluster"`
	Last        uint64       `json:"last"`              // the last event replayed
	Runs        []Run        `json:"runs"`              // oldest first
	Events      uint64       `json:"events"`            // replayed and compared
	Decisions   int          `json:"decisions"`         // of them made by the core
	Restarts    int          `json:"restarts"`          // times the engine took the journal up
	Older       int          `json:"older,omitempty"`   // decisions that an earlier release did not keep in the journal: no divergences
	Skipped     int          `json:"skipped,omitempty"` // decisions that follow a divergence at the same moment, and were not compared
	Diverged    int          `json:"diverged"`          // decisions that the core makes otherwise now
	Divergences []Divergence `json:"divergences"`       // the first 100 of them
	At          *Moment      `json:"at,omitempty"`      // the state after the event that was asked for
}

// Run is the pursuit of one goal.
type Run struct {
	Goal      Goal   `json:"goal"`
	Last      uint64 `json:"last"` // its last event
	Decisions int    `json:"decisions"`
	Diverged  int    `json:"diverged"`
	Outcome   string `json:"outcome,omitempty"` // how it came to rest; empty if it did not
}

// Divergence is a place where the core decides otherwise than the journal says.
type Divergence struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Expected *Decision `json:"expected,omitempty"` // what the journal has; left out at its end
	Got      *Decision `json:"got,omitempty"`      // what the core decides instead; left out for nothing
}

// Decision is an event as the journal keeps it.
type Decision struct {
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data"`
}

// Moment is a cluster as it was after an event.
type Moment struct {
	ClusterDetail
	Event Event  `json:"event"`
	Items []Item `json:"items"` // every instance
}

// ReplayQuery says what to replay.
type ReplayQuery struct {
	Run uint64 // event of the goal that began the run; 0 for every run
	At  uint64 // show the state after this event, and compare up to it; 0 for neither
}

// Why is the chain of causes of an instance, from now down to a fact.
type Why struct {
	Instance string `json:"instance"`
	Notice   string `json:"notice,omitempty"` // that it is called otherwise now
	Chain    []Link `json:"chain"`
}

// Link is one link of the chain.
type Link struct {
	Instance string    `json:"instance,omitempty"`
	Says     string    `json:"says"`
	Seq      uint64    `json:"seq,omitempty"` // event of the cluster's journal that it rests on
	At       time.Time `json:"at,omitzero"`   // of that event

	Begun time.Time `json:"begun,omitzero"` // of a start that came to a success since
	Done  time.Time `json:"done,omitzero"`

	Tried    time.Time `json:"tried,omitzero"`     // when the first attempt began, if others had failed before that start
	Attempts int       `json:"attempts,omitempty"` // with that start
}

// Instance is the history of one instance.
type Instance struct {
	Item
	Notice      string          `json:"notice,omitempty"`  // that it is called otherwise now
	Started     uint64          `json:"started,omitempty"` // event of the last start
	Ended       uint64          `json:"ended,omitempty"`   // event of the last end
	Begun       time.Time       `json:"begun,omitzero"`
	Done        time.Time       `json:"done,omitzero"`
	Due         time.Time       `json:"due,omitzero"` // when the success expires
	Incarnation string          `json:"incarnation,omitempty"`
	StepDigest  string          `json:"step_digest,omitempty"`
	InputDigest string          `json:"input_digest,omitempty"`
	Outputs     json.RawMessage `json:"outputs,omitempty"` // of the last success; secrets left out
	Log         []string        `json:"log,omitempty"`     // last lines of the last attempt
}

// Outputs are the values that a cluster's workflow yields; null where one is not known yet.
type Outputs struct {
	Cluster string                     `json:"cluster"`
	Values  map[string]json.RawMessage `json:"values"`
}

// Action is a person's word about a cluster: POST /v1/clusters/{c}/actions.
type Action struct {
	Action   string `json:"action"`             // retry, cancel, close-breaker, force, skip, approve, aside, return, wipe, forget
	Rollout  string `json:"rollout,omitempty"`  // of close-breaker
	Node     string `json:"node,omitempty"`     // of aside and return
	Instance string `json:"instance,omitempty"` // of force, skip and approve
	Digest   string `json:"digest,omitempty"`   // of approve: what was shown, or the beginning of it; refused if it is another thing now
	Reason   string `json:"reason,omitempty"`
	By       string `json:"by,omitempty"`

	Overrides []Override `json:"overrides,omitempty"` // of wipe: policies that are not to hold until the cluster has converged again
}

// The actions.
const (
	Retry        = "retry"         // the same goal again: failures are forgotten
	Cancel       = "cancel"        // nothing further starts until the next goal
	CloseBreaker = "close-breaker" // a stopped rollout may go on
	Skip         = "skip"          // the goal is pursued without an instance; needs a reason
	Force        = "force"         // an instance runs again whatever its memo says
	Approval     = "approve"       // what asks for a person's approval may go on; needs a reason
	Aside        = "aside"         // the goal is pursued without a node; needs a reason
	Return       = "return"        // a node that was set aside is as others again
	Forget       = "forget"        // a destroyed cluster is forgotten, with its journal
	WipeAll      = "wipe"          // every machine is wiped, disks included, and the cluster built anew
)

// CertificateRequest asks for an operator's client certificate: POST /v1/clusters/{c}/certificate.
type CertificateRequest struct {
	CSR string `json:"csr"`           // PEM
	TTL string `json:"ttl,omitempty"` // such as "4h"; empty for the engine's default, which is also the longest

	Authority string   `json:"authority,omitempty"` // of the cluster; empty for the one that signs unless a pack names another
	Groups    []string `json:"groups,omitempty"`    // organizations of the subject, by which the cluster knows what the bearer may do
}

// Certificate is an issued certificate.
type Certificate struct {
	Leaf     string    `json:"leaf"`  // PEM
	Chain    string    `json:"chain"` // PEM, intermediates
	Root     string    `json:"root"`  // PEM
	NotAfter time.Time `json:"not_after"`
}

// Event is a fact of a journal.
type Event struct {
	Cursor  string          `json:"cursor"` // where to go on after it
	Journal string          `json:"journal"`
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Kind    string          `json:"kind"`
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// Events is a page of events: GET /v1/events.
type Events struct {
	Events []Event `json:"events"`
	Next   string  `json:"next"` // cursor of the next page
	More   bool    `json:"more"` // whether there was more when this page was read
}

// Machine is a machine of the site.
type Machine struct {
	Name        string          `json:"name"`
	MACs        []string        `json:"macs,omitempty"`
	UUID        string          `json:"uuid,omitempty"`
	Provider    string          `json:"provider,omitempty"`
	Cluster     string          `json:"cluster,omitempty"`
	Level       string          `json:"level,omitempty"`      // trust: claimed, approved, vouched, attested; empty for none
	TrustBoot   bool            `json:"trust_boot,omitempty"` // its cluster lets a boot that the engine ordered keep the approval, which is spoofable
	Quarantine  string          `json:"quarantine,omitempty"`
	Fingerprint string          `json:"fingerprint,omitempty"` // of the key that waits for approval, else of the current one
	Pending     bool            `json:"pending,omitempty"`     // a key waits for approval
	Online      bool            `json:"online"`
	Address     string          `json:"address,omitempty"`
	Power       string          `json:"power,omitempty"` // on, off; empty if unknown or not asked
	Boot        string          `json:"boot,omitempty"`  // how far its boot came, in a sentence
	Advice      string          `json:"advice,omitempty"`
	Stuck       bool            `json:"stuck,omitempty"`
	Served      uint64          `json:"served_bytes,omitempty"` // what it was sent over HTTP since the engine started: kernels, images, artifacts
	Facts       json.RawMessage `json:"facts,omitempty"`        // of a single machine only
}

// MachineSpec says what a virtual machine is made of: POST /v1/machines. Sizes are in bytes.
type MachineSpec struct {
	Name     string `json:"name"`
	Memory   int64  `json:"memory,omitempty"`   // 2 GiB if zero
	CPUs     int    `json:"cpus,omitempty"`     // 2 if zero
	Firmware string `json:"firmware,omitempty"` // bios or uefi; bios if empty
	Disk     int64  `json:"disk,omitempty"`     // of a blank data disk; none if zero
	Bare     bool   `json:"bare,omitempty"`     // without a voucher secret: a person has to approve its key
}

// Approve confirms a machine's key: POST /v1/machines/{m}/approve.
type Approve struct {
	Fingerprint string `json:"fingerprint"`
	By          string `json:"by,omitempty"`
}

// Power switches a machine: POST /v1/machines/{m}/power.
type Power struct {
	Action string `json:"action"` // on, off, reset, cycle
}

// Wipe erases a machine's data disks: POST /v1/machines/{m}/wipe.
type Wipe struct {
	By string `json:"by,omitempty"`
}

// Wiped says what was erased and how that was proven.
type Wiped struct {
	Machine string `json:"machine"`
	Proof   string `json:"proof"` // for people
}

// The actions of Power.
const (
	PowerOn    = "on"
	PowerOff   = "off"
	PowerReset = "reset"
	PowerCycle = "cycle"
)

// Artifact is a stored file.
type Artifact struct {
	Digest string `json:"digest"` // sha256-…
	Size   int64  `json:"size"`   // bytes
}

// MirrorEntry says which file is meant by a kind, a name, a version and an architecture: GET /v1/mirror.
type MirrorEntry struct {
	Kind    string    `json:"kind"` // file, program, image or bundle
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Arch    string    `json:"arch"`   // amd64, arm64
	Digest  string    `json:"digest"` // sha256-…
	Size    int64     `json:"size"`   // bytes
	Licence string    `json:"licence"`
	URL     string    `json:"url,omitempty"` // where it came from
	Added   time.Time `json:"added,omitzero"`
	Used    []string  `json:"used,omitempty"` // clusters that use it
}

// MirrorAdd enters files that were stored before: POST /v1/mirror.
type MirrorAdd struct {
	Entries []MirrorEntry `json:"entries"`
	Replace bool          `json:"replace,omitempty"` // also those that are there with another file
}

// MirrorFinding is what a verification says of one file: POST /v1/mirror/verify.
type MirrorFinding struct {
	Digest string   `json:"digest"` // sha256-…
	Size   int64    `json:"size"`   // bytes
	What   []string `json:"what"`   // entries and frozen sets that name it
	Error  string   `json:"error,omitempty"`
}

// MirrorCollect removes what nothing names: POST /v1/mirror/gc.
type MirrorCollect struct {
	Unused bool `json:"unused,omitempty"`  // entries that no cluster and no frozen set uses, too
	DryRun bool `json:"dry_run,omitempty"` // remove nothing
}

// MirrorCollected is what was removed.
type MirrorCollected struct {
	Entries []MirrorEntry `json:"entries"`
	Files   []Artifact    `json:"files"`
	Bytes   int64         `json:"bytes"`
}

// Freeze asks to freeze everything that a cluster uses: POST /v1/mirror/sets.
type Freeze struct {
	Name    string       `json:"name"`
	Cluster string       `json:"cluster"`
	Files   []FrozenFile `json:"files,omitempty"` // further ones that were stored before, such as a snapshot of packages
}

// FrozenSet is an immutable set of everything a cluster used.
type FrozenSet struct {
	Name    string       `json:"name"`
	Digest  string       `json:"digest"` // sha256-…; of the set itself, a file that names the others
	Cluster string       `json:"cluster"`
	Made    time.Time    `json:"made"`
	Used    []string     `json:"used,omitempty"`  // clusters that are pinned to it
	Parts   []FrozenFile `json:"parts,omitempty"` // of a single set only
}

// FrozenFile is a file of a frozen set.
type FrozenFile struct {
	Path   string `json:"path"`   // slash-separated, relative
	Digest string `json:"digest"` // sha256-…
	Size   int64  `json:"size"`   // bytes
}

// BootSet is a registered boot set.
type BootSet struct {
	Digest  string `json:"digest"`
	Profile string `json:"profile"`
	Kernel  string `json:"kernel_version"`
	Default bool   `json:"default,omitempty"` // what machines boot that ask for nothing else
}

// IsName reports whether something can be the name of a cluster, a machine or a frozen set: lower-case letters, digits and hyphens in
// between, at most 63.
func IsName(s string) bool {
	for i, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && (r != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// Problem is an error as RFC 9457 has it, with advice.
type Problem struct {
	Type   string `json:"type"` // "urn:joist:problem:" and one of the Problem… words
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"` // what to do

	// Findings are what is wrong with a source, one by one: what Detail has as text.
	Findings []Finding `json:"findings,omitempty"`
}

// Finding is a remark about a place in a cluster file or a pack. Lines and columns count from 1, columns in characters; all
// are 0 where a remark has no place.
type Finding struct {
	Severity  string `json:"severity"`         // error, warning
	Message   string `json:"message"`          // what is wrong, in one line
	Advice    string `json:"advice,omitempty"` // what to do about it
	File      string `json:"file,omitempty"`   // as the cluster file's folder has it, or PACK/file of a pack
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	EndLine   int    `json:"end_line,omitempty"`
	EndColumn int    `json:"end_column,omitempty"` // the first one behind the place
	Source    string `json:"source,omitempty"`     // the line that the place begins in
}

// ProblemMedia is the media type of a Problem.
const ProblemMedia = "application/problem+json"

// ProblemPrefix begins every type of a Problem.
const ProblemPrefix = "urn:joist:problem:"

// The kinds of problems.
const (
	NotFound    = "not-found"   // 404
	Malformed   = "malformed"   // 400: the request cannot be read
	TooLarge    = "too-large"   // 413
	Method      = "method"      // 405
	Refused     = "refused"     // 422: read and refused, such as a cluster file with errors
	Conflict    = "conflict"    // 409: not in this state
	Unsupported = "unsupported" // 501: not yet, or not here
	Unavailable = "unavailable" // 503: try again
	Internal    = "internal"    // 500
)

// Error implements error: what is wrong, and what to do.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Advice != "" {
		text += "; " + p.Advice
	}
	return text
}

// Of reports whether the problem is of a kind.
func (p *Problem) Of(kind string) bool { return p.Type == ProblemPrefix+kind }
