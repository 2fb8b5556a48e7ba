// Package wire has the messages between the engine and the agent on a node. They are JSON, one value per line where
// they stream. A field a receiver does not know is ignored, so both sides may be of different releases; what an older
// side must not ignore gets a new message type or a new path instead.
//
// All messages travel over one TLS 1.3 HTTP/2 connection that the agent opens and both sides authenticate:
//
//	POST PathStream   body Hello, answer a stream of Down, one per line, until either side ends it
//	POST PathResult   body Result; 204 once durable (the agent may forget it), 409 refused for good, 5xx try again
//	POST PathLog      body LogChunk; best effort, 204
//	POST PathFacts    body any JSON object, at most MaxFacts bytes; 204
//	POST PathReport   body Report; best effort, 204
//	POST PathAlive    body Alive, the answer to a probe; 204
//	POST PathRenew    body Renewal, answer Renewed
package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"
)

// Version is the protocol's major version. Both sides refuse another one.
const Version = 1

// Paths of the engine's endpoints for agents.
const (
	PathStream = "/agent/v1/stream"
	PathResult = "/agent/v1/result"
	PathLog    = "/agent/v1/log"
	PathFacts  = "/agent/v1/facts"
	PathAlive  = "/agent/v1/alive"
	PathRenew  = "/agent/v1/renew"
	PathReport = "/agent/v1/report"
	PathEnrol  = "/enrol/v1"
)

// Limits, in bytes unless said otherwise. A message beyond them is refused, never cut.
const (
	MaxMessage = 8 << 20   // one Down or Result as JSON
	MaxBody    = 4 << 20   // a request's scripts and further files together
	MaxFiles   = 64        // further files of a step, and its artifacts (a number each)
	MaxInputs  = 1 << 20   // inputs as JSON
	MaxOutputs = 1 << 20   // outputs as JSON
	MaxFacts   = 256 << 10 // facts as JSON
	MaxHello   = MaxFacts + 64<<10
	MaxChunk   = 64 << 10 // text of one LogChunk
	MaxTail    = 8 << 10  // last lines of the log that a Result repeats
	MaxError   = 4 << 10  // error text of a Result
	MaxID      = 1 << 10  // an ID, an instance address, a name
)

// Action is what is asked of a step: apply, verify or remove.
type Action string

// The three actions.
const (
	Apply  Action = "apply"
	Verify Action = "verify"
	Remove Action = "remove"
)

// Stage says what an agent runs in: the discovery image or the node's own system.
type Stage string

// The two stages. A scout's scripts have the node image as their root.
const (
	Scout Stage = "scout"
	Node  Stage = "node"
)

// Request asks an agent to run one action of one step.
type Request struct {
	ID          string            `json:"id"`                    // idempotence key, see RequestID
	Cluster     string            `json:"cluster"`               // on whose behalf; also the scope of Epoch
	Instance    string            `json:"instance"`              // address, such as "demo/etcd.member[n1]"
	Incarnation string            `json:"incarnation,omitempty"` // the only incarnation that may run it; empty for any
	Kernel      string            `json:"kernel,omitempty"`      // the only boot that may run it, as Hello has it; empty for any
	Attempt     int               `json:"attempt"`               // from 1; never used twice for an instance and action
	Epoch       uint64            `json:"epoch"`                 // of the controller that asks
	Action      Action            `json:"action"`
	Step        string            `json:"step"`              // digest of the step
	Builtin     string            `json:"builtin,omitempty"` // name of a built-in action; excludes Script
	Script      []byte            `json:"script,omitempty"`  // run by the interpreter its first line names, or /bin/sh
	Files       []File            `json:"files,omitempty"`   // further files of the step, beside the script
	Inputs      json.RawMessage   `json:"inputs,omitempty"`  // JSON object, secrets in clear; empty for {}
	Secret      []string          `json:"secret,omitempty"`  // names of inputs that hold secrets, kept out of the log
	Outputs     map[string]string `json:"outputs,omitempty"` // declared outputs: name to type, for the error text
	Timeout     time.Duration     `json:"timeout_ns"`        // from start to SIGTERM; 0 for DefaultTimeout
	Grace       time.Duration     `json:"grace_ns"`          // from SIGTERM to SIGKILL; 0 for DefaultGrace
	Stage       Stage             `json:"stage,omitempty"`   // where it may run; empty for Node
	Verify      *Check            `json:"verify,omitempty"`  // run after an apply that went well; its failure fails the attempt

	// Artifacts are what a script finds in its folder ArtifactsDir. An agent that does not know them runs the script without
	// that folder, which then fails.
	Artifacts []Artifact `json:"artifacts,omitempty"`
}

// Artifact is a file that a script needs.
type Artifact struct {
	Name   string   `json:"name"`             // as the step calls it
	Digest string   `json:"digest"`           // "sha256:" and 64 hexadecimal digits
	Size   int64    `json:"size"`             // bytes
	Bundle bool     `json:"bundle,omitempty"` // a squashfs, to be mounted
	URLs   []string `json:"urls"`             // where the engine has it
}

// Check is how an apply is looked at once it went well: the same inputs, read only.
type Check struct {
	Builtin string        `json:"builtin,omitempty"` // excludes Script
	Script  []byte        `json:"script,omitempty"`
	Files   []File        `json:"files,omitempty"`
	Timeout time.Duration `json:"timeout_ns"` // 0 for DefaultTimeout
}

// Checking gives the request that verifies what r applied.
func (r Request) Checking() Request {
	c := r
	c.Action, c.Outputs, c.Verify = Verify, nil, nil
	c.Builtin, c.Script, c.Files, c.Timeout = r.Verify.Builtin, r.Verify.Script, r.Verify.Files, r.Verify.Timeout
	return c
}

// What a Request's zero durations mean, and the longest they may be.
const (
	DefaultTimeout = 10 * time.Minute
	DefaultGrace   = 10 * time.Second
	MaxTimeout     = 24 * time.Hour
)

// File is one further file of a step.
type File struct {
	Name string `json:"name"` // relative, slash-separated, clean, not leaving the directory
	Mode uint32 `json:"mode"` // permission bits; 0 for 0644
	Data []byte `json:"data"`
}

// RequestID makes the idempotence key of a request. Two requests with one key are the same request: an agent runs the
// first and answers the others from its spool.
func RequestID(instance, step string, action Action, attempt int) string {
	return fmt.Sprintf("%s@%s/%s/%d", instance, step, action, attempt)
}

// Reason says in one word why a Result is not OK.
type Reason string

// The reasons.
const (
	Failed      Reason = "failed"      // the step ran and failed
	TimedOut    Reason = "timed-out"   // it was ended because its time was over
	Cancelled   Reason = "cancelled"   // it was ended, or never started, because of a Cancel
	Interrupted Reason = "interrupted" // the agent died while it ran; what was left of it has been ended
	Later       Reason = "later"       // the step asks to be tried again later: Result.Later says when, or for what
	Refused     Reason = "refused"     // the agent would not run it: stale epoch, other incarnation, wrong stage, malformed
)

// Result is what became of a Request.
type Result struct {
	ID         string          `json:"id"`
	Instance   string          `json:"instance"`
	Attempt    int             `json:"attempt"`
	OK         bool            `json:"ok"`
	Reason     Reason          `json:"reason,omitempty"`      // empty if OK
	Error      string          `json:"error,omitempty"`       // one sentence for people; empty if OK
	Outputs    json.RawMessage `json:"outputs,omitempty"`     // JSON object with the declared names, if OK
	ValidUntil *time.Time      `json:"valid_until,omitempty"` // when the success expires; nil for never
	Later      string          `json:"later,omitempty"`       // what the step wrote to $JOIST_LATER, one line, if that is the Reason
	ExitCode   int             `json:"exit_code"`             // -1 if it did not exit by itself
	Started    time.Time       `json:"started"`               // by the node's clock; zero if it never started
	Ended      time.Time       `json:"ended"`
	Tail       string          `json:"tail,omitempty"` // the last lines of the log, at most MaxTail bytes
	LogBytes   int64           `json:"log_bytes"`      // what the step wrote in all, before bounds
}

// Cancel ends a request: a running one is stopped, a waiting one never starts, an unknown one will not start later.
// Whichever it was, a Result follows.
type Cancel struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
	Attempt  int    `json:"attempt"`
	Cluster  string `json:"cluster"` // scope of Epoch
	Epoch    uint64 `json:"epoch"`   // of the controller that asks
}

// LogChunk carries whole lines of a running request's output, stdout and stderr as they came.
type LogChunk struct {
	ID      string `json:"id"`
	Seq     int    `json:"seq"`               // from 0
	Text    string `json:"text"`              // valid UTF-8, each line ended by \n
	Dropped int64  `json:"dropped,omitempty"` // bytes left out before Text because the engine was out of reach
}

// Hello opens a stream.
type Hello struct {
	Version     int             `json:"version"`
	Node        string          `json:"node"`
	Incarnation string          `json:"incarnation"`
	Boot        string          `json:"boot"`   // boot id of this power-on
	Kernel      string          `json:"kernel"` // the kernel's random boot id: changes with every reboot
	Agent       string          `json:"agent"`  // release of the agent
	Stage       Stage           `json:"stage"`
	Facts       json.RawMessage `json:"facts,omitempty"`
}

// TargetKind is what a machine shall become.
type TargetKind string

// The kinds of target.
const (
	Idle        TargetKind = "idle"        // stay and wait
	NodeImage   TargetKind = "image"       // fetch, verify and hand over to the image
	Quarantined TargetKind = "quarantined" // do nothing until a person has looked
)

// Target tells a machine what it shall become.
type Target struct {
	Kind    TargetKind `json:"kind"`
	Image   *Image     `json:"image,omitempty"`   // for NodeImage; for Idle, the one that it is for once nothing keeps it
	Message string     `json:"message,omitempty"` // shown on the console
}

// Image is a node image to hand over to.
type Image struct {
	URL    string `json:"url"`
	Digest string `json:"digest"` // "sha256:" and 64 hexadecimal digits
	Size   int64  `json:"size"`   // bytes
	Boot   string `json:"boot"`   // digest of the boot set it belongs to
}

// Down is one message from the engine. At most one field besides Probe is set; one with none set is a sign of life.
type Down struct {
	Request *Request `json:"request,omitempty"`
	Cancel  *Cancel  `json:"cancel,omitempty"`
	Target  *Target  `json:"target,omitempty"`
	Probe   string   `json:"probe,omitempty"` // to be sent back as Alive: does the agent still answer?
}

// Alive answers a probe.
type Alive struct {
	Probe string `json:"probe"`
}

// Report tells the engine of a trouble that belongs to no request: an image that does not verify, a full disk.
type Report struct {
	Text string `json:"text"` // one sentence for people, at most MaxError bytes
}

// Renewal asks for a new certificate for the same key.
type Renewal struct {
	CSR []byte `json:"csr"` // PKCS #10, DER
}

// Renewed answers a Renewal.
type Renewed struct {
	Chain string `json:"chain"` // PEM, leaf first
}

// Validate reports what is malformed about a request. It knows nothing of types: the engine checks those.
func (r *Request) Validate() error {
	switch {
	case r.ID == "" || len(r.ID) > MaxID:
		return fmt.Errorf("its id is empty or longer than %d bytes", MaxID)
	case r.Instance == "" || len(r.Instance) > MaxID:
		return fmt.Errorf("its instance is empty or longer than %d bytes", MaxID)
	case r.Action != Apply && r.Action != Verify && r.Action != Remove:
		return fmt.Errorf("it asks for the unknown action %q", r.Action)
	case r.Stage != "" && r.Stage != Scout && r.Stage != Node:
		return fmt.Errorf("it names the unknown stage %q", r.Stage)
	case (r.Builtin == "") == (len(r.Script) == 0):
		return fmt.Errorf("it must have either a script or a built-in action")
	case r.Timeout < 0 || r.Timeout > MaxTimeout || r.Grace < 0 || r.Grace > MaxTimeout:
		return fmt.Errorf("its time-out or grace is negative or longer than %s", MaxTimeout)
	case len(r.Inputs) > MaxInputs:
		return fmt.Errorf("its inputs are larger than %d bytes", MaxInputs)
	}
	if len(r.Inputs) > 0 {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(r.Inputs, &object); err != nil || object == nil {
			return fmt.Errorf("its inputs are not a JSON object")
		}
	}
	if err := checkArtifacts(r.Artifacts); err != nil {
		return err
	}
	size, err := filesSize(r.Script, r.Files)
	if err != nil {
		return err
	}
	if c := r.Verify; c != nil {
		more, err := filesSize(c.Script, c.Files)
		switch {
		case err != nil:
			return fmt.Errorf("its verify: %w", err)
		case r.Action != Apply:
			return fmt.Errorf("it verifies, and asks for %s", r.Action)
		case (c.Builtin == "") == (len(c.Script) == 0):
			return fmt.Errorf("its verify must have either a script or a built-in action")
		case c.Timeout < 0 || c.Timeout > MaxTimeout:
			return fmt.Errorf("the time-out of its verify is negative or longer than %s", MaxTimeout)
		}
		size += more
	}
	if size > MaxBody {
		return fmt.Errorf("its scripts and files are larger than %d bytes", MaxBody)
	}
	return nil
}

func checkArtifacts(list []Artifact) error {
	if len(list) > MaxFiles {
		return fmt.Errorf("it has more than %d artifacts", MaxFiles)
	}
	seen := map[string]bool{}
	for _, a := range list {
		digits, ok := strings.CutPrefix(a.Digest, "sha256:")
		raw, err := hex.DecodeString(digits)
		switch {
		case a.Name == "" || len(a.Name) > MaxID || strings.ContainsAny(a.Name, "/\x00") || a.Name == "." || a.Name == "..":
			return fmt.Errorf("its artifact name %q is not a file name", a.Name)
		case seen[a.Name]:
			return fmt.Errorf("it has two artifacts named %q", a.Name)
		case !ok || err != nil || len(raw) != 32 || strings.ToLower(digits) != digits:
			return fmt.Errorf("the digest %.80q of its artifact %q is not a SHA-256", a.Digest, a.Name)
		case a.Size <= 0 || len(a.URLs) == 0:
			return fmt.Errorf("its artifact %q has no size or no address", a.Name)
		}
		seen[a.Name] = true
	}
	return nil
}

// filesSize checks the names of a script's files and gives the size of all in bytes.
func filesSize(script []byte, files []File) (int, error) {
	if len(files) > MaxFiles {
		return 0, fmt.Errorf("it has more than %d files", MaxFiles)
	}
	size := len(script)
	seen := map[string]bool{}
	for _, f := range files {
		if f.Name == "" || len(f.Name) > MaxID || f.Name != path.Clean(f.Name) || path.IsAbs(f.Name) ||
			f.Name == "." || f.Name == ".." || strings.HasPrefix(f.Name, "../") || strings.ContainsRune(f.Name, 0) {
			return 0, fmt.Errorf("its file name %q is not a clean relative path", f.Name)
		}
		if first, _, _ := strings.Cut(f.Name, "/"); Reserved(first) {
			return 0, fmt.Errorf("its file name %q is reserved for the agent", f.Name)
		}
		if seen[f.Name] {
			return 0, fmt.Errorf("it has two files named %q", f.Name)
		}
		seen[f.Name] = true
		size += len(f.Data)
	}
	return size, nil
}

// Names that the agent itself makes in a step's directory.
const (
	ScriptFile  = "step"
	InputsFile  = "inputs.json"
	OutputsFile = "outputs.json"
	ValidFile   = "valid_until"
	LaterFile   = "later"

	ArtifactsDir = "artifacts" // a folder with a symbolic link for each artifact, named as the step calls it
)

// Reserved reports whether a step's file may not have this name, because the agent makes a file of that name.
func Reserved(name string) bool {
	switch name {
	case ScriptFile, InputsFile, OutputsFile, ValidFile, LaterFile, ArtifactsDir:
		return true
	}
	return false
}
